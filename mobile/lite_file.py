"""A ``.ptl`` file as an archive: made small, and checked against what old runtimes can load."""

from __future__ import annotations

import io
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import torch.jit.mobile

from pyquant.errors import ExportError, IoError

#: The oldest PyTorch Mobile release that files are made for. Later ones read all that it reads.
OLDEST_RELEASE = "1.13.1"
#: The newest bytecode format that it reads.
BYTECODE_VERSION = 8
#: Its operators that a Program needs, with the number of arguments that they take there. The
#: prebuilt libraries (pytorch_android_lite, LibTorch-Lite) hold all of them.
OPERATORS: dict[str, int] = {
    "aten::_convolution": 13,
    "aten::_make_per_tensor_quantized_tensor": 3,
    "aten::adaptive_avg_pool2d": 2,
    "aten::add.Tensor": 3,
    "aten::avg_pool2d": 7,
    "aten::cat": 2,
    "aten::channel_shuffle": 2,
    "aten::constant_pad_nd": 3,
    "aten::contiguous": 2,
    "aten::dequantize.self": 1,
    "aten::flatten.using_ints": 3,
    "aten::int_repr": 1,
    "aten::linear": 3,
    "aten::max_pool2d": 6,
    "aten::permute": 2,
    "aten::quantize_per_tensor": 4,
    "aten::relu": 1,
    "aten::reshape": 2,
    "aten::size.int": 2,
    "aten::slice.Tensor": 5,
    "aten::take": 2,
    "aten::to.dtype": 5,
    "aten::upsample_bilinear2d.vec": 4,
    "aten::upsample_nearest2d.vec": 3,
    "aten::view": 2,
    "quantized::add": 4,
    "quantized::add_relu": 4,
    "quantized::conv2d.new": 4,
    "quantized::conv2d_relu.new": 4,
    "quantized::hardswish": 3,
    "quantized::linear": 4,
    "quantized::linear_relu": 4,
    "quantized::mul": 4,
    "quantized::mul_relu": 4,
}


def compress(content: bytes) -> bytes:
    """The same archive, deflated and without source code, which runtimes do not read.

    Archives are otherwise stored plainly. Lite interpreters from 1.13.1 on load both.
    """
    target = io.BytesIO()
    with (
        zipfile.ZipFile(io.BytesIO(content)) as source,
        zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as result,
    ):
        for entry in source.infolist():
            if "/code/" in entry.filename or entry.filename.endswith(".debug_pkl"):
                continue
            # A fixed date: the same model gives the same bytes.
            named = zipfile.ZipInfo(entry.filename)
            named.compress_type = zipfile.ZIP_DEFLATED
            result.writestr(named, source.read(entry))
    return target.getvalue()


def check(content: bytes) -> None:
    """Finds out whether PyTorch Mobile :data:`OLDEST_RELEASE` can load a file.

    Raises:
        ExportError: It cannot; the message names the operator or the format.
        IoError: No temporary file can be written.
    """
    mobile: Any = torch.jit.mobile
    version = mobile._get_model_bytecode_version(io.BytesIO(content))
    if version > BYTECODE_VERSION:
        raise ExportError(
            f"the .ptl file has bytecode version {version}; PyTorch Mobile {OLDEST_RELEASE} reads "
            f"up to {BYTECODE_VERSION}"
        )
    try:
        with tempfile.TemporaryDirectory() as folder:  # it takes paths only
            path = Path(folder) / "model.ptl"
            path.write_bytes(content)
            found = mobile._get_model_ops_and_info(str(path))
    except OSError as error:
        raise IoError(f"no temporary file can be written: {error}") from error
    for name, info in sorted(found.items()):
        if name not in OPERATORS or (info.num_schema_args or 0) > OPERATORS[name]:
            raise ExportError(
                f"the .ptl file needs the operator {name} with {info.num_schema_args} arguments, "
                f"which PyTorch Mobile {OLDEST_RELEASE} does not have; export without the "
                "torchscript target"
            )
