"""Accuracy of a classifier, trained on the run's real data, on samples and the classes they are conditioned on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.settings import at_least
from gancli.data.source import Source
from gancli.errors import MetricError
from gancli.metrics.classifier import VERSION, Classifier, obtain
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better, LabelMetric


@dataclass
class ClassAccuracy(LabelMetric):
    """The share of samples that a classifier trained on real images assigns to the requested class.

    images: training images of the classifier, counted with repeats. Its accuracy on held-out real images is reported
    too: if that is low, the first number means little.
    """

    name: ClassVar[str] = "class_accuracy"
    better: ClassVar[Mapping[str, Better]] = {"class_accuracy": "high", "classifier_accuracy": "neither"}
    images: int = 60_000
    _classifier: Classifier | None = field(default=None, init=False, repr=False)
    _names: tuple[str, ...] = field(default=(), init=False, repr=False)
    _right: Tensor | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        at_least(1, **{"metrics.class_accuracy.images": self.images})

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The classifier's architecture and how it was trained."""
        assert self._classifier is not None
        return {
            "classifier": f"five convolutions, version {VERSION}",
            "images": self.images,
            "trained_on": self._classifier.trained_on,
            "held_out": self._classifier.held_out,
        }

    def begin(self, source: Source, progress: Progress | None = None) -> None:
        """Train the classifier, or read it from the cache. Raises MetricError for data with fewer than two classes."""
        if len(source.classes) < 2 or len(source) < 10:
            raise MetricError(
                f"metrics=class_accuracy needs a data set with at least two classes, and {source.name} has"
                f" {len(source.classes)}: leave it out of metrics"
            )
        self._classifier = World.of_group().from_first(lambda: obtain(source, self.images, progress))
        self._names = source.classes
        self._right = torch.zeros(2, len(self._names), dtype=torch.int64)

    def see(self, images: Tensor, labels: Tensor) -> None:
        """Count correct predictions and all samples by class."""
        assert self._classifier is not None
        assert self._right is not None
        good = labels[self._classifier.predict(images) == labels]
        self._right += torch.stack([part.bincount(minlength=len(self._names)) for part in (good, labels)])

    def finish(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return class_accuracy and classifier_accuracy; class_accuracy_by_class in the details."""
        assert self._classifier is not None
        assert self._right is not None
        World.of_group().sum([self._right])
        right, asked = self._right.tolist()
        by_class = {n: r / a for n, r, a in zip(self._names, right, asked, strict=True) if a}
        scores = {"class_accuracy": sum(right) / sum(asked), "classifier_accuracy": self._classifier.accuracy}
        self._right.zero_()
        return scores, {"class_accuracy_by_class": by_class}
