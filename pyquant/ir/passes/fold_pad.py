"""Padding in front of a convolution becomes the convolution's own."""

from __future__ import annotations

from dataclasses import replace

from pyquant.ir.ops import Conv2d, Pad
from pyquant.ir.program import Program


def fold_pad(program: Program) -> Program:
    """Both pad with the zero_point, so the sum is the same. Cropping stays an operator."""
    producers = {node.output: node for node in program.nodes}
    for node in program.nodes:
        if not isinstance(node.op, Conv2d):
            continue
        while (producer := producers.get(node.inputs[0])) is not None:
            pad = producer.op
            if not isinstance(pad, Pad) or min(pad.top, pad.left, pad.bottom, pad.right) < 0:
                break
            window = node.op.window
            window = replace(
                window,
                pad_top=window.pad_top + pad.top,
                pad_left=window.pad_left + pad.left,
                pad_bottom=window.pad_bottom + pad.bottom,
                pad_right=window.pad_right + pad.right,
            )
            node.op = replace(node.op, window=window)
            node.inputs[0] = producer.inputs[0]
    return program
