"""Refusals of metrics that cannot evaluate a run, before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from gancli.errors import MetricError
from gancli.metrics.metric import LabelMetric, Metric, PairMetric
from gancli.metrics.outputs import made_of_rows, refuse_classes, refuse_pairs
from gancli.metrics.run_metric import FeatureRunMetric, RunMetric

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


def parted(metrics: Sequence[Metric]) -> tuple[list[RunMetric | FeatureRunMetric], list[Metric]]:
    """Split the metrics into those of a run and those of images."""
    of_run = [m for m in metrics if isinstance(m, (RunMetric, FeatureRunMetric))]
    return of_run, [m for m in metrics if not isinstance(m, (RunMetric, FeatureRunMetric))]


def refuse_run(metrics: Sequence[Metric], sampler: Sampler) -> None:
    """Raise GanError for the first metric that needs something that this run does not have."""
    refuse_labels(metrics, sampler)
    refuse_pairs(sampler, [m for m in metrics if isinstance(m, PairMetric)])
    for metric in parted(metrics)[0]:
        metric.refuse(sampler)


def refuse_labels(metrics: Sequence[Metric], sampler: Sampler | None) -> None:
    """Raise MetricError if a metric needs the samples' classes and the samples have none."""
    wanting = [m.name for m in metrics if isinstance(m, LabelMetric)]
    if wanting and sampler is None:
        raise MetricError(f"metrics={wanting[0]} evaluates a conditional run's samples: give run= instead of input=")
    if wanting and sampler is not None and made_of_rows(sampler):
        refuse_classes(sampler, wanting[0])
    elif wanting and sampler is not None and not sampler.labelled:
        raise MetricError(
            f"metrics={wanting[0]} compares samples with their requested class, but {sampler.run.name} is"
            " unconditional: train a conditional model (model.conditioning=projection)"
        )
