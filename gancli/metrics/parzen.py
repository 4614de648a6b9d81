"""Parzen-window log-likelihood of test data, the measure of the 2014 GAN paper."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gancli.data.fields import Image
from gancli.data.source import Source, order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.images import Progress, eight_bits
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric, data, drawn, left_out, training_data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


def parzen(points: Tensor, samples: Tensor, sigma: float, chunk: int = 500) -> Tensor:
    """Return the log of the mean over samples [S, D] of N(point; sample, σ² I) for each of the points [N, D], in nats.

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
        # |p - s|² by one matrix product; for values of magnitude 1 its rounding error is far below σ².
        distance = part.square().sum(1)[:, None] + lengths - 2 * part @ samples.t()
        parts.append(torch.logsumexp(distance.clamp_min(0) / (-2 * sigma**2), 1) - constant)
    return torch.cat(parts)


@dataclass
class Parzen(RunMetric):
    """Mean log-likelihood of test data, pixels in [0, 1], and its standard error (Goodfellow et al. 2014, section 5).

    σ is the best of `sigmas` logarithmically spaced values from 0.1 to 1 on `n_valid` images: those of the training
    split that dataset.limit excluded from training or, if it excluded none, training images (with a note). The released
    code trains on 50,000 of MNIST's 60,000 and takes 1,000 of the others. n: how many samples the window has; the
    paper's is 10,000.
    """

    name: ClassVar[str] = "parzen"
    better: ClassVar[Mapping[str, Better]] = {"parzen": "high", "parzen_error": "neither"}
    sigmas: int = 10
    n_valid: int = 1000
    n_test: int = 10_000

    def __post_init__(self) -> None:
        if min(self.sigmas, self.n_valid, self.n_test) < 1:
            raise ConfigError("metrics.parzen: sigmas, n_valid and n_test must be at least 1")

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The number of candidates for σ, and of images that select it and that are evaluated."""
        return {"sigmas": self.sigmas, "n_valid": self.n_valid, "n_test": self.n_test}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run of points, or one trained on the test images."""
        if not isinstance(sampler.field, Image):
            raise MetricError("metrics=parzen takes images; for points type metrics=[modes,divergences]")
        split = str(sampler.config["dataset"].get("split"))
        if split in ("test", "all"):
            raise MetricError(
                f"metrics=parzen evaluates the test images, which the run was trained on (dataset.split={split}): train"
                " with dataset.split=train"
            )

    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Evaluate the test split under a window of n samples, rounded to 8 bits."""
        split = str(sampler.config["dataset"].get("split"))
        test = data(sampler, "test", self.name)
        valid, chosen_on, notes = self._validation(sampler, split)
        samples = eight_bits(sampler.field.stored(drawn(sampler, n, seed))).flatten(1).float() / 255
        scores = {}
        for k, sigma in enumerate(torch.logspace(-1, 0, self.sigmas).tolist()):
            scores[sigma] = float(parzen(valid, samples, sigma).double().mean())
            progress("parzen: σ", k + 1, self.sigmas)
        sigma = max(scores, key=scores.__getitem__)
        count = min(self.n_test, len(test))
        if count < self.n_test:
            notes.append(f"parzen: evaluated on {count:,} test images instead of n_test={self.n_test:,}")
        values = parzen(_flat(test, order(len(test), "parzen test", 0)[:count]), samples, sigma).double()
        error = float(values.std()) / math.sqrt(count)
        details = {
            "sigma": sigma,
            "sigma_chosen_on": {"images": len(valid), "which": chosen_on},
            "valid": {f"{s:.3f}": v for s, v in scores.items()},
        }
        return Findings({"parzen": float(values.mean()), "parzen_error": error}, details, notes=notes)

    def _validation(self, sampler: Sampler, split: str) -> tuple[Tensor, str, list[str]]:
        """Return the images that select σ, flattened in [0, 1], their description, and notes about them."""
        notes = []
        if split != "train":  # the run was trained on another split
            source = data(sampler, "train", self.name)
            rest, which = order(len(source), "limit"), "training split, which the run was not trained on"
        else:
            trained = training_data(sampler, self.name)
            source, rest = left_out(sampler, trained)
            which = "training split, kept from the run by dataset.limit"
            if not len(rest):
                source, rest = trained, order(len(trained), "parzen", 0)[::-1]
                which = "images that the run was trained on"
                notes.append(
                    "parzen: σ was chosen on training images, because the run was trained on the whole training split:"
                    " train with dataset.limit (the released code: 50,000 of MNIST's 60,000) to choose it on held-out"
                    " images"
                )
        rest = rest[: self.n_valid]
        if len(rest) < self.n_valid:
            notes.append(f"parzen: σ was chosen on {len(rest):,} images instead of n_valid={self.n_valid:,}")
        return _flat(source, rest), which, notes


def _flat(source: Source, index: Any) -> Tensor:
    """Return images flattened, in [0, 1]."""
    return eight_bits(source.rows(index)["x"]).flatten(1).float() / 255
