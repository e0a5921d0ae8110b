"""``pyquant.quantize_modules``: chosen submodules of models that cannot be exported."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

import pyquant
from pyquant.errors import CalibrationError, CaptureError, InvalidInputError, QuantizationError


def block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU())


class Scaled(nn.Module):
    """Takes a keyword, a number and a list, returns a tuple."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 1)

    def forward(self, pair: list[Tensor], factor: float, *, bias: Tensor) -> tuple[Tensor, Tensor]:
        y = self.conv(pair[0] + pair[1])
        return y * factor, y + bias


class Branchy(nn.Module):
    """Branches on data, calls one submodule several times and one with all kinds of arguments."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = block(3, 8)
        self.blocks = nn.ModuleList([block(8, 8), block(8, 8)])
        self.scaled = Scaled()
        self.unused = nn.Linear(4, 4)
        self.head = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        if float(y.mean()) > 1e3:
            y = y * 0
        for _ in range(2):
            y = self.blocks[0](y)
        y = self.blocks[1](y)
        a, b = self.scaled([y, y], 0.5, bias=y)
        return self.head((a + b).mean((2, 3)))


def sqnr(expected: Tensor, value: Tensor) -> float:
    return float(10 * torch.log10(expected.var() / (expected - value).var()))


NAMES = ("stem", "blocks.*", "scaled", "head")


def test_chosen_submodules_run_in_int8_and_the_rest_in_float() -> None:
    model, data = Branchy().train(), torch.randn(16, 3, 12, 12)
    result = pyquant.quantize_modules(model, NAMES, data)

    with pytest.raises(CaptureError):
        pyquant.quantize(model, data, data)
    assert isinstance(result.get_submodule("stem"), pyquant.QuantizedModule)
    assert isinstance(result.get_submodule("blocks.1"), pyquant.QuantizedModule)
    assert isinstance(result.unused, nn.Linear)
    assert isinstance(model.stem, nn.Sequential) and model.training
    assert not any(module._forward_pre_hooks for module in model.modules())
    assert sqnr(model(data), result(data)) > 25


def test_the_result_is_that_of_quantizing_the_submodule_on_its_inputs() -> None:
    model, data = Branchy().eval(), torch.randn(4, 3, 12, 12)
    result = pyquant.quantize_modules(model, "blocks.0", data)
    with torch.no_grad():
        first = model.stem(data)
        second = model.blocks[0](first)
    alone = pyquant.quantize(model.blocks[0], first, [first, second])

    assert torch.equal(result.get_submodule("blocks.0")(first), alone(first))


def test_in_place_and_shared_modules() -> None:
    shared = block(4, 4)
    model = nn.Sequential(shared, nn.Conv2d(4, 4, 1), shared)
    result = pyquant.quantize_modules(model, ["0"], torch.randn(4, 4, 8, 8), inplace=True)

    assert result is model
    assert result[0] is result[2]
    assert isinstance(result[0], pyquant.QuantizedModule)


@pytest.mark.parametrize("form", ["list", "tuples", "dicts", "function"])
def test_forms_of_calibration_data(form: str) -> None:
    model, data = Branchy(), torch.randn(6, 3, 12, 12)
    batches = list(torch.split(data, 2))
    forms = {
        "list": batches,
        "tuples": [(batch,) for batch in batches],
        "dicts": iter([{"x": batch} for batch in batches]),
        "function": lambda net: [net(batch) for batch in batches],
    }
    result = pyquant.quantize_modules(model, "stem", forms[form])

    assert torch.equal(result(data), pyquant.quantize_modules(model, "stem", batches)(data))


def test_only_tensors_may_change_afterwards() -> None:
    model, data = Branchy(), torch.randn(4, 3, 12, 12)
    scaled = pyquant.quantize_modules(model, "scaled", data).scaled
    y = torch.randn(4, 8, 12, 12)

    assert isinstance(scaled([y, y], 0.5, bias=y), tuple)
    with pytest.raises(InvalidInputError, match=r"0\.25.*calibrated with.*0\.5"):
        scaled([y, y], 0.25, bias=y)


def test_a_changing_number_during_calibration() -> None:
    model = Scaled()

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = model

        def forward(self, x: Tensor) -> Tensor:
            return self.inner([x, x], 1.0, bias=x)[0] + self.inner([x, x], 2.0, bias=x)[0]

    with pytest.raises(CalibrationError, match=r"'inner': it is called with different.*2\.0"):
        pyquant.quantize_modules(Outer(), "inner", torch.randn(2, 8, 4, 4))


class Undecided(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x) if float(x.sum()) > 0 else x


def test_all_submodules_that_cannot_be_exported_are_named() -> None:
    model = nn.ModuleDict({"a": Undecided(), "b": nn.Conv2d(3, 3, 1), "c": Undecided()})
    model.forward = lambda x: model["c"](model["b"](model["a"](x)))  # type: ignore[method-assign]

    with pytest.raises(CaptureError, match=r"submodule 'a': (.|\n)*submodule 'c': ") as caught:
        pyquant.quantize_modules(model, "*", torch.rand(2, 3, 4, 4), inplace=True)
    assert "'b'" not in str(caught.value)
    assert isinstance(model["b"], nn.Conv2d)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("stem", "stem.0"), r"'stem\.0' is inside of 'stem'"),
        ("blokcs.*", r"no submodule matches 'blokcs\.\*'.*blocks"),
        ((), "empty"),
    ],
)
def test_names_that_cannot_be(names: str | tuple[str, ...], message: str) -> None:
    with pytest.raises(QuantizationError, match=message):
        pyquant.quantize_modules(Branchy(), names, torch.randn(2, 3, 12, 12))


def test_a_submodule_that_is_never_called() -> None:
    with pytest.raises(CalibrationError, match="never reached submodule 'unused'"):
        pyquant.quantize_modules(Branchy(), ("stem", "unused"), torch.randn(2, 3, 12, 12))


def test_bad_data() -> None:
    model = Branchy()

    with pytest.raises(CalibrationError, match="empty"):
        pyquant.quantize_modules(model, "stem", [])
    with pytest.raises(CalibrationError, match="batch 1 fails in the model"):
        pyquant.quantize_modules(
            model, "stem", [torch.randn(1, 3, 12, 12), torch.randn(1, 2, 12, 12)]
        )
    with pytest.raises(CalibrationError, match=r"submodule 'stem'.*NaN"):
        pyquant.quantize_modules(model, "stem", torch.full((1, 3, 12, 12), torch.nan))
