"""One piece of a model between graph breaks: observed, then int8."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from typing import Any, Literal, TypeAlias

import torch
from torch import fx

from pyquant.api import lower
from pyquant.compile.options import CompileOptions
from pyquant.errors import CalibrationError, LoweringError
from pyquant.ir.cost import multiply_adds
from pyquant.quantization import convert
from pyquant.quantization.calibrate import CalibrationRun
from pyquant.targets.quantized_module import QuantizedModule

State: TypeAlias = Literal["observing", "int8", "float"]


class Variant:
    """A subgraph for some input shapes.

    Attributes:
        module: Its int8 form, once there is one.
        macs: Multiply-adds of one call on the inputs that it was made from.
        int8_macs: How many of them dynamic layers do, and its Programs.
    """

    def __init__(
        self,
        subgraph: Subgraph,
        prepared: fx.GraphModule,
        float_module: fx.GraphModule,
        macs: int,
        int8_macs: int,
    ) -> None:
        self.subgraph = subgraph
        self.module: QuantizedModule | None = None
        self.macs = macs
        self.int8_macs = int8_macs
        self._float_module = float_module
        self._prepared: fx.GraphModule | None = prepared
        self._run = CalibrationRun(prepared)

    def observe(self, tensors: Sequence[torch.Tensor]) -> Any:
        """Runs in float, and shows the observers what there is.

        Raises:
            CalibrationError: NaN or infinity arises.
        """
        with torch.inference_mode(False), torch.no_grad():
            try:
                return self._run(tuple(map(as_plain, tensors)), self.subgraph.observed)
            except CalibrationError as error:
                raise CalibrationError(f"{self.subgraph.location}: {error}") from error

    def convert(self, options: CompileOptions) -> None:
        """Makes the int8 form of what was observed.

        Raises:
            Exception: Whatever the pipeline raises.
        """
        assert self._prepared is not None
        with torch.inference_mode(False):
            module = lower(convert(self._prepared), engine=options.engine)
        programs = [part.program for part in module.programs]
        if not programs:
            raise LoweringError("nothing of it has an int8 operator")
        counted = sum(
            multiply_adds(program, node) for program in programs for node in program.nodes
        )
        self.int8_macs = min(self.macs, self.int8_macs + counted)
        self.module = module
        self.release()

    def release(self) -> None:
        """Lets go of the observed graph."""
        self._prepared = None
        del self._run

    def __call__(self, tensors: Sequence[torch.Tensor]) -> Any:
        """The outputs: in int8, or else in float."""
        module = self.module
        if module is None:
            return self._float_module(*tensors)
        if module.program is None:
            # Not in inference mode, as the module itself does it: dynamo takes tensors from there
            # for another kind, and would compile everything that reads them once more.
            return module.module(*tensors)
        return module(*tensors)


class Subgraph:
    """All variants of one piece of code with the same weights. They share their observers, so that
    shapes which come later use the ranges that are known.

    Attributes:
        location: The lines that it was captured from.
        state: Whether it observes, runs in int8, or stays float.
        reason: Why it stays float, or some of its variants do.
        observed: How often it ran to calibrate.
        variants: As they came.
    """

    def __init__(self, location: str) -> None:
        self.location = location
        self.state: State = "observing"
        self.reason = ""
        self.observed = 0
        self.variants: list[Variant] = []
        self._observers: list[torch.nn.Module] = []

    def add(
        self,
        prepared: fx.GraphModule,
        float_module: fx.GraphModule,
        macs: int,
        int8_macs: int,
        options: CompileOptions,
    ) -> Variant:
        """Another variant; it is converted at once if the others are."""
        self._share_observers(prepared)
        variant = Variant(self, prepared, float_module, macs, int8_macs)
        self.variants.append(variant)
        if self.state == "int8":
            self._convert([variant], options)
        elif self.state == "float":
            variant.release()
        return variant

    def convert(self, options: CompileOptions) -> None:
        """Ends calibration: int8 if anything was observed, else float.

        Raises:
            Exception: With ``options.strict``, why it cannot be quantized.
        """
        if self.state != "observing":
            return
        if not self.observed:
            self.leave_float("no calibration call came here")
            return
        self.state = "int8"
        self._convert(self.variants, options)

    def leave_float(self, reason: str) -> None:
        """Gives up int8."""
        self.state, self.reason = "float", reason

    def _convert(self, variants: Sequence[Variant], options: CompileOptions) -> None:
        """A variant that fails runs in float, and with it the subgraph if it has no other."""
        for variant in variants:
            try:
                variant.convert(options)
            except Exception as error:  # torch's passes raise nearly anything
                if options.strict:
                    raise
                variant.release()
                self.reason = summary(error)
        if all(variant.module is None for variant in self.variants):
            self.state = "float"

    def _share_observers(self, prepared: fx.GraphModule) -> None:
        targets = list(
            dict.fromkeys(
                str(node.target) for node in prepared.graph.nodes if node.op == "call_module"
            )
        )
        if not self.variants:
            self._observers = [prepared.get_submodule(target) for target in targets]
            return
        for target, observer in zip(targets, self._observers, strict=True):
            parent, _, name = target.rpartition(".")
            owner = operator.attrgetter(parent)(prepared) if parent else prepared
            setattr(owner, name, observer)


def as_plain(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, as one that may be read outside of inference mode."""
    return tensor.clone() if tensor.is_inference() else tensor


def summary(error: BaseException) -> str:
    """The first line of the message of ``error``."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[0] if lines else type(error).__name__
