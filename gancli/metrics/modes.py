"""Mode coverage: which modes of a known mixture a generator covers."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from gancli.data.source import Modes as Mixture
from gancli.errors import ConfigError, MetricError
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric, drawn, own_data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


def count_modes(points: Tensor, mixture: Mixture, reach: float = 3.0) -> dict[str, float]:
    """Return covered modes, share of good samples and reverse KL of points [n, D] (Lin et al. 2018, section 4.1).

    A sample is good within `reach` standard deviations of its nearest mode; a mode is covered by one good sample;
    reverse_kl is KL(p || u), p the distribution of good samples over modes and u the data's uniform one.

    >>> mixture = Mixture(np.array([[0.0], [10.0]]), 1.0)
    >>> values = count_modes(torch.tensor([[0.0], [1.0], [2.0], [5.0]]), mixture)
    >>> values["modes"], values["good"], round(values["reverse_kl"], 4)  # all good ones in one mode of two: log 2
    (1.0, 0.75, 0.6931)
    """
    means = torch.from_numpy(mixture.means).double()
    distance, nearest = torch.cdist(points.double(), means).min(1)
    good = nearest[distance <= reach * mixture.sigma]
    counts = torch.bincount(good, minlength=len(means))
    shares = counts[counts > 0].double() / max(1, len(good))
    # Without a good sample p is unknown: report the maximum.
    kl = float((shares * (shares * len(means)).log()).sum()) if len(good) else math.log(len(means))
    return {"modes": float((counts > 0).sum()), "good": len(good) / len(points), "reverse_kl": kl}


@dataclass
class Modes(RunMetric):
    """Covered modes, the share of good samples and reverse KL of a run on `ring`, `grid` or another known mixture.

    reach: the largest distance of a good sample from its mode, in standard deviations.
    """

    name: ClassVar[str] = "modes"
    better: ClassVar[Mapping[str, Better]] = {"modes": "high", "good": "high", "reverse_kl": "low"}
    reach: float = 3.0

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ConfigError(f"metrics.modes.reach={self.reach:g}: type a number above 0, of standard deviations")

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The definition of a good sample."""
        return {"reach": self.reach}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run that was not trained on a known mixture."""
        self._mixture(sampler)

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Count the modes of n samples."""
        mixture = self._mixture(sampler)
        values = count_modes(drawn(sampler, n, seed), mixture, self.reach)
        return Findings(values, {"modes_of": len(np.asarray(mixture.means))})

    def _mixture(self, sampler: Sampler) -> Mixture:
        mixture: Mixture | None = own_data(sampler).modes
        if mixture is None:
            raise MetricError(
                f"metrics=modes counts the modes of a known mixture, and {sampler.facts.name} is not one:"
                " train on dataset=ring or dataset=grid"
            )
        return mixture
