"""A folder of few images of all kinds and sizes, and a recipe for it that takes a second."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.metrics.extractor import Extractor

# Colour, grey, with alpha and by palette.
MODES = ("RGB", "L", "RGBA", "P")
FEW = ["experiment=few_shot", "dataset.root=mixed", "device=cpu", "model.ch=4", "batch_size=4", "dataset.size=16"]
FEW += ["max_time=null", "pretrained=random", "model.D.ch=2", "model.D.resolution=64", "model.latent.dim=8"]
QUIET = ["observers.progress=null", "observers.report=null", "observers.grid=null", "observers.alarms=null"]
QUIET += ["observers.scores.every=2", "observers.scores.n=12", "observers.final.n=12"]


def mixed(folder: Path, count: int = 24) -> Path:
    """Write images of noise, smooth enough to differ from each other after pooling."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    for k in range(count):
        pixels = np.kron(rng.integers(0, 256, (4, 4, 4), np.uint8), np.ones((13, 13, 1), np.uint8))
        image = Image.fromarray(pixels, "RGBA").crop((0, 0, 52 - k % 5, 33 + k % 20))
        image.convert(MODES[k % 4]).save(folder / f"{k:02}.png")
    return folder


class Pooled(Extractor):
    """Features are the means of 4×4 parts of each channel. It takes Inception's name and place. made: how often."""

    name, dim, classes, batch_size, made = "inception", 48, 0, 4, 0
    __module__ = "gancli.metrics.extractor"

    def __init__(self, weights: str | None = None, batch_size: int | None = None):
        type(self).made += 1

    def to(self, device: torch.device | str) -> None:
        """It has no network."""

    def features(self, images: Tensor) -> Tensor:
        """uint8 [B, 3, H, W] -> [B, 48]."""
        return torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1)

    def logits(self, features: Tensor) -> Tensor:
        """It has none."""
        return features[:, :0]

    def protocol(self) -> dict[str, Any]:
        """What it is."""
        return {"extractor": self.name, "features": "48 means"}


@pytest.fixture
def pooled(monkeypatch: pytest.MonkeyPatch) -> type[Pooled]:
    """Inception is replaced by an extractor of 48 means."""
    monkeypatch.setattr(Pooled, "made", 0)
    monkeypatch.setattr("gancli.metrics.extractor.Inception", Pooled)
    return Pooled


def rows(run: str, key: str) -> dict[int, Any]:
    """The values of a key in metrics.jsonl, by step."""
    lines = map(json.loads, Path(run, "metrics.jsonl").read_text(encoding="utf-8").splitlines())
    return {row["step"]: row[key] for row in lines if key in row}


def results(run: str) -> list[dict[str, Any]]:
    """The results in a run's eval/."""
    return [json.loads(path.read_text(encoding="utf-8")) for path in sorted(Path(run, "eval").glob("*.json"))]


def status(run: str) -> tuple[str, str | None]:
    """The status in run.json, and its reason."""
    about = json.loads(Path(run, "run.json").read_text(encoding="utf-8"))
    return about["status"], about["reason"]
