"""Base classes of metrics of a run, which draw their own samples, and the data they use."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from gancli.data.columns import Index
from gancli.data.source import Source, order
from gancli.draw.pictures import Pixels
from gancli.errors import ConfigError, MetricError, SplitError
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import Progress
from gancli.metrics.metric import Metric
from gancli.metrics.outputs import like_samples
from gancli.train.streams import data_set, split_of

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler


class RunMetric(Metric):
    """A metric of a trained run, which draws its samples and may use its networks; it needs no extractor."""

    compares: ClassVar[bool] = False
    asks_critic: ClassVar[bool] = False  # whether it needs the discriminator

    @abstractmethod
    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Compute the results. n, seed: of samples. Raises MetricError."""

    def refuse(self, sampler: Sampler) -> None:
        """Raise MetricError for a run that this metric cannot evaluate, before anything is computed."""

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Return {}: only the counts matter."""
        return {}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return {}: the results are not functions of features."""
        return {}


def own_data(sampler: Sampler, **changes: Any) -> Source:
    """Load the run's data set, with `changes` to its keys; of several image columns the one that samples imitate.

    Raises ConfigError or DataError.
    """
    return like_samples(data_set({**sampler.config["dataset"], **changes}, sampler.config.get("game") or {}), sampler)


def data(sampler: Sampler, split: str, metric: str) -> Source:
    """Load another split of the run's data set. Raises MetricError if it has none or the run was trained on it."""
    own = sampler.config["dataset"].get("split")
    if split == "test" and own in ("test", "all"):
        raise MetricError(
            f"metrics={metric} needs test data, which the run was trained on (dataset.split={own}): train with"
            " dataset.split=train"
        )
    try:
        found = split_of(sampler.config["dataset"], sampler.config.get("game") or {}, split)
        source = like_samples(found, sampler, f"metrics={metric}")
    except SplitError:
        raise MetricError(
            f"metrics={metric} needs {split} data, which {sampler.facts.name} does not have:"
            " train on a data set that has it, such as mnist"
        ) from None
    except ConfigError as error:
        raise MetricError(f"metrics={metric} needs {split} data: {error}") from None
    if source.shape != sampler.field.shape:
        shapes = f"shape {source.shape}, the run's {sampler.field.shape}"
        raise MetricError(f"metrics={metric}: the {split} data have {shapes}: leave it out of metrics")
    if sampler.labelled and source.classes != sampler.classes:
        raise MetricError(f"metrics={metric}: the {split} data have other classes than those the run was trained on")
    return source


def critic_of(sampler: Sampler) -> nn.Module | None:
    """Return the discriminator; None if the game has none or it was not loaded."""
    return next((sampler.nets[name] for name in sampler.game.discriminators() if name in sampler.nets), None)


def drawn(sampler: Sampler, n: int, seed: int) -> Tensor:
    """Draw n samples as the network outputs them: points [n, D], or images [n, C, H, W] in [-1, 1]."""
    parts = []
    for start in range(0, n, 1024):
        parts.append(sampler.sample([(seed, k) for k in range(start, min(start + 1024, n))]))
    return torch.cat(parts)


@dataclass(frozen=True)
class Findings:
    """Results by name, details (plain JSON values), pictures by file name, and notes."""

    values: dict[str, float]
    details: dict[str, Any] = field(default_factory=dict)
    pictures: dict[str, Pixels] = field(default_factory=dict)
    notes: Sequence[str] = ()


class FeatureRunMetric(Metric):
    """A metric of a run that chooses itself which samples and real images go through the extractor."""

    compares: ClassVar[bool] = False

    @abstractmethod
    def measure(self, extractor: Extractor | None, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Compute the results. n, seed: of samples. extractor: not None if `needs_extractor()`. Raises MetricError."""

    def refuse(self, sampler: Sampler) -> None:
        """Raise MetricError for a run that this metric cannot evaluate, before any network is loaded."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return {}: the results are not functions of features alone."""
        return {}


def training_data(sampler: Sampler, metric: str) -> Source:
    """Load the run's training data. Raises MetricError if they have changed since."""
    found = data_set(sampler.config["dataset"], sampler.config.get("game") or {})
    if found.fingerprint != sampler.facts.fingerprint:
        raise MetricError(
            f"metrics={metric} needs the run's training data, and {found.name} has changed since: restore the data, or"
            " leave it out of metrics"
        )
    return like_samples(found, sampler)


def left_out(sampler: Sampler, source: Source) -> tuple[Source, Index]:
    """Return a run's data set without dataset.limit, and the rows that the limit excluded from training, shuffled.

    source: the training data. No rows if there was no limit, or if the excluded rows cannot be determined.
    """
    limit = sampler.config["dataset"].get("limit")
    nothing: Index = np.empty(0, np.int64)
    if limit is None:
        return source, nothing
    whole = own_data(sampler, limit=None)
    if whole.shape != source.shape or len(whole) <= len(source):
        return whole, nothing
    # The limit keeps the first of a shuffle for files, and the first rows for data drawn by seed: find out which.
    some = np.array([0, len(source) // 2, len(source) - 1])
    for shuffled in (order(len(whole), "limit"), np.arange(len(whole))):
        if torch.equal(source.rows(some)["x"], whole.rows(shuffled[some])["x"]):
            return whole, shuffled[len(source) :]
    return whole, nothing


def kept_out(sampler: Sampler, source: Source) -> Source | None:
    """Return images that dataset.limit excluded from training, at most as many as were used; None if there are none."""
    whole, rest = left_out(sampler, source)
    return whole.only(np.sort(rest[: len(source)])) if len(rest) else None


def refuse_unlabelled(sampler: Sampler, metric: str) -> None:
    """Raise MetricError for an unconditional run."""
    if not sampler.labelled or len(sampler.classes) < 2:
        raise MetricError(
            f"metrics={metric} needs samples conditioned on a class, and {sampler.run.name} is unconditional: train a"
            " conditional model (model.conditioning=projection)"
        )
