"""Runs metrics: each set of images goes through the extractor once, and every number comes with its protocol."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

import torch
from torch import Tensor

from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Metric
from gancli.metrics.images import ImageSet, Progress, extract


@dataclass(frozen=True)
class Evaluation:
    """Results by name, how they were made (plain JSON values), and what to bear in mind when reading them."""

    values: dict[str, float]
    protocol: dict[str, Any]
    warnings: tuple[str, ...]

    def as_json(self) -> dict[str, Any]:
        """What is written: each result under its name, beside `protocol` and `warnings`."""
        return {**self.values, "protocol": self.protocol, "warnings": list(self.warnings)}


def evaluate(
    metrics: Sequence[Metric],
    fake: ImageSet,
    real: ImageSet | None,
    extractor: Extractor,
    progress: Progress | None = None,
) -> Evaluation:
    """Judge `fake` by every metric, against `real` where a metric compares.

    progress: called as (what, done, total), for each batch of images and each metric. The random state stays as it is.
    Raises MetricError, before any image is made, for an evaluation that cannot be made as asked.
    """
    warnings = check(metrics, fake, real, extractor)
    needed = real if any(m.compares for m in metrics) else None
    features = extract(needed, extractor, progress, "real images") if needed else torch.empty(0, extractor.dim)
    values = score(metrics, extract(fake, extractor, progress, "samples"), features, extractor, progress)
    return Evaluation(values, protocol(metrics, fake, needed, extractor), tuple(warnings))


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


def protocol(metrics: Sequence[Metric], fake: ImageSet, real: ImageSet | None, extractor: Extractor) -> dict[str, Any]:
    """All that another person needs to get the same numbers, as plain JSON values."""
    n_real = real.n if real is not None else 0
    told: dict[str, Any] = {
        **extractor.protocol(),
        "n_fake": fake.n,
        "n_real": n_real,
        "fake": dict(fake.protocol),
        "reference": dict(real.protocol) if real is not None else None,
        "versions": {"torch": torch.__version__, "torch_fidelity": version("torch-fidelity")},
    }
    return told | {m.name: settings for m in metrics if (settings := m.settings(fake.n, n_real))}
