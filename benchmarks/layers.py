"""The convolutions and linear layers of a network, as shapes."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pyquant.ir.ops import Window
from pyquant.operators import ConvBnRelu2d, Kernel, LinearRelu, QParams

_INPUT, _OUTPUT = QParams(0.02, 120), QParams(0.05, 10)


@dataclass(frozen=True)
class Layer:
    """One convolution or linear layer at batch 1; a linear layer has no ``window``."""

    height: int
    width: int
    inputs: int
    outputs: int
    window: Window | None = None
    groups: int = 1

    @property
    def kind(self) -> str:
        """``linear``, ``depthwise``, ``grouped``, or the size of the window, as ``3x3``."""
        if self.window is None:
            return "linear"
        if self.groups > 1:
            return "depthwise" if self.groups == self.inputs else "grouped"
        return f"{self.window.kernel_h}x{self.window.kernel_w}"

    @property
    def output_size(self) -> tuple[int, int]:
        """Height and width."""
        w = self.window
        if w is None:
            return 1, 1
        height = self.height + w.pad_top + w.pad_bottom - w.dilation_h * (w.kernel_h - 1) - 1
        width = self.width + w.pad_left + w.pad_right - w.dilation_w * (w.kernel_w - 1) - 1
        return height // w.stride_h + 1, width // w.stride_w + 1

    @property
    def multiply_adds(self) -> int:
        """Of one call."""
        taps = 1 if self.window is None else self.window.kernel_h * self.window.kernel_w
        return math.prod(self.output_size) * self.outputs * taps * self.inputs // self.groups

    def __str__(self) -> str:
        if self.window is None:
            return f"{self.inputs} to {self.outputs}"
        w = self.window
        stride = f" /{w.stride_h}" if w.stride_h > 1 else ""
        return (
            f"{self.height}x{self.width}x{self.inputs} to {self.outputs}, "
            f"{w.kernel_h}x{w.kernel_w}{stride}"
        )

    def kernel(self, engine: str) -> tuple[Kernel, Tensor]:
        """The layer prepared with random weights, and an input for it.

        Raises:
            UnsupportedError: The engine cannot run it.
        """
        generator = torch.Generator().manual_seed(0)
        depth = self.inputs // self.groups
        bias = torch.randn(self.outputs, generator=generator)

        def pixels(*shape: int) -> Tensor:
            return torch.randint(0, 256, shape, dtype=torch.uint8, generator=generator)

        if self.window is None:
            weight = torch.randn(self.outputs, depth, generator=generator)
            linear = LinearRelu(weight, bias, _INPUT, _OUTPUT, activation="relu", engine=engine)
            return linear, pixels(1, self.inputs)
        w = self.window
        convolution = ConvBnRelu2d(
            torch.randn(self.outputs, depth, w.kernel_h, w.kernel_w, generator=generator),
            bias,
            _INPUT,
            _OUTPUT,
            activation="relu",
            stride=(w.stride_h, w.stride_w),
            padding=(w.pad_top, w.pad_left, w.pad_bottom, w.pad_right),
            dilation=(w.dilation_h, w.dilation_w),
            groups=self.groups,
            engine=engine,
        )
        return convolution, pixels(1, self.height, self.width, self.inputs)


def layers_of(model: nn.Module, x: Tensor) -> Counter[Layer]:
    """The layers that ``model`` calls for ``x`` ``[1, 3, H, W]``, and how often."""
    found: Counter[Layer] = Counter()

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if isinstance(module, nn.Linear):
            found[Layer(1, 1, module.in_features, module.out_features)] += 1
        elif isinstance(module, nn.Conv2d):
            _, channels, height, width = inputs[0].shape
            window = _window(module, (height, width), (output.shape[2], output.shape[3]))
            found[Layer(height, width, channels, output.shape[1], window, module.groups)] += 1

    hooks = [module.register_forward_hook(record) for module in model.modules()]
    try:
        with torch.inference_mode():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _window(module: nn.Conv2d, size: tuple[int, int], output: tuple[int, int]) -> Window:
    """The padding is what the sizes tell: some networks pad in front of the convolution."""
    begin, end = [], []
    for axis in range(2):
        reach = module.dilation[axis] * (module.kernel_size[axis] - 1) + 1
        needed = max((output[axis] - 1) * module.stride[axis] + reach - size[axis], 0)
        padding = module.padding[axis] if isinstance(module.padding, tuple) else 0
        begin.append(int(padding) or needed // 2)
        end.append(max(needed - begin[axis], 0))
    return Window(
        module.kernel_size[0],
        module.kernel_size[1],
        module.stride[0],
        module.stride[1],
        begin[0],
        begin[1],
        end[0],
        end[1],
        module.dilation[0],
        module.dilation[1],
    )
