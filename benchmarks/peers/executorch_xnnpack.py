"""ExecuTorch with XNNPACK in int8: PT2E with XNNPACKQuantizer, per channel.

https://docs.pytorch.org/executorch/stable/backends/xnnpack/xnnpack-quantization.html
"""

from __future__ import annotations

import copy
from pathlib import Path

import torch

from benchmarks.peers.peer import Peer, Task, Variant


def _prepare(task: Task) -> list[Variant]:
    from executorch.extension.pybindings import portable_lib
    from executorch.runtime import Runtime

    def make(folder: Path) -> None:
        (folder / "model.pte").write_bytes(_lower(task))

    path = task.cache.folder("executorch", ("executorch", "torchao"), make) / "model.pte"
    # Its pool is made for all cores of the machine, whichever of them the process may use.
    portable_lib._unsafe_reset_threadpool(task.threads)
    method = Runtime.get().load_program(path).load_method("forward")
    inputs = (task.x,)
    return [Variant("XNNPACK", lambda: method.execute(inputs))]


def _lower(task: Task) -> bytes:
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
    return bytes(edge.to_executorch().buffer)


PEER = Peer("executorch", "ExecuTorch XNNPACK int8", _prepare, ("executorch",))
