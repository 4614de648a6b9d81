"""Sets of images as the metrics see them: a count, a shape, chunks of uint8, and where they come from."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.data.fields import Field, Image
from gancli.data.source import Source, order
from gancli.errors import MetricError
from gancli.metrics.extractor import Extractor

Progress = Callable[[str, int, int], None]  # what is going on, how much is done, of how much

_CHUNK = 256  # rows read at once
CHUNK = 32  # samples are drawn so many at once: a rank's share begins at a multiple


class Sampler(Protocol):
    """What is needed of a trained game."""

    @property
    def field(self) -> Field: ...

    def labelled_samples(self, n: int, seed: int, *, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """uint8 [B, C, H, W] and the classes asked for, int64 [B]; numbers `first` to n."""

    def protocol(self) -> dict[str, Any]:
        """Where the samples come from, as plain JSON values."""


@dataclass(frozen=True)
class Shown:
    """Outputs beside what they were made from, as saved: float64 [B, C, H, W] in [0, 1] where nothing else is said.

    first: the number of the first. images: the outputs as uint8. levels: the largest value of a saved pixel.
    labels: the class of each input, int64 [B]. given: the inputs. truth: the right answers. back: the inputs as they
    come back. None: there are none.
    """

    first: int
    images: Tensor
    levels: int
    made: Tensor
    given: Tensor
    labels: Tensor | None = None
    truth: Tensor | None = None
    back: Tensor | None = None


@dataclass(frozen=True)
class ImageSet:
    """n images of one shape (C, H, W), C being 1 or 3; (C, 0, 0) where each has sides of its own.

    chunks: begins anew at each call; uint8 [B, C, H, W] of any B, n in all. protocol: where they come from, as plain
    JSON values. labelled: the same images with their classes, int64 [B], where they were asked for by class.
    span: the images [start, stop) as a set of their own, for several ranks; None where they cannot be told apart.
    shown: the same images beside what they were made from, where that is data. Raises MetricError for images that no
    extractor reads, where they are not shown so.
    """

    n: int
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[Tensor]]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    labelled: Callable[[], Iterator[tuple[Tensor, Tensor]]] | None = None
    span: Callable[[int, int], ImageSet] | None = None
    shown: Callable[[], Iterator[Shown]] | None = None

    @property
    def mixed(self) -> bool:
        """Whether the images differ in size; each chunk is of one size."""
        return self.shape[1:] == (0, 0)

    def __post_init__(self) -> None:
        if self.shown is None:
            self.check_channels()

    def check_channels(self) -> None:
        """Raise MetricError for other images than of grey or colour."""
        if self.shape[0] not in (1, 3):
            raise MetricError(
                f"these metrics read images of 1 or 3 channels and were given {self.shape[0]}: set dataset.size=[3,H,W]"
            )


def shape_of(field: Field) -> tuple[int, ...]:
    """(C, H, W) of images. Raises MetricError for a field of something else."""
    if not isinstance(field, Image):
        raise MetricError(f"these metrics compare images, and these are {field.told}: choose a data set of images")
    return field.shape


def from_source(source: Source, n: int | None, seed: int, *, exact: bool = False, **facts: Any) -> ImageSet:
    """The first n rows of a data set's permutation keyed by `seed`, unflipped, in the data set's order.

    n: None for all. exact: refuse (MetricError) to take fewer from a smaller data set. facts: more for the protocol.
    """
    if exact and n is not None and n > len(source):
        raise MetricError(
            f"{n} real images asked for and {source.name} has {len(source)}: type a smaller n_real, or null"
        )
    shape = shape_of(next(iter(source.fields.values())))
    count = len(source) if n is None else min(n, len(source))
    index = order(len(source), seed, "evaluation")[:count]
    index.sort()  # a memory map is read forwards, and a whole set in the order that other tools read it

    told = {"name": source.name, "images": len(source), "shape": list(shape), "fingerprint": source.fingerprint}
    told |= {"seed": seed, **facts}

    def span(first: int, last: int) -> ImageSet:
        def chunks() -> Iterator[Tensor]:
            for start in range(first, last, _CHUNK):
                yield eight_bits(source.rows(index[start : min(start + _CHUNK, last)], columns=("x",))["x"])

        return ImageSet(last - first, shape, chunks, told, span=span)

    return span(0, count)


def enough(name: str, there: int, n: int) -> tuple[int, list[str]]:
    """How many real images stand against n samples where `there` are all there are, and a note where they are fewer."""
    if there >= n:
        return n, []
    return there, [f"{name} has {there:,} real images, fewer than n={n:,}: all of them are compared with"]


def from_sampler(sampler: Sampler, n: int, seed: int, labelled: bool = False) -> ImageSet:
    """n samples of a trained game, drawn as they are looked at; labelled: by class. Raises MetricError for others."""
    shape = shape_of(sampler.field)
    told = {"shape": list(shape), "seed": seed, **sampler.protocol()}

    def span(first: int, last: int) -> ImageSet:
        def pairs() -> Iterator[tuple[Tensor, Tensor]]:
            return ((eight_bits(x), y) for x, y in sampler.labelled_samples(last, seed, first=first))

        def chunks() -> Iterator[Tensor]:
            return (x for x, _ in pairs())

        return ImageSet(last - first, shape, chunks, told, pairs if labelled else None, span)

    return span(0, n)


def extract(images: ImageSet, extractor: Extractor, progress: Progress | None = None, what: str = "images") -> Tensor:
    """The features of every image, float32 [n, dim] on the CPU; one batch of images is held at a time.

    Of several ranks each looks at its share, cut so that every image meets the same neighbours as on one rank, and all
    get all features. Raises MetricError where the images are not as many, or not of the kind, as their set says, or
    features not finite.
    """
    world, unit = World.of_group(), math.lcm(CHUNK, extractor.batch_size)
    if world.size > 1 and images.span is not None:
        own = _extract(images.span(*world.rows(images.n, unit)), extractor, progress, what)
        return world.joined(own, images.n, unit)
    return _extract(images, extractor, progress, what)


def _extract(images: ImageSet, extractor: Extractor, progress: Progress | None, what: str) -> Tensor:
    """As `extract`, by this rank alone."""
    features = torch.empty(images.n, extractor.dim)
    done = 0
    for batch in batches(images.chunks(), extractor.batch_size):
        fits = images.mixed or tuple(batch.shape[1:]) == tuple(images.shape)
        if batch.dtype != torch.uint8 or not fits or done + len(batch) > images.n:
            given = f"{len(batch)} of shape {tuple(batch.shape[1:])}, {batch.dtype}, after {done}"
            raise MetricError(f"{what}: expected {images.n} of shape {tuple(images.shape)}, uint8; given {given}")
        features[done : done + len(batch)] = extractor.features(three_channels(batch))
        done += len(batch)
        if progress is not None:
            progress(what, done, images.n)
    if done != images.n:
        raise MetricError(f"{what}: expected {images.n} images, given {done}")
    if not features.isfinite().all():
        raise MetricError(
            f"{what}: the extractor gives numbers that are not finite; its weights file is damaged: give another one"
        )
    return features


def eight_bits(images: Tensor) -> Tensor:
    """Images of 16 bits as uint8, rounded to the nearest; those of 8 as they are."""
    return images if images.dtype == torch.uint8 else ((images + 128) // 257).to(torch.uint8)


def three_channels(images: Tensor) -> Tensor:
    """[B, 1, H, W] as three equal channels, without a copy; [B, 3, H, W] as it is."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def batches(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Chunks of any length as batches of `size`; the last may be shorter, and the last before images of another size.

    >>> [b.tolist() for b in batches([torch.arange(3), torch.arange(3, 5)], 2)]
    [[0, 1], [2, 3], [4]]
    """
    rest: Tensor | None = None
    for chunk in chunks:
        if rest is not None and rest.shape[1:] != chunk.shape[1:]:
            yield rest
            rest = None
        chunk = chunk if rest is None else torch.cat([rest, chunk])
        whole = len(chunk) - len(chunk) % size
        yield from (chunk[start : start + size] for start in range(0, whole, size))
        rest = chunk[whole:] if whole < len(chunk) else None
    if rest is not None:
        yield rest
