"""A quantized graph as an ExecuTorch program for Core ML: iOS 17 and later, the Neural Engine too.

ExecuTorch's partitioner gives the network to coremltools, which makes a Core ML package of it:
int8 weights (``constexpr_affine_dequantize``), ``quantize`` and ``dequantize`` around the
activations, and float16 for scales, biases and whatever Core ML does not fuse to int8. All of that
works on Linux. Running it does not: Core ML is Apple's. What can be looked at here is the package's
structure.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.fx.passes.infra.pass_base import PassResult

from pyquant.mobile.executorch import Backend, delegation_of, to_executorch

#: Core ML knows ``quantize`` and ``dequantize`` from here on.
MIN_RUNTIME = "iOS 17"


def available() -> bool:
    """Whether coremltools is installed; it has no wheels for Windows."""
    return importlib.util.find_spec("coremltools") is not None


def to_coreml(
    module: nn.Module,
    example_inputs: tuple[Tensor, ...],
    *,
    constants: Mapping[str, Any] | None = None,
) -> tuple[bytes, dict[str, Any]]:
    """The bytes of a ``.pte`` file for Core ML.

    Args:
        module, example_inputs, constants: As for :func:`pyquant.mobile.executorch.to_executorch`.

    Returns:
        The file, and its details: ``delegates``, ``undelegated``, the ``operators`` of the Core ML
        packages with their counts, and how many ``int8_weights`` and ``float_weights`` (single
        numbers) they hold.

    Raises:
        ExportError: ExecuTorch or coremltools is missing or cannot express the module.
    """
    return to_executorch(module, example_inputs, backend=COREML, constants=constants)


def _partitioner() -> Any:
    tools = importlib.import_module("coremltools")
    backend = importlib.import_module("executorch.backends.apple.coreml.compiler").CoreMLBackend
    partition = importlib.import_module("executorch.backends.apple.coreml.partition")
    # The Neural Engine computes in float16 or int8 only.
    options = backend.generate_compile_specs(
        minimum_deployment_target=tools.target.iOS17, compute_precision=tools.precision.FLOAT16
    )
    return partition.CoreMLPartitioner(compile_specs=options)


def _without_debug_handles(graph: torch.fx.GraphModule) -> PassResult:
    """Spares the file a map from Core ML's operators to ours, 7 % of a MobileNetV2."""
    for node in graph.graph.nodes:
        node.meta.pop("debug_handle", None)
    return PassResult(graph, True)


def _details(graph: torch.fx.GraphModule) -> dict[str, Any]:
    operators: Counter[str] = Counter()
    weights: Counter[str] = Counter()
    for package in graph.children():
        for operation in _operations(package):
            operators[operation.type] += operation.type != "const"
            for name, value in operation.attributes.items():
                if name in ("quantized_data", "val") and value.HasField("blobFileValue"):
                    weights[operation.type] += _elements(value.type.tensorType)
    return {
        **delegation_of(graph),
        "operators": dict(sorted((+operators).items())),
        "int8_weights": weights["constexpr_affine_dequantize"],
        "float_weights": weights["const"],
    }


def _operations(package: Any) -> list[Any]:
    """Those of the ML program that a delegate of the lowered graph holds."""
    tools = importlib.import_module("coremltools")
    archive = importlib.import_module("executorch.backends.apple.coreml.executorchcoreml")
    with tempfile.TemporaryDirectory() as folder:
        archive.unflatten_directory_contents(package.processed_bytes, folder)
        (path,) = Path(folder).rglob("*.mlpackage")
        program = tools.utils.load_spec(str(path)).mlProgram
    main = program.functions["main"]
    return list(main.block_specializations[main.opset].operations)


def _elements(tensor: Any) -> int:
    return math.prod(dimension.constant.size for dimension in tensor.dimensions)


COREML = Backend(
    _partitioner,
    install="pip install coremltools",
    passes=(_without_debug_handles,),
    details=_details,
)
