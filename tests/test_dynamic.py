"""pyquant.quantize_dynamic: what it replaces, and that the replacements compute the same."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pack_sequence
from torch.utils.flop_counter import FlopCounterMode

import pyquant
from pyquant import dynamic
from pyquant.analysis.sqnr import sqnr
from pyquant.errors import InvalidInputError, QuantizationError, UnsupportedError

EXAMPLE = Path(__file__).parent.parent / "examples" / "word_language_model.py"


def seeded(build: Callable[[], nn.Module]) -> nn.Module:
    torch.manual_seed(0)
    return build().eval()


def tensors(output: Any) -> list[Tensor]:
    leaves = torch.utils._pytree.tree_leaves(output)
    return [leaf for leaf in leaves if isinstance(leaf, Tensor)]


def randn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1))


def ids(*shape: int) -> Tensor:
    return torch.randint(0, 30, shape, generator=torch.Generator().manual_seed(1))


class Unflattened(nn.LSTM):
    """Something derived from a supported type."""


Case = tuple[Callable[[], nn.Module], Callable[[], tuple[Any, ...]]]
CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(70, 33), lambda: (randn(4, 5, 70),)),
    "linear, 1-d": (lambda: nn.Linear(7, 3, bias=False), lambda: (randn(7),)),
    "linear, one input": (lambda: nn.Linear(1, 5), lambda: (randn(3, 1),)),
    "lstm": (lambda: nn.LSTM(20, 30, 2), lambda: (randn(6, 3, 20),)),
    "lstm, both ways": (
        lambda: nn.LSTM(20, 17, 2, bidirectional=True, batch_first=True),
        lambda: (randn(3, 6, 20), (randn(4, 3, 17), randn(4, 3, 17))),
    ),
    "lstm, projections": (
        lambda: nn.LSTM(20, 30, 2, proj_size=9, bidirectional=True, bias=False),
        lambda: (randn(6, 3, 20), (randn(4, 3, 9), randn(4, 3, 30))),
    ),
    "lstm, one sequence": (
        lambda: nn.LSTM(20, 30, batch_first=True, dropout=0.0),
        lambda: (randn(6, 20), (randn(1, 30), randn(1, 30))),
    ),
    "lstm, packed": (
        lambda: nn.LSTM(20, 30, 2, bidirectional=True),
        lambda: (
            pack_sequence([randn(2, 20), randn(5, 20), randn(1, 20)], enforce_sorted=False),
            (randn(4, 3, 30), randn(4, 3, 30)),
        ),
    ),
    "gru": (lambda: nn.GRU(20, 30, 2), lambda: (randn(6, 3, 20), randn(2, 3, 30))),
    "gru, one sequence": (lambda: nn.GRU(20, 30), lambda: (randn(6, 20),)),
    "rnn": (lambda: nn.RNN(20, 30, bidirectional=True), lambda: (randn(6, 3, 20),)),
    "rnn, relu": (lambda: nn.RNN(20, 30, nonlinearity="relu"), lambda: (randn(6, 3, 20),)),
    "lstm cell": (
        lambda: nn.LSTMCell(20, 30),
        lambda: (randn(3, 20), (randn(3, 30), randn(3, 30))),
    ),
    "gru cell": (lambda: nn.GRUCell(20, 30), lambda: (randn(20), randn(30))),
    "rnn cell": (lambda: nn.RNNCell(20, 30, nonlinearity="relu"), lambda: (randn(3, 20),)),
    "conv1d": (
        lambda: nn.Conv1d(6, 8, 3, stride=2, padding=2, dilation=2, groups=2),
        lambda: (randn(2, 6, 15),),
    ),
    "conv1d, same": (
        lambda: nn.Conv1d(6, 8, 4, padding="same", padding_mode="circular", bias=False),
        lambda: (randn(6, 15),),
    ),
    "conv2d": (
        lambda: nn.Conv2d(6, 8, (3, 2), stride=(1, 2), padding=(2, 1), dilation=(2, 1)),
        lambda: (randn(2, 6, 9, 8),),
    ),
    "embedding": (lambda: nn.Embedding(30, 16, padding_idx=0), lambda: (ids(3, 4),)),
    "embedding bag": (
        lambda: nn.EmbeddingBag(30, 16, mode="sum", padding_idx=3),
        lambda: (ids(9), torch.tensor([0, 2, 2]), randn(9)),
    ),
    "embedding bag, 2-d": (
        lambda: nn.EmbeddingBag(30, 16, mode="mean"),
        lambda: (ids(3, 4),),
    ),
    "attention": (
        lambda: nn.MultiheadAttention(32, 4),
        lambda: (randn(5, 2, 32), randn(7, 2, 32), randn(7, 2, 32)),
    ),
    "attention, separate weights": (
        lambda: nn.MultiheadAttention(
            32, 4, kdim=20, vdim=12, batch_first=True, add_bias_kv=True, add_zero_attn=True
        ),
        lambda: (
            randn(2, 5, 32),
            randn(2, 7, 20),
            randn(2, 7, 12),
            torch.tensor([[False] * 5 + [True] * 2, [False] * 7]),
            True,
            torch.triu(torch.ones(5, 7, dtype=torch.bool), 3),
            False,
        ),
    ),
    "attention, no weights": (
        lambda: nn.MultiheadAttention(32, 4, bias=False),
        lambda: (
            randn(5, 32),
            randn(5, 32),
            randn(5, 32),
            None,
            False,
            torch.triu(torch.ones(5, 5, dtype=torch.bool), 1),
        ),
    ),
}


@pytest.fixture(params=list(CASES))
def case(request: pytest.FixtureRequest) -> tuple[nn.Module, tuple[Any, ...]]:
    build, inputs = CASES[request.param]
    return seeded(build), inputs()


@pytest.mark.filterwarnings("ignore:LSTM with projections")  # the float one says so
def test_every_layer_gives_what_the_float_one_gives(
    case: tuple[nn.Module, tuple[Any, ...]],
) -> None:
    model, inputs = case
    quantized = pyquant.quantize_dynamic(model)
    with torch.no_grad():
        expected, found = model(*inputs), quantized(*inputs)
    assert type(found) is type(expected)
    for a, b in zip(tensors(expected), tensors(found), strict=True):
        assert a.shape == b.shape and a.dtype == b.dtype
        if a.is_floating_point():
            assert sqnr(a, b) > 33
        else:
            assert torch.equal(a, b)
    assert isinstance(quantized, dynamic.DynamicModule)
    assert not isinstance(model, dynamic.DynamicModule)


def test_every_supported_type_has_a_case() -> None:
    tried = {type(build()) for build, _ in CASES.values()}
    assert tried == set(dynamic.DYNAMIC_MODULES)


def test_saved_and_copied_layers_give_the_same(
    case: tuple[nn.Module, tuple[Any, ...]],
) -> None:
    model, inputs = case
    quantized = pyquant.quantize_dynamic(model)
    expected = tensors(quantized(*inputs))
    file = io.BytesIO()
    torch.save(quantized, file)
    file.seek(0)
    other = pyquant.quantize_dynamic(_other(model))
    other(*inputs)
    other.load_state_dict(quantized.state_dict())
    copies = {
        "deepcopy": copy.deepcopy(quantized),
        "pickle": pickle.loads(pickle.dumps(quantized)),
        "torch.save": torch.load(file, weights_only=False),
        "state_dict": other,
    }
    for name, module in copies.items():
        for a, b in zip(expected, tensors(module(*inputs)), strict=True):
            assert torch.equal(a, b), name


def _other(model: nn.Module) -> nn.Module:
    """The same layer with other weights."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.mul_(-1.5)
    return other


