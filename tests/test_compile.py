"""Models that torch.export refuses: what dynamo captures of them runs in int8."""

from __future__ import annotations

import gc

import numpy as np
import pytest
import torch
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr
from pyquant.compile import CompileOptions, backend
from pyquant.compile.session import Session
from pyquant.errors import CalibrationError, CaptureError, InvalidInputError, QuantizationError
from pyquant.targets.program_module import ProgramModule

SIZE = 8


pytestmark = pytest.mark.usefixtures("fresh_dynamo")


class Plain(nn.Module):
    """Can be exported."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()
        )
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.features(x).mean((2, 3)))


class Branching(nn.Module):
    """The brightness of the image decides which convolution runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 3, padding=1)
        self.bright = nn.Conv2d(8, 8, 3, padding=1)
        self.dark = nn.Conv2d(8, 8, 1)
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.stem(x).relu()
        y = self.bright(y) if x.mean() > 0 else self.dark(y)
        return self.head(y.relu().mean((2, 3)))


class Looping(nn.Module):
    """Runs its block until the sum is small: how often depends on the values."""

    def __init__(self) -> None:
        super().__init__()
        self.block = nn.Sequential(nn.Conv2d(3, 3, 3, padding=1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for _ in range(4):
            x = self.block(x) * 0.5
            if x.abs().max().item() < 0.2:
                break
        return x


@torch._dynamo.disable
def through_numpy(x: torch.Tensor) -> torch.Tensor:
    return torch.from_numpy(np.flip(x.numpy(), axis=-1).copy())


class ThirdParty(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(through_numpy(self.before(x).relu()))


def make(kind: type[nn.Module], seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return kind().eval()


def images(count: int = 4, shift: float = 0.0, seed: int = 1, size: int = SIZE) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, size, size, generator=generator) + shift


def quantized(
    model: nn.Module, *batches: torch.Tensor, strict: bool = True
) -> pyquant.CompiledModel:
    quantizer = pyquant.CompiledQuantizer(model, strict=strict)
    with torch.no_grad():
        for batch in batches:
            torch.testing.assert_close(quantizer(batch), model(batch))
    return quantizer.convert()


def check_close(model: nn.Module, q: nn.Module, x: torch.Tensor, at_least: float = 25.0) -> None:
    with torch.no_grad():
        expected = model(x)
        actual = q(x)
    assert not torch.equal(actual, expected), "it is not quantized"
    assert sqnr(expected, actual) > at_least


def test_a_whole_graph_is_the_model_that_quantize_makes() -> None:
    model, x = make(Plain), images()

    q = quantized(model, x)

    expected = pyquant.quantize(model, x, [x], progress=False)
    assert torch.equal(q(x), expected(x))
    assert q.report().int8_share == 1.0


def test_both_branches_are_int8_if_both_are_calibrated() -> None:
    model, bright, dark = make(Branching), images(shift=1.0), images(shift=-1.0)
    with pytest.raises(CaptureError):
        pyquant.quantize(model, bright, [bright])

    q = quantized(model, bright, dark)

    check_close(model, q, bright)
    check_close(model, q, dark)
    report = q.report()
    assert report.int8_share == 1.0
    assert len(report.subgraphs) == 3
    assert [entry.calls for entry in report.subgraphs] == [4, 2, 2]
    assert len(q._session.graphs) == 3  # nothing is compiled a second time
    assert report.graph_breaks
    assert "test_compile.py" in report.subgraphs[0].location
    assert "100.0% of the multiply-adds run in int8" in str(report)


def test_a_branch_that_no_calibration_took_stays_float_and_is_reported() -> None:
    model, bright, dark = make(Branching), images(shift=1.0), images(shift=-1.0)

    q = quantized(model, bright)

    check_close(model, q, bright)
    check_close(model, q, dark)  # its stem is int8
    stayed = [entry for entry in q.report().subgraphs if entry.state == "float"]
    assert [entry.reason for entry in stayed] == ["no calibration call took this path"]
    assert stayed[0].calls == 1
    assert "because no calibration call took this path" in str(q.report())


def test_a_loop_runs_its_block_in_int8_however_often() -> None:
    model = make(Looping)
    long, short = images(shift=2.0), images() * 1e-3

    q = quantized(model, long, short)

    check_close(model, q, long)
    assert sqnr(model(images(seed=5)).detach(), q(images(seed=5))) > 20


def test_third_party_code_runs_between_int8_subgraphs() -> None:
    model, x = make(ThirdParty), images()

    q = quantized(model, x)

    check_close(model, q, x)
    assert q.report().int8_share == 1.0
    assert len([entry for entry in q.report().subgraphs if entry.state == "int8"]) == 2


@pytest.mark.parametrize("size", [1, 7])
def test_another_batch_size_runs_the_same_programs(size: int) -> None:
    model, x = make(Branching), images(shift=1.0)
    q = quantized(model, x)

    other = images(size, shift=1.0, seed=3)

    check_close(model, q, other)
    assert torch.equal(q(torch.cat([other[:1], x])), torch.cat([q(other[:1]), q(x)]))
    assert all(entry.state == "int8" for entry in q.report().subgraphs)


class Viewing(nn.Module):
    """Spells its sizes out."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, padding=1)
        self.next = nn.Conv2d(16, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu()
        n, c, h, w = y.shape
        y = y.view(n, c, h // 2, 2, w).transpose(2, 3).reshape(n, c * 2, h // 2, w)
        return self.next(y)


def test_other_sizes_take_the_ranges_that_are_known() -> None:
    model, x = make(Viewing), images()
    q = quantized(model, x)

    for other in (images(2, size=12), images(3, size=6), images(1)):
        check_close(model, q, other, at_least=20)
    (entry,) = q.report().subgraphs
    assert entry.state == "int8"
    assert entry.observed == 1


class Cutting(nn.Module):
    """Reads from the end of the image and of the batch."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x).relu()[-2:, :, :, 1:-1]


def test_slices_from_the_end_follow_the_sizes() -> None:
    model, x = make(Cutting), images()
    q = quantized(model, x)

    for other in (images(4, size=12), images(6), images(3)):
        check_close(model, q, other, at_least=20)


def test_two_instances_of_a_class_do_not_mix() -> None:
    first, second, x = make(Branching, 0), make(Branching, 1), images(shift=1.0)

    q = quantized(first, x)
    other = quantized(second, x * 3)

    check_close(first, q, x)
    check_close(second, other, x * 3)
    assert sqnr(q(x), other(x)) < 10


class Twice(nn.Module):
    """Two modules of one class, between graph breaks: dynamo has one graph for both."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(nn.Sequential(nn.Conv2d(3, 3, 3, padding=1)) for _ in range(2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            torch._dynamo.graph_break()
            x = block(x) * 3
        return x


def test_modules_that_share_a_graph_keep_their_own_weights_and_ranges() -> None:
    model, x = make(Twice), images()

    q = quantized(model, x)

    check_close(model, q, x)
    assert q.report().int8_share == 1.0


def test_changed_weights_are_not_served_by_the_old_program() -> None:
    model, x = make(Branching), images(shift=1.0)
    q = quantized(model, x)
    q(x)

    with torch.no_grad():
        model.head.weight.mul_(-2)

    assert sqnr(model(x).detach(), q(x)) > 25


def test_an_empty_batch_is_no_harm() -> None:
    model, x = make(Plain), images()
    q = quantized(model, x)
    before = q(x)

    assert q(x[:0]).shape == (0, 5)
    assert torch.equal(q(x), before)
    assert q.report().subgraphs[0].state == "int8"


@pytest.mark.parametrize("stubborn", [False, True])
def test_a_program_that_refuses_a_batch_size_is_replaced(
    stubborn: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ProgramModule.forward

    def refuse(self: ProgramModule, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        made_for = self.program.tensors[self.program.inputs[0]].shape[0]
        if inputs[0].shape[0] != made_for or (stubborn and made_for == 7):
            raise InvalidInputError("not this batch size")
        return run(self, *inputs)

    model, x = make(Plain), images()
    q = quantized(model, x)
    monkeypatch.setattr(ProgramModule, "forward", refuse)

    y = q(images(7))

    assert torch.equal(y, model(images(7))) == stubborn
    assert sqnr(model(images(7)).detach(), y) > 25
    reasons = {entry.reason for entry in q.report().subgraphs}
    assert ("not this batch size" in reasons) == stubborn


@torch.library.custom_op("pyquant_tests::scaled_tanh", mutates_args=())
def scaled_tanh(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.tanh(x) * weight.float() / 127


@scaled_tanh.register_fake
def _(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    return torch.empty_like(x)


class Foreign(nn.Module):
    """With a layer that is quantized already, as an operator of its own with int8 weights."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.Conv2d(3, 8, 3, padding=1)
        self.after = nn.Conv2d(8, 4, 3, padding=1)
        self.register_buffer("weight", torch.arange(1, 9, dtype=torch.int8).view(8, 1, 1) * 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.after(scaled_tanh(self.before(x), self.weight))


def test_custom_operators_stay_between_programs() -> None:
    model, x = make(Foreign), images()

    q = quantized(model, x)

    check_close(model, q, x)
    (entry,) = q.report().subgraphs
    assert entry.int8_macs == entry.macs
    assert [stayed.target for stayed in entry.float_operators] == [
        "pyquant_tests.scaled_tanh.default"
    ]


class Writing(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.register_buffer("calls", torch.zeros(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        x[:, 0] = 0.0
        return self.conv(x)


def test_what_writes_into_its_inputs_stays_float() -> None:
    model, x = make(Writing), images()
    quantizer = pyquant.CompiledQuantizer(model)
    quantizer(x.clone())
    quantizer(x.clone())
    q = quantizer.convert()

    given = x.clone()
    y = q(given)

    assert float(model.calls) == 3
    assert not given[:, 0].any()
    assert torch.equal(y, model.conv(given))
    assert {entry.reason for entry in q.report().subgraphs} == {"it writes into its inputs"}


class ManyOutputs(nn.Module):
    """Hands on an input, numbers and integers, over a graph break."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 1)
        self.index = nn.Embedding(10, 4)

    def forward(self, x: torch.Tensor, rows: torch.Tensor, scale: int = 2) -> dict[str, object]:
        y = self.conv(x).relu()
        size = x.shape[0] * scale
        chosen = self.index(rows)
        torch._dynamo.graph_break()
        return {"sum": self.conv(x * scale) + y, "size": size, "x": x, "rows": (rows + 1, chosen)}


def test_outputs_of_all_kinds_come_back() -> None:
    model, x, rows = make(ManyOutputs), images(), torch.tensor([[1, 2], [3, 4]])
    quantizer = pyquant.CompiledQuantizer(model, strict=True)
    quantizer(x, rows, scale=3)
    q = quantizer.convert()

    for batch in (x, images(6), images(5)):
        actual, expected = q(batch, rows, scale=3), model(batch, rows, scale=3)
        assert actual["size"] == expected["size"]
        assert actual["x"] is batch
        assert torch.equal(actual["rows"][0], rows + 1)
        assert torch.equal(actual["rows"][1], expected["rows"][1])
        assert sqnr(expected["sum"].detach(), actual["sum"]) > 25


def test_inference_mode_works_in_either_phase() -> None:
    model, x = make(Branching), images(shift=1.0)
    quantizer = pyquant.CompiledQuantizer(model, strict=True)
    with torch.inference_mode():
        quantizer(x)
        quantizer(images(shift=1.0))
    quantizer(x)
    q = quantizer.convert()

    with torch.inference_mode():
        inside = q(x)
    assert torch.equal(inside, q(x))


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv1d(2, 8, 8, 4)
        self.lstm = nn.LSTM(8, 8, bidirectional=True, num_layers=2)
        self.out = nn.Conv1d(16, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv(x).relu().permute(2, 0, 1)
        return self.out(self.lstm(y)[0].permute(1, 2, 0))


def test_an_lstm_stays_float_and_counts_as_such() -> None:
    model, x = make(Recurrent), torch.randn(2, 2, 84)

    q = quantized(model, x)

    check_close(model, q, x)
    steps = 20
    convolutions = steps * 2 * (8 * 2 * 8 + 2 * 16)
    lstm = steps * 2 * 2 * (4 * 8 * (8 + 8) + 4 * 8 * (16 + 8))
    report = q.report()
    assert report.macs == convolutions + lstm
    assert report.int8_share == pytest.approx(convolutions / (convolutions + lstm))
    assert any("lstm" in stayed.target for stayed in report.subgraphs[0].float_operators)


def test_the_backend_is_installed_and_converts_by_itself() -> None:
    model, x = make(Branching), images(shift=1.0)
    assert "pyquant" in torch._dynamo.list_backends()
    compiled = torch.compile(model, backend="pyquant", options={"calibration_steps": 2})

    with torch.no_grad():
        for _ in range(2):
            torch.testing.assert_close(compiled(x), model(x))
            states = {entry.state for entry in pyquant.compile_report(compiled).subgraphs}
        assert states == {"int8"}
        check_close(model, compiled, x)
        other = images(shift=-1.0)  # a new path is calibrated when it comes
        compiled(other)
    states = {entry.state for entry in pyquant.compile_report(model).subgraphs}
    assert states == {"int8", "observing"}
    assert pyquant.compile_report(make(Branching, 2)).subgraphs == ()


def test_one_step_and_two_steps_make_the_same_model() -> None:
    model, x = make(ThirdParty), images()
    compiled = torch.compile(model, backend="pyquant", options={"calibration_steps": 1})
    with torch.no_grad():
        compiled(x)
        one = compiled(x)

    assert torch.equal(one, quantized(model, x)(x))


def test_gradients_are_not_lost_silently() -> None:
    model, x = make(Branching), images(shift=1.0)
    compiled = torch.compile(model, backend="pyquant")

    with pytest.warns(UserWarning, match="runs in float: gradients are recorded"):
        y = compiled(x)

    y.sum().backward()
    assert model.stem.weight.grad is not None


def test_nan_in_calibration_is_an_error_and_leaves_no_trace() -> None:
    model, x = make(Branching), images(shift=1.0)
    quantizer = pyquant.CompiledQuantizer(model)
    quantizer(x)
    bad = x.clone()
    bad[0, 0, 0, 0] = torch.nan

    with pytest.raises(CalibrationError, match=r"test_compile.py.*NaN or infinite values"):
        quantizer(bad)

    q = quantizer.convert()
    assert torch.equal(q(x), quantized(model, x)(x))


def test_what_cannot_be_lowered_stays_float_unless_strict(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **kwargs: object) -> None:
        raise QuantizationError("not today")

    model, x = make(Branching), images(shift=1.0)
    monkeypatch.setattr("pyquant.compile.subgraph.convert", refuse)

    q = quantized(model, x, strict=False)

    assert torch.equal(q(x), model(x))
    assert {entry.reason for entry in q.report().subgraphs} == {"not today"}
    torch._dynamo.reset()
    with pytest.raises(QuantizationError, match="not today"):
        quantized(model, x, strict=True)


def test_named_modules_stay_float_in_whichever_subgraph_they_are() -> None:
    model, x = make(Branching), images(shift=1.0)
    config = pyquant.QuantizationConfig(keep_float=("bright", "linear"))
    quantizer = pyquant.CompiledQuantizer(model, config, strict=True)
    quantizer(x)
    q = quantizer.convert()

    check_close(model, q, x)  # its stem is int8
    first, second = q.report().subgraphs
    assert first.int8_macs == first.macs > 0
    assert (second.state, second.reason) == ("float", "keep_float names all of its layers")

    config = pyquant.QuantizationConfig(keep_float=("brihgt",))
    quantizer = pyquant.CompiledQuantizer(model, config)
    quantizer(x)
    with pytest.raises(QuantizationError, match="keep_float names 'brihgt'"):
        quantizer.convert()


@pytest.mark.parametrize(
    ("make_quantizer", "error", "message"),
    [
        (lambda: pyquant.CompiledQuantizer(Plain()), CaptureError, "model.eval"),
        (lambda: pyquant.CompiledQuantizer(len), CaptureError, "expected a torch.nn.Module"),
        (lambda: pyquant.CompiledQuantizer(make(Plain)).convert(), CalibrationError, "call the"),
        (lambda: CompileOptions(calibration_steps=0), QuantizationError, "at least 1"),
        (lambda: CompileOptions(config="fast"), QuantizationError, "QuantizationConfig"),
        (
            lambda: CompileOptions(config=pyquant.QuantizationConfig(adaround=True)),
            QuantizationError,
            "AdaRound",
        ),
        (lambda: backend(None, (), options={"steps": 3}), QuantizationError, "no option 'steps'"),
    ],
)
def test_wrong_use_has_a_clear_error(make_quantizer, error, message) -> None:
    with pytest.raises(error, match=message):
        make_quantizer()


def test_a_graph_without_weights_is_left_alone() -> None:
    session = Session(CompileOptions())
    compiled = torch.compile(lambda x: (x * 2).relu() + x, backend=session)

    compiled(images())

    assert not session.graphs


def test_a_model_that_goes_takes_its_subgraphs_along() -> None:
    q = quantized(make(Branching), images(shift=1.0))
    session = q._session
    assert len(session._subgraphs) == 2

    del q
    gc.collect()

    assert not session._subgraphs
