"""Metrics of samples and the training images that they may copy, of a run or of files."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancli.config.settings import MOST_EVALUATED, at_least, at_most
from gancli.data.fields import Image
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.images import ImageSet, Progress, extract, from_sampler, from_source, mirrored
from gancli.metrics.run_metric import FeatureRunMetric, Findings, data, kept_out, training_data

if TYPE_CHECKING:
    from gancli.draw.sampling import Sampler

LEAST = 10  # training images
TRAINING, SAMPLES = "training images", "samples"  # names of progress


@dataclass
class Compared:
    """Samples and training images, whose features are extracted once for any number of metrics.

    train: returns the training images, or at most so many of them. excluded: returns at most so many images that
    dataset.limit excluded from training; None if there are none. test: returns images of the test split; None if
    the data have none, or if the run was trained on them. kept: the cache of features; None: no cache. flipped: whether
    the training images were mirrored at random, so that samples may copy a mirrored one.
    """

    extractor: Extractor
    samples: ImageSet
    train: Callable[[int | None], ImageSet]
    excluded: Callable[[int | None], ImageSet | None]
    test: Callable[[], ImageSet | None]
    progress: Progress
    kept: FeatureCache | None = None
    flipped: bool = False
    _samples: Tensor | None = field(default=None, init=False, repr=False)
    _training: dict[int, tuple[ImageSet, Tensor]] = field(default_factory=dict, init=False, repr=False)
    _mirrored: dict[int, Tensor] = field(default_factory=dict, init=False, repr=False)

    def of_samples(self) -> Tensor:
        """Return the samples' features, float32 [N, D]."""
        if self._samples is None:
            self._samples = extract(self.samples, self.extractor, self.progress, SAMPLES)
        return self._samples

    def of_training(self, most: int | None) -> tuple[ImageSet, Tensor]:
        """Return at most `most` training images (None: all) and their features, float32 [M, D]."""
        images = self.train(most)
        if images.n not in self._training:
            self._training[images.n] = images, self.of(images, TRAINING)
        return self._training[images.n]

    def of_mirrored_training(self, most: int | None) -> Tensor | None:
        """Return the features of the same images mirrored, float32 [M, D]; None if the run saw no mirrored images."""
        if not self.flipped:
            return None
        images = self.train(most)
        if images.n not in self._mirrored:
            self._mirrored[images.n] = self.of(mirrored(images), f"mirrored {TRAINING}")
        return self._mirrored[images.n]

    def of_excluded(self, images: ImageSet) -> tuple[Tensor, Tensor | None]:
        """Return the features of images excluded from training, and of the mirrored ones if the run saw such images."""
        what = "images excluded by dataset.limit"
        return self.of(images, what), self.of(mirrored(images), f"mirrored {what}") if self.flipped else None

    def of(self, images: ImageSet, what: str) -> Tensor:
        """Return the features of real images, from the cache if they are there. what: their name in the progress."""
        if self.kept is None:
            return extract(images, self.extractor, self.progress, what)
        return self.kept.features(images, self.extractor, self.progress, what)[0]

    def searched(self, count: int) -> dict[str, Any]:
        """Return the details of a search of `count` training images, and whether mirrored ones were searched, too."""
        return {"training_images": count, "mirrored_images_searched": self.flipped}


def sides_of_run(
    extractor: Extractor,
    sampler: Sampler,
    n: int,
    seed: int,
    progress: Progress,
    metric: str,
    kept: FeatureCache | None = None,
) -> Compared:
    """Return n samples of a run and its training images. metric: names it in messages. Raises MetricError."""
    source = training_data(sampler, metric)

    def excluded(most: int | None) -> ImageSet | None:
        found = kept_out(sampler, source)
        return None if found is None else from_source(found, most, 0)

    def test() -> ImageSet | None:
        try:
            return from_source(data(sampler, "test", metric), None, 0)
        except MetricError:  # none, or trained on
            return None

    samples = from_sampler(sampler, n, seed)
    train = partial(from_source, source, seed=0)
    return Compared(extractor, samples, train, excluded, test, progress, kept, source.flip)


def sides_of_files(
    extractor: Extractor,
    samples: ImageSet,
    train: Callable[[int | None], ImageSet],
    progress: Progress,
    kept: FeatureCache | None = None,
) -> Compared:
    """Return samples and training images from files, of which nothing is held out and none is searched mirrored."""
    return Compared(extractor, samples, train, lambda most: None, lambda: None, progress, kept)


class TrainingMetric(FeatureRunMetric):
    """A metric of samples and training images: of a run, or of `input=` and, as training images, `reference=`."""

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for a run of points, or with fewer than ten training images."""
        if not isinstance(sampler.field, Image):
            raise MetricError(f"metrics={self.name} takes images; for points type metrics=[modes,divergences]")
        self.refuse_count(len(training_data(sampler, self.name)))

    def refuse_count(self, training: int) -> None:
        """Raise MetricError for so few training images."""
        if training < LEAST:
            raise MetricError(f"metrics={self.name} needs at least {LEAST} training images: leave it out of metrics")

    def refuse_files(self, training: int) -> None:
        """Raise MetricError if images from files, so many of them training images, are not enough."""
        self.refuse_count(training)

    def measure(self, extractor: Extractor | None, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """See `compare`."""
        assert extractor is not None
        return self.compare(sides_of_run(extractor, sampler, n, seed, progress, self.name))

    @abstractmethod
    def compare(self, sides: Compared) -> Findings:
        """Compute the results. Raises MetricError."""


def check_images(metric: str, images: int | None) -> None:
    """Raise ConfigError for an impossible number of training images to search."""
    at_least(LEAST, **{f"metrics.{metric}.images": images})
    at_most(MOST_EVALUATED, **{f"metrics.{metric}.images": images})


def picked(images: ImageSet, rows: Tensor) -> Tensor:
    """Return images by their positions [R] in a set of one size, uint8 [R, C, H, W]."""
    span = images.span
    if span is not None:
        return torch.cat([part for row in rows.tolist() for part in span(row, row + 1).chunks()])
    return torch.cat(list(images.chunks()))[rows]


def told(images: ImageSet, row: int) -> dict[str, Any]:
    """Return what identifies an image of a set by its position, as plain JSON values: a number, and a file if any."""
    return {"number": row} if images.told is None else dict(images.told(row))
