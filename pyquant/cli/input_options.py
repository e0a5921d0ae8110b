"""The options that say which weights a model gets, and how data becomes its inputs."""

from __future__ import annotations

import dataclasses
import functools
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import click

from pyquant.cli.console import stage

if TYPE_CHECKING:
    from torch import Tensor

    from pyquant.cli.models import LoadedModel
    from pyquant.cli.samples import ImagePreprocessing


def sizes(_: click.Context, __: click.Parameter, value: str | None) -> tuple[int, ...] | None:
    """Parses ``1x3x224x224``, for an option's ``callback``."""
    if value is None:
        return None
    if not re.fullmatch(r"[1-9]\d*([x,][1-9]\d*)*", value):
        raise click.BadParameter(f"{value!r} is not sizes like 1x3x224x224")
    return tuple(int(size) for size in re.split("[x,]", value))


def _crop(
    context: click.Context, parameter: click.Parameter, value: str | None
) -> tuple[int, ...] | None:
    crop = sizes(context, parameter, value)
    if crop is not None and len(crop) > 2:
        raise click.BadParameter("takes one or two sizes")
    return crop


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
    click.option(
        "--input-shape",
        callback=sizes,
        metavar="NxCxHxW",
        help="For random data; sizes images too.",
    ),
    click.option("--preprocess", type=click.Choice(["imagenet"]), help="For folders of images."),
    click.option("--resize", type=click.IntRange(1), help="Images: the shorter side, in pixels."),
    click.option("--crop", callback=_crop, metavar="HxW", help="Images: centre crop, N or HxW."),
    click.option(
        "--mean", callback=_numbers, metavar="R,G,B", help="Images: per channel, of pixels in 0..1."
    ),
    click.option("--std", callback=_positive, metavar="R,G,B", help="Images: likewise."),
    click.option("--weights", type=click.Choice(["default", "none"]), default="default"),
)


@dataclass(frozen=True)
class InputOptions:
    """What the options of :func:`input_options` say; ``None`` where they were not given.

    Attributes:
        input_shape: Of one input, with its batch.
        samples: How many to take.
        preprocess: The name of a preset for images.
        resize, crop, mean, std: As in ``ImagePreprocessing``, before the preset's.
        weights: ``"default"`` or ``"none"``.
    """

    input_shape: tuple[int, ...] | None
    samples: int
    preprocess: str | None
    resize: int | None
    crop: tuple[int, ...] | None
    mean: tuple[float, ...] | None
    std: tuple[float, ...] | None
    weights: str

    @property
    def preprocessing(self) -> ImagePreprocessing:
        """From images to inputs; an input shape alone sizes images, too."""
        from pyquant.cli.samples import ImagePreprocessing

        preset = ImagePreprocessing.imagenet() if self.preprocess else ImagePreprocessing()
        resize, crop = self.resize, self.crop
        if self.input_shape is not None and (self.preprocess, resize, crop) == (None, None, None):
            resize, crop = max(self.input_shape[-2:]), self.input_shape[-2:]
        square = None if crop is None else (crop[0], crop[-1])
        given: dict[str, Any] = {"resize": resize, "crop": square, "mean": self.mean}
        given["std"] = self.std
        return dataclasses.replace(preset, **{k: v for k, v in given.items() if v is not None})

    def load_model(self, spec: str) -> LoadedModel:
        """The model that a MODEL argument names."""
        from pyquant.cli.models import load_model

        with stage(f"Loading {spec}"):
            return load_model(spec, pretrained=self.weights == "default")

    def load_samples(self, data: str, model: LoadedModel) -> tuple[Tensor, ...]:
        """The inputs of ``model`` that a DATA argument names, stacked."""
        from pyquant.cli.samples import load_samples

        shape = self.input_shape
        if shape is None and model.example_inputs is not None:
            shape = tuple(model.example_inputs[0].shape)
        with stage(f"Reading {data}"):
            return load_samples(data, self.samples, shape, self.preprocessing)


def input_options(*, samples: int) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Adds options to a command, which gets them as one :class:`InputOptions`, ``options``.

    Args:
        samples: The default of ``--samples``.
    """

    def decorate(command: Callable[..., None]) -> Callable[..., None]:
        @functools.wraps(command)
        def wrapper(**arguments: Any) -> None:
            fields = dataclasses.fields(InputOptions)
            given = {field.name: arguments.pop(field.name) for field in fields}
            command(options=InputOptions(**given), **arguments)

        count = click.option(
            "--samples", type=click.IntRange(1), default=samples, show_default=True
        )
        for option in reversed((*_OPTIONS, count)):
            wrapper = option(wrapper)
        return wrapper

    return decorate
