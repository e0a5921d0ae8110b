"""The Program's passes: each does its work, and changes no bit."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from pyquant.ir import ops
from pyquant.ir.passes import (
    fold_pad,
    fuse_channel_shuffle,
    fuse_clamp,
    remove_dead,
    remove_identity,
    simplify,
)
from pyquant.ir.program import DType, Node, Program
from pyquant.ir.program import Tensor as ProgramTensor
from pyquant.targets import ProgramModule

# --- The passes: each does its work, and changes no bit.


class Builder:
    """A Program of uint8 activations, written node by node."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.program = Program()
        self.program.inputs = [self.tensor(shape)]
        self.last = self.program.inputs[0]

    def tensor(self, shape: tuple[int, ...], scale: float = 0.1, zero_point: int = 7) -> int:
        name = f"t{len(self.program.tensors)}"
        scales = np.array([scale], np.float32)
        return self.program.add_tensor(ProgramTensor(name, DType.uint8, shape, scales, zero_point))

    def node(
        self,
        op: ops.Op,
        shape: tuple[int, ...],
        *inputs: int,
        scale: float = 0.1,
        zero_point: int = 7,
    ) -> int:
        result = self.tensor(shape, scale, zero_point)
        name = f"n{len(self.program.nodes)}"
        self.program.nodes.append(Node(name, op, list(inputs) or [self.last], result))
        self.last = result
        return result

    def conv(self, op: ops.Conv2d, shape: tuple[int, ...], weight_shape: tuple[int, ...]) -> int:
        generator = np.random.default_rng(0)
        values = generator.integers(-127, 128, weight_shape, dtype=np.int8)
        scales = np.full(weight_shape[0], 0.004, np.float32)
        bias = generator.integers(-2000, 2000, weight_shape[0], dtype=np.int32)
        weight = ProgramTensor("weight", DType.int8, weight_shape, scales, data=values)
        source = self.last
        return self.node(
            op,
            shape,
            source,
            self.program.add_tensor(weight),
            self.program.add_tensor(ProgramTensor("bias", DType.int32, bias.shape, data=bias)),
        )

    def finish(self, *outputs: int) -> Program:
        self.program.outputs = list(outputs) or [self.last]
        return self.program


def table(function: Callable[[Any], Any]) -> ops.LookupTable:
    return ops.LookupTable(function(np.arange(256)).astype(np.uint8).tobytes())


IDENTITY = table(lambda x: x)


def assert_same_bits(
    program: Program, rewrite: Callable[[Program], Program], names: list[str]
) -> Program:
    """Runs before and after ``rewrite`` (and behind all passes); checks the operators left."""
    before = ProgramModule(copy.deepcopy(program), "reference")
    rewritten = rewrite(copy.deepcopy(program))
    assert [type(node.op).__name__ for node in rewritten.nodes] == names
    for passes in (rewritten, simplify(copy.deepcopy(program))):
        after = ProgramModule(remove_dead(copy.deepcopy(passes)), "reference")
        for seed in range(3):
            generator = torch.Generator().manual_seed(seed)
            shape = program.tensors[program.inputs[0]].shape
            x = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
            for want, have in zip(before(x), after(x), strict=True):
                assert torch.equal(want, have)
    return rewritten


def test_fold_pad() -> None:
    build = Builder((1, 6, 7, 4))
    build.node(ops.Pad(1, 0, 2, 1), (1, 9, 8, 4))
    build.node(ops.Pad(0, 1, 0, 0), (1, 9, 9, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3, 2, 2, 1, 1, 0, 0)), (1, 4, 4, 5), (5, 3, 3, 4))
    program = build.finish()
    folded = assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Conv2d"])
    op = folded.nodes[0].op
    assert isinstance(op, ops.Conv2d)
    assert op.window == ops.Window(3, 3, 2, 2, 2, 2, 2, 1)


def test_fold_pad_leaves_crops_and_other_readers() -> None:
    build = Builder((1, 6, 7, 4))
    padded = build.node(ops.Pad(1, -1, 2, 1), (1, 9, 7, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3)), (1, 7, 5, 5), (5, 3, 3, 4))
    program = build.finish()
    assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Pad", "Conv2d"])

    build = Builder((1, 6, 7, 4))
    padded = build.node(ops.Pad(1, 1, 1, 1), (1, 8, 9, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3)), (1, 6, 7, 5), (5, 3, 3, 4))
    program = build.finish(build.last, padded)
    assert_same_bits(program, lambda p: remove_dead(fold_pad(p)), ["Pad", "Conv2d"])


