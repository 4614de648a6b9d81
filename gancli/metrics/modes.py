"""Which modes of a known mixture a generator covers."""

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
    """Covered modes, share of good samples, and reverse KL, from points [n, D] (Lin et al. 2018, section 4.1).

    A sample is good within `reach` standard deviations of its nearest mode; a mode is covered by one good sample;
    reverse_kl is the KL divergence from the good samples' shares of the modes to the even shares of the data.

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
    # Without a good sample nothing is known of the shares: as far from even as it gets.
    kl = float((shares * (shares * len(means)).log()).sum()) if len(good) else math.log(len(means))
    return {"modes": float((counts > 0).sum()), "good": len(good) / len(points), "reverse_kl": kl}


@dataclass
class Modes(RunMetric):
    """Covered modes, the share of good samples and reverse KL of a run on `ring`, `grid` or another known mixture.

    reach: how many standard deviations from its mode a good sample may lie.
    """

    name: ClassVar[str] = "modes"
    better: ClassVar[Mapping[str, Better]] = {"modes": "high", "good": "high", "reverse_kl": "low"}
    reach: float = 3.0

    def __post_init__(self) -> None:
        if not self.reach > 0:
            raise ConfigError(f"metrics.modes.reach={self.reach:g}: a number of standard deviations above 0")

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """What a good sample is."""
        return {"reach": self.reach}

    def refuse(self, found: Sampler) -> None:
        """Raises MetricError for a run on something else than a known mixture."""
        self._mixture(found)

    def measure(self, found: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Of n samples."""
        mixture = self._mixture(found)
        values = count_modes(drawn(found, n, seed), mixture, self.reach)
        return Findings(values, {"modes_of": len(np.asarray(mixture.means))})

    def _mixture(self, found: Sampler) -> Mixture:
        mixture: Mixture | None = own_data(found).modes
        if mixture is None:
            raise MetricError(
                f"metrics=modes counts the modes of a known mixture and {found.facts.name} is none:"
                " train on dataset=ring or dataset=grid"
            )
        return mixture
