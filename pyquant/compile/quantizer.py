"""The two-step form: observe while the model runs, then convert."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn

from pyquant.compile.expose import exposed
from pyquant.compile.first_run import MacCounter
from pyquant.compile.options import CompileOptions
from pyquant.compile.report import CompileReport, session_report
from pyquant.compile.session import Session
from pyquant.errors import CalibrationError, CaptureError
from pyquant.quantization import QuantizationConfig


class CompiledQuantizer:
    """Calibrates a model that cannot be exported by running it.

    >>> quantizer = pyquant.CompiledQuantizer(model)
    >>> for batch in data:
    ...     quantizer(batch)
    >>> q = quantizer.convert()
    >>> print(q.report())

    What dynamo captures between graph breaks is quantized, on every path that the calls take:
    branches, loops, sizes. The rest runs in Python, as before.

    Args:
        model: A float32 ``nn.Module`` in eval mode; it is not changed, and shares its weights with
            the result. Weights that change afterwards are other weights: what reads them runs in
            float.
        config: Observers and weight scales, as in :class:`CompileOptions`.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        strict: Raise if a subgraph cannot be quantized, instead of running it in float.

    Raises:
        CaptureError: The model is no module, or in training mode.
        QuantizationError: The config cannot be used here.
    """

    def __init__(
        self,
        model: nn.Module,
        config: QuantizationConfig | None = None,
        *,
        engine: str = "auto",
        strict: bool = False,
    ) -> None:
        if not isinstance(model, nn.Module):
            raise CaptureError(f"expected a torch.nn.Module, got {type(model).__name__}")
        if any(module.training for module in model.modules()):
            raise CaptureError(
                "the model is in training mode, where layers compute something else than in "
                "inference: call model.eval() first"
            )
        config = config or QuantizationConfig()
        self._model = model
        copied = exposed(model)
        names = {id(module): name for name, module in copied.named_modules()}
        self._session = Session(CompileOptions(config, None, engine, strict), names)
        self._compiled: Callable[..., Any] = torch.compile(copied, backend=self._session)
        weakref.finalize(self._compiled, self._session.release)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """One calibration call; the float model's outputs.

        Raises:
            CalibrationError: NaN or infinity arises in a subgraph; it has forgotten this call.
            PyquantError: With ``strict``, why a subgraph cannot be quantized.
        """
        with _without_logs(), MacCounter() as counter:
            outputs = _call(self._compiled, args, kwargs)
        self._session.macs += counter.macs
        self._session.int8_macs += counter.int8_macs
        return outputs

    def convert(self) -> CompiledModel:
        """Makes the subgraphs int8, and ends calibration.

        Raises:
            CalibrationError: There was no call.
            QuantizationError: ``keep_float`` names something that no subgraph holds.
            PyquantError: With ``strict``, why a subgraph cannot be quantized.
        """
        if not any(graph.routes for graph in self._session.graphs):
            raise CalibrationError(
                "nothing is calibrated: call the quantizer on typical inputs first (and if you "
                "did, dynamo captured no graph with weights: see torch.compile's TORCH_LOGS)"
            )
        self._session.convert()
        return CompiledModel(self._model, self._compiled, self._session)


class CompiledModel(nn.Module):
    """A model of which dynamo's subgraphs run in int8; called like the float model.

    Paths that no calibration call took run in float. Known paths take other batch sizes and, if
    the model does, other sizes: a new size is compiled once, with the ranges that are known.

    Attributes:
        model: The float model.
    """

    def __init__(self, model: nn.Module, compiled: Callable[..., Any], session: Session) -> None:
        super().__init__()
        self.model = model
        self._compiled = [compiled]  # out of nn.Module's sight
        self._session = session
        self.eval()

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Inference, without gradients."""
        return _call(self._compiled[0], args, kwargs)

    def report(self) -> CompileReport:
        """What runs in int8, what does not, and why."""
        return session_report(self._session)


#: Dynamo would leave out a whole function that holds an LSTM, with its convolutions; and one that
#: serves more than eight modules with other shapes.
_DYNAMO = {"allow_rnn": True, "recompile_limit": 64}


def _call(function: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    with torch.no_grad(), torch._dynamo.config.patch(_DYNAMO):
        return function(*args, **kwargs)


@contextlib.contextmanager
def _without_logs() -> Iterator[None]:
    """Dynamo logs some graph breaks; the report has them all."""
    logger = logging.getLogger("torch._dynamo")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)