@pytest.mark.parametrize(
    ("outer", "inner", "expected"),
    [
        ((0, 255), (7, 67), (7, 67)),
        ((50, 255), (7, 67), (50, 67)),
        ((0, 5), (7, 67), (7, 7)),
        ((90, 255), (7, 67), (67, 67)),
        ((9, 60), (0, 255), (9, 60)),
    ],
)
def test_fuse_clamp(
    outer: tuple[int, int], inner: tuple[int, int], expected: tuple[int, int]
) -> None:
    build = Builder((1, 6, 7, 4))
    build.conv(ops.Conv2d(ops.Window(3, 3), 1, *outer), (1, 4, 5, 5), (5, 3, 3, 4))
    build.node(table(lambda x: np.clip(x, *inner)), (1, 4, 5, 5))
    fused = assert_same_bits(build.finish(), fuse_clamp, ["Conv2d"])
    op = fused.nodes[0].op
    assert isinstance(op, ops.Conv2d)
    assert (op.output_min, op.output_max) == expected


def test_fuse_clamp_twice_into_an_add() -> None:
    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: np.clip(x, 20, 200)), (1, 30))
    build.node(table(lambda x: np.clip(x, 30, 255)), (1, 30))
    fused = assert_same_bits(build.finish(), fuse_clamp, ["Add"])
    assert fused.nodes[0].op == ops.Add(30, 200)


def test_fuse_clamp_keeps_what_others_read() -> None:
    clamp = table(lambda x: np.clip(x, 20, 200))
    build = Builder((1, 30))
    added = build.node(ops.Add(), (1, 30), build.last, build.last)
    clamped = build.node(clamp, (1, 30))
    program = build.finish(added, clamped)
    assert_same_bits(program, fuse_clamp, ["Add", "LookupTable"])

    build = Builder((1, 30))
    added = build.node(ops.Add(), (1, 30), build.last, build.last)
    clamped = build.node(clamp, (1, 30))
    build.node(ops.Add(), (1, 30), added, clamped)
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable", "Add"])


def test_fuse_clamp_keeps_other_tables_and_other_qparams() -> None:
    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: 255 - x), (1, 30))
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable"])

    build = Builder((1, 30))
    build.node(ops.Add(), (1, 30), build.last, build.last)
    build.node(table(lambda x: np.clip(x, 20, 200)), (1, 30), scale=0.2)
    assert_same_bits(build.finish(), fuse_clamp, ["Add", "LookupTable"])


def test_remove_identity() -> None:
    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30))
    build.node(IDENTITY, (1, 30))
    build.node(table(lambda x: 255 - x), (1, 30))
    assert_same_bits(build.finish(), remove_identity, ["LookupTable"])


def test_remove_identity_keeps_outputs_and_changes_of_qparams() -> None:
    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30))
    assert_same_bits(build.finish(), remove_identity, ["LookupTable"])

    build = Builder((1, 30))
    build.node(IDENTITY, (1, 30), zero_point=9)
    build.node(ops.Add(), (1, 30), build.last, build.last)
    assert_same_bits(build.finish(), remove_identity, ["LookupTable", "Add"])


def test_remove_dead() -> None:
    build = Builder((1, 30))
    source = build.last
    build.node(table(lambda x: 255 - x), (1, 30), source)
    build.node(table(lambda x: x // 2), (1, 30))
    live = build.node(table(lambda x: x // 3), (1, 30), source)
    removed = assert_same_bits(build.finish(live), remove_dead, ["LookupTable"])
    assert len(removed.tensors) == 2
    assert removed.nodes[0].op == table(lambda x: x // 3)


def test_remove_dead_keeps_unused_inputs() -> None:
    build = Builder((1, 30))
    build.program.inputs.append(build.tensor((1, 4)))
    build.node(IDENTITY, (1, 30), build.program.inputs[0])
    removed = remove_dead(build.finish())
    assert len(removed.inputs) == 2
    assert [removed.tensors[index].shape for index in removed.inputs] == [(1, 30), (1, 4)]


def branches(groups: int, second: int = 6) -> Builder:
    """A slice of the input and another one, concatenated and shuffled."""
    build = Builder((2, 3, 4, 12))
    source = build.last
    first = build.node(ops.Slice(3, 0, 6), (2, 3, 4, 6), source)
    other = build.node(ops.Slice(3, 12 - second, 12), (2, 3, 4, second), source)
    build.node(ops.Concat(3), (2, 3, 4, 6 + second), first, other)
    build.node(ops.ChannelShuffle(groups), (2, 3, 4, 6 + second))
    return build


def test_fuse_channel_shuffle() -> None:
    fused = assert_same_bits(
        branches(2).finish(), fuse_channel_shuffle, ["Slice", "Slice", "Concat"]
    )
    assert fused.nodes[-1].op == ops.Concat(3, interleaved=True)


@pytest.mark.parametrize("case", ["other groups", "unequal", "another reader"])
def test_fuse_channel_shuffle_leaves_others(case: str) -> None:
    build = branches(3 if case == "other groups" else 2, 4 if case == "unequal" else 6)
    concat = build.program.nodes[2].output
    program = build.finish(build.last, *([concat] if case == "another reader" else []))
    names = ["Slice", "Slice", "Concat", "ChannelShuffle"]
    assert_same_bits(program, fuse_channel_shuffle, names)
