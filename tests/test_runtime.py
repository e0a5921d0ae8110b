"""Sessions: shapes, errors, threads, outputs, the memory planner, engines on whole models."""

from __future__ import annotations

import copy
import io
import pickle
import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from programs import ProgramBuilder, by_kernels, fully_convolutional, small_net, table
from torch import Tensor, nn

import pyquant
from pyquant import _C
from pyquant.errors import InvalidInputError, UnsupportedError
from pyquant.ir import ops, serialize
from pyquant.ir.program import Program
from pyquant.targets import ProgramModule, QuantizedModule


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Restores torch's number of threads."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def assert_all_equal(found: tuple[Tensor, ...] | list[Tensor], expected: list[Tensor]) -> None:
    assert len(found) == len(expected)
    for have, want in zip(found, expected, strict=True):
        assert have.dtype == want.dtype
        assert torch.equal(have, want)


# --- Shapes.


def test_batch_and_image_size_may_change() -> None:
    program = fully_convolutional()
    module = ProgramModule(program)
    shapes = [(1, 8, 9), (3, 8, 9), (1, 21, 5), (2, 1, 1), (1, 8, 9), (1, 40, 33)]
    for batch, height, width in [*shapes, *shapes]:
        x = torch.randn(batch, 3, height, width)
        assert_all_equal(module(x), by_kernels(program, x))


def test_more_shapes_than_plans_are_kept() -> None:
    program = fully_convolutional()
    module = ProgramModule(program)
    inputs = [torch.randn(1, 3, size, 4) for size in range(1, 40)]
    expected = [by_kernels(program, x) for x in inputs]
    for x, want in zip(inputs * 2, expected * 2, strict=True):
        assert_all_equal(module(x), want)


def test_the_batch_of_a_classifier_may_change() -> None:
    program = small_net()
    module = ProgramModule(program)
    x = torch.randn(4, 3, 8, 9)
    assert_all_equal(module(x), by_kernels(program, x))
    assert torch.equal(module(x)[0][2:3], module(x[2:3])[0])


def test_inputs_need_not_be_contiguous() -> None:
    module = ProgramModule(fully_convolutional())
    x = torch.randn(2, 3, 8, 9)
    expected = list(module(x))
    assert_all_equal(module(x.contiguous(memory_format=torch.channels_last)), expected)
    assert_all_equal(module(x.repeat(1, 1, 1, 2)[..., :9]), expected)
    assert_all_equal(module(x.clone().requires_grad_()), expected)


def test_outputs_are_new_tensors() -> None:
    module = ProgramModule(small_net())
    first = module(torch.ones(1, 3, 8, 9))[0]
    kept = first.clone()
    second = module(torch.randn(1, 3, 8, 9))[0]
    assert torch.equal(first, kept)
    assert not torch.equal(first, second)


@pytest.mark.parametrize(
    "x",
    [
        torch.zeros(3, 8, 9),
        torch.zeros(1, 1, 3, 8, 9),
        torch.zeros(1, 4, 8, 9),
        torch.zeros(0, 3, 8, 9),
        torch.zeros(1, 3, 0, 9),
        torch.zeros(1, 3, 8, 9, dtype=torch.float64),
        torch.zeros(1, 3, 8, 9, dtype=torch.float16),
        torch.zeros(1, 3, 8, 9, dtype=torch.uint8),
        torch.zeros(1, 3, 8, 9, dtype=torch.int64),
        torch.zeros(1, 3, 8, 9, device="meta"),
        torch.zeros(1, 3, 8, 9).to_sparse(),
        np.zeros((1, 3, 8, 9), np.float32),
        None,
    ],
    ids=lambda x: f"{getattr(x, 'dtype', x)}-{tuple(getattr(x, 'shape', ()))}-{type(x).__name__}",
)
def test_wrong_inputs(x: object) -> None:
    module = ProgramModule(fully_convolutional())
    with pytest.raises(InvalidInputError):
        module(x)
    good = torch.randn(1, 3, 8, 9)
    assert_all_equal(module(good), by_kernels(module.program, good))


def test_an_image_too_small_names_the_operator() -> None:
    module = ProgramModule(small_net())
    with pytest.raises(InvalidInputError, match="n6"):
        module(torch.zeros(1, 3, 1, 1))


