"""Music separation in int8: Demucs, a model with an LSTM, resampling and padding by length.

    pip install --no-deps demucs julius einops
    python examples/demucs_int8.py
    python examples/demucs_int8.py --channels 64 --seconds 4
    python examples/demucs_int8.py --float-lstm

The LSTM gets int8 weights first; convolutions and all else are quantized as dynamo captures them.
demucs needs no more than the three packages for this; with its dependencies it brings many.

The weights are random (no download), the music is synthetic: chords with overtones that fade. The
speed is that of real weights; the error is not, and random LSTMs add little to the output.
"""

from __future__ import annotations

import argparse
import importlib.util
import sys
import time
from collections.abc import Callable, Iterable

import torch
from torch import nn

import pyquant
from pyquant.analysis.sqnr import sqnr

RATE = 44100
PACKAGES = ("demucs", "julius", "einops")


def is_available() -> bool:
    """Whether the packages are installed."""
    return all(importlib.util.find_spec(package) is not None for package in PACKAGES)


def build_model(channels: int = 32, depth: int = 6, resample: bool = True) -> nn.Module:
    """The second version of Demucs: convolutions with gates, and an LSTM in the middle."""
    from demucs.demucs import Demucs

    torch.manual_seed(0)
    model: nn.Module = Demucs(
        ["drums", "bass", "other", "vocals"],
        channels=channels,
        depth=depth,
        lstm_layers=2,
        gelu=False,
        dconv_mode=0,
        norm_starts=depth,  # none
        resample=resample,
    )
    return model.eval()


def quantize(
    model: nn.Module, calibration_data: Iterable[torch.Tensor], float_lstm: bool = False
) -> pyquant.CompiledModel:
    """In int8, with or without its LSTM."""
    if not float_lstm:
        model = pyquant.quantize_dynamic(model, {nn.LSTM})
    quantizer = pyquant.CompiledQuantizer(model)
    for music in calibration_data:
        quantizer(music)
    return quantizer.convert()


def chords(seconds: float, seed: int) -> torch.Tensor:
    """Stereo music, float32 ``[1, 2, seconds * 44100]``, -1 to 1: a new chord every half second."""
    generator = torch.Generator().manual_seed(seed)
    length = int(seconds * RATE)
    at = torch.arange(length) / RATE
    since = at % 0.5  # the last chord
    music = 0.003 * torch.randn(2, length, generator=generator)
    for start in range(int(seconds * 2) + 1):
        playing = (at >= start * 0.5) & (at < start * 0.5 + 0.5)
        root = 55.0 * 2 ** (float(torch.randint(0, 24, (), generator=generator)) / 12)
        for interval in (0, 4, 7, 12):
            side = torch.rand(2, 1, generator=generator)
            for overtone in range(1, 7):
                frequency = root * 2 ** (interval / 12) * overtone
                tone = torch.sin(2 * torch.pi * frequency * at) / overtone
                music += side * tone * torch.exp(-since * (2 + overtone)) * playing
    return (music / music.abs().max()).unsqueeze(0)


def fastest(functions: list[Callable[[], object]], rounds: int) -> list[float]:
    """The shortest time of each, in seconds; they take turns."""
    best = [float("inf")] * len(functions)
    for _ in range(rounds):
        for index, function in enumerate(functions):
            start = time.perf_counter()
            function()
            best[index] = min(best[index], time.perf_counter() - start)
    return best


def main() -> None:
    """Calibrates on some music, and compares int8 with float on other music."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--channels", type=int, default=32, help="of the first layer (Demucs: 64)")
    parser.add_argument("--depth", type=int, default=6, help="layers down, and up again")
    parser.add_argument("--seconds", type=float, default=2.0, help="of music at once")
    parser.add_argument("--calls", type=int, default=3, help="of calibration")
    parser.add_argument("--rounds", type=int, default=5, help="of timing")
    parser.add_argument("--float-lstm", action="store_true", help="leave the LSTM in float32")
    options = parser.parse_args()
    if not is_available():
        sys.exit(f"skipped: this needs pip install --no-deps {' '.join(PACKAGES)}")

    model = build_model(options.channels, options.depth)
    data = (chords(options.seconds, seed) for seed in range(options.calls))
    q = quantize(model, data, options.float_lstm)

    music = chords(options.seconds, seed=1000)
    with torch.no_grad():
        error = sqnr(model(music), q(music))
        float_time, int8_time = fastest([lambda: model(music), lambda: q(music)], options.rounds)
    report = q.report()
    print(report)
    print(
        f"\nMACs in int8: {report.int8_share:.1%}; SQNR {error:.1f} dB; "
        f"{int8_time * 1e3:.0f} ms, float {float_time * 1e3:.0f} ms: "
        f"{float_time / int8_time:.2f} times as fast"
    )


if __name__ == "__main__":
    main()
