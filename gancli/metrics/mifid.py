"""MiFID: the FID, divided by the distance to the training images if the samples are too near to them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gancli.data.source import order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.fid import Fid
from gancli.metrics.metric import Better, named
from gancli.metrics.run_metric import Findings
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images

EPSILON = 1e-15  # the competition's
_BLOCK, _COMPARED = 1024, 5000


def memorisation_distance(samples: Tensor, training: Tensor) -> float:
    """Return the mean over samples of 1 - |cos| to the training image with the largest |cos|, from features [N, D].

    Vectors of zeros, which have no direction, are left out. Raises MetricError if nothing else is there.

    >>> round(memorisation_distance(torch.tensor([[2.0, 0], [1, 1]]), torch.tensor([[1.0, 0], [0, -3]])), 4)
    0.1464
    """
    return float(_nearest(_directions(samples), _directions(training)).mean())


def _directions(features: Tensor) -> Tensor:
    """Return float64 unit vectors of the rows that are not zero."""
    x = features.double()
    length = x.norm(dim=1, keepdim=True)
    if not (length > 0).any():
        raise MetricError("metrics=mifid: all features are zero: choose another extractor")
    found: Tensor = (x / length)[length[:, 0] > 0]
    return found


def _nearest(samples: Tensor, training: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return 1 - max |cos| of unit vectors. rows: of the samples among the training images, to leave themselves out."""
    found = []
    for start in range(0, len(samples), _BLOCK):
        part = (samples[start : start + _BLOCK] @ training.T).abs()
        if rows is not None:
            part[torch.arange(len(part)), rows[start : start + _BLOCK]] = 0
        found.append((1 - part.amax(1)).clamp_min(0))
    return torch.cat(found)


@dataclass(frozen=True)
class Mifid(TrainingMetric):
    """Memorisation-informed FID, FID / m' (Bai et al. 2021, section 4).

    m is `memorisation_distance`; m' = m + ε if m < τ, else 1 + ε, with ε = 1e-15. The FID is that of the samples and
    all training images. threshold: τ; 0.1 is that of the paper's competition, for Inception's features of photographs
    of dogs, so the mean m of the training images among themselves is reported beside it. Of a run whose data were
    mirrored at random m is also of the mirrored training images. images: training images to search, at most; null: all.
    """

    name: ClassVar[str] = "mifid"
    words: ClassVar[tuple[str, ...]] = ("mifid", "mifid_distance")
    better: ClassVar[Mapping[str, Better]] = {
        "mifid": "low",
        "mifd": "low",
        "mifid_distance": "neither",
        "mifd_distance": "neither",
    }
    threshold: float = 0.1
    images: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.threshold <= 1:
            raise ConfigError(f"metrics.mifid.threshold={self.threshold:g}: type a number from 0 to 1")
        check_images(self.name, self.images)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Threshold τ, ε, and how many training images were searched at most."""
        return {"threshold": self.threshold, "epsilon": EPSILON, "images": self.images}

    def compare(self, sides: Compared) -> Findings:
        """Return mifid, and mifid_distance: m. Raises MetricError for fewer than 2 samples."""
        training, samples, extractor = sides.of_training(self.images)[1], sides.of_samples(), sides.extractor
        notes = Fid().check(extractor, len(samples), len(training))
        fid = Fid().score(samples, training, extractor)[named("fid", extractor)]
        mirrored = sides.of_mirrored_training(self.images)
        distance = memorisation_distance(samples, training if mirrored is None else torch.cat([training, mirrored]))
        units = _directions(training)
        rows = torch.from_numpy(order(len(units), "mifid")[:_COMPARED])
        among = float(_nearest(units[rows], units, rows).mean())
        penalised = distance < self.threshold
        word = named(self.name, extractor)
        values = {
            word: fid / ((distance if penalised else 1.0) + EPSILON),
            named("mifid_distance", extractor): distance,
        }
        if penalised:
            notes.append(
                f"{word}: the samples' mean distance to the nearest training image, {distance:.4g}, is below"
                f" {self.threshold:g}, so {fid:.4f} is divided by it; among training images it is {among:.4g}"
            )
        details = {
            "mifid_penalised": penalised,
            "mifid_distances": {"samples": distance, "training_images": among},
            **sides.searched(len(training)),
        }
        return Findings(values, details, notes=[*notes, *extractor.notes()])
