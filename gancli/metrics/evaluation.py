"""Runs metrics: each set of images is looked at once, and every number comes with its protocol."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from gancli.data.source import Source
from gancli.dist import World
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import CHUNK, ImageSet, Progress, extract
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric


@dataclass(frozen=True)
class Evaluation:
    """Results by name, how they were made (plain JSON values), and what to bear in mind when reading them.

    details: what goes with the results and is no single number, as plain JSON values.
    """

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]
    details: dict[str, Any] = field(default_factory=dict)

    def as_json(self) -> dict[str, Any]:
        """What is written: each result under its name, beside `protocol` and `warnings`."""
        return {**self.values, **self.details, "protocol": self.protocol, "warnings": list(self.warnings)}


class Evaluator:
    """Judges any number of sets of samples against one set of real images, which is looked at once.

    extractor: None where no metric reads features. source: the real data, for metrics that look at classes.
    progress: called as (what, done, total), for each batch of images and each metric. The random state stays as it is.
    """

    def __init__(
        self,
        metrics: Sequence[Metric],
        real: ImageSet | None,
        extractor: Extractor | None,
        source: Source | None = None,
        progress: Progress | None = None,
    ):
        self.metrics, self.extractor, self.source, self.progress = list(metrics), extractor, source, progress
        self.real = real
        self.by_features = [m for m in metrics if not isinstance(m, (LabelMetric, ImageMetric))]
        self.by_image = [m for m in metrics if isinstance(m, ImageMetric)]
        self.by_label = [m for m in metrics if isinstance(m, LabelMetric)]
        self._features: Tensor | None = None

    def judge(self, fake: ImageSet) -> Evaluation:
        """All metrics of one set of samples.

        Raises MetricError, before any image is made, for an evaluation that cannot be made as asked.
        """
        warnings = self._check(fake)
        self._begin()
        values, details = self._watch(fake) if self.extractor is None else self._score(fake, self.extractor)
        for metric in self.by_image:
            scores, more = metric.look(fake, self.real, self.progress)
            values, details = values | scores, details | more
        needed = self.real if any(m.compares for m in self.metrics) else None
        told = protocol(self.metrics, fake, needed, self.extractor)
        return Evaluation(values, told, tuple(warnings), details)

    def _check(self, fake: ImageSet) -> list[str]:
        if self.by_label and (fake.labelled is None or self.source is None):
            raise MetricError(
                f"metrics={self.by_label[0].name} asks whether samples show the class they were asked for, and these"
                " were asked for none: train a conditional model (model.conditioning=projection)"
            )
        if self.by_features and self.extractor is not None:
            return check(self.by_features, fake, self.real, self.extractor)
        if not self.metrics:
            raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
        return []

    def _begin(self) -> None:
        """Look at the real images, once."""
        if self._features is not None:
            return
        self._features = torch.empty(0, 0 if self.extractor is None else self.extractor.dim)
        if self.extractor is not None and self.real is not None and any(m.compares for m in self.by_features):
            self._features = extract(self.real, self.extractor, self.progress, "real images")
        for metric in self.by_label:
            assert self.source is not None
            metric.begin(self.source, self.progress)

    def _score(self, fake: ImageSet, extractor: Extractor) -> tuple[dict[str, float], dict[str, Any]]:
        """Features of the samples, which the metrics by label see on their way, then every metric."""
        assert self._features is not None
        features = extract(self._watched(fake) if self.by_label else fake, extractor, self.progress, "samples")
        real = self._features
        values = World.of_group().from_first(lambda: score(self.by_features, features, real, extractor, self.progress))
        more, details = self._finish()
        return values | more, details

    def _watch(self, fake: ImageSet) -> tuple[dict[str, float], dict[str, Any]]:
        """Samples that only the metrics by label look at."""
        done, world = 0, World.of_group()
        if world.size > 1 and fake.part is not None:
            fake = fake.part(*world.rows(fake.n, CHUNK))
        for images in self._seen(fake) if self.by_label else ():
            done += len(images)
            if self.progress is not None:
                self.progress("samples", done, fake.n)
        return self._finish()

    def _watched(self, fake: ImageSet) -> ImageSet:
        """The same images, shown to the metrics by label on their way; a part of them, too."""
        part = fake.part
        cut = None if part is None else lambda start, stop: self._watched(part(start, stop))
        return replace(fake, chunks=lambda: self._seen(fake), part=cut)

    def _seen(self, fake: ImageSet) -> Iterator[Tensor]:
        assert fake.labelled is not None
        for images, labels in fake.labelled():
            for metric in self.by_label:
                metric.see(images, labels)
            yield images

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
    """Judge `fake` by every metric, against `real` where a metric compares. Raises MetricError as `Evaluator.judge`."""
    return Evaluator(metrics, real, extractor, progress=progress).judge(fake)


def check(metrics: Sequence[Metric], fake: ImageSet, real: ImageSet | None, extractor: Extractor) -> list[str]:
    """Warnings, before any work. Raises MetricError for an evaluation that cannot be made as asked."""
    if not metrics:
        raise MetricError("metrics=[] computes nothing: type at least one, such as metrics=[fid,kid]")
    alone = [m.name for m in metrics if m.compares] if real is None else []
    if alone:
        raise MetricError(f"metrics={alone[0]} compares with real images: type reference=FOLDER")
    n_real = real.n if real is not None else 0
    return [warning for m in metrics for warning in m.check(extractor, fake.n, n_real)]


def score(
    metrics: Sequence[Metric], fake: Tensor, real: Tensor, extractor: Extractor, progress: Progress | None = None
) -> dict[str, float]:
    """Every metric's results from features float32 [N, dim]. Raises MetricError for a result that is not finite."""
    values: dict[str, float] = {}
    for done, metric in enumerate(metrics):
        if progress is not None:
            progress(metric.name, done, len(metrics))
        values |= {name: float(value) for name, value in metric.score(fake, real, extractor).items()}
    broken = [name for name, value in values.items() if not math.isfinite(value)]
    if broken:
        raise MetricError(f"{broken[0]} is not a finite number for these {len(fake)} images: type a larger n")
    if progress is not None:
        progress("metrics", len(metrics), len(metrics))
    return values


def protocol(
    metrics: Sequence[Metric], fake: ImageSet, real: ImageSet | None, extractor: Extractor | None
) -> dict[str, Any]:
    """All that another person needs to get the same numbers, as plain JSON values."""
    n_real = real.n if real is not None else 0
    told: dict[str, Any] = {
        **(extractor.protocol() if extractor is not None else {}),
        "n_fake": fake.n,
        "n_real": n_real,
        "fake": dict(fake.protocol),
        "reference": dict(real.protocol) if real is not None else None,
        "versions": {"torch": torch.__version__, "torch_fidelity": version("torch-fidelity")},
    }
    return told | {m.name: settings for m in metrics if (settings := m.settings(fake.n, n_real))}