@pytest.mark.parametrize("count", [0, 2])
def test_wrong_number_of_inputs(count: int) -> None:
    with pytest.raises(InvalidInputError, match="1 input"):
        ProgramModule(small_net())(*[torch.zeros(1, 3, 8, 9)] * count)


# --- Threads.


def test_several_python_threads() -> None:
    program = fully_convolutional()
    module = ProgramModule(program)
    inputs = [torch.randn(1, 3, 8 + size, 9) for size in range(4)]
    expected = [by_kernels(program, x) for x in inputs]
    errors: list[BaseException] = []

    def work(number: int) -> None:
        try:
            for repeat in range(40):
                index = (number + repeat) % len(inputs)
                assert_all_equal(module(inputs[index]), expected[index])
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors, errors[0]


@pytest.mark.parametrize("threads", [2, 3])
def test_threads_within_a_call(threads: int, one_thread: None) -> None:
    programs = [small_net(), fully_convolutional(30, 31)]
    inputs = [torch.randn(2, 3, 8, 9), torch.randn(1, 3, 30, 31)]
    modules = [ProgramModule(program) for program in programs]
    expected = [list(module(x)) for module, x in zip(modules, inputs, strict=True)]
    torch.set_num_threads(threads)
    for module, x, want in zip(modules, inputs, expected, strict=True):
        for _ in range(5):
            assert_all_equal(module(x), want)


def test_sessions_refuse_no_threads() -> None:
    core = _C.Program.from_bytes(serialize.to_bytes(small_net()))
    for threads in (0, -1, 10**6):
        with pytest.raises(InvalidInputError):
            _C.Session(core, "auto", threads)


# --- Outputs.


def test_two_outputs_of_which_one_is_read_on() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 40)))
    a = build.node(table(1), [x], build.uint8((1, 40)))
    b = build.node(table(2), [a], build.uint8((1, 40)))
    c = build.node(ops.Add(), [a, b], build.uint8((1, 40)))
    program = build.finish(b, c, a)
    x8 = torch.randint(0, 256, (1, 40), dtype=torch.uint8)
    for values in (x8, x8.repeat(7, 1)):
        assert_all_equal(ProgramModule(program)(values), by_kernels(program, values))


def test_an_output_twice_and_an_input_as_output() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((2, 40)))
    y = build.node(table(1), [x], build.uint8((2, 40)))
    program = build.finish(y, x, y, x)
    x8 = torch.randint(0, 256, (2, 40), dtype=torch.uint8)
    outputs = ProgramModule(program)(x8)
    assert_all_equal(outputs, by_kernels(program, x8))
    outputs[1].zero_()
    assert x8.any(), "an output must not be the input's memory"


def test_the_output_is_the_dequantized_input() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 4, 5, 3)))
    program = build.finish(build.node(ops.Dequantize(), [x], build.floats((1, 3, 4, 5))))
    x8 = torch.randint(0, 256, (1, 4, 5, 3), dtype=torch.uint8)
    assert_all_equal(ProgramModule(program)(x8), by_kernels(program, x8))

    build = ProgramBuilder()
    x = build.input(build.floats((1, 3, 4, 5)))
    q = build.node(ops.Quantize(), [x], build.uint8((1, 4, 5, 3)))
    program = build.finish(build.node(ops.Dequantize(), [q], build.floats((1, 3, 4, 5))), q)
    values = torch.randn(1, 3, 4, 5) * 4
    assert_all_equal(ProgramModule(program)(values), by_kernels(program, values))


