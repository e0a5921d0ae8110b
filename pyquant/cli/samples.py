"""DATA arguments: folders of images, arrays in files, or random numbers, as tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from pyquant.errors import CalibrationError, IoError
from pyquant.ir.program import DType, Program

if TYPE_CHECKING:
    from pyquant.mobile import Preprocessing

_IMAGENET_MEAN, _IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


@dataclass(frozen=True)
class ImagePreprocessing:
    """From an RGB image to the model's input: ``(pixel / 255 - mean) / std``, channels first.

    Attributes:
        resize: The length of the shorter side after resizing; ``None`` keeps the size.
        crop: Height and width of the centre crop after that; ``None`` keeps all.
        mean, std: One value per channel.
    """

    resize: int | None = None
    crop: tuple[int, int] | None = None
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)

    @classmethod
    def imagenet(cls) -> ImagePreprocessing:
        """The usual evaluation of ImageNet models: resize 256, crop 224."""
        return cls(256, (224, 224), _IMAGENET_MEAN, _IMAGENET_STD)

    def for_apps(self) -> Preprocessing:
        """The same for a bundle's manifest."""
        from pyquant.mobile import Preprocessing

        return Preprocessing(
            resize=None if self.resize is None else (self.resize,) * 2,
            crop=self.crop,
            mean=self.mean,
            std=self.std,
        )

    def __call__(self, image: Any) -> Tensor:
        """A ``PIL.Image`` in RGB as a float32 tensor ``[3, H, W]``."""
        from PIL import Image

        if self.resize is not None:
            ratio = self.resize / min(image.size)
            size = tuple(max(self.resize, round(side * ratio)) for side in image.size)
            image = image.resize(size, Image.Resampling.BILINEAR)
        pixels = torch.from_numpy(np.asarray(image).copy()).permute(2, 0, 1).float() / 255
        if self.crop is not None:
            pixels = _centre_crop(pixels, *self.crop)
        mean, std = (torch.tensor(values).reshape(-1, 1, 1) for values in (self.mean, self.std))
        return (pixels - mean) / std


def _centre_crop(pixels: Tensor, height: int, width: int) -> Tensor:
    _, full_height, full_width = pixels.shape
    if full_height < height or full_width < width:
        raise CalibrationError(
            f"a crop of {height}x{width} does not fit an image of {full_height}x{full_width}; "
            "use a larger --resize"
        )
    top, left = (full_height - height) // 2, (full_width - width) // 2
    return pixels[:, top : top + height, left : left + width]


def load_samples(
    data: str,
    count: int,
    shape: tuple[int, ...] | None,
    preprocessing: Callable[[Any], Tensor],
) -> tuple[Tensor, ...]:
    """The model's inputs for at most ``count`` samples, stacked along the first dimension.

    Args:
        data: A folder of images, a ``.npy``, ``.npz`` or ``.pt`` file of samples, or ``random``.
        count: How many to take, from the front.
        shape: Of one input with its batch dimension; needed for ``random`` only.
        preprocessing: For images.

    Raises:
        CalibrationError: There is no sample, or it has the wrong form.
        IoError: A file or folder cannot be read.
    """
    path = Path(data)
    if data == "random":
        if shape is None:
            raise CalibrationError("random data needs --input-shape, e.g. 1x3x224x224")
        generator = torch.Generator().manual_seed(0)
        return (torch.randn(count, *shape[1:], generator=generator),)
    if path.is_dir():
        return (_images(path, count, preprocessing),)
    if not path.is_file():
        raise IoError(f"there is no file or folder {data}")
    tensors = tuple(value[:count] for value in _arrays(path))
    if len({len(value) for value in tensors}) != 1 or not len(tensors[0]):
        raise CalibrationError(f"{data} must hold at least one sample, as many for every input")
    return tensors


def _images(folder: Path, count: int, preprocessing: Callable[[Any], Tensor]) -> Tensor:
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES)
    if not files:
        raise CalibrationError(f"{folder} holds no images")
    try:
        from PIL import Image
    except ImportError as error:
        raise CalibrationError("reading images needs Pillow: pip install pillow") from error
    tensors: list[Tensor] = []
    # From all over the folder: its subfolders are often classes.
    for path in files[:: max(1, len(files) // count)][:count]:
        try:
            with Image.open(path) as image:
                tensors.append(preprocessing(image.convert("RGB")))
        except (OSError, SyntaxError, ValueError) as error:
            raise CalibrationError(f"{path} cannot be read as an image: {error}") from error
        if tensors[-1].shape != tensors[0].shape:
            raise CalibrationError(
                "the images differ in size; give --resize and --crop, or --preprocess imagenet"
            )
    return torch.stack(tensors)


def _arrays(path: Path) -> list[Tensor]:
    try:
        if path.suffix == ".pt":
            loaded = torch.load(path, weights_only=True)
            values = list(loaded) if isinstance(loaded, tuple | list) else [loaded]
        elif path.suffix in (".npy", ".npz"):
            array = np.load(path, allow_pickle=False)
            values = list(array.values()) if path.suffix == ".npz" else [array]
        else:
            raise CalibrationError(
                f"{path} is no folder of images and no .npy, .npz or .pt file of samples"
            )
        tensors = [torch.as_tensor(value) for value in values]
    except CalibrationError:
        raise
    except OSError as error:
        raise IoError(f"cannot read {path}: {error.strerror or error}") from error
    except Exception as error:  # a foreign file: pickle, zip and NumPy raise of all sorts
        raise CalibrationError(f"{path} holds no plain tensors: {type(error).__name__}") from error
    if not tensors or any(tensor.dim() == 0 for tensor in tensors):
        raise CalibrationError(f"{path} must hold tensors with a dimension of samples in front")
    # NumPy's default is float64, which no model here takes.
    return [value.float() if value.is_floating_point() else value for value in tensors]


def program_inputs(program: Program, batch: int | None = None) -> tuple[Tensor, ...]:
    """Seeded random inputs for ``program``; ``batch`` replaces the example's batch size."""
    generator = torch.Generator().manual_seed(0)
    inputs = []
    for index in program.inputs:
        tensor = program.tensors[index]
        shape = (batch, *tensor.shape[1:]) if batch is not None and tensor.shape else tensor.shape
        if tensor.dtype == DType.uint8:
            inputs.append(torch.randint(256, shape, dtype=torch.uint8, generator=generator))
        else:
            inputs.append(torch.randn(shape, generator=generator))
    return tuple(inputs)
