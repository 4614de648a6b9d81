"""Numbers move as they should when images get worse: on few images and a small random network."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.data.embedded import emoji
from gancli.metrics.extractor import Extractor, Frozen
from gancli.pretrained import tiny
from tests.bench import robustness
from tests.bench.degradations import KINDS, table


class RandomConvolutions:
    """32 random filters, rectified and averaged over quarters of the image."""

    name = "inception"  # so that results bear the plain words
    dim, classes, batch_size = 128, 0, 100

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(0)
        self.filters = torch.randn(32, 1, 5, 5, generator=generator) / 5

    def to(self, device: torch.device | str) -> None:
        """It stays."""

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, 28, 28] -> float32 [B, 128]."""
        answers = F.conv2d(images[:, :1].float() / 128 - 1, self.filters).relu()
        return F.adaptive_avg_pool2d(answers, 2).flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        """It has none."""
        raise NotImplementedError

    def protocol(self) -> dict[str, Any]:
        """Its name."""
        return {"extractor": self.name}

    def notes(self) -> list[str]:
        """None."""
        return []


@pytest.fixture(scope="module")
def found() -> dict[str, dict[str, float]]:
    """Every degradation of 300 images."""
    extractor: Extractor = RandomConvolutions()
    return table(extractor, 300)


@pytest.mark.parametrize("kind", KINDS)
def test_fid_and_kid_rise_with_the_strength(found: dict[str, dict[str, float]], kind: str) -> None:
    steps = [found["nothing"], *(values for name, values in found.items() if name.startswith(kind))]
    assert len(steps) == 4
    for key in ("fid", "kid"):
        numbers = [step[key] for step in steps]
        assert numbers == sorted(numbers)
        assert numbers[-1] > 5 * numbers[0]


def test_recall_falls_with_mode_dropping(found: dict[str, dict[str, float]]) -> None:
    steps = [found["nothing"], *(values for name, values in found.items() if name.startswith("classes left"))]
    recalls = [step["recall"] for step in steps]
    assert recalls == sorted(recalls, reverse=True)
    assert recalls[-1] < 0.6 * recalls[0]


def test_an_attack_moves_features_further_than_noise_within_the_same_levels() -> None:
    images = emoji(size=16).rows(np.arange(6))["x"]
    judge = Frozen(tiny.random())
    before = judge.features(images)
    for levels in (1, 2):
        coin, moved = robustness.signs(images, levels), robustness.attacked(images, judge, levels, 4)
        for changed in (coin, moved):
            assert changed.dtype == torch.uint8
            assert 0 < (changed.int() - images.int()).abs().max() <= levels
        further = (judge.features(moved) - before).norm(dim=1) / (judge.features(coin) - before).norm(dim=1)
        assert further.min() > 1
        assert robustness.psnr(images, moved) >= 10 * math.log10(255**2 / levels**2) - 1e-9
