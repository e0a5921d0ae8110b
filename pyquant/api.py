"""The one-call path and the ends of the staged one."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.fx import GraphModule

from pyquant.analysis.analysis import Analysis
from pyquant.analysis.targets import Target
from pyquant.errors import LoweringError
from pyquant.ir.lower import lower_graph
from pyquant.ir.serialize import load as load_program
from pyquant.quantization import QuantizationConfig, adaround, calibrate, convert, prepare
from pyquant.targets.exported_file import load_exported
from pyquant.targets.program_module import ProgramModule
from pyquant.targets.quantized_module import QuantizedModule, assemble
from pyquant.torch_ao import import_torch_ao


def quantize(
    model: nn.Module,
    example_inputs: Any,
    calibration_data: Any,
    config: QuantizationConfig | None = None,
    *,
    engine: str = "auto",
    transform: Any = None,
    progress: bool = True,
) -> QuantizedModule:
    """Quantizes a float model to int8: capture, prepare, calibrate, convert, lower.

    Args:
        model: A float32 ``nn.Module``; it is exported in eval mode and not changed.
        example_inputs: A tensor, or a tuple of the model's positional inputs.
        calibration_data: A tensor of samples, a list of batches, a DataLoader, or a folder of
            images (with ``transform``). Some dozens of typical samples are enough.
        config: Observers and granularity; the default suits CNNs.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        transform: For a folder of images: from a PIL image to a tensor.
        progress: Whether to show a progress bar (only on a terminal).

    Returns:
        A callable module with the model's own signature.

    Raises:
        CaptureError: The model is no float model, or cannot be exported.
        CalibrationError: The data is empty, of a wrong shape, or holds NaN or infinity.
        QuantizationError: Weights hold NaN or infinity.
        LoweringError: The quantized graph cannot be lowered.
    """
    config = config or QuantizationConfig()
    prepared = prepare(model, example_inputs, config)
    if config.adaround and isinstance(calibration_data, Iterator):
        calibration_data = list(calibration_data)  # it is read twice
    calibrate(prepared, calibration_data, transform=transform, progress=progress)
    if config.adaround:
        adaround(prepared, calibration_data, transform=transform, progress=progress)
    return lower(convert(prepared), engine=engine)


def lower(graph: GraphModule, *, engine: str = "auto", whole: bool = False) -> QuantizedModule:
    """Lowers a PT2E-converted graph of any quantizer to pyquant's runtime.

    Args:
        graph: What ``pyquant.convert`` or torchao's ``convert_pt2e`` returned.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        whole: Require that nothing stays float32.

    Raises:
        LoweringError: The graph is not quantized, or something stays float32 and ``whole`` is set.
        UnsupportedError: There is no such engine.
    """
    lowered = lower_graph(graph)
    if whole and lowered.float_operators:
        raise LoweringError(
            "these operators would stay float32:\n  "
            + "\n  ".join(str(operator) for operator in lowered.float_operators)
            + "\nRewrite them with operators that pyquant quantizes, or lower with whole=False."
        )
    return assemble(lowered, engine)


def migrate(
    model: nn.Module,
    example_inputs: tuple[Any, ...] | list[Any] | torch.Tensor,
    *,
    engine: str = "auto",
) -> QuantizedModule:
    """Takes over a model that ``torch.ao.quantization`` has quantized: same scales, zero points
    and int8 weights; no calibration.

    Each operator's output is within one step of torch's: torch keeps biases float32, pyquant rounds
    them to int32. The result's ``graph`` is the q/dq graph.

    Args:
        model: What ``torch.ao.quantization.convert``, ``convert_fx`` or ``convert_to_reference_fx``
            returned. For float models, with or without stubs and observers, take
            :func:`quantize`.
        example_inputs: The positional inputs, or one tensor; e.g. float32 ``[1, 3, 224, 224]``.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.

    Returns:
        A callable module with the model's own signature; its outputs are float32.

    Raises:
        CaptureError: The model is not converted, or quantized dynamically; it holds an operator
            that has no counterpart, does not run on the inputs, or cannot be exported.
        LoweringError: The quantized graph cannot be lowered.
    """
    return lower(import_torch_ao(model, example_inputs), engine=engine)


def load(path: str | os.PathLike[str], *, engine: str = "auto") -> QuantizedModule:
    """Loads what ``save`` wrote: a ``model.pyq``, or a ``.pt2`` if the path ends so.

    A ``.pyq`` is verified to the last byte. A ``.pt2`` is torch.export's format: open only those
    that you trust.

    Raises:
        IoError: The file cannot be read.
        InvalidProgramError: It is truncated, foreign, too new or inconsistent.
        UnsupportedError: There is no such engine.
    """
    if Path(path).suffix == ".pt2":
        return QuantizedModule(*load_exported(path, engine))
    module = ProgramModule(load_program(path), engine)
    return QuantizedModule(module, [module])


def analyze(
    model: nn.Module,
    quantized: QuantizedModule | GraphModule,
    data: Any,
    *,
    own: bool = False,
    targets: Sequence[Target] = (),
    transform: Any = None,
    latency: bool = True,
    progress: bool = True,
    name: str | None = None,
) -> Analysis:
    """Compares a quantized model with its float model: layer by layer, and as a whole.

    Memory does not grow with the data: at most 8 samples are run at once, and only sums are kept.

    Args:
        model: The float model; or the graph that ``prepare`` returned; or the float graph that
            was given to another PT2E quantizer.
        quantized: What ``quantize``, ``lower`` or ``load`` returned; its layers are those of the
            Program, as it runs. Or a q/dq graph.
        data: As for ``calibrate``.
        own: Also quantize one layer at a time, to see what each contributes. It takes half as
            many float runs as there are layers.
        targets: Further ways to run the model, as :func:`pyquant.mobile.targets` finds them in a
            bundle.
        transform: For a folder of images: from a PIL image to a tensor.
        latency: Whether to measure it.
        progress: Whether to show a progress bar (only on a terminal).
        name: The model's, in the result.

    Raises:
        CaptureError: The float model cannot be exported.
        CalibrationError: The data is empty, of a wrong shape, or holds NaN or infinity.
        InvalidInputError: The two are not the same model; NaN or infinity arises in the float
            model; a target fails.
    """
    from pyquant.analysis.analyze import analyze_model

    return analyze_model(
        model,
        quantized,
        data,
        own=own,
        targets=targets,
        transform=transform,
        latency=latency,
        progress=progress,
        name=name,
    )
