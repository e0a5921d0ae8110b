"""What a user may choose about compiling."""

from __future__ import annotations

from dataclasses import dataclass, field

from pyquant.errors import QuantizationError
from pyquant.quantization import QuantizationConfig


@dataclass(frozen=True)
class CompileOptions:
    """The ``options`` of ``torch.compile(model, backend="pyquant", options={...})``.

    Attributes:
        config: Observers and weight scales. Names in ``keep_float`` are those of operators and of
            the model's modules (without a ``CompiledQuantizer``: as seen from the function that
            dynamo compiles). ``adaround`` is not available, as no data is kept.
        calibration_steps: A subgraph converts itself to int8 after it ran so many times; ``None``:
            it waits for ``CompiledQuantizer.convert``.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        strict: Raise if a subgraph cannot be quantized, instead of running it in float.

    Raises:
        QuantizationError: A value is not one of these.
    """

    config: QuantizationConfig = field(default_factory=QuantizationConfig)
    calibration_steps: int | None = 32
    engine: str = "auto"
    strict: bool = False

    def __post_init__(self) -> None:
        if not isinstance(self.config, QuantizationConfig):
            raise QuantizationError(
                f"config must be a QuantizationConfig, got {type(self.config).__name__}"
            )
        if self.config.adaround:
            raise QuantizationError(
                "AdaRound reads the calibration data many times, and compiling keeps none: "
                "use QuantizationConfig(adaround=False), or pyquant.quantize on submodules"
            )
        steps = self.calibration_steps
        if steps is not None and (not isinstance(steps, int) or steps < 1):
            raise QuantizationError(f"calibration_steps must be at least 1, got {steps!r}")
