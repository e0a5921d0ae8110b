"""A quantized PT2E graph as an ExecuTorch program (``.pte``) for the XNNPACK backend."""

from __future__ import annotations

import importlib
from collections import Counter
from typing import Any

import torch
from torch import Tensor

from pyquant.errors import ExportError
from pyquant.mobile.quiet import quiet

#: The oldest runtime that a file was seen to run on with the same numbers.
MIN_RUNTIME = "1.1.0"


def to_executorch(
    graph: torch.fx.GraphModule, example_inputs: tuple[Tensor, ...]
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a ``.pte`` file for the shapes of ``example_inputs`` (float32, NCHW).

    ``graph`` holds quantized_decomposed q/dq operators around float ones. Also returns the number
    of ``delegates`` (subgraphs that XNNPACK runs) and the ``undelegated`` operators with their
    counts; one delegate and none left over is what a phone wants.

    Raises :class:`ExportError` if ExecuTorch is missing or cannot express the graph.
    """
    with quiet():
        try:
            exir = importlib.import_module("executorch.exir")
            xnnpack = importlib.import_module(
                "executorch.backends.xnnpack.partition.xnnpack_partitioner"
            )
        except ImportError as error:
            raise ExportError(
                "the executorch target needs ExecuTorch: pip install pyquant[mobile]"
            ) from error
        try:
            with torch.no_grad():
                exported = torch.export.export(graph, example_inputs)
                edge = exir.to_edge_transform_and_lower(
                    exported, partitioner=[xnnpack.XnnpackPartitioner()]
                )
                details = _delegation(edge.exported_program().graph_module)
                content = bytes(edge.to_executorch().buffer)
        except Exception as error:
            raise ExportError(f"the executorch export failed: {error}") from error
    return content, details


def _delegation(graph: torch.fx.GraphModule) -> dict[str, Any]:
    names = [
        getattr(node.target, "__name__", str(node.target))
        for node in graph.graph.nodes
        if node.op == "call_function"
    ]
    counts = Counter(name for name in names if name != "getitem")
    delegates = counts.pop("executorch_call_delegate", 0)
    return {"delegates": delegates, "undelegated": dict(sorted(counts.items()))}
