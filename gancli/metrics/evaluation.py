"""Runs metrics: each set of images is processed once, and every number comes with its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.data.source import Source
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.frechet import LEVEL, METHOD, RESAMPLES, SEED, interval
from gancli.metrics.images import CHUNK, ImageSet, Progress, extract
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric, PairMetric
from gancli.metrics.reference import Reference

GIVEN = "these images have none; type metrics=[fid,kid]"
INTERVALS_BY = {"level": LEVEL, "resamples": RESAMPLES, "seed": SEED, "method": METHOD}
SMALL = 4096  # images up to which FID and KID get an interval; of more it is narrow, and slow to compute


@dataclass(frozen=True)
class Evaluation:
    """Results by name, their protocol (plain JSON values), and warnings.

    details: results that are not single numbers, as plain JSON values.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """Return what is written to the file: each result under its name, `protocol` and `warnings`."""
        return {**self.values, **self.details, "protocol": self.protocol, "warnings": list(self.warnings)}


class Evaluator:
    """Evaluates any number of sets of samples against one set of real images, which is processed once.

    real: the images, or the contents of a reference file. extractor: None if no metric reads features. source: the real
    data, for metrics that use classes. progress: called as (what, done, total), for each batch of images and each
    metric. kept: the cache of real images' features; None: no cache. intervals: whether to compute confidence intervals
    for FID and KID of few images. The global random state does not change.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        real: ImageSet | Reference | None,
        extractor: Extractor | None,
        source: Source | None = None,
        progress: Progress | None = None,
        kept: FeatureCache | None = None,
        intervals: bool = False,
    ):
        self.metrics, self.extractor, self.source, self.progress = list(metrics), extractor, source, progress
        self.real, self.kept, self.intervals = real, kept, intervals
        self.samples: Tensor | None = None  # the features [n, dim] of the last evaluated samples
        self.was_kept = False  # whether the real images' features came from the cache
        self.by_features = [m for m in metrics if not isinstance(m, (LabelMetric, ImageMetric, PairMetric))]
        self.by_image = [m for m in metrics if isinstance(m, ImageMetric)]
        self.by_label = [m for m in metrics if isinstance(m, LabelMetric)]
        self.by_pair = [m for m in metrics if isinstance(m, PairMetric)]
        self._features: Tensor | None = None
        self._statistics: list[Tensor] = []  # one tensor per PairMetric, a row per image

    def evaluate(self, fake: ImageSet) -> Evaluation:
        """Compute all metrics of one set of samples.

        Raises MetricError, before any image is generated, if these metrics cannot be computed of these images.
        """
        warnings = self.check(fake)
        self._begin()
        self._statistics = [torch.zeros(fake.n, m.width, dtype=torch.float64) for m in self.by_pair]
        values, details = self._watch(fake) if self.extractor is None else self._score(fake, self.extractor)
        for metric in self.by_image:
            scores, more = metric.look(fake, self.real if isinstance(self.real, ImageSet) else None, self.progress)
            values, details = values | scores, details | more
        needed = self.real if any(m.compares for m in self.metrics) else None
        told = protocol(self.metrics, fake, needed, self.extractor)
        return Evaluation(values, told, tuple(warnings), details)

    def check(self, fake: ImageSet) -> list[str]:
        """Return warnings, before any work. Raises MetricError if the metrics cannot be computed of these images."""
        if self.by_label and (fake.labelled is None or self.source is None):
            raise MetricError(
                f"metrics={self.by_label[0].name} needs samples conditioned on a class, and these have none: train a"
                " conditional model (model.conditioning=projection)"
            )
        if self.by_pair and fake.shown is None:
            raise MetricError(f"metrics={self.by_pair[0].name} compares outputs with their inputs or targets: {GIVEN}")
        if self.by_features or self.by_label:
            fake.check_channels()
        blind = [m.name for m in self.by_image if m.compares and isinstance(self.real, Reference)]
        if blind:
            raise MetricError(f"metrics={blind[0]} needs the real images, not their features: type reference=FOLDER")
        mixed = [s for s in (fake, self.real) if isinstance(s, ImageSet) and s.mixed]
        if self.by_image and mixed:
            raise MetricError(
                f"metrics={self.by_image[0].name} compares images of one size, and these files differ in size: type"
                " size=64, or another common side"
            )
        if self.by_features and self.extractor is not None:
            return check(self.by_features, fake, self.real, self.extractor) + self.extractor.notes()
        if not self.metrics:
            raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
        return []

    def _begin(self) -> None:
        """Process the real images, once."""
        if self._features is not None:
            return
        self._features = torch.empty(0, 0 if self.extractor is None else self.extractor.dim)
        if self.extractor is not None and self.real is not None and any(m.compares for m in self.by_features):
            self._features = self._looked_at(self.real, self.extractor)
        for metric in self.by_label:
            assert self.source is not None
            metric.begin(self.source, self.progress)

    def features_of_real(self) -> Tensor:
        """Return the real images' features, [n, dim], computing them at the first call; empty if a file has none."""
        self._begin()
        assert self._features is not None
        return self._features

    def _looked_at(self, real: ImageSet | Reference, extractor: Extractor) -> Tensor:
        """Return the features of the real images: from the file, from the cache, or computed and then cached."""
        if isinstance(real, Reference):
            return torch.empty(0, extractor.dim) if real.features is None else real.features
        if self.kept is None:
            return extract(real, extractor, self.progress, "real images")
        found, self.was_kept = self.kept.features(real, extractor, self.progress)
        return found

    def _score(self, fake: ImageSet, extractor: Extractor) -> tuple[dict[str, float], dict[str, Any]]:
        """Extract the samples' features, passing each batch to the label and pair metrics, then run every metric."""
        assert self._features is not None
        watched = self._watched(fake) if self.by_label or self.by_pair else fake
        self.samples = features = extract(watched, extractor, self.progress, "samples")
        real = self._features
        given = self.real if isinstance(self.real, Reference) and self.real.features is None else None

        def scores() -> tuple[dict[str, float], dict[str, Any]]:
            found = score(self.by_features, features, real, extractor, self.progress, given)
            small = self.intervals and given is None and max(len(features), len(real)) <= SMALL
            return found, spread(self.by_features, found, features, real, extractor) if small else {}

        values, details = World.of_group().from_first(scores)
        more, named = self._finish()
        values, details = values | more, details | named
        return self._told(values, details)

    def _watch(self, fake: ImageSet) -> tuple[dict[str, float], dict[str, Any]]:
        """Run the label and pair metrics only, without an extractor."""
        done, world = 0, World.of_group()
        if world.size > 1 and fake.span is not None:
            fake = fake.span(*world.rows(fake.n, CHUNK))
        for images in self._seen(fake) if self.by_label or self.by_pair else ():
            done += len(images)
            if self.progress is not None:
                self.progress("samples", done, fake.n)
        return self._told(*self._finish())

    def _watched(self, fake: ImageSet) -> ImageSet:
        """Return the same set, whose chunks, and those of its spans, also go to the label and pair metrics."""
        part = fake.span
        cut = None if part is None else lambda start, stop: self._watched(part(start, stop))
        return replace(fake, chunks=lambda: self._seen(fake), span=cut)

    def _seen(self, fake: ImageSet) -> Iterator[Tensor]:
        if not self.by_pair:
            assert fake.labelled is not None
            for images, labels in fake.labelled():
                self._label(images, labels)
                yield images
            return
        assert fake.shown is not None
        for shown in fake.shown():
            if shown.labels is not None:
                self._label(shown.images, shown.labels)
            rows = slice(shown.first, shown.first + len(shown.images))
            for metric, statistics in zip(self.by_pair, self._statistics, strict=True):
                statistics[rows] = metric.see(shown)
            yield shown.images

    def _label(self, images: Tensor, labels: Tensor) -> None:
        for metric in self.by_label:
            metric.see(images, labels)

    def _told(self, values: dict[str, float], details: dict[str, Any]) -> tuple[dict[str, float], dict[str, Any]]:
        """Add the results of the pair metrics, and their intervals."""
        World.of_group().sum(self._statistics)
        found, intervals = dict[str, float](), dict[str, list[float]]()
        for metric, statistics in zip(self.by_pair, self._statistics, strict=True):
            mine, influences = by_image(metric, statistics)
            found |= mine
            if self.intervals and 1 < len(statistics) <= SMALL:
                intervals |= {name: interval(mine[name], (each,)) for name, each in influences.items()}
        if intervals:
            intervals = details.get("intervals", {}) | intervals
            details = details | {"intervals": intervals, "intervals_by": INTERVALS_BY}
        return values | found, details

    def _finish(self) -> tuple[dict[str, float], dict[str, Any]]:
        values: dict[str, float] = {}
        details: dict[str, Any] = {}
        for metric in self.by_label:
            scores, more = metric.finish()
            values |= scores
            details |= more
        return values, details


