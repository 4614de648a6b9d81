"""Metrics of a run itself: of its points, its discriminator, or its likelihood, where no extractor is asked."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gancli.data.columns import Index
from gancli.data.source import Source, lone, order
from gancli.draw.pictures import Pixels
from gancli.errors import ConfigError, MetricError, SplitError
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import Progress
from gancli.metrics.metric import Metric
from gancli.train.dealing import data_set, split_of

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


class RunMetric(Metric):
    """A metric that is given a trained run, to draw from and to look into."""

    compares: ClassVar[bool] = False
    asks_critic: ClassVar[bool] = False  # whether it looks into what tells samples from data

    @abstractmethod
    def measure(self, found: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """n, seed: of samples. Raises MetricError."""

    def refuse(self, found: Sampler) -> None:
        """Raise MetricError for a run that this metric cannot evaluate, before anything is computed."""

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Nothing beside the counts."""
        return {}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Nothing can be told from features."""
        return {}


def own_data(found: Sampler, **changes: Any) -> Source:
    """The run's data set, other values of its keys apart. Raises ConfigError or DataError."""
    return lone(data_set({**found.config["dataset"], **changes}, found.config.get("game") or {}), "an evaluation")


def data(found: Sampler, split: str, metric: str) -> Source:
    """Another split of the run's data set. Raises MetricError where there is none, or the run was trained on it."""
    own = found.config["dataset"].get("split")
    if split == "test" and own in ("test", "all"):
        raise MetricError(
            f"metrics={metric} needs test data, which the run was trained on (dataset.split={own}): train with"
            " dataset.split=train"
        )
    try:
        source = lone(split_of(found.config["dataset"], found.config.get("game") or {}, split), f"metrics={metric}")
    except SplitError:
        raise MetricError(
            f"metrics={metric} needs {split} data, which {found.facts.name} does not have:"
            " train on a data set that has them, such as mnist"
        ) from None
    except ConfigError as error:
        raise MetricError(f"metrics={metric} needs {split} data: {error}") from None
    if source.shape != found.field.shape:
        shapes = f"the shape {source.shape}, the run's {found.field.shape}"
        raise MetricError(f"metrics={metric}: the {split} data have {shapes}")
    if found.labelled and source.classes != found.classes:
        raise MetricError(f"metrics={metric}: the {split} data have other classes than those the run was trained on")
    return source


def critic_of(found: Sampler) -> nn.Module | None:
    """The network that tells samples from data; None where the game has none, or it is not there."""
    return next((found.nets[name] for name in found.game.discriminators() if name in found.nets), None)


def drawn(found: Sampler, n: int, seed: int) -> Tensor:
    """n samples, ready: points [n, D], or images [n, C, H, W] in [-1, 1], say."""
    parts = []
    for start in range(0, n, 1024):
        parts.append(found.sample([(seed, k) for k in range(start, min(start + 1024, n))]))
    return torch.cat(parts)


@dataclass(frozen=True)
class Findings:
    """Results by name, details (plain JSON values), pictures by file name, and what to bear in mind when reading."""

    values: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Pixels] = field(default_factory=dict)
    notes: Sequence[str] = ()


class FeatureRunMetric(Metric):
    """A metric of a run that chooses by itself which samples and real images the extractor looks at."""

    compares: ClassVar[bool] = False

    @abstractmethod
    def measure(self, extractor: Extractor | None, found: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """n, seed: of samples. extractor: there where `needs_extractor` says so. Raises MetricError."""

    def refuse(self, found: Sampler) -> None:
        """Raise MetricError for a run that this metric cannot evaluate, before any network is loaded."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Nothing can be told from features alone."""
        return {}


def training_data(found: Sampler, metric: str) -> Source:
    """What the run was trained on. Raises MetricError where that has changed since."""
    source = own_data(found)
    if source.fingerprint != found.facts.fingerprint:
        raise MetricError(
            f"metrics={metric} looks at what the run was trained on, and {source.name} has changed since: bring the "
            "data back, or leave it out of metrics"
        )
    return source


def left_out(found: Sampler, source: Source) -> tuple[Source, Index]:
    """The data set of a run without dataset.limit, and the rows of it that the limit kept from the run, shuffled.

    source: what the run was trained on. No rows where there was no limit, or where it cannot be known which they are.
    """
    limit = found.config["dataset"].get("limit")
    nothing: Index = np.empty(0, np.int64)
    if limit is None:
        return source, nothing
    whole = own_data(found, limit=None)
    if whole.shape != source.shape or len(whole) <= len(source):
        return whole, nothing
    # Files are limited by a shuffle, data drawn by seed by their count: look which of the two this is.
    some = np.array([0, len(source) // 2, len(source) - 1])
    for shuffled in (order(len(whole), "limit"), np.arange(len(whole))):
        if torch.equal(source.rows(some)["x"], whole.rows(shuffled[some])["x"]):
            return whole, shuffled[len(source) :]
    return whole, nothing


def kept_out(found: Sampler, source: Source) -> Source | None:
    """As many images as a run was trained on, of those that dataset.limit kept from it; None where there are none."""
    whole, rest = left_out(found, source)
    return whole.only(np.sort(rest[: len(source)])) if len(rest) else None


def refuse_unlabelled(found: Sampler, metric: str) -> None:
    """Raise MetricError for a run that knows no classes."""
    if not found.labelled or len(found.classes) < 2:
        raise MetricError(
            f"metrics={metric} looks at samples by the class they were asked for, and {found.run.name} knows none:"
            " train a conditional model (model.conditioning=projection)"
        )
