"""Calibration shared out among processes; the result is that of one process, to the bit.

    torchrun --nproc-per-node 2 examples/distributed_calibration.py
    python examples/distributed_calibration.py

On several machines: torchrun's ``--nnodes``, ``--node-rank`` and ``--rdzv-endpoint``.
"""

from __future__ import annotations

import torch
import torch.distributed
from torch import nn

import pyquant

BATCHES = 8


def build_model() -> nn.Module:
    """The model, the same in every process."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 16, 3, padding=1),
        nn.ReLU6(),
        nn.Conv2d(16, 32, 3, stride=2, padding=1),
        nn.Hardswish(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(32, 10),
    ).eval()


def batch(index: int) -> torch.Tensor:
    """The data; a ``DataLoader`` with a ``DistributedSampler`` does as well."""
    return torch.randn(4, 3, 32, 32, generator=torch.Generator().manual_seed(index))


def main() -> None:
    """Calibrates with every process's share, merges, converts; prints a sum of the outputs."""
    rank, processes = 0, 1
    if torch.distributed.is_torchelastic_launched():
        torch.distributed.init_process_group("gloo")
        rank, processes = torch.distributed.get_rank(), torch.distributed.get_world_size()

    prepared = pyquant.prepare(build_model(), batch(0))
    share = [batch(index) for index in range(rank, BATCHES, processes)]
    pyquant.calibrate(prepared, share, progress=False)
    if processes > 1:
        pyquant.sync_observers(prepared)
    model = pyquant.lower(pyquant.convert(prepared))  # the same in all processes

    if rank == 0:
        print(f"processes: {processes}; sum of outputs: {model(batch(0)).sum().item()!r}")
    if processes > 1:
        torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main()
