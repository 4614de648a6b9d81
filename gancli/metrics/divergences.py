"""Distances between two sets of points: JSD on a grid, Wasserstein-1, MMD."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gancli.data.fields import Points
from gancli.data.source import order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric, drawn, own_data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

MOST_BINS = 1000  # per side
LARGEST = 2000  # points in an optimal matching, whose time grows with their third power


def jsd_of(p: Tensor, q: Tensor) -> float:
    """Return the Jensen-Shannon divergence of two distributions over the same cells, in nats.

    >>> jsd_of(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0])) == float(torch.tensor(2.0).double().log())
    True
    """
    p, q = (d.double() / d.double().sum() for d in (p, q))
    m = (p + q) / 2
    terms = [torch.where(d > 0, d * (d / m.clamp_min(1e-300)).log(), 0.0).sum() for d in (p, q)]
    return float(terms[0] + terms[1]) / 2


def jsd(a: Tensor, b: Tensor, bins: int = 50) -> float:
    """Return the JSD of the histograms of points [n, D] and [m, D], D = 1 or 2, with `bins` cells per side.

    The histograms cover the bounding box of both sets.

    >>> jsd(torch.zeros(5, 1), torch.zeros(9, 1))
    0.0
    """
    both = torch.cat([a, b]).double()
    low, high = both.amin(0), both.amax(0)
    width = torch.where(high > low, high - low, 1.0)

    def histogram(points: Tensor) -> Tensor:
        cell = ((points.double() - low) / width * bins).long().clamp_(0, bins - 1)
        flat = cell[:, 0] if cell.shape[1] == 1 else cell[:, 0] * bins + cell[:, 1]
        return torch.bincount(flat, minlength=bins ** points.shape[1])

    return jsd_of(histogram(a), histogram(b))


def wasserstein(a: Tensor, b: Tensor) -> float:
    """Return the Wasserstein-1 distance of two sets of n points [n, D], by optimal matching (by sorting if D is 1).

    Raises MetricError if D is above 1 and SciPy is missing.

    >>> wasserstein(torch.zeros(3, 1), torch.full((3, 1), 2.5))
    2.5
    """
    a, b = a.double(), b.double()
    if a.shape[1] == 1:
        return float((a.flatten().sort().values - b.flatten().sort().values).abs().mean())
    try:
        from scipy.optimize import linear_sum_assignment  # type: ignore[import-untyped]
    except ImportError:
        raise MetricError("w1 of two-dimensional points needs SciPy: type pip install scikit-learn") from None
    costs = torch.cdist(a, b).numpy()
    rows, columns = linear_sum_assignment(costs)
    return float(costs[rows, columns].mean())


def mmd(a: Tensor, b: Tensor, width: float | None = None) -> float:
    """Return the unbiased squared maximum mean discrepancy with a Gaussian kernel (Gretton et al. 2012, eq. 3).

    width: of the kernel; None: the median distance between points.
    """
    a, b = a.double(), b.double()
    if width is None:
        both = torch.cat([a, b])
        distances = torch.pdist(both[torch.linspace(0, len(both) - 1, min(len(both), 1000)).long()])
        width = float(distances.median()) or 1.0

    def kernel(x: Tensor, y: Tensor) -> Tensor:
        return (torch.cdist(x, y).square() / (-2 * width**2)).exp()

    n, m = len(a), len(b)
    within = (kernel(a, a).sum() - n) / (n * (n - 1)) + (kernel(b, b).sum() - m) / (m * (m - 1))
    return float(within - 2 * kernel(a, b).mean())


@dataclass
class Divergences(RunMetric):
    """jsd, w1 and mmd between samples and an equal number of data points, at most 2,000. bins: of JSD's histograms."""

    name: ClassVar[str] = "divergences"
    better: ClassVar[Mapping[str, Better]] = {"jsd": "low", "w1": "low", "mmd": "low"}
    bins: int = 50

    def __post_init__(self) -> None:
        if not 2 <= self.bins <= MOST_BINS:
            raise ConfigError(f"metrics.divergences.bins={self.bins}: type 2 to {MOST_BINS:,}, cells per side")

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Bins and points."""
        return {"bins": self.bins, "points": min(n_fake, LARGEST)}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run of images."""
        if not isinstance(sampler.field, Points) or sampler.field.size > 2:
            raise MetricError("metrics=divergences compares points of 1 or 2 dimensions: use fid and kid for images")

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Compute the distances of the first samples."""
        source = own_data(sampler)
        asked, n = n, min(n, LARGEST, len(source))
        notes = [f"divergences: computed on {n:,} points instead of n={asked:,}"] if n < asked else []
        real = source.rows(order(len(source), "divergences", seed)[:n])["x"]
        fake = drawn(sampler, n, seed)
        return Findings(
            {"jsd": jsd(fake, real, self.bins), "w1": wasserstein(fake, real), "mmd": mmd(fake, real)}, notes=notes
        )
