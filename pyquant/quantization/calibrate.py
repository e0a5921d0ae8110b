"""``calibrate``: the one calibration loop."""

from __future__ import annotations

import contextlib
import itertools
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import fx
from torch.utils import _pytree as pytree

from pyquant.capture.quiet import quiet
from pyquant.errors import CalibrationError, PyquantError, QuantizationError
from pyquant.progress import tracked
from pyquant.quantization.bias_correction import input_means
from pyquant.quantization.calibration_data import CalibrationData
from pyquant.quantization.convert import observers
from pyquant.quantization.snapshot import Snapshot

_Batch = tuple[torch.Tensor, ...]


def calibrate(
    prepared: fx.GraphModule,
    calibration_data: object,
    *,
    progress: bool = True,
    transform: Callable[[Any], Any] | None = None,
    max_batches: int | None = None,
) -> None:
    """Runs calibration data through a prepared graph, so that its observers see real ranges.

    May be called again with more data; the ranges add up. A batch that fails leaves the observers
    as they were before it.

    Args:
        prepared: What ``prepare`` returned.
        calibration_data: A batched tensor, e.g. float32 ``[64, 3, 224, 224]`` (run in batches of
            at most 32); a list, generator or ``DataLoader`` of tensors or of tuples that begin
            with the model's inputs (labels after them are dropped); or a folder of images.
            Samples without the batch dimension get one.
        progress: Show a bar on stderr, if that is a terminal.
        transform: For a folder: a function from a ``PIL.Image`` (RGB) to the model's input.
        max_batches: Stop after so many batches.

    Raises:
        CalibrationError: The data is empty, of the wrong form, shape or dtype, or holds NaN or
            infinity (the message names the batch, counted from 0); or NaN or infinity arises
            inside the model (the message names the first layer).
        QuantizationError: ``prepared`` holds no observers.
        IoError: The folder does not exist.
    """
    run = CalibrationRun(prepared)
    data = CalibrationData(calibration_data, prepared, transform)
    count = 0
    with torch.no_grad():
        batches = itertools.islice(data, max_batches)
        bar = tracked(batches, "Calibrating", total=_length(data), show=progress)
        for index, batch in enumerate(bar):
            run(batch, index)
            count += 1
    if not count:
        raise CalibrationError("the calibration data is empty")


class CalibrationRun:
    """Runs batches; falls back to slices of the example's size if the graph is bound to it.

    Args:
        prepared: What ``prepare`` returned.

    Raises:
        QuantizationError: ``prepared`` holds no observers.
    """

    def __init__(self, prepared: fx.GraphModule) -> None:
        from pyquant.quantization.observers import Observer

        found = list({id(observer): observer for _, observer in observers(prepared)}.values())
        if not found:
            raise QuantizationError("the graph holds no observers: call prepare() first")
        self._prepared = prepared
        self._snapshot = Snapshot([*found, *input_means(prepared)])
        # pyquant's own refuse NaN and infinity themselves.
        self._lenient = [observer for observer in found if not isinstance(observer, Observer)]
        example = prepared.graph.find_nodes(op="placeholder")[0].meta.get("val")
        self._example_size = int(example.shape[0]) if example is not None and example.dim() else 1
        self._slice = False

    def __call__(self, batch: _Batch, index: int) -> Any:
        """Runs one batch with the observers; the output, of the last slice if it is cut.

        Raises:
            CalibrationError: As :func:`calibrate`; the observers are as they were before.
        """
        size = batch[0].shape[0] if batch[0].dim() else 1
        slices = size != self._example_size and size % self._example_size == 0
        if not (slices and self._slice):
            output, error = self._attempt(batch, index)
            if error is None:
                return output
            if not slices:
                raise _run_error(batch, index, error) from error
            self._slice = True
        for part in zip(
            *(torch.split(tensor, self._example_size) for tensor in batch), strict=True
        ):
            output, error = self._attempt(part, index)
            if error is not None:
                raise _run_error(batch, index, error) from error
        return output

    def _attempt(self, batch: _Batch, index: int) -> tuple[Any, Exception | None]:
        """The output or the model's error of one batch; raises if NaN or infinity is the cause."""
        self._snapshot.take()
        output, error = None, None
        try:
            with quiet():
                warnings.filterwarnings("error", message="torch.inf detected")
                output = self._prepared(*batch)
        except Exception as failure:  # the model's own error, whatever it is
            error = failure
        if error is None and self._saw_finite(output):
            return output, None
        self._snapshot.restore()
        layer = _first_non_finite(self._prepared, batch)
        if layer is None:
            return None, error
        raise CalibrationError(
            f"calibration batch {index}: NaN or infinite values arise first in {layer}"
        ) from error

    def _saw_finite(self, output: object) -> bool:
        bounds = [
            bound
            for observer in self._lenient
            if observer.min_val.dim() == 0 and not bool(observer.min_val > observer.max_val)
            for bound in (observer.min_val, observer.max_val)
        ]
        values = [torch.stack(bounds)] if bounds else []
        return all(_is_finite(value) for value in [*values, *pytree.tree_leaves(output)])


def _is_finite(value: object) -> bool:
    """False for a tensor that holds NaN or infinity."""
    return not isinstance(value, torch.Tensor) or bool(torch.isfinite(value).all())


class _NonFiniteFinder(fx.Interpreter):
    """Runs a prepared graph without its observers; stops at the first NaN or infinity."""

    found: str | None = None

    def run_node(self, n: fx.Node) -> Any:
        """The node's value; raises ``StopIteration`` after noting a bad one in ``found``."""
        if n.op == "call_module":
            return self.env[n.all_input_nodes[0]]
        value = super().run_node(n)
        if n.op == "call_function" and not _is_finite(value):
            self.found = _layer_name(n)
            raise StopIteration
        return value


def _first_non_finite(prepared: fx.GraphModule, batch: _Batch) -> str | None:
    finder = _NonFiniteFinder(prepared)
    finder.extra_traceback = False
    with contextlib.suppress(Exception):  # the caller reports what the model itself raised
        finder.run(*batch)
    return finder.found


def _layer_name(node: fx.Node) -> str:
    """``'MODULE' (operator)`` as far as the graph knows where the node came from."""
    modules = [entry[0] for entry in node.meta.get("nn_module_stack", {}).values()]
    operator = str(node.target).removeprefix("aten.").split(".")[0]
    return f"layer '{(modules[-1] if modules else '') or node.name}' ({operator})"


def _run_error(batch: _Batch, index: int, error: Exception) -> PyquantError:
    shapes = ", ".join(str(list(tensor.shape)) for tensor in batch)
    text = str(error).strip().splitlines()
    return CalibrationError(
        f"calibration batch {index} of shape {shapes} fails in the model: "
        f"{text[0] if text else type(error).__name__}"
    )


def _length(data: CalibrationData) -> int | None:
    try:
        return len(data)
    except TypeError:
        return None
