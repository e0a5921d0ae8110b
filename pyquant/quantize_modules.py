"""``quantize_modules``: chosen submodules of a model that cannot be exported as a whole."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from fnmatch import fnmatchcase
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from pyquant.api import lower
from pyquant.capture.export import eval_mode
from pyquant.errors import CalibrationError, CaptureError, PyquantError, QuantizationError
from pyquant.module_call import FlatModule, ModuleCall, UnflatModule
from pyquant.module_names import did_you_mean, enclosing_module
from pyquant.progress import tracked
from pyquant.quantization import QuantizationConfig, convert, prepare
from pyquant.quantization.calibrate import CalibrationRun
from pyquant.quantization.calibration_data import MAX_BATCH

#: Positional and keyword arguments of the model.
_Inputs: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]


def quantize_modules(
    model: nn.Module,
    names: str | Sequence[str],
    calibration_data: Any,
    config: QuantizationConfig | None = None,
    *,
    engine: str = "auto",
    inplace: bool = False,
    progress: bool = True,
) -> nn.Module:
    """Quantizes some submodules, and leaves the rest of the model as it is.

    For models with code that ``torch.export`` cannot take: only the chosen submodules are exported.
    The float model runs on the calibration data, in eval mode; what it passes to a submodule
    calibrates that submodule, whose first call gives its example inputs.

    Args:
        model: Any float32 ``nn.Module``.
        names: Paths of submodules, as ``"encoder"`` or ``"blocks.*"`` (``*``, ``?`` and ``[...]``;
            of what a pattern matches, the outermost modules are meant).
        calibration_data: A batched tensor; or an iterable of the model's inputs: a tensor, a tuple
            of positional or a dict of keyword arguments. Or a function that takes the model and
            runs it.
        config: As for ``quantize``.
        engine: ``"auto"``, or a name of ``pyquant.engines()``.
        inplace: Change ``model`` itself instead of a copy.
        progress: Whether to show a progress bar (only on a terminal).

    Returns:
        The model with a quantized module in the place of each chosen one. In there, tensors may
        change from call to call; other arguments must be those of calibration.

    Raises:
        CaptureError: A submodule cannot be exported; the message names all such ones.
        CalibrationError: The data is empty, the model fails on it, it shows NaN or infinity to a
            submodule, or calls one never, or with other arguments than tensors that differ.
        QuantizationError: A name matches nothing, or a module inside of another chosen one.
        LoweringError: A quantized submodule cannot be lowered.
    """
    config = config or QuantizationConfig()
    if config.adaround:
        raise QuantizationError("quantize_modules does not learn rounding: set adaround=False")
    sites = [_Site(name, module, config) for name, module in _select(model, names)]
    with eval_mode(model), torch.no_grad(), _observed(sites):
        for _ in _runs(model, calibration_data, progress):
            _raise_failures(sites)
    _raise_failures(sites)
    never = [repr(site.name) for site in sites if site.prepared is None]
    if never:
        raise CalibrationError(f"the calibration data never reached submodule {', '.join(never)}")
    substitutes = [(site.name, site.quantized(engine)) for site in sites]
    result = model if inplace else copy.deepcopy(model)
    for name, substitute in substitutes:
        replaced = result.get_submodule(name)
        for path, module in list(result.named_modules(remove_duplicate=False)):
            if module is replaced:
                parent, _, attribute = path.rpartition(".")
                setattr(result.get_submodule(parent), attribute, substitute)
    return result


class _Site:
    """A chosen submodule, and its observed graph from its first call on."""

    def __init__(self, name: str, module: nn.Module, config: QuantizationConfig) -> None:
        self.name = name
        self.module = module
        self.prepared: Any = None
        self.failure: PyquantError | None = None
        self._config = config
        self._calls = 0

    def observe(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        """Shows one call's inputs to the observers."""
        if self.failure is not None:
            return
        call, tensors = ModuleCall.of(args, kwargs)
        try:
            if self.prepared is None:
                self.prepared = self._prepare(call, tensors)
                self._call, self._run = call, CalibrationRun(self.prepared)
            elif call != self._call:
                raise CalibrationError(
                    "it is called with different arguments other than tensors: "
                    f"{self._call} and {call}"
                )
            self._run(tensors, self._calls)
        except PyquantError as error:
            self.failure = error
        self._calls += 1

    def _prepare(self, call: ModuleCall, tensors: tuple[Tensor, ...]) -> Any:
        if not tensors:
            raise CaptureError("it takes no tensors")
        module = self.module if call.is_positional else FlatModule(self.module, call)
        return prepare(module, tensors, self._config)

    def quantized(self, engine: str) -> nn.Module:
        """The submodule's substitute."""
        try:
            quantized = lower(convert(self.prepared), engine=engine)
        except PyquantError as error:
            raise type(error)(f"submodule '{self.name}': {error}") from error
        return quantized if self._call.is_positional else UnflatModule(quantized, self._call)


