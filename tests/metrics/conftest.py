"""An Inception with random weights, made once, and a tiny extractor for everything that needs no real network."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch_fidelity import FeatureExtractorInceptionV3

from gancli.metrics.extractor import Inception
from gancli.metrics.images import ImageSet


class _Untrained(FeatureExtractorInceptionV3):
    """torch-fidelity's network as constructed, whatever the file holds."""

    def load_state_dict(self, *args: Any, **kwargs: Any) -> None:
        return None


def _empty_file() -> io.BytesIO:
    file = io.BytesIO()
    torch.save({}, file)
    file.seek(0)
    return file


@pytest.fixture(scope="session")
def random_state() -> dict[str, Tensor]:
    """Weights that keep the size of the activations, so that features differ between images."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = _Untrained("untrained", ["2048"], feature_extractor_weights_path=_empty_file())
        for name, weight in net.named_parameters():
            if weight.dim() == 4:
                torch.nn.init.kaiming_normal_(weight)
            elif name == "fc.weight":
                torch.nn.init.normal_(weight, std=0.1)
    return dict(net.state_dict())


@pytest.fixture(scope="session")
def weights_file(random_state: dict[str, Tensor], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The random weights as a file."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(random_state, path)
    return path


@pytest.fixture(scope="session")
def inception(weights_file: Path) -> Inception:
    """The extractor on those weights."""
    return Inception(str(weights_file))


class Tiny:
    """Features are the image's first `dim` bytes; logits are 100 times the features."""

    name = "tiny"
    batch_size = 4

    def __init__(self, dim: int = 3, classes: int = 3):
        self.dim = dim
        self.classes = classes

    def to(self, device: torch.device | str) -> None:
        """It has no network."""

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> [B, dim]."""
        return images.flatten(1)[:, : self.dim].float()

    def logits(self, features: Tensor) -> Tensor:
        """[N, dim] -> [N, dim]."""
        return 100 * features

    def protocol(self) -> dict[str, Any]:
        """Its name."""
        return {"extractor": self.name}


@pytest.fixture
def tiny() -> Tiny:
    """A fresh one."""
    return Tiny()


@pytest.fixture
def image_set() -> Callable[..., ImageSet]:
    """Makes an ImageSet of a tensor, in chunks of 3."""

    def make(images: Tensor, **facts: Any) -> ImageSet:
        def chunks() -> Iterator[Tensor]:
            return iter(images.split(3))  # type: ignore[no-untyped-call]

        return ImageSet(len(images), tuple(images.shape[1:]), chunks, facts)

    return make