@pytest.mark.parametrize("name", ["linear", "lstm, both ways", "gru", "lstm cell", "conv1d"])
def test_exported_and_compiled_layers_give_the_same(name: str) -> None:
    build, inputs = CASES[name]
    quantized, args = pyquant.quantize_dynamic(seeded(build)), inputs()
    expected = tensors(quantized(*args))
    exported = torch.export.export(quantized, args).module()
    compiled = torch.compile(quantized, backend="aot_eager", fullgraph=True)
    for module in (exported, compiled):
        with torch.no_grad():
            for a, b in zip(expected, tensors(module(*args)), strict=True):
                torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_sequences_of_a_batch_do_not_change_each_other() -> None:
    model = pyquant.quantize_dynamic(seeded(lambda: nn.LSTM(12, 20, 2, bidirectional=True)))
    lengths = [4, 7, 1]
    sequences = [randn(length, 12) * 3**i for i, length in enumerate(lengths)]
    padded = nn.utils.rnn.pad_sequence(sequences)
    output, (h, c) = model(pack_padded_sequence(padded, lengths, enforce_sorted=False))
    unpacked, _ = nn.utils.rnn.pad_packed_sequence(output)
    for i, sequence in enumerate(sequences):
        alone, (last_h, last_c) = model(sequence)
        assert torch.equal(unpacked[: lengths[i], i], alone)
        assert torch.equal(h[:, i], last_h) and torch.equal(c[:, i], last_c)


