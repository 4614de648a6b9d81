"""Base classes of metrics: of features, of images, of labelled images, and of pairs of outputs and targets."""

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

Better = Literal["low", "high", "neither"]  # neither: for example, noise also has a share of copies of 0


def named(word: str, extractor: Extractor) -> str:
    """Return a result's name: unchanged for Inception; other extractors are appended, and FID and KID become fd and kd.

    Numbers of different networks cannot be compared, so the name states the network.

    >>> from types import SimpleNamespace
    >>> [named(word, SimpleNamespace(name="clip")) for word in ("fid", "kid", "is", "recall")]
    ['fd_clip', 'kd_clip', 'is_clip', 'recall_clip']
    """
    if extractor.name == "inception":
        return word
    return f"{word.replace('fid', 'fd').replace('kid', 'kd')}_{extractor.name}"


class Metric(ABC):
    """One or more numbers about a set of generated images, usually in comparison with real ones."""

    name: ClassVar[str]
    words: ClassVar[tuple[str, ...]] = ()  # names of its results, without the extractor; (): `name` is the only one
    better: ClassVar[Mapping[str, Better]] = {}  # of each result, by its names for Inception and for other extractors
    compares: ClassVar[bool] = True  # whether it needs features of real images
    by_statistics: ClassVar[bool] = False  # whether the real images' mean and covariance are enough

    def check(self, extractor: Extractor, n_fake: int, n_real: int) -> list[str]:
        """Return warnings about these counts, before any work. Raises MetricError if it cannot be computed."""
        return []

    def needs_extractor(self) -> bool:
        """Whether the metric needs a pretrained network."""
        return True

    def results(self, extractor: Extractor | None) -> tuple[str, ...]:
        """Return the names of its results, without secondary ones (_std, or of a single level)."""
        words = self.words or (self.name,)
        return tuple(named(word, extractor) for word in words) if self.needs_extractor() and extractor else words

    @abstractmethod
    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Return the metric's entry in the protocol, as plain JSON values."""

    @abstractmethod
    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return results by name, from features float32 [N, dim] on the CPU; `real` is empty if not `compares`."""

    def score_statistics(self, fake: Tensor, reference: Reference, extractor: Extractor) -> dict[str, float]:
        """Return results by name from the mean and covariance of the real images; called if `by_statistics`."""
        raise NotImplementedError

    def influences(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, tuple[Tensor, Tensor]]:
        """Return each image's influence on a result, fake [N] and real [M], for its interval; {}: no interval."""
        return {}


class LabelMetric(Metric):
    """A metric of samples and the classes they are conditioned on; it needs no extractor."""

    compares: ClassVar[bool] = False

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    @abstractmethod
    def begin(self, source: Source, progress: Progress | None = None) -> None:
        """Prepare from the real data, once for any number of evaluations."""

    @abstractmethod
    def see(self, images: Tensor, labels: Tensor) -> None:
        """Process a batch of samples, uint8 [B, C, H, W], and their requested classes, int64 [B]."""

    @abstractmethod
    def finish(self) -> tuple[dict[str, float], dict[str, Any]]:
        """Return results by name and details (plain JSON values) of all samples since the last call, of all ranks."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return {}: the results are not functions of features."""
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
        """Return results by name and details (plain JSON values). Raises MetricError for images it cannot evaluate."""

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return {}: the results are not functions of features."""
        return {}


class PairMetric(Metric):
    """A metric of each output and its target, input or reconstruction; it needs no extractor.

    Its results are functions of statistics that are averaged over images, so that each can have an interval.
    """

    compares: ClassVar[bool] = False
    wants: ClassVar[Literal["truth", "back", "given"]] = "truth"  # the field of `Shown` that it reads with the outputs

    def needs_extractor(self) -> bool:
        """It does not."""
        return False

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Return {}: there are no settings."""
        return {}

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raise MetricError for outputs and inputs of shapes (C, H, W) that it cannot evaluate."""

    def begin(self, device: torch.device | str) -> None:
        """Load what is needed, once for any number of evaluations. Raises GanError."""

    @abstractmethod
    def see(self, shown: Shown) -> Tensor:
        """Return statistics of each image, float64 [B, S] on the CPU."""

    @property
    def width(self) -> int:
        """S, the number of statistics per image."""
        return 1

    def told(self, mean: Tensor) -> dict[str, Tensor]:
        """Return results by name, differentiable, from the statistics' mean over all images, float64 [S]."""
        return {self.name: mean[0]}

    def score(self, fake: Tensor, real: Tensor, extractor: Extractor) -> dict[str, float]:
        """Return {}: the results are not functions of features."""
        return {}
