"""Quantization in training in two processes under DistributedDataParallel."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.distributed
import torch.multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import pyquant


def build() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 36, 3)
    )


def batch(step: int, rank: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(2 * step + rank)
    return torch.randn(4, 3, 8, 8, generator=generator) * (1 + rank)


def train(rank: int, folder: str) -> None:
    torch.distributed.init_process_group(
        "gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2
    )
    results = {}
    for learned in (False, True):
        config = pyquant.QatConfig(averaging_constant=0.5, learned_step_size=learned)
        prepared = pyquant.prepare_qat(build(), batch(0, 0), config)
        model = DistributedDataParallel(prepared)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        for step in range(3):
            model(batch(step, rank)).square().mean().backward()
            optimizer.step()
            optimizer.zero_grad()
        # The statistics of batch norms differ until DDP sends those of the first process around.
        state = prepared.state_dict()
        results[learned] = {k: v for k, v in state.items() if "running_" not in k}
        x = batch(4, rank)
        assert torch.equal(pyquant.convert(model)(x), pyquant.convert(prepared)(x))
    torch.save(results, f"{folder}/{rank}.pt")
    torch.distributed.destroy_process_group()


def test_ranges_and_learned_scales_are_the_same_in_all_processes(tmp_path: Path) -> None:
    torch.multiprocessing.spawn(train, (str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{rank}.pt") for rank in range(2))

    for learned in (False, True):
        for name, value in first[learned].items():
            # Folded weights follow the statistics of batch norms, too.
            if learned or "weight_fake_quantize" not in name:
                assert torch.equal(value, second[learned][name]), name
    low = torch.tensor(torch.inf)
    for step in range(3):
        seen = torch.stack([batch(step, rank) for rank in range(2)]).min()
        low = seen if step == 0 else low + 0.5 * (seen - low)
    assert torch.equal(first[False]["activation_post_process_0.min_val"], low)
