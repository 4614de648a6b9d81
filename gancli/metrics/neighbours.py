"""Nearest neighbours among feature vectors, in blocks, and the metrics density and coverage."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor

from gancli.config.settings import at_least
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.metric import Better, Metric, named

_BLOCK = 1024  # queries per block


def nearest(queries: Tensor, bank: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return distances [Q, k] and row numbers [Q, k] of the k nearest rows of the bank, the nearest first.

    Distances are computed from differences, also where a large bank is searched by a matrix product, so that equal rows
    have a distance of exactly 0.

    >>> distance, row = nearest(torch.tensor([[0.0], [9.0]]), torch.tensor([[1.0], [7.0], [3.0]]), 2)
    >>> distance.tolist(), row.tolist()
    ([[1.0, 3.0], [2.0, 6.0]], [[0, 2], [1, 2]])
    """
    found = []
    for part in torch.split(queries, _BLOCK):
        rows = _distances(part, bank).topk(k, largest=False).indices
        exact = torch.stack([(part - bank[column]).square().sum(1).sqrt() for column in rows.T], 1)
        by_distance = exact.argsort(dim=1, stable=True)
        found.append((exact.gather(1, by_distance), rows.gather(1, by_distance)))
    return torch.cat([distance for distance, _ in found]), torch.cat([rows for _, rows in found])


class Beside(NamedTuple):
    """The training image nearest to each sample: [N] each.

    distance: to the image. apart: the image's distance to its own nearest. row: of the image. mirrored: whether it is
    the mirrored image that is the nearest.
    """

    distance: Tensor
    apart: Tensor
    row: Tensor
    mirrored: Tensor


def beside_training(samples: Tensor, training: Tensor, mirrored: Tensor | None = None) -> Beside:
    """Return each sample's nearest training image, and that image's distance to its own.

    samples [N, D], training [M, D], M at least 2. mirrored: features of the training images mirrored left to right, [M,
    D], which are searched, too; `apart` is always of the images as they are. None: they are not searched.

    >>> training = torch.tensor([[0.0], [1.0], [10.0], [14.0]])
    >>> [part.tolist() for part in beside_training(torch.tensor([[0.25], [18.0]]), training)]
    [[0.25, 4.0], [1.0, 4.0], [0, 3], [False, False]]
    >>> [part.tolist() for part in beside_training(torch.tensor([[0.25], [-9.0]]), training, -training)]
    [[0.25, 1.0], [1.0, 4.0], [0, 2], [False, True]]
    """
    distance, row = (part[:, 0] for part in nearest(samples, training, 1))
    is_mirrored = torch.zeros(len(samples), dtype=torch.bool)
    if mirrored is not None:
        other, there = (part[:, 0] for part in nearest(samples, mirrored, 1))
        is_mirrored = other < distance
        distance, row = torch.where(is_mirrored, other, distance), torch.where(is_mirrored, there, row)
    there, where = torch.unique(row, return_inverse=True)
    apart = nearest(training[there], training, 2)[0][:, 1]
    return Beside(distance, apart[where], row, is_mirrored)


def _distances(a: Tensor, b: Tensor, exact: bool | None = None) -> Tensor:
    # By differences, not by a matrix product: two equal rows must have a distance of exactly 0. Large sets use the
    # product, because differences would take too long.
    exact = len(b) <= 4 * _BLOCK if exact is None else exact
    mode = "donot_use_mm_for_euclid_dist" if exact else "use_mm_for_euclid_dist"
    return torch.cdist(a, b, compute_mode=mode)


@dataclass(frozen=True)
class DensityCoverage(Metric):
    """Density and coverage: precision and recall robust to outliers. Source: Naeem et al. 2020, eq. 3-4.

    neighborhood: k; the radius of a real image's ball is the distance to its k-th nearest neighbour.
    """

    name: ClassVar[str] = "dc"
    words: ClassVar[tuple[str, ...]] = ("density", "coverage")
    better: ClassVar[Mapping[str, Better]] = {"density": "high", "coverage": "high"}
    neighborhood: int = 5

    def __post_init__(self) -> None:
        at_least(1, **{"metrics.dc.neighborhood": self.neighborhood})

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Raises MetricError if there are too few real images for `neighborhood`."""
        if n_real <= self.neighborhood:
            raise MetricError(
                f"metrics=dc with neighborhood={self.neighborhood} needs at least {self.neighborhood + 1} real images, "
                f"got {n_real}"
            )
        return []

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The neighbourhood, and which samples are inside a ball, which changed between versions."""
        return {"neighborhood": self.neighborhood, "inside": "strictly nearer than the neighbour"}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """density: mean number of real images' balls around a sample, over k. coverage: share of balls with a sample.

        A sample at the radius is outside, as in the released code: a set against itself has a density of 1.
        """
        exact = max(len(fake), len(real)) <= 4 * _BLOCK
        balls = covered = 0
        # Both distances are computed from the same block of real images, so that equal distances round equally.
        for part in torch.split(real, _BLOCK):
            radius = _distances(part, real, exact).kthvalue(self.neighborhood + 1, keepdim=True).values
            inside = _distances(part, fake, exact) < radius
            balls += int(inside.sum())
            covered += int(inside.any(1).sum())
        density = balls / (self.neighborhood * len(fake))
        return {named("density", extractor): density, named("coverage", extractor): covered / len(real)}
