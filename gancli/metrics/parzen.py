"""Log-likelihood of test data under a Parzen window around samples, the measure of the 2014 GAN paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gancli.data.source import Source, order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.metric import Report
from gancli.metrics.run_metric import RunMetric, data, drawn
from gancli.sampling import to_uint8

if TYPE_CHECKING:
    from gancli.sampling import Sampler


def parzen(points: Tensor, samples: Tensor, sigma: float, chunk: int = 500) -> Tensor:
    """log of the mean over samples [S, D] of N(point; sample, σ² I), for each of the points [N, D]: [N], in nats.

    >>> value = parzen(torch.zeros(1, 2), torch.zeros(3, 2), 1.0)  # the density of a standard normal at its centre
    >>> round(value.item(), 4) == round(-math.log(2 * math.pi), 4)
    True
    """
    samples = samples.double() if points.dtype == torch.float64 else samples
    dims = samples.shape[1]
    constant = math.log(len(samples)) + dims * math.log(sigma * math.sqrt(2 * math.pi))
    lengths = samples.square().sum(1)
    parts = []
    for part in torch.split(points, chunk):
        # |p - s|² by one product; rounding is far below σ² for values of size 1.
        distance = part.square().sum(1)[:, None] + lengths - 2 * part @ samples.t()
        parts.append(torch.logsumexp(distance.clamp_min(0) / (-2 * sigma**2), 1) - constant)
    return torch.cat(parts)


@dataclass
class Parzen(RunMetric):
    """Mean log-likelihood of test data, pixels in [0, 1], and its standard error (Goodfellow et al. 2014, section 5).

    σ is the best of `sigmas` values between 0.1 and 1, evenly in their logarithm, on `n_valid` training images that
    are the last of a fixed shuffle. n: how many samples the window is made of; the paper's is 10,000.
    """

    name: ClassVar[str] = "parzen"
    sigmas: int = 10
    n_valid: int = 1000
    n_test: int = 10_000

    def __post_init__(self) -> None:
        if min(self.sigmas, self.n_valid, self.n_test) < 1:
            raise ConfigError("metrics.parzen has sigmas, n_valid and n_test of at least 1")

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The candidates for σ, and how many images chose it and were judged."""
        return {"sigmas": self.sigmas, "n_valid": self.n_valid, "n_test": self.n_test}

    def measure(self, found: Sampler, n: int, seed: int, progress: Report) -> tuple[dict[str, float], dict[str, Any]]:
        """Of n samples, rounded as images are, against the test split."""
        if len(found.shape) != 3:
            raise MetricError("metrics=parzen measures images; for points use metrics=[modes,divergences]")
        test = data(found, "test", self.name)
        train = data(found, "train", self.name)
        held = order(len(train), "parzen", 0)[::-1][: self.n_valid]
        valid = _flat(train, held)
        samples = to_uint8(drawn(found, n, seed)).flatten(1).float() / 255
        scores = {}
        for k, sigma in enumerate(torch.logspace(-1, 0, self.sigmas).tolist()):
            scores[sigma] = float(parzen(valid, samples, sigma).double().mean())
            progress("parzen: σ", k + 1, self.sigmas)
        sigma = max(scores, key=scores.__getitem__)
        count = min(self.n_test, len(test))
        values = parzen(_flat(test, order(len(test), "parzen test", 0)[:count]), samples, sigma).double()
        error = float(values.std()) / math.sqrt(count)
        details = {"sigma": sigma, "valid": {f"{s:.3f}": v for s, v in scores.items()}}
        return {"parzen": float(values.mean()), "parzen_error": error}, details


def _flat(source: Source, index: Any) -> Tensor:
    """Images as rows of numbers in [0, 1]."""
    return source.rows(index)[0].flatten(1).float() / 255
