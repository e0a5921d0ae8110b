"""The backend that ``torch.compile(model, backend="pyquant")`` finds by its entry point."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import fx

from pyquant.compile.options import CompileOptions
from pyquant.compile.session import Session
from pyquant.errors import QuantizationError


def backend(
    module: fx.GraphModule,
    example_inputs: Sequence[Any],
    *,
    options: Mapping[str, Any] | None = None,
) -> Callable[..., Any]:
    """Compiles one graph of dynamo's: float and observed for some calls, then int8.

    Args:
        module: What dynamo captured.
        example_inputs: Its inputs, as fake tensors.
        options: The fields of :class:`CompileOptions` by name.

    Raises:
        QuantizationError: There is no such option, or its value is wrong.
    """
    return session_of(_parse(options or {}))(module, example_inputs)


@functools.cache
def session_of(options: CompileOptions) -> Session:
    """The session of all models that are compiled by the backend's name, with such options."""
    return Session(options)


def _parse(options: Mapping[str, Any]) -> CompileOptions:
    known = [option.name for option in dataclasses.fields(CompileOptions)]
    for name in options:
        if name not in known:
            raise QuantizationError(
                f"backend 'pyquant' has no option {name!r}; it has {', '.join(known)}"
            )
    return CompileOptions(**options)
