"""Makes bundles of the benchmarks' networks, for ``pyquant arm64`` to run.

    python tools/arm64_bundles.py OUTPUT mobilenet_v2 shufflenet_v2_x0_5

Calibrated on few samples: it is about the same numbers everywhere, not about good ones. Beside each
bundle lies a file of further samples (of photos where the network has real weights).
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

import pyquant
from pyquant import mobile

ROOT = Path(__file__).resolve().parent.parent
CALIBRATION, SAMPLES = 8, 40


def main(output: Path, *names: str) -> None:
    """Writes ``OUTPUT/NAME`` and ``OUTPUT/NAME.npy`` for each network."""
    sys.path.append(str(ROOT))  # behind the installed pyquant
    networks = importlib.import_module("benchmarks.networks")
    output.mkdir(parents=True, exist_ok=True)
    for name in names:
        inputs = networks.samples(name, SAMPLES, seed=2)
        calibration = networks.samples(name, CALIBRATION, seed=1)
        model = pyquant.quantize(networks.build(name), inputs[:1], calibration, progress=False)
        mobile.export(model, output / name, example_inputs=inputs[:1])
        np.save(output / f"{name}.npy", inputs.numpy())


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:])
