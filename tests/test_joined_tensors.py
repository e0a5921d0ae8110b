"""Tensors that are a part of wider ones: slices read, and parts written, where they are.

What a run gives is what the operators give one by one, bit for bit, on every instruction set; and
what needs no copying is not copied.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from programs import ProgramBuilder, by_kernels, table

from pyquant import _C
from pyquant.ir import ops, serialize
from pyquant.ir.program import Program
from pyquant.targets import ProgramModule

HEIGHT, WIDTH = 6, 7


class Images:
    """Builds operators over uint8 images [1, HEIGHT, WIDTH, channels]."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.build = ProgramBuilder(seed)

    def channels(self, x: int) -> int:
        return self.build.program.tensors[x].shape[-1]

    def image(self, channels: int) -> int:
        return self.build.uint8((1, HEIGHT, WIDTH, channels))

    def unary(self, op: ops.Op, x: int) -> int:
        return self.build.node(op, [x], self.image(self.channels(x)))

    def conv(self, x: int, kernel: int, channels: int) -> int:
        pad = kernel // 2
        window = ops.Window(kernel, kernel, 1, 1, pad, pad, pad, pad)
        return self.build.conv(x, window, channels, (1, HEIGHT, WIDTH, channels))

    def unpadded(self, x: int, channels: int) -> int:
        """A convolution of a larger image, without a border of its own."""
        shape = (1, HEIGHT + 2, WIDTH + 2, self.channels(x))
        larger = self.build.node(ops.Pad(1, 1, 1, 1), [x], self.build.uint8(shape))
        return self.build.conv(larger, ops.Window(3, 3), channels, (1, HEIGHT, WIDTH, channels))

    def depthwise(self, x: int, kernel: int) -> int:
        pad = kernel // 2
        window = ops.Window(kernel, kernel, 1, 1, pad, pad, pad, pad)
        channels = self.channels(x)
        op = ops.Conv2d(window, channels, 0, 250)
        weight_shape = (channels, kernel, kernel, 1)
        return self.build.weighted(op, x, weight_shape, self.image(channels))

    def transposed(self, x: int, channels: int) -> int:
        """Halves the image and doubles it again."""
        half = (1, HEIGHT // 2, (WIDTH + 1) // 2, self.channels(x))
        small = self.build.node(
            ops.MaxPool2d(ops.Window(2, 2, 2, 2, 0, 0, 0, 1)), [x], self.build.uint8(half)
        )
        window = ops.Window(2, 2, 2, 2, 0, 0, 0, 1)
        op = ops.ConvTranspose2d(window, 1, 0, 0, 3, 250)
        return self.build.conv(small, window, channels, (1, HEIGHT, WIDTH, channels), op)

    def blurred(self, x: int, channels: int) -> int:
        """A transposed convolution without strides."""
        window = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
        op = ops.ConvTranspose2d(window, 1, 0, 0, 3, 250)
        return self.build.conv(x, window, channels, (1, HEIGHT, WIDTH, channels), op)

    def concat(self, *parts: int, interleaved: bool = False) -> int:
        channels = sum(self.channels(x) for x in parts)
        return self.build.node(ops.Concat(3, interleaved), list(parts), self.image(channels))

    def slice(self, x: int, begin: int, end: int) -> int:
        return self.build.node(ops.Slice(3, begin, end), [x], self.image(end - begin))

    def stacked_halves(self, x: int) -> int:
        """The rows in another order: slices and a concatenation along the height."""
        width_channels = (WIDTH, self.channels(x))
        upper = self.build.node(ops.Slice(1, 0, 2), [x], self.build.uint8((1, 2, *width_channels)))
        lower = self.build.node(
            ops.Slice(1, 2, HEIGHT), [x], self.build.uint8((1, HEIGHT - 2, *width_channels))
        )
        return self.build.node(ops.Concat(1), [lower, upper], self.image(self.channels(x)))


def random_program(seed: int) -> Program:
    """Convolutions, pooling and resizing between slices and concatenations of all kinds."""
    images = Images(seed)
    random = images.random
    values = [images.build.input(images.image(int(random.integers(1, 80))))]
    for _ in range(int(random.integers(6, 22))):
        x = int(values[int(random.integers(max(0, len(values) - 5), len(values)))])
        channels = images.channels(x)
        outputs = int(random.choice([1, 3, 8, 16, 20, 48, 64, 70]))
        match int(random.integers(0, 15)):
            case 0 | 1 | 2:
                y = images.conv(x, int(random.choice([1, 1, 3])), outputs)
            case 3:
                y = images.unpadded(x, outputs)
            case 4:
                y = images.depthwise(x, int(random.choice([1, 3, 5])))
            case 5:
                window = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
                op = ops.AvgPool2d(window, False, True, 0) if seed % 2 else ops.MaxPool2d(window)
                y = images.unary(op, x)
            case 6:
                nearest = ops.ResizeNearest(HEIGHT, WIDTH, 0.0, 0.0)
                bilinear = ops.ResizeBilinear(HEIGHT, WIDTH, align_corners=True)
                y = images.unary(nearest if seed % 2 else bilinear, x)
            case 7:
                y = images.transposed(x, outputs) if seed % 2 else images.blurred(x, outputs)
            case 8:
                y = images.unary(table(seed), x)
            case 9:
                y = images.stacked_halves(x)
            case 10 | 11:
                begin = int(random.integers(0, channels))
                y = images.slice(x, begin, int(random.integers(begin + 1, channels + 1)))
            case _:
                count = int(random.integers(1, 4))
                parts = [x, *(int(v) for v in random.choice(values[-6:], count))]
                same = all(images.channels(part) == channels for part in parts)
                y = images.concat(*parts, interleaved=same and bool(random.integers(0, 2)))
        values.append(y)
        if images.channels(y) > 400:
            break
    kept = [int(v) for v in random.choice(values, int(random.integers(0, 3)))]
    return images.build.finish(values[-1], *kept)


@pytest.mark.parametrize("seed", range(80))
def test_random_programs(seed: int, isa: str) -> None:
    program = random_program(seed)
    module = ProgramModule(program, engine="native")
    channels = program.tensors[program.inputs[0]].shape[-1]
    for batch in (1, 2):
        x = torch.randint(0, 256, (batch, HEIGHT, WIDTH, channels), dtype=torch.uint8)
        for found, expected in zip(module(x), by_kernels(program, x), strict=True):
            assert torch.equal(found, expected)


def steps_of(program: Program, fuse: bool = True) -> tuple[list[str], int]:
    """The operators that take a step, and the arena's bytes."""
    session = _C.Session(_C.Program.from_bytes(serialize.to_bytes(program)), fuse=fuse)
    shapes = [program.tensors[x].shape for x in program.inputs]
    steps = session.profile([torch.zeros(shape, dtype=torch.uint8) for shape in shapes])
    operators = [type(program.nodes[nodes[0]].op).__name__ for nodes, *_ in steps]
    return operators, session.arena_bytes


def dense_block(layers: int) -> Program:
    """Each layer reads what all layers before it have given."""
    images = Images(0)
    x = images.build.input(images.image(16))
    features = [images.conv(x, 1, 32)]
    for _ in range(layers):
        joined = images.concat(*features) if len(features) > 1 else features[0]
        features.append(images.conv(images.conv(joined, 1, 64), 3, 32))
    return images.build.finish(images.conv(images.concat(*features), 1, 8))


def test_a_dense_block_copies_nothing(isa: str) -> None:
    program = dense_block(5)
    operators, _ = steps_of(program)
    assert operators == ["Conv2d"] * 12
    x = torch.randint(0, 256, (1, HEIGHT, WIDTH, 16), dtype=torch.uint8)
    assert torch.equal(ProgramModule(program)(x)[0], by_kernels(program, x)[0])


def test_without_fusing_every_node_is_a_step() -> None:
    program = dense_block(3)
    operators, _ = steps_of(program, fuse=False)
    assert len(operators) == len(program.nodes)


def test_branches_of_an_inception_block_copy_nothing() -> None:
    images = Images(0)
    x = images.build.input(images.image(16))
    pooled = images.unary(ops.MaxPool2d(ops.Window(3, 3, 1, 1, 1, 1, 1, 1)), x)
    branches = [images.conv(x, 1, 24), images.conv(images.conv(x, 1, 8), 3, 40), pooled]
    program = images.build.finish(images.conv(images.concat(*branches), 1, 8))
    assert "Concat" not in steps_of(program)[0]


@pytest.mark.parametrize("kind", ["conv", "blurred", "unpadded"])
def test_few_channels_of_many(kind: str, isa: str) -> None:
    """What reads three channels, some of a wider tensor's, may need them side by side."""
    images = Images(0)
    x = images.conv(images.build.input(images.image(16)), 1, 48)
    part = images.slice(x, 20, 23)
    y = images.conv(part, 3, 8) if kind == "conv" else getattr(images, kind)(part, 8)
    program = images.build.finish(y)
    value = torch.randint(0, 256, (1, HEIGHT, WIDTH, 16), dtype=torch.uint8)
    assert torch.equal(ProgramModule(program)(value)[0], by_kernels(program, value)[0])


def test_halves_are_read_in_place() -> None:
    images = Images(0)
    x = images.conv(images.build.input(images.image(16)), 1, 48)
    left, right = images.slice(x, 0, 24), images.slice(x, 24, 48)
    program = images.build.finish(
        images.concat(images.conv(left, 1, 24), images.depthwise(right, 3), interleaved=True)
    )
    assert steps_of(program)[0] == ["Conv2d", "Conv2d", "Conv2d", "Concat"]


def test_slices_joined_again_are_the_whole() -> None:
    images = Images(0)
    x = images.conv(images.build.input(images.image(16)), 1, 48)
    parts = [images.slice(x, begin, begin + 16) for begin in (0, 16, 32)]
    program = images.build.finish(images.conv(images.concat(*parts), 1, 8))
    assert steps_of(program)[0] == ["Conv2d", "Conv2d"]


@pytest.mark.parametrize("reads", ["table", "output", "twice", "input"])
def test_what_must_have_memory_of_its_own_is_copied(reads: str) -> None:
    """A reader that takes no strides, a Program output, one tensor twice, a Program input."""
    images = Images(0)
    x = images.build.input(images.image(16))
    a, b = images.conv(x, 1, 24), images.conv(x, 1, 8)
    outputs = []
    if reads == "table":
        outputs = [images.unary(table(0), a)]
    elif reads == "output":
        outputs = [a]
    parts = {"twice": [a, a], "input": [x, b]}.get(reads, [a, b])
    program = images.build.finish(images.conv(images.concat(*parts), 1, 8), *outputs)
    assert "Concat" in steps_of(program)[0]
    value = torch.randint(0, 256, (1, HEIGHT, WIDTH, 16), dtype=torch.uint8)
    for found, expected in zip(
        ProgramModule(program)(value), by_kernels(program, value), strict=True
    ):
        assert torch.equal(found, expected)


def test_observing_a_session_that_joins_gives_only_whole_values() -> None:
    program = dense_block(2)
    x = torch.randint(0, 256, (1, HEIGHT, WIDTH, 16), dtype=torch.uint8)
    core = _C.Program.from_bytes(serialize.to_bytes(program))
    every = _C.Session(core, fuse=False).observe([x])
    assert len(every) == len(program.nodes)
    some = _C.Session(core, fuse=True).observe([x])
    assert 0 < len(some) < len(every)
    for node, value in some.items():
        assert torch.equal(value, every[node])
