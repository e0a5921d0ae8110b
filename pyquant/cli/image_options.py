"""The options that say how images become a model's input."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

if TYPE_CHECKING:
    from pyquant.cli.samples import ImagePreprocessing

_Command = TypeVar("_Command", bound=Callable[..., Any])


def sizes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parses ``1x3x224x224``, for an option's ``callback``."""
    if value is None:
        return None
    if not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", value):
        raise click.BadParameter(f"{value!r} is not sizes like 1x3x224x224")
    return tuple(int(size) for size in re.split("[x,]", value))


def _numbers(_: click.Context, __: click.Parameter, value: str | None) -> tuple[float, ...] | None:
    if value is None:
        return None
    try:
        numbers = tuple(float(part) for part in value.split(","))
    except ValueError:
        raise click.BadParameter(f"{value!r} is not numbers like 0.485,0.456,0.406") from None
    if len(numbers) != 3:
        raise click.BadParameter("takes three numbers, for red, green and blue")
    return numbers


def _positive(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[float, ...] | None:
    numbers = _numbers(context, parameter, value)
    if numbers is not None and not all(number > 0 for number in numbers):
        raise click.BadParameter("must be positive")
    return numbers


_OPTIONS = (
    click.option("--preprocess", type=click.Choice(["imagenet"]), help="For folders of images."),
    click.option("--resize", type=click.IntRange(1), help="Images: the shorter side, in pixels."),
    click.option("--crop", callback=sizes, metavar="HxW", help="Images: centre crop, N or HxW."),
    click.option(
        "--mean", callback=_numbers, metavar="R,G,B", help="Images: per channel, of pixels in 0..1."
    ),
    click.option("--std", callback=_positive, metavar="R,G,B", help="Images: likewise."),
)


def image_options(command: _Command) -> _Command:
    """Adds ``--preprocess``, ``--resize``, ``--crop``, ``--mean`` and ``--std``."""
    for option in reversed(_OPTIONS):
        command = option(command)
    return command


def preprocessing(
    preset: str | None,
    resize: int | None,
    crop: tuple[int, ...] | None,
    mean: tuple[float, ...] | None,
    std: tuple[float, ...] | None,
    input_shape: tuple[int, ...] | None,
) -> ImagePreprocessing:
    """What the options together say; an input shape alone sizes images, too."""
    import dataclasses

    from pyquant.cli.samples import ImagePreprocessing

    base = ImagePreprocessing.imagenet() if preset == "imagenet" else ImagePreprocessing()
    if crop is not None and len(crop) > 2:
        raise click.BadParameter("--crop takes one or two sizes")
    if input_shape is not None and (preset, resize, crop) == (None, None, None):
        resize, crop = max(input_shape[-2:]), input_shape[-2:]
    square = None if crop is None else (crop[0], crop[-1])
    given: dict[str, Any] = {"resize": resize, "crop": square, "mean": mean, "std": std}
    return dataclasses.replace(base, **{k: v for k, v in given.items() if v is not None})
