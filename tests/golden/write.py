"""Writes the golden files that are missing; what is there is never touched."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from programs import branching_net, fully_convolutional, repeating_net, small_net

import pyquant
from pyquant.ir import serialize

NETS = {
    "small_net": small_net,
    "branching_net": branching_net,
    "fully_convolutional": fully_convolutional,
    "repeating_net": repeating_net,
}


def main() -> None:
    """Programs of the present version, with an input and its outputs."""
    folder = Path(__file__).parent / f"v{serialize.PROGRAM_VERSION}"
    folder.mkdir(exist_ok=True)
    for name, make in NETS.items():
        path = folder / f"{name}.pyq"
        if path.exists():
            continue
        program = make()
        serialize.save(program, path)
        shape = program.tensors[program.inputs[0]].shape
        image = torch.randn(shape, generator=torch.Generator().manual_seed(1))
        outputs = pyquant.load(path, engine="reference")(image)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        np.savez_compressed(path.with_suffix(".npz"), *(v.numpy() for v in (image, *outputs)))


if __name__ == "__main__":
    main()