def test_rows_of_a_batch_do_not_change_each_other() -> None:
    linear = pyquant.quantize_dynamic(seeded(lambda: nn.Linear(50, 40)))
    x = randn(9, 50) * torch.logspace(-3, 3, 9)[:, None]
    assert torch.equal(linear(x)[4], linear(x[4]))


def test_empty_batches() -> None:
    assert pyquant.quantize_dynamic(nn.Linear(5, 3))(randn(0, 5)).shape == (0, 3)
    output, (h, _) = pyquant.quantize_dynamic(nn.LSTM(5, 3))(randn(4, 0, 5))
    assert output.shape == (4, 0, 3) and h.shape == (1, 0, 3)
    assert pyquant.quantize_dynamic(nn.Conv1d(5, 3, 2))(randn(0, 5, 7)).shape == (0, 3, 6)


def test_nan_stays_in_its_row_and_reaches_the_output() -> None:
    linear = pyquant.quantize_dynamic(seeded(lambda: nn.Linear(5, 3)))
    x = randn(3, 5)
    x[1, 2] = torch.nan
    assert linear(x).isnan().any(1).tolist() == [False, True, False]
    sequences = randn(4, 2, 5)
    sequences[2, 1, 0] = torch.inf
    for kind in (nn.LSTM, nn.GRU, nn.RNN):
        y = pyquant.quantize_dynamic(kind(5, 3))(sequences)[0]
        assert y.isnan().any(2).tolist() == [[False, False]] * 2 + [[False, True]] * 2


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_other_float_types_are_converted(dtype: torch.dtype) -> None:
    linear = pyquant.quantize_dynamic(seeded(lambda: nn.Linear(16, 8)))
    x = randn(3, 16).to(dtype)
    assert torch.equal(linear(x), linear(x.float()).to(dtype))
    lstm = pyquant.quantize_dynamic(seeded(lambda: nn.LSTM(16, 8)))
    assert torch.equal(lstm(x)[0], lstm(x.float())[0].to(dtype))
    assert sqnr(linear(x).float(), linear.to(dtype)(x).float()) > 20


def test_outputs_require_no_gradient() -> None:
    x = randn(3, 16).requires_grad_()
    for model in (nn.Linear(16, 8), nn.LSTM(16, 8)):
        assert not any(y.requires_grad for y in tensors(pyquant.quantize_dynamic(model)(x)))


@pytest.mark.parametrize("model", [nn.Linear(4, 2), nn.LSTM(4, 2), nn.GRUCell(4, 2)])
@pytest.mark.parametrize(
    "x", [torch.ones(2, 4, dtype=torch.int64), torch.ones(2, 4, device="meta"), torch.ones(2, 3)]
)
def test_wrong_inputs_are_refused(model: nn.Module, x: Tensor) -> None:
    with pytest.raises(InvalidInputError):
        pyquant.quantize_dynamic(model)(x)


