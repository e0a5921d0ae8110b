"""All forms of calibration data as one stream of input tuples."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from pathlib import Path
from typing import Any

import torch
from torch import fx

from pyquant.errors import CalibrationError, IoError

MAX_BATCH = 32
_IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"})


class CalibrationData:
    """Calibration data in any accepted form, checked and shaped for one model.

    Args:
        data: A batched tensor, split into batches of at most 32; a folder of images; or an
            iterable (list, ``DataLoader``, generator) of tensors or of tuples that begin with the
            model's inputs (labels after them are dropped). Samples without the batch dimension
            get one. NumPy arrays count as tensors.
        prepared: The observed graph; its placeholders carry the expected shapes and dtypes.
        transform: Called on each ``PIL.Image`` (RGB) of a folder; returns a tensor.

    Raises:
        CalibrationError: The form is not one of these, or a folder comes without ``transform``.
        IoError: The folder does not exist.
    """

    def __init__(
        self,
        data: object,
        prepared: fx.GraphModule,
        transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self._expected = [
            (str(node.target), node.meta["val"])
            for node in prepared.graph.find_nodes(op="placeholder")
            if isinstance(node.meta.get("val"), torch.Tensor)
        ]
        self._source = self._open(data, transform)

    def __len__(self) -> int:
        """The number of batches; raises ``TypeError`` if the data does not know."""
        if not isinstance(self._source, Sized):
            raise TypeError("this calibration data has no length")
        return len(self._source)

    def __iter__(self) -> Iterator[tuple[torch.Tensor, ...]]:
        """The inputs of one call after the other.

        Raises:
            CalibrationError: A batch has the wrong form, shape or dtype, or holds NaN or
                infinity; the message counts batches from 0.
        """
        for index, item in enumerate(self._source):
            yield self._inputs(item, index)

    def _open(self, data: object, transform: Callable[[Any], Any] | None) -> Iterable[Any]:
        if isinstance(data, (str, os.PathLike)):
            return _ImageFolder(Path(data), transform)
        if _is_array(data):
            tensor = torch.as_tensor(data)
            rank = self._expected[0][1].dim() if self._expected else tensor.dim()
            return (tensor,) if tensor.dim() < max(rank, 1) else torch.split(tensor, MAX_BATCH)
        if isinstance(data, Mapping) or not isinstance(data, Iterable):
            raise CalibrationError(
                "calibration data must be a tensor, an iterable of tensors or tuples, a "
                f"DataLoader, or a folder of images; got {type(data).__name__}"
            )
        return data

    def _inputs(self, item: object, index: int) -> tuple[torch.Tensor, ...]:
        names = [name for name, _ in self._expected]
        if isinstance(item, Mapping):
            keys = ", ".join(repr(key) for key in item)
            wanted = ", ".join(f"batch[{key!r}]" for key in list(item)[: len(names)])
            raise CalibrationError(
                f"calibration batch {index} is a dict (keys {keys}), but the model takes "
                f"{len(names)} positional input(s): {', '.join(names)}. Pass a generator that "
                f"picks them, e.g. (({wanted},) for batch in loader)"
            )
        values = [item] if _is_array(item) else item
        if not isinstance(values, (list, tuple)) or len(values) < len(names):
            got = f"{len(values)}" if isinstance(values, (list, tuple)) else type(item).__name__
            raise CalibrationError(
                f"calibration batch {index} must hold {len(names)} input(s) "
                f"({', '.join(names)}), got {got}"
            )
        return tuple(
            _fit(value, name, example, index)
            for value, (name, example) in zip(values, self._expected, strict=False)
        )


class _ImageFolder:
    """The images of a folder and its subfolders, sorted by path, one batch each."""

    def __init__(self, folder: Path, transform: Callable[[Any], Any] | None) -> None:
        if not folder.is_dir():
            raise IoError(f"'{folder}' is not a folder")
        if transform is None:
            raise CalibrationError(
                "a folder of images needs transform=, a function from a PIL image (RGB) to the "
                "tensor that the model takes"
            )
        self._transform = transform
        self._files = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in _IMAGE_SUFFIXES
        )
        if not self._files:
            raise CalibrationError(f"'{folder}' holds no images")

    def __len__(self) -> int:
        return len(self._files)

    def __iter__(self) -> Iterator[Any]:
        try:
            from PIL import Image
        except ImportError as error:
            raise CalibrationError(
                "reading images needs Pillow, which is not installed: pip install pillow"
            ) from error
        for path in self._files:
            try:
                with Image.open(path) as image:
                    rgb = image.convert("RGB")
            except (OSError, SyntaxError, ValueError) as error:
                raise CalibrationError(f"'{path}' cannot be read as an image: {error}") from error
            yield self._transform(rgb)


def _is_array(value: object) -> bool:
    return isinstance(value, torch.Tensor) or hasattr(value, "__array_interface__")


def _fit(value: object, name: str, example: torch.Tensor, index: int) -> torch.Tensor:
    """``value`` as a tensor of the example's rank and dtype, or a ``CalibrationError``."""
    where = f"calibration batch {index}, input '{name}'"
    if not _is_array(value):
        raise CalibrationError(f"{where}: expected a tensor, got {type(value).__name__}")
    tensor = torch.as_tensor(value)
    expected = tuple(example.shape)
    if tuple(tensor.shape) == expected[1:]:
        tensor = tensor.unsqueeze(0)
    if tensor.dim() != len(expected) or tuple(tensor.shape[1:]) != expected[1:]:
        sizes = ", ".join(str(size) for size in expected[1:])
        raise CalibrationError(f"{where}: expected shape [N, {sizes}], got {list(tensor.shape)}")
    if not tensor.numel():
        raise CalibrationError(f"{where}: the batch is empty, shape {list(tensor.shape)}")
    if tensor.is_floating_point() != example.is_floating_point():
        raise CalibrationError(
            f"{where}: expected dtype {example.dtype}, got {tensor.dtype}; "
            "convert and normalise it as for the float model"
        )
    if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
        raise CalibrationError(f"{where}: it holds NaN or infinite values")
    return tensor.to(device=example.device, dtype=example.dtype)
