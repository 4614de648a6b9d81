"""What a metric is: a number or two about generated images, from their features or from the images and their labels."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from gancli.data.source import Source
from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet, Progress, Shown
from gancli.metrics.reference import Reference

Better = Literal["low", "high", "neither"]  # neither: a share of copies is 0 for noise, too


def named(word: str, extractor: Extractor) -> str:
    """A result's name: the plain word is Inception's alone, and FID and KID of another network are called fd and kd.

    A number of one network tells nothing beside another's, so that the name has to say which it is of.

    >>> from types import SimpleNamespace
    >>> [named(word, SimpleNamespace(name="clip")) for word in ("fid", "kid", "is", "recall")]
    ['fd_clip', 'kd_clip', 'is_clip', 'recall_clip']
    """
    if extractor.name == "inception":
        return word
    return f"{word.replace('fid', 'fd').replace('kid', 'kd')}_{extractor.name}"


class Metric(ABC):
    """One or two numbers about a set of generated images, most of them by comparison with real ones."""

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()  # its results, before the extractor names them; (): its name is the one
    better: ClassVar[Mapping[str, Better]] = {}  # of each result, as Inception's and as another extractor's is called
    compares: ClassVar[bool] = True  # whether it needs features of real images
    by_statistics: ClassVar[bool] = False  # whether the real images' mean and covariance are enough

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Warnings about these counts, before any work. Raises MetricError for an evaluation that cannot be made."""
        return []

    def needs_extractor(self) -> bool:
        """Whether a pretrained network has to be there."""
        return True

    def results(self, extractor: Extractor | None) -> tuple[str, ...]:
        """Names of its results, before any is made; what only accompanies one (_std, one level's) is left out."""
        words = self.words or (self.name,)
        return tuple(named(word, extractor) for word in words) if self.needs_extractor() and extractor else words

    @abstractmethod
    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """What the protocol says of this metric, as plain JSON values."""

    @abstractmethod
    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Results by name, from features float32 [N, dim] on the CPU; `real` is empty where nothing is compared."""

    def score_statistics(self, fake: Tensor, reference: Reference, extractor: Extractor) -> dict[str, float]:
        """As `score`, from the mean and covariance of the real images: where `by_statistics` says so."""
        raise NotImplementedError

    def influences(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, tuple[Tensor, Tensor]]:
        """What each image, fake [N] and real [M], adds to a result, for its confidence interval; {}: it has none."""
        return {}


class LabelMetric(Metric):
    """A metric that looks at the samples themselves and at the classes they were asked for; it needs no extractor."""

    compares: ClassVar[bool] = False

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    @abstractmethod
    def begin(self, source: Source, progress: Progress | None = None) -> None:
        """Learn what is needed of the real data, once for any number of evaluations."""

    @abstractmethod
    def see(self, images: Tensor, labels: Tensor) -> None:
        """Look at samples, uint8 [B, C, H, W], and at the classes asked for, int64 [B]."""

    @abstractmethod
    def finish(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Results by name and details (plain JSON values) of all samples seen since the last call, by any rank."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Nothing can be told from features."""
        return {}


class ImageMetric(Metric):
    """A metric of the images themselves, not of their features or classes; it needs no extractor."""

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    @abstractmethod
    def look(
        self, fake: ImageSet, real: ImageSet | None, progress: Progress | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Results by name and details (plain JSON values). Raises MetricError for images that it cannot evaluate."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Nothing can be told from features."""
        return {}


class PairMetric(Metric):
    """A metric of each output beside its right answer, or beside what it was made from; it needs no extractor.

    Its results are functions of statistics that are averaged over images, so that an interval can be told of each.
    """

    compares: ClassVar[bool] = False
    wants: ClassVar[Literal["truth", "back", "given"]] = "truth"  # what it looks at beside the outputs

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Nothing to set."""
        return {}

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raise MetricError for outputs and inputs of these shapes (C, H, W) that it cannot judge."""

    def begin(self, device: torch.device | str) -> None:
        """Load what is needed, once for any number of evaluations. Raises GanError."""

    @abstractmethod
    def see(self, shown: Shown) -> Tensor:
        """Statistics of each image, float64 [B, S] on the CPU."""

    @property
    def width(self) -> int:
        """S, of the statistics."""
        return 1

    def told(self, mean: Tensor) -> dict[str, Tensor]:
        """Results by name, differentiable, from the statistics' mean over all images, float64 [S]."""
        return {self.name: mean[0]}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Nothing can be told from features."""
        return {}