def test_wrong_states_are_refused() -> None:
    lstm = pyquant.quantize_dynamic(nn.LSTM(4, 3))
    with pytest.raises(InvalidInputError, match="cell state is"):
        lstm(randn(2, 5, 4), (randn(1, 5, 3), randn(1, 4, 3)))
    with pytest.raises(InvalidInputError, match="at least one step"):
        lstm(randn(0, 5, 4))


class Model(nn.Module):
    """Layers of several kinds, one of them used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(30, 16)
        self.encoder = nn.Sequential(nn.Linear(16, 16), nn.ReLU(), nn.Linear(16, 16))
        self.rnn = nn.LSTM(16, 16)
        self.again = self.encoder[0]
        self.norm = nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.again(self.rnn(self.encoder(self.embedding(x)))[0]))  # type: ignore[no-any-return]


def int8_layers(model: nn.Module) -> list[str]:
    return [layer.name for layer in dynamic.report(model).layers if layer.int8]


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        (None, ["embedding", "encoder.0", "encoder.2", "rnn"]),
        ({nn.LSTM}, ["rnn"]),
        ({nn.Linear, "rnn"}, ["encoder.0", "encoder.2", "rnn"]),
        (["encoder"], ["encoder.0", "encoder.2"]),
        (["enc*.2"], ["encoder.2"]),
        (["?nn", "embedding"], ["embedding", "rnn"]),
    ],
)
def test_layers_are_chosen_by_type_and_by_name(layers: Any, expected: list[str]) -> None:
    model = seeded(Model)
    quantized = pyquant.quantize_dynamic(model, layers)
    assert int8_layers(quantized) == expected
    assert int8_layers(model) == []
    assert sqnr(model(ids(7, 2)), quantized(ids(7, 2))) > 30
    if "encoder.0" in expected and layers != ["encoder"]:
        assert quantized.again is quantized.encoder[0]


def test_in_place() -> None:
    model = seeded(Model)
    assert pyquant.quantize_dynamic(model, {nn.LSTM}, inplace=True) is model
    assert int8_layers(model) == ["rnn"]


@pytest.mark.parametrize(
    ("layers", "error", "match"),
    [
        ({nn.LayerNorm}, UnsupportedError, "does not support LayerNorm; it supports Linear, LSTM"),
        ({nn.GRU}, QuantizationError, "the model has no GRU"),
        ({"encodr"}, QuantizationError, "'encodr': did you mean 'encoder'"),
        ({"norm"}, UnsupportedError, "'norm' is LayerNorm"),
        (set(), QuantizationError, "no types and no names"),
        ("encoder", QuantizationError, "several names"),
    ],
)
def test_what_matches_nothing_is_refused(layers: Any, error: type[Exception], match: str) -> None:
    with pytest.raises(error, match=match):
        pyquant.quantize_dynamic(seeded(Model), layers)


def test_a_model_without_layers_is_refused() -> None:
    with pytest.raises(QuantizationError, match="no layer that"):
        pyquant.quantize_dynamic(nn.ReLU())
    with pytest.raises(QuantizationError, match="Unflattened is derived from it"):
        pyquant.quantize_dynamic(Unflattened(3, 4), {nn.LSTM})


def test_weights_that_are_not_finite_are_refused_by_name() -> None:
    model = seeded(Model)
    model.encoder[2].weight.data[3, 1] = torch.nan  # type: ignore[index, union-attr, operator]
    with pytest.raises(QuantizationError, match=r"Linear 'encoder.2'.*channel 3 has a NaN"):
        pyquant.quantize_dynamic(model)
    with pytest.raises(QuantizationError, match="max_norm"):
        pyquant.quantize_dynamic(nn.Embedding(4, 4, max_norm=1.0))


def test_the_report() -> None:
    found = dynamic.report(pyquant.quantize_dynamic(seeded(Model), {nn.LSTM}))
    by_name = {layer.name: layer for layer in found.layers}
    assert list(by_name) == ["embedding", "encoder.0", "encoder.2", "rnn", "norm"]
    rnn = by_name["rnn"]
    assert rnn.kind == "LSTM" and rnn.float_bytes == 4 * (2 * 64 * 16 + 2 * 64)
    assert rnn.bytes == 2 * 64 * 16 + 4 * 4 * 64
    assert by_name["norm"].bytes == by_name["norm"].float_bytes == 4 * 32
    assert "rnn" in str(found) and "all layers" in str(found)


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")  # of the float model
@pytest.mark.parametrize("layers", [None, {nn.Linear}, {nn.MultiheadAttention}])
@pytest.mark.parametrize("norm_first", [False, True])
def test_transformer_encoders_do_not_bypass_int8_layers(layers: Any, norm_first: bool) -> None:
    def build() -> nn.Module:
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True, norm_first=norm_first)
        return nn.TransformerEncoder(layer, 2, enable_nested_tensor=not norm_first)

    model = seeded(build)
    quantized = pyquant.quantize_dynamic(model, layers)
    padding = torch.tensor([[False] * 4 + [True] * 3, [False] * 7])
    for mask in (None, padding):
        for context in (torch.no_grad(), torch.enable_grad()):
            with context:
                expected = model(randn(2, 7, 32), src_key_padding_mask=mask)
                found = quantized(randn(2, 7, 32), src_key_padding_mask=mask)
            kept = slice(0, 4 if mask is not None else 7)
            assert 28 < sqnr(expected[:, kept], found[:, kept]) < 70


def test_threads_share_a_model() -> None:
    model = pyquant.quantize_dynamic(seeded(lambda: nn.LSTM(30, 40)))
    x = randn(20, 3, 30)
    expected = model(x)[0]
    found: list[bool] = []

    def run() -> None:
        found.extend(torch.equal(model(x)[0], expected) for _ in range(5))

    workers = [threading.Thread(target=run) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert found == [True] * 15


@pytest.mark.parametrize(
    ("build", "shape", "rows"),
    [
        (lambda: nn.Linear(5, 7), (2, 3, 5), 6),
        (lambda: nn.Conv1d(4, 6, 3, groups=2), (2, 4, 9), 14),
        (lambda: nn.LSTM(5, 8, 2, bidirectional=True, proj_size=3), (4, 2, 5), 8),
        (lambda: nn.GRU(5, 8, bias=False), (4, 5), 4),
        (lambda: nn.LSTMCell(5, 8), (3, 5), 3),
    ],
)
def test_flop_counters_see_the_layers(
    build: Callable[[], nn.Module], shape: tuple[int, ...], rows: int
) -> None:
    model, x = seeded(build), randn(*shape)
    quantized = pyquant.quantize_dynamic(model)

    with FlopCounterMode(display=False) as counter:
        watched = quantized(x)

    weights = sum(weight.numel() for weight in model.parameters() if weight.dim() > 1)
    assert counter.get_total_flops() == 2 * rows * weights
    for actual, expected in zip(tensors(watched), tensors(quantized(x)), strict=True):
        assert torch.equal(actual, expected)


def test_the_example_loses_little(tmp_path: Path) -> None:
    text = tmp_path / "text.txt"
    text.write_text("the cat sat on the mat , and the dog sat on the cat . " * 60)
    arguments = ["--text", str(text), "--seconds", "0.5", "--hidden", "32"]
    run = subprocess.run(
        [sys.executable, str(EXAMPLE), *arguments], capture_output=True, text=True, check=True
    )
    rows = {line.split()[0]: line.split()[1:] for line in run.stdout.splitlines() if line}
    perplexities, sizes = zip(
        *(map(float, rows[name][:2]) for name in ("float32", "int8")), strict=True
    )
    assert perplexities[1] == pytest.approx(perplexities[0], rel=0.02)
    assert sizes[1] < 0.5 * sizes[0]
    assert run.stderr == ""