def evaluate(
    metrics: Sequence[Metric],
    fake: ImageSet,
    real: ImageSet | None,
    extractor: Extractor | None,
    progress: Progress | None = None,
) -> Evaluation:
    """Compute all metrics of `fake`, against `real` if a metric compares. Raises as `Evaluator.evaluate`."""
    return Evaluator(metrics, real, extractor, progress=progress).evaluate(fake)


def spread(
    metrics: Sequence[Metric], values: dict[str, float], fake: Tensor, real: Tensor, extractor: Extractor
) -> dict[str, Any]:
    """Return the confidence intervals of the results that have one, as details; {} if none has."""
    found: dict[str, list[float]] = {}
    for metric in metrics:
        pairs = metric.influences(fake, real, extractor) if metric.compares and len(fake) > 1 < len(real) else {}
        found |= {name: interval(values[name], pair) for name, pair in pairs.items()}
    return {"intervals": found, "intervals_by": INTERVALS_BY} if found else {}


def by_image(metric: PairMetric, statistics: Tensor) -> tuple[dict[str, float], dict[str, Tensor]]:
    """Return a metric's results and each image's first-order influence on them, [n], from statistics float64 [n, S].

    The influence of an image is the derivative of the result with respect to the mean statistics, times the deviation
    of the image's statistics from that mean. Raises MetricError for a result that is not finite.
    """
    mean = statistics.mean(0).requires_grad_()
    with torch.enable_grad():
        told = metric.told(mean)
        slopes = [torch.autograd.grad(value, mean, retain_graph=True)[0] for value in told.values()]
    values = {name: float(value.detach()) for name, value in told.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise MetricError(
            f"{broken[0]} is not a finite number for these {len(statistics)} images: leave it out of metrics"
        )
    away = statistics - statistics.mean(0)
    return values, {name: away @ slope for name, slope in zip(told, slopes, strict=True)}


def check(
    metrics: Sequence[Metric], fake: ImageSet, real: ImageSet | Reference | None, extractor: Extractor
) -> list[str]:
    """Return warnings, before any work. Raises MetricError if these metrics cannot be computed of these images."""
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    alone = [m.name for m in metrics if m.compares] if real is None else []
    if alone:
        raise MetricError(f"metrics={alone[0]} compares with real images: type reference=FOLDER")
    n_real = 0 if real is None else real.n or fake.n
    noted = []
    if isinstance(real, Reference):
        noted = real.check(extractor)
        lacking = [m.name for m in metrics if m.compares and not m.by_statistics and real.features is None]
        if lacking:
            raise MetricError(
                f"metrics={lacking[0]} needs the real images' features, and {real.protocol.get('file')} has only their"
                " mean and covariance, which are enough for fid: type metrics=[fid], or reference=FOLDER"
            )
    return noted + [warning for m in metrics for warning in m.check(extractor, fake.n, n_real)]


def score(
    metrics: Sequence[Metric],
    fake: Tensor,
    real: Tensor,
    extractor: Extractor,
    progress: Progress | None = None,
    given: Reference | None = None,
) -> dict[str, float]:
    """Return every metric's results from features float32 [N, dim], or from a reference's statistics instead of `real`.

    Raises MetricError for a result that is not finite.
    """
    values: dict[str, float] = {}
    for done, metric in enumerate(metrics):
        if progress is not None:
            progress(metric.name, done, len(metrics))
        if given is not None and metric.compares:
            found = metric.score_statistics(fake, given, extractor)
        else:
            found = metric.score(fake, real, extractor)
        values |= {name: float(value) for name, value in found.items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise MetricError(f"{broken[0]} is not a finite number for these {len(fake)} images: type a larger n")
    if progress is not None:
        progress("metrics", len(metrics), len(metrics))
    return values


def protocol(
    metrics: Sequence[Metric], fake: ImageSet, real: ImageSet | Reference | None, extractor: Extractor | None
) -> dict[str, Any]:
    """Return all settings needed to reproduce the numbers, as plain JSON values."""
    n_real = 0 if real is None else real.n or fake.n
    told: dict[str, Any] = {
        **(extractor.protocol() if extractor is not None else {}),
        "n_fake": fake.n,
        "n_real": real.n if real is not None else 0,
        "fake": dict(fake.protocol),
        "reference": dict(real.protocol) if real is not None else None,
        "versions": {"torch": torch.__version__, "torch_fidelity": version("torch-fidelity")},
    }
    return told | {m.name: settings for m in metrics if (settings := m.settings(fake.n, n_real))}
