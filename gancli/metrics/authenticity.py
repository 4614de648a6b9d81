"""Authenticity: the share of samples that are not closer to a training image than training images are to each other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from gancli.data.source import order
from gancli.metrics.memorisation import COMPARED, left_out
from gancli.metrics.metric import Better, named
from gancli.metrics.neighbours import beside_training
from gancli.metrics.run_metric import Findings
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images


@dataclass(frozen=True)
class Authenticity(TrainingMetric):
    """Share of authentic samples, in [0, 1]. Source: Alaa et al. 2022, section 3.3.

    With t(s) the training image nearest to the sample s, and d the Euclidean distance of features, s is authentic if
    d(s, t(s)) > min over the other training images t' of d(t(s), t'). Copies give 0, noise 1. New images of the data
    distribution give the probability that a point and its nearest neighbour are not each other's nearest: 1/3 in one
    dimension, more in many. It is reported beside it as authenticity_of_data, of training images against the others.
    Of a run whose data were mirrored at random the mirrored training images are searched, too. images: training images
    to search, at most; null: all.
    """

    name: ClassVar[str] = "authenticity"
    words: ClassVar[tuple[str, ...]] = ("authenticity", "authenticity_of_data")
    better: ClassVar[Mapping[str, Better]] = {"authenticity": "neither", "authenticity_of_data": "neither"}
    images: int | None = None

    def __post_init__(self) -> None:
        check_images(self.name, self.images)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """How many training images were searched at most."""
        return {"images": self.images}

    def compare(self, sides: Compared) -> Findings:
        """Return authenticity, and authenticity_of_data."""
        training, extractor = sides.of_training(self.images)[1], sides.extractor
        beside = beside_training(sides.of_samples(), training, sides.of_mirrored_training(self.images))
        among = left_out(training, torch.from_numpy(order(len(training), "authenticity")[:COMPARED]))[0]
        shares = float((beside.distance > beside.apart).double().mean()), float((among > 1).double().mean())
        values = {named(word, extractor): share for word, share in zip(self.words, shares, strict=True)}
        return Findings(values, sides.searched(len(training)), notes=extractor.notes())
