"""A word-level LSTM language model, trained here, then quantized dynamically.

    python examples/word_language_model.py
    python examples/word_language_model.py --text book.txt --hidden 650 --seconds 600

Without ``--text`` it learns the documentation of Python's standard library.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import importlib
import io
import math
import pydoc
import re
import time
from pathlib import Path

import torch
from torch import Tensor, nn

import pyquant
from pyquant import dynamic

MODULES = ("argparse", "collections", "json", "logging", "os", "pathlib", "random", "statistics")
STEPS = 32  # words of a training sequence


class LanguageModel(nn.Module):
    """Embedding, LSTM, and a linear layer that scores every word of the vocabulary."""

    def __init__(self, words: int, hidden: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(words, hidden)
        self.lstm = nn.LSTM(hidden, hidden, 2, dropout=0.2)
        self.decoder = nn.Linear(hidden, words)

    def forward(
        self, x: Tensor, states: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Word numbers ``[T, B]`` to scores ``[T, B, words]`` and the last states."""
        y, states = self.lstm(self.embedding(x), states)
        return self.decoder(y), states


def standard_library() -> str:
    """Text that is at hand."""
    with contextlib.redirect_stdout(io.StringIO()):
        return "\n".join(
            pydoc.plain(pydoc.render_doc(importlib.import_module(name))) for name in MODULES
        )


def numbered(text: str, most: int) -> tuple[Tensor, int]:
    """The words of a text as numbers; rare ones are number 0. And how many numbers there are."""
    words = re.findall(r"\w+|[^\w\s]", text.lower())
    common = [word for word, _ in collections.Counter(words).most_common(most - 1)]
    numbers = {word: number for number, word in enumerate(common, 1)}
    return torch.tensor([numbers.get(word, 0) for word in words]), len(common) + 1


def train(model: LanguageModel, data: Tensor, seconds: float, batch: int = 20) -> None:
    """Learns to predict the next word for so many seconds."""
    columns = data[: len(data) // batch * batch].reshape(batch, -1).t()
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    end = time.monotonic() + seconds
    model.train()
    while time.monotonic() < end:
        states = None
        for begin in range(0, len(columns) - STEPS - 1, STEPS):
            x, target = columns[begin : begin + STEPS], columns[begin + 1 : begin + STEPS + 1]
            scores, states = model(x, states)
            states = (states[0].detach(), states[1].detach())
            loss = nn.functional.cross_entropy(scores.flatten(0, 1), target.flatten())
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            if time.monotonic() > end:
                break
    model.eval()


@torch.inference_mode()
def perplexity(model: nn.Module, data: Tensor) -> float:
    """exp of the mean cross-entropy of the next word."""
    scores, _ = model(data[:-1].unsqueeze(1))
    return math.exp(nn.functional.cross_entropy(scores.squeeze(1), data[1:]).item())


@torch.inference_mode()
def milliseconds_per_word(model: nn.Module, data: Tensor, words: int) -> float:
    """The fastest of so many words, one at a time, as text is generated."""
    states, taken = None, []
    for word in data[:words]:
        start = time.perf_counter()
        _, states = model(word.reshape(1, 1), states)
        taken.append(time.perf_counter() - start)
    return 1000 * min(taken)


def megabytes(model: nn.Module) -> float:
    """Of the saved weights."""
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return len(file.getvalue()) / 1e6


def main() -> None:
    """Trains, quantizes, and prints what it cost and what it gave."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--text", type=Path, help="a text file to learn")
    parser.add_argument("--seconds", type=float, default=30.0, help="of training")
    parser.add_argument("--hidden", type=int, default=256, help="width of the model")
    parser.add_argument("--words", type=int, default=5000, help="of the vocabulary, at most")
    options = parser.parse_args()

    torch.manual_seed(0)
    text = options.text.read_text() if options.text else standard_library()
    data, words = numbered(text, options.words)
    held_out = max(len(data) // 10, 2)
    model = LanguageModel(words, options.hidden)
    train(model, data[:-held_out], options.seconds)

    quantized = pyquant.quantize_dynamic(model)
    print(dynamic.report(quantized))
    print(f"\n{'':8}{'perplexity':>12}{'MB':>10}{'ms per word':>14}")
    for name, variant in (("float32", model), ("int8", quantized)):
        row = (perplexity(variant, data[-held_out:]), megabytes(variant))
        latency = milliseconds_per_word(variant, data, 200)
        print(f"{name:8}{row[0]:12.2f}{row[1]:10.2f}{latency:14.3f}")


if __name__ == "__main__":
    main()
