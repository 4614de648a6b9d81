"""Feature Likelihood Divergence: the likelihood of held-out images under a mixture of Gaussians around samples."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gancli.data.source import order
from gancli.errors import MetricError
from gancli.metrics.finished_images import find
from gancli.metrics.images import ImageSet
from gancli.metrics.metric import Better, named
from gancli.metrics.run_metric import Findings, data, kept_out, training_data
from gancli.metrics.training_metric import Compared, TrainingMetric, check_images

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

# The released code's (marcojira/fld, MoG.py): Adam's rate, the longest fit, when it has converged, and the rest.
RATE, EPOCHS, SETTLED, BATCH = 0.5, 50, 5e-4, 10_000
NEAREST, BOUND, ORIGIN = 1e-3, 40.0, 0.9  # added to distances at the start; of log variances; scale of distances
MOST_SAMPLES, MOST_PAIRS = 10_000, 1 << 27  # centres; squared distances, of which 1 GiB are kept
MEMORISED = 1000  # a divergence above it, in the released code's words, is of samples that are likely memorised
KEY = "metrics.fld.held_out"
_BLOCK = 512


def squared(points: Tensor, centres: Tensor) -> Tensor:
    """Return squared distances of float64 [N, D] and [M, D], [N, M], exactly 0 for equal rows.

    By a matrix product, whose rounding would hide copies: below a few roundings of the lengths, distances are 0.
    """
    lengths = points.square().sum(1)[:, None] + centres.square().sum(1)
    found = lengths - 2 * points @ centres.T
    return found.masked_fill_(found <= 1e-13 * lengths, 0.0)


@dataclass(frozen=True)
class Mixture:
    """Isotropic Gaussians of equal weight: centres [N, D] and the logarithms of their variances [N], float64."""

    centres: Tensor
    log_variances: Tensor

    def log_likelihood(self, points: Tensor) -> Tensor:
        """Return log p of points [M, D], in nats: float64 [M]."""
        parts = [_terms(squared(part, self.centres), self.log_variances, points.shape[1]) for part in _parts(points)]
        return torch.cat([part.logsumexp(1) for part in parts]) - math.log(len(self.centres))


def fitted(centres: Tensor, points: Tensor) -> Mixture:
    """Return the mixture whose variances maximise the likelihood of points [M, D], by Adam as in the released code.

    During the fit one more Gaussian, of weight 1 and of a variance fitted with the others, stands for all points that
    are far from every centre: its squared distances are 0.9² times those from the points' mean.
    """
    dim, count = points.shape[1], len(points)
    points = points[torch.from_numpy(order(count, "fld batches").copy())] if count > BATCH else points
    pairs = torch.cat([squared(part, centres) for part in _parts(points)])
    origin = ORIGIN**2 * (points - points.mean(0)).square().sum(1)
    logs = torch.cat([((pairs.amin(0) + NEAREST) / dim).log(), torch.zeros(1, dtype=torch.float64)]).requires_grad_()
    optimizer, losses = torch.optim.Adam([logs], lr=RATE), list[float]()
    for _ in range(EPOCHS):
        total = list[float]()
        for start in range(0, count, BATCH):
            rows = slice(start, start + BATCH)
            loss, logs.grad = _loss(pairs[rows], origin[rows], logs.detach(), dim)
            optimizer.step()
            with torch.no_grad():
                logs[:-1].clamp_(-BOUND, BOUND)
            total.append(loss)
        losses.append(sum(total) / len(total))
        if len(losses) > 6 and max(losses[-5:]) - losses[-1] < SETTLED and losses[-1] - min(losses[-5:]) < SETTLED:
            break
    return Mixture(centres, logs.detach()[:-1])


def _loss(pairs: Tensor, origin: Tensor, logs: Tensor, dim: int) -> tuple[float, Tensor]:
    """Return the mean of -log p / D of points, and its gradient in the logarithms of the variances, [N + 1].

    With responsibilities r, the derivative of log p is Σ r (d² / (2 σ²) - D / 2).
    """
    loss, slope = 0.0, torch.zeros_like(logs)
    shift = torch.cat([torch.full_like(logs[:-1], math.log(len(logs) - 1)), logs.new_zeros(1)])
    for part, own in zip(_parts(pairs), _parts(origin), strict=True):
        distances = torch.cat([part, own[:, None]], 1)
        terms = _terms(distances, logs, dim) - shift
        loss -= float(terms.logsumexp(1).sum())
        slope -= (terms.softmax(1) * (distances * (-logs).exp() - dim) / 2).sum(0)
    return loss / (dim * len(pairs)), slope / (dim * len(pairs))


def _terms(pairs: Tensor, logs: Tensor, dim: int) -> Tensor:
    """Return the log densities of each point in each Gaussian, [M, N], from squared distances."""
    return -(pairs * (-logs).exp() + dim * (logs + math.log(2 * math.pi))) / 2


def _parts(points: Tensor) -> tuple[Tensor, ...]:
    return torch.split(points, _BLOCK)


def divergence(samples: Tensor, training: Tensor, test: Tensor) -> tuple[float, float]:
    """Return the FLD and its generalisation gap, from features [N, D], [M, D] and [T, D].

    Raises MetricError if the test images' features do not vary.
    """
    x = test.double()
    deviation, mean = x.std(0), x.mean(0)
    varies = deviation > 0  # a unit that is 0 for all test images has no scale
    if not varies.any():
        raise MetricError("metrics=fld: the held-out images all have the same features: choose another extractor")
    centres, train, test = (((y.double() - mean) / deviation)[:, varies] for y in (samples[:MOST_SAMPLES], training, x))
    dim = int(varies.sum())
    mixture = fitted(centres, train)
    shuffled = train[torch.from_numpy(order(len(train), "fld").copy())]
    half = min(len(centres), len(train) // 2)
    ideal = fitted(shuffled[:half], shuffled[half:]).log_likelihood(test).mean()
    of_test, of_train = mixture.log_likelihood(test).mean(), mixture.log_likelihood(train).mean()
    return float(100 * (ideal - of_test) / dim), float(100 * (of_test - of_train) / dim)


@dataclass(frozen=True)
class Fld(TrainingMetric):
    """Feature Likelihood Divergence of fidelity, diversity and novelty (Jiralerspong et al. 2023, section 4).

    FLD = -100/D · mean over test images x of log p(x) - C, with p(x) = 1/N · Σ N(x; sⱼ, σⱼ² I) around the samples sⱼ.
    The σⱼ maximise the likelihood of the TRAINING images, so a copy gets a narrow Gaussian that explains no test image.
    Features are normalised by the test images' mean and standard deviation. C is the same number with one half of the
    training images instead of the samples, fitted to the other half: 0 is as good as training images. fld_gap is -100/D
    times the mean log p of training images less that of test images: far below 0 for samples nearer to training images.
    Constants are the released code's; the fit is deterministic, in float64. At most 10,000 samples are used.

    held_out: test images: a folder, .zip or .npz; null: the data's test split, or images that dataset.limit excluded.
    images: training images, at most; null: all.
    """

    name: ClassVar[str] = "fld"
    words: ClassVar[tuple[str, ...]] = ("fld", "fld_gap")
    better: ClassVar[Mapping[str, Better]] = {"fld": "low", "fld_gap": "neither"}
    held_out: str | None = None
    images: int | None = None

    def __post_init__(self) -> None:
        check_images(self.name, self.images)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Constants of the fit, and how many training images were used at most."""
        return {"images": self.images, "rate": RATE, "epochs": EPOCHS}

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run of points, with few training images, or without held-out images."""
        super().refuse(sampler)
        if self.held_out is not None:
            find(KEY, self.held_out, list(sampler.field.shape))
            return
        try:
            data(sampler, "test", self.name)
        except MetricError:
            if kept_out(sampler, training_data(sampler, self.name)) is None:
                raise MetricError(
                    f"metrics=fld needs held-out images, and {sampler.run.name} was trained on all of its data: type"
                    f" {KEY}=FOLDER, or train with dataset.split=train (data with a test split) or dataset.limit=N"
                ) from None

    def refuse_files(self, training: int) -> None:
        """Raises MetricError for few training images, or without held-out images."""
        super().refuse_files(training)
        if self.held_out is None:
            raise MetricError(f"metrics=fld needs held-out images beside input= and reference=: type {KEY}=FOLDER")

    def compare(self, sides: Compared) -> Findings:
        """Return fld and fld_gap. Raises MetricError for too many pairs of samples and training images."""
        train, training = sides.of_training(self.images)
        used = min(sides.samples.n, MOST_SAMPLES)
        if used * len(training) > MOST_PAIRS:
            raise MetricError(
                f"metrics=fld: {used} samples and {len(training)} training images are too many pairs: type"
                f" metrics.fld.images={MOST_PAIRS // used}"
            )
        test = self._test(sides, train.shape)
        if test.n < 2:
            raise MetricError(
                f"metrics=fld needs at least 2 held-out images, and these are {test.n}: type {KEY}=FOLDER"
            )
        extractor = sides.extractor
        fld, gap = divergence(sides.of_samples(), training, sides.of(test, "held-out images"))
        details = {"training_images": len(training), "fld_test_images": test.n, "fld_tested_on": dict(test.protocol)}
        notes = [*extractor.notes()]
        if fld > MEMORISED:
            notes.append(f"{named(self.name, extractor)}: above {MEMORISED}, the samples are likely copies")
        return Findings(
            {named(w, extractor): v for w, v in zip(self.words, (fld, gap), strict=True)}, details, notes=notes
        )

    def _test(self, sides: Compared, shape: tuple[int, ...]) -> ImageSet:
        """Return the held-out images; `refuse` has made sure that there are some."""
        if self.held_out is None:
            found = sides.test() or sides.excluded(None)
            assert found is not None
            return found
        given = find(KEY, self.held_out, None if shape[1:] == (0, 0) else list(shape))
        return given.images(len(given), 0)
