"""ExecuTorch with XNNPACK in int8: PT2E with XNNPACKQuantizer, per channel.

https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch

from benchmarks.peers.peer import Peer, Task, Variant
from pyquant.mobile.executorch import delegation_of


def _prepare(task: Task) -> list[Variant]:
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    path = plain_recipe(task) / "model.pte"
    # Its pool is made for all cores of the machine, whichever of them the process may use.
    portable_lib._unsafe_reset_threadpool(task.threads)
    method = Runtime.get().load_program(path).load_method("forward")
    inputs = (task.x,)
    return [Variant("XNNPACK", lambda: method.execute(inputs))]


def plain_recipe(task: Task) -> Path:
    """A folder with ``model.pte``, and ``delegation.json``: see ``pyquant.mobile.executorch``."""

    def make(folder: Path) -> None:
        content, delegation = _lower(task)
        (folder / "model.pte").write_bytes(content)
        (folder / "delegation.json").write_text(json.dumps(delegation))

    return task.cache.folder("executorch-recipe", ("executorch", "torchao"), make)


def _lower(task: Task) -> tuple[bytes, dict[str, Any]]:
    from executorch import exir
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.backends.xnnpack.quantizer import xnnpack_quantizer
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    exported = torch.export.export(copy.deepcopy(task.model), (task.x,)).module()
    quantizer = xnnpack_quantizer.XNNPACKQuantizer()
    quantizer.set_global(xnnpack_quantizer.get_symmetric_quantization_config(is_per_channel=True))
    prepared = prepare_pt2e(exported, quantizer)
    for x in task.calibration:
        prepared(x)
    converted = convert_pt2e(prepared)
    edge = exir.to_edge_transform_and_lower(
        torch.export.export(converted, (task.x,)), partitioner=[XnnpackPartitioner()]
    )
    delegation = delegation_of(edge.exported_program().graph_module)
    return bytes(edge.to_executorch().buffer), delegation


PEER = Peer("executorch", "ExecuTorch XNNPACK int8", _prepare, ("executorch",))
