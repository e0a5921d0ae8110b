"""``torch.compile(model, backend="pyquant")``, and what is wrong use of either form."""

from __future__ import annotations

import pytest
import torch
from compiled_nets import Branching, Plain, ThirdParty, check_close, images, make, quantized

import pyquant
from pyquant.compile import CompileOptions, backend
from pyquant.compile.session import Session
from pyquant.errors import CalibrationError, CaptureError, QuantizationError

pytestmark = pytest.mark.usefixtures("fresh_dynamo")


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


def test_a_graph_without_weights_is_left_alone() -> None:
    session = Session(CompileOptions())
    compiled = torch.compile(lambda x: (x * 2).relu() + x, backend=session)

    compiled(images())

    assert not session.graphs


def test_nan_in_calibration_is_an_error_and_leaves_no_trace() -> None:
    model, x = make(Branching), images(shift=1.0)
    quantizer = pyquant.CompiledQuantizer(model)
    quantizer(x)
    bad = x.clone()
    bad[0, 0, 0, 0] = torch.nan

    with pytest.raises(CalibrationError, match=r"compiled_nets.py.*NaN or infinite values"):
        quantizer(bad)

    q = quantizer.convert()
    assert torch.equal(q(x), quantized(model, x)(x))


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
