"""A quantized PT2E graph as an ExecuTorch program (``.pte``), for XNNPACK or another backend."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from pyquant.errors import ExportError
from pyquant.mobile.quiet import quiet

#: The oldest runtime that a file was seen to run on with the same numbers.
MIN_RUNTIME = "1.1.0"


def delegation_of(graph: torch.fx.GraphModule) -> dict[str, Any]:
    """How many ``delegates`` a lowered graph calls, and the ``undelegated`` operators beside."""
    names = [
        getattr(node.target, "__name__", str(node.target))
        for node in graph.graph.nodes
        if node.op == "call_function"
    ]
    counts = Counter(name for name in names if name != "getitem")
    delegates = counts.pop("executorch_call_delegate", 0)
    return {"delegates": delegates, "undelegated": dict(sorted(counts.items()))}


def _xnnpack_partitioner() -> Any:
    name = "executorch.backends.xnnpack.partition.xnnpack_partitioner"
    return importlib.import_module(name).XnnpackPartitioner()


@dataclass(frozen=True)
class Backend:
    """What computes a ``.pte`` file's delegates.

    Attributes:
        partitioner: Makes its partitioner, or ``None`` if there is nothing to partition; raises
            :class:`ImportError` if something is missing,
        install: which this command brings.
        passes: On the graph before it is partitioned.
        details: What is said about the lowered graph in the manifest.
    """

    partitioner: Callable[[], Any]
    install: str = "pip install pyquant[mobile]"
    passes: Sequence[Callable[[torch.fx.GraphModule], Any]] = ()
    details: Callable[[torch.fx.GraphModule], dict[str, Any]] = delegation_of


XNNPACK = Backend(_xnnpack_partitioner)
#: For a module that calls its delegates already.
DELEGATED = Backend(lambda: None)


@contextlib.contextmanager
def needed_for_pte(install: str = "pip install pyquant[mobile]") -> Iterator[None]:
    """What is imported in the body; raises :class:`ExportError` that says how to get it."""
    try:
        yield
    except ImportError as error:
        missing = f"a .pte file needs {error.name or 'ExecuTorch'}: {install}"
        raise ExportError(missing) from error


def to_executorch(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    backend: Backend = XNNPACK,
    largest_batch: int | None = None,
    constants: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a ``.pte`` file.

    Args:
        module: quantized_decomposed q/dq operators around float ones: a :class:`QdqModule`, or a
            graph that PT2E converted; for :data:`DELEGATED`, a :class:`DelegatedModule`.
        example_inputs: float32, NCHW if rank 4. The file takes exactly these shapes,
        largest_batch: or any batch from 1 to this.
        backend: What runs the network on the phone.
        constants: What methods without arguments return, by their names; numbers, text or lists
            of numbers.

    Returns:
        The file, and the backend's details: the number of ``delegates`` (subgraphs that it runs)
        and the ``undelegated`` operators with their counts; one delegate and none left over is
        what a phone wants.

    Raises:
        ExportError: ExecuTorch or the backend is missing, or cannot express the module.
    """
    with quiet():
        with needed_for_pte(backend.install):
            exir = importlib.import_module("executorch.exir")
            partitioner = backend.partitioner()
        try:
            # Progress bars: in a notebook, sys.stderr is not the file that quiet() redirects.
            with torch.no_grad(), contextlib.redirect_stderr(io.StringIO()):
                edge = exir.to_edge_transform_and_lower(
                    exported(module, example_inputs, largest_batch),
                    transform_passes=list(backend.passes) or None,
                    partitioner=None if partitioner is None else [partitioner],
                    constant_methods=dict(constants or {}),
                )
                details = backend.details(edge.exported_program().graph_module)
                content = bytes(edge.to_executorch().buffer)
        except Exception as error:
            raise ExportError(f"the executorch export failed: {error}") from error
    return content, details


def exported(
    module: nn.Module, example_inputs: tuple[Tensor, ...], largest_batch: int | None
) -> torch.export.ExportedProgram:
    """``module`` for the shapes of the example inputs, or for any batch up to the largest."""
    if largest_batch is None:
        return torch.export.export(module, example_inputs)
    # torch.export takes a size of 1 for a constant.
    examples = tuple(value[:1].expand(2, *value.shape[1:]).contiguous() for value in example_inputs)
    batch = torch.export.Dim("batch", min=1, max=largest_batch)
    shapes = tuple({0: batch} for _ in examples)
    return torch.export.export(module, examples, dynamic_shapes=(shapes,))