def test_views_of_inputs_outputs_and_intermediates() -> None:
    """Flatten of one pixel is no copy: a view may be an output, of an input even."""
    build = ProgramBuilder()
    x = build.input(build.uint8((2, 1, 1, 6)))
    flat = build.node(ops.Flatten(), [x], build.uint8((2, 6)))
    y = build.node(table(1), [x], build.uint8((2, 1, 1, 6)))
    flat_y = build.node(ops.Flatten(), [y], build.uint8((2, 6)))
    z = build.node(ops.Add(), [flat, flat_y], build.uint8((2, 6)))
    again = build.node(ops.Flatten(), [z], build.uint8((2, 6)))
    program = build.finish(flat, flat_y, y, again, z)
    x8 = torch.randint(0, 256, (2, 1, 1, 6), dtype=torch.uint8)
    assert_all_equal(ProgramModule(program)(x8), by_kernels(program, x8))
    # Two pixels: now Flatten reorders.
    x8 = torch.randint(0, 256, (2, 2, 1, 6), dtype=torch.uint8)
    flat_only = ProgramBuilder()
    x = flat_only.input(flat_only.uint8((2, 1, 1, 6)))
    program = flat_only.finish(flat_only.node(ops.Flatten(), [x], flat_only.uint8((2, 6))))
    module = ProgramModule(program)
    for values in (x8[:, :1].contiguous(), x8):
        assert_all_equal(module(values), by_kernels(program, values))


# --- The memory planner, from outside.


def random_dag(seed: int) -> Program:
    """Branches of Add, LookupTable, MaxPool2d, Pad and Flatten over [1, 6, 7, 5]."""
    random = np.random.default_rng(seed)
    build = ProgramBuilder(seed)
    shape = (1, 6, 7, 5)
    values = [build.input(build.uint8(shape)) for _ in range(random.integers(1, 3))]
    flat: list[int] = []
    window = ops.Window(3, 3, 1, 1, 1, 1, 1, 1)
    for _ in range(int(random.integers(3, 25))):
        a, b = (int(values[i]) for i in random.integers(max(0, len(values) - 6), len(values), 2))
        kind = random.integers(0, 6)
        if kind <= 1:
            values.append(build.node(ops.Add(2, 253), [a, b], build.uint8(shape)))
        elif kind == 2:
            table_op = table(int(random.integers(1000)))
            values.append(build.node(table_op, [a], build.uint8(shape)))
        elif kind == 3:
            values.append(build.node(ops.MaxPool2d(window), [a], build.uint8(shape)))
        elif kind == 4:
            larger = build.node(ops.Pad(1, 2, 0, 0), [a], build.uint8((1, 7, 9, 5)))
            values.append(build.node(ops.Pad(0, -1, -1, -1), [larger], build.uint8(shape)))
        else:
            flat.append(build.node(ops.Flatten(), [a], build.uint8((1, 210))))
    outputs = [values[-1], *flat[-1:]]
    if random.integers(0, 2):
        outputs.append(int(random.choice(values)))
    return build.finish(*outputs)


@pytest.mark.parametrize("seed", range(60))
def test_random_branches_do_not_overwrite_each_other(seed: int) -> None:
    program = random_dag(seed)
    module = ProgramModule(program)
    for batch in (1, 3, 1):
        shape = (batch, 6, 7, 5)
        inputs = [torch.randint(0, 256, shape, dtype=torch.uint8) for _ in program.inputs]
        assert_all_equal(module(*inputs), by_kernels(program, *inputs))


@pytest.mark.usefixtures("isa")
@pytest.mark.parametrize("kept", [False, True], ids=["dead", "read again"])
@pytest.mark.parametrize("size", [7, 10, 28])
@pytest.mark.parametrize("kernel", [1, 3])
def test_sums_in_the_place_of_an_operand(kernel: int, size: int, kept: bool) -> None:
    """Residual blocks; what is read once more at the end must still be there then."""
    build, shape, pad = ProgramBuilder(), (1, size, size, 64), kernel // 2
    window = ops.Window(kernel, kernel, 1, 1, pad, pad, pad, pad)
    x = build.input(build.uint8(shape))
    first = value = build.conv(x, window, 64, shape)
    for _ in range(3):
        branch = build.conv(build.conv(value, window, 64, shape), window, 64, shape)
        value = build.node(ops.Add(3, 250), [branch, value], build.uint8(shape, 0.1))
    if kept:
        value = build.node(ops.Add(3, 250), [value, first], build.uint8(shape))
    program = build.finish(build.node(table(0), [value], build.uint8(shape)))
    inputs = torch.randint(0, 256, shape, dtype=torch.uint8)
    found = ProgramModule(program, engine="native")(inputs)
    assert_all_equal(found, by_kernels(program, inputs))