def _raise_failures(sites: Sequence[_Site]) -> None:
    failures = [(site, site.failure) for site in sites if site.failure is not None]
    if failures:
        lines = [f"submodule '{site.name}': {failure}" for site, failure in failures]
        raise type(failures[0][1])("\n".join(lines)) from failures[0][1]


@contextlib.contextmanager
def _observed(sites: Sequence[_Site]) -> Iterator[None]:
    """While the block runs, the submodules' inputs reach their sites."""
    exporting = False

    def hook(site: _Site) -> Callable[..., None]:
        def observe(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
            nonlocal exporting
            if exporting:  # a submodule's first call runs it again
                return
            exporting = True
            try:
                site.observe(args, kwargs)
            finally:
                exporting = False

        return observe

    handles = [
        site.module.register_forward_pre_hook(hook(site), with_kwargs=True) for site in sites
    ]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _runs(model: nn.Module, data: Any, progress: bool) -> Iterator[None]:
    """Runs the model on one batch after the other."""
    if callable(data):
        data(model)
        yield
        return
    batches = torch.split(data, MAX_BATCH) if isinstance(data, Tensor) else data
    if isinstance(batches, Mapping) or not isinstance(batches, Iterable):
        raise CalibrationError(
            "calibration data must be a tensor, an iterable of the model's inputs, or a function "
            f"that runs the model; got {type(data).__name__}"
        )
    total = len(batches) if isinstance(batches, Sized) else None
    index = -1
    for index, batch in enumerate(tracked(batches, "Calibrating", total=total, show=progress)):
        args, kwargs = _inputs(batch)
        try:
            model(*args, **kwargs)
        except Exception as error:  # the model's own error, whatever it is
            text = str(error).strip().splitlines()
            raise CalibrationError(
                f"calibration batch {index} fails in the model: "
                f"{type(error).__name__}: {text[0] if text else ''}"
            ) from error
        yield
    if index < 0:
        raise CalibrationError("the calibration data is empty")


def _inputs(batch: Any) -> _Inputs:
    if isinstance(batch, Mapping):
        return (), dict(batch)
    return (tuple(batch) if isinstance(batch, (tuple, list)) else (batch,)), {}


def _select(model: nn.Module, names: str | Sequence[str]) -> list[tuple[str, nn.Module]]:
    """The chosen submodules, each once, in the order of the model."""
    paths = [name for name, _ in model.named_modules(remove_duplicate=False) if name]
    chosen: set[str] = set()
    for pattern in [names] if isinstance(names, str) else names:
        found = {path for path in paths if fnmatchcase(path, pattern)}
        if not found:
            near = did_you_mean(pattern, paths)
            hint = near or f"did you mean {', '.join(map(repr, paths[:5]))}?"
            raise QuantizationError(f"no submodule matches {pattern!r}: {hint}")
        chosen.update(path for path in found if enclosing_module(path, found) is None)
    if not chosen:
        raise QuantizationError("names is empty: say which submodules to quantize")
    for path in sorted(chosen):
        outer = enclosing_module(path, chosen)
        if outer is not None:
            raise QuantizationError(f"'{path}' is inside of '{outer}', which is chosen too")
    modules = {id(model.get_submodule(path)): path for path in sorted(chosen, reverse=True)}
    return [(path, model.get_submodule(path)) for path in sorted(modules.values(), key=paths.index)]
