"""The extractor on random weights, and a tiny one for everything that needs no real network."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gancli.metrics.extractor import Inception
from gancli.metrics.images import ImageSet


@pytest.fixture(scope="session")
def inception(weights_file: Path) -> Inception:
    """The extractor on those weights."""
    return Inception(str(weights_file))


class Tiny:
    """Features are the image's first `dim` bytes; logits are 100 times the features.

    It takes Inception's name, so that results bear the plain words.
    """

    name = "inception"
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
        """What it is."""
        return {"extractor": self.name}

    def notes(self) -> list[str]:
        """None."""
        return []


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