def test_a_chain_reuses_its_memory() -> None:
    build = ProgramBuilder()
    x = build.input(build.uint8((1, 100_000)))
    for seed in range(12):
        x = build.node(table(seed), [x], build.uint8((1, 100_000)))
    core = _C.Program.from_bytes(serialize.to_bytes(build.finish(x)))
    session = _C.Session(core)
    session.run([torch.zeros((1, 100_000), dtype=torch.uint8)])
    assert 200_000 <= session.arena_bytes <= 210_000


# --- Engines.


class Net(nn.Module):
    """Something of everything."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.Hardswish())
        self.depthwise = nn.Conv2d(16, 16, 3, 1, 1, groups=16)
        self.grouped = nn.Conv2d(16, 16, 3, 1, 1, groups=4)
        self.point = nn.Conv2d(16, 16, 1)
        self.head = nn.Linear(16 * 4, 10)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.stem(x)
        y = self.point(torch.relu(self.depthwise(x)))
        z = torch.relu(x + y)
        z = nn.functional.max_pool2d(self.grouped(z), 3, 2, 1)
        z = nn.functional.adaptive_avg_pool2d(z, 2)
        return self.head(torch.flatten(z, 1)), y


@pytest.fixture(scope="module")
def net() -> QuantizedModule:
    torch.manual_seed(3)
    x = torch.randn(8, 3, 24, 20)
    return pyquant.quantize(Net().eval(), x[:1], x, progress=False)


def test_engines_agree_to_the_bit(net: QuantizedModule) -> None:
    x = torch.randn(3, 3, 24, 20)
    assert net.program is not None
    expected = list(ProgramModule(net.program, "reference")(x))
    assert_all_equal(list(net(x)), expected)
    exact = [name for name in pyquant.engines() if name != "qnnpack"]
    for engine in exact:
        module = ProgramModule(net.program, engine)
        assert module.engine == engine
        assert_all_equal(module(x), expected)
        assert engine in module.node_engines
    qnnpack = ProgramModule(net.program, "qnnpack")
    assert "qnnpack" in qnnpack.node_engines
    # Its Add is up to one step off; what that makes of the outputs is a few steps.
    for have, want in zip(qnnpack(x), expected, strict=True):
        assert float((have - want).abs().max()) <= 0.05 * float(want.abs().max())


def test_the_engine_can_be_changed(net: QuantizedModule) -> None:
    model = copy.deepcopy(net)
    x = torch.randn(1, 3, 24, 20)
    expected = list(model(x))
    model.engine = "reference"
    assert model.engine == "reference"
    assert_all_equal(list(model(x)), expected)
    with pytest.raises(UnsupportedError, match="warp"):
        model.engine = "warp"
    assert model.engine == "reference"
    assert_all_equal(list(model(x)), expected)


def test_unknown_engines(net: QuantizedModule) -> None:
    assert net.program is not None
    with pytest.raises(UnsupportedError, match=r"warp.*reference"):
        ProgramModule(net.program, "warp")


# --- Copies.


def test_deepcopy_and_pickle(net: QuantizedModule) -> None:
    x = torch.randn(2, 3, 24, 20)
    expected = list(net(x))
    assert isinstance(net.module, ProgramModule)
    for module in (net.module, ProgramModule(net.module.program, "reference")):
        for copied in (copy.deepcopy(module), pickle.loads(pickle.dumps(module))):
            assert copied is not module
            assert copied.engine == module.engine
            assert copied.node_engines == module.node_engines
            assert_all_equal(copied(x), expected)
    whole = copy.deepcopy(net)
    assert_all_equal(list(whole(x)), expected)
    whole.engine = "reference"
    assert net.engine == "auto"
    assert whole.programs[0] is whole.module, "the engine is set where the model runs"


def test_torch_save(net: QuantizedModule) -> None:
    buffer = io.BytesIO()
    torch.save(net.module, buffer)
    buffer.seek(0)
    loaded = torch.load(buffer, weights_only=False)
    x = torch.randn(1, 3, 24, 20)
    assert_all_equal(loaded(x), list(net(x)))


def test_train_and_eval_change_nothing(net: QuantizedModule) -> None:
    x = torch.randn(1, 3, 24, 20)
    expected = list(net(x))
    net.train()
    assert_all_equal(list(net(x)), expected)
    net.eval()
    assert "programs=1" in repr(net)
