"""Authenticity: the share of samples that are not closer to a training image than training images are to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from gancli.metrics.metric import Better, named
from gancli.metrics.neighbours import beside_training
from gancli.metrics.run_metric import Findings
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images


@dataclass(frozen=True)
class Authenticity(TrainingMetric):
    """Share of authentic samples, in [0, 1]. Source: Alaa et al. 2022, section 3.3.

    With t(s) the training image nearest to the sample s, and d the Euclidean distance of features, s is authentic if
    d(s, t(s)) > min over the other training images t' of d(t(s), t'). Copies give 0. New images of the data
    distribution give the probability that a point and its nearest neighbour are not each other's: 1/3 in one dimension,
    about 1/2 in many. images: training images to search, at most; null: all.
    """

    name: ClassVar[str] = "authenticity"
    better: ClassVar[Mapping[str, Better]] = {"authenticity": "neither"}  # noise is authentic, too
    images: int | None = None

    def __post_init__(self) -> None:
        check_images(self.name, self.images)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """How many training images were searched at most."""
        return {"images": self.images}

    def compare(self, sides: Compared) -> Findings:
        """Return authenticity."""
        training = sides.of_training(self.images)[1]
        distance, apart, _ = beside_training(sides.of_samples(), training)
        share = float((distance > apart).double().mean())
        details = {"training_images": len(training)}
        return Findings({named(self.name, sides.extractor): share}, details, notes=sides.extractor.notes())
