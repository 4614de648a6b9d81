"""The classifier that evaluates whether samples show their class, and the numbers made of it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from gancli.data.source import Source, table
from gancli.errors import ConfigError, MetricError
from gancli.metrics.accuracy import ClassAccuracy
from gancli.metrics.classifier import obtain, prepared, split
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.images import ImageSet


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "gan" / "classifiers"


def shades(n: int = 60, side: int = 8) -> Source:
    """Dark, grey and bright images with a little noise: three classes that are easy to tell."""
    labels = np.arange(n) % 3
    noise = np.random.default_rng(0).integers(0, 30, (n, 1, side, side))
    return table("shades", (labels[:, None, None, None] * 100 + noise).astype(np.uint8), labels, ("a", "b", "c"))


def images(labels: list[int]) -> torch.Tensor:
    return (torch.tensor(labels).view(-1, 1, 1, 1) * 100 + 15).expand(-1, 1, 8, 8).to(torch.uint8)


def test_the_classifier_learns_is_kept_and_leaves_the_random_state_alone(cache: Path) -> None:
    before = torch.get_rng_state()
    told: list[tuple[str, int, int]] = []
    made = obtain(shades(), 3200, lambda *t: told.append(t))
    assert torch.equal(torch.get_rng_state(), before)
    assert told[-1] == ("classifier: batches", 50, 50)
    assert made.accuracy >= 0.9
    assert (made.trained_on, made.held_out) == (48, 12)
    assert made.predict(images([0, 1, 2, 1])).tolist() == [0, 1, 2, 1]
    (file,) = cache.iterdir()
    again = obtain(shades(), 3200, lambda *t: told.append(t))
    assert len(told) == 50  # nothing was trained
    assert again.accuracy == made.accuracy
    assert all(torch.equal(a, b) for a, b in zip(made.net.parameters(), again.net.parameters(), strict=True))
    file.write_bytes(file.read_bytes()[:100])  # damaged: made anew, to the same bits
    third = obtain(shades(), 3200)
    assert all(torch.equal(a, b) for a, b in zip(made.net.parameters(), third.net.parameters(), strict=True))
    obtain(shades(61), 64)
    assert len(list(cache.iterdir())) == 2


def test_the_folder_of_classifiers_may_be_a_link(cache: Path, tmp_path: Path) -> None:
    cache.parent.mkdir()
    cache.symlink_to(tmp_path / "large")
    obtain(shades(), 64)
    assert [file.suffix for file in (tmp_path / "large").iterdir()] == [".pt"]


def test_nothing_is_both_learned_and_held_out() -> None:
    learned, held = split(shades())
    assert sorted([*learned.tolist(), *held.tolist()]) == list(range(60))


def test_large_images_are_averaged_down() -> None:
    assert prepared(torch.zeros(2, 3, 64, 96, dtype=torch.uint8)).shape == (2, 3, 32, 48)
    assert prepared(torch.full((1, 1, 8, 8), 255, dtype=torch.uint8)).eq(1).all()


def test_accuracy_counts_agreement_by_class() -> None:
    asked = torch.tensor([0, 0, 1, 2, 2, 2])
    shown = images([0, 1, 1, 2, 2, 0])

    def set_of(labels: torch.Tensor) -> ImageSet:
        return ImageSet(6, (1, 8, 8), lambda: iter(()), {"seed": 0}, lambda: iter([(shown[:4], labels[:4]), (shown[4:], labels[4:])]))  # fmt: skip  # noqa: E501

    evaluator = Evaluator([ClassAccuracy(images=3200)], None, None, shades())
    found = evaluator.evaluate(set_of(asked)).as_json()
    assert found["class_accuracy"] == 4 / 6
    assert found["class_accuracy_by_class"] == {"a": 0.5, "b": 1.0, "c": 2 / 3}
    assert found["classifier_accuracy"] >= 0.9
    assert found["protocol"]["class_accuracy"]["trained_on"] == 48
    assert found["protocol"]["reference"] is None
    right = evaluator.evaluate(set_of(torch.tensor([0, 1, 1, 2, 2, 0]))).values
    assert right["class_accuracy"] == 1.0  # counted anew


def test_what_cannot_be_judged_is_refused() -> None:
    plain = table("plain", np.zeros((20, 1, 8, 8), np.uint8))
    with pytest.raises(MetricError, match="plain has 0"):
        ClassAccuracy().begin(plain)
    with pytest.raises(ConfigError, match=r"metrics\.class_accuracy\.images"):
        ClassAccuracy(images=0)
    unlabelled = ImageSet(4, (1, 8, 8), lambda: iter(()))
    with pytest.raises(MetricError, match=r"model\.conditioning=projection"):
        Evaluator([ClassAccuracy()], None, None, shades()).evaluate(unlabelled)
