"""Image sets, the input of metrics: a count, a shape, an iterator of uint8 chunks, and a protocol."""

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

Progress = Callable[[str, int, int], None]  # what is being done, how much is done, of how much

_CHUNK = 256  # rows per read
CHUNK = 32  # samples per batch: a rank's share begins at a multiple of it


class Sampler(Protocol):
    """The part of a trained game's sampler that metrics need."""

    @property
    def field(self) -> Field: ...

    def labelled_samples(self, n: int, seed: int, *, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield samples `first` to n - 1, uint8 [B, C, H, W], and their requested classes, int64 [B]."""

    def protocol(self) -> dict[str, Any]:
        """Return where the samples come from, as plain JSON values."""


@dataclass(frozen=True)
class Shown:
    """A batch of outputs with their inputs, as saved: float64 [B, C, H, W] in [0, 1] unless stated otherwise.

    first: the number of the first. images: the outputs as uint8. levels: the largest value of a saved pixel. made: the
    outputs. labels: the class of each input, int64 [B]. given: the inputs. truth: the targets. back: the inputs'
    reconstructions. None: there are none.
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
    """n images of one shape (C, H, W); (C, 0, 0) if they differ in size.

    chunks: returns a new iterator at each call, of uint8 [B, C, H, W] of any B, n images in all. protocol: where they
    come from, as plain JSON values. labelled: the same images with their requested classes, int64 [B]; None if they
    have none. span: the images [start, stop) as a set, for several ranks; None if the set cannot be split. shown: the
    same images with their inputs, if they were made from data. told: returns what identifies an image by its position:
    its number in the data that the set was chosen from, and its file if it has one; None: its position is its number.
    """

    n: int
    shape: tuple[int, ...]
    chunks: Callable[[], Iterator[Tensor]]
    protocol: Mapping[str, Any] = field(default_factory=dict)
    labelled: Callable[[], Iterator[tuple[Tensor, Tensor]]] | None = None
    span: Callable[[int, int], ImageSet] | None = None
    shown: Callable[[], Iterator[Shown]] | None = None
    told: Callable[[int], Mapping[str, Any]] | None = None

    @property
    def mixed(self) -> bool:
        """Whether the images differ in size; each chunk is of one size."""
        return self.shape[1:] == (0, 0)

    def check_channels(self) -> None:
        """Raise MetricError for images that are neither greyscale nor RGB, which feature networks take."""
        if self.shape[0] not in (1, 3):
            raise MetricError(
                f"these metrics take images of 1 or 3 channels, got {self.shape[0]}: type metrics=[swd,ms_ssim], or"
                " train with dataset.size=[3,H,W]"
            )


def shape_of(field: Field) -> tuple[int, ...]:
    """Return the (C, H, W) of images. Raises MetricError for a field of another kind."""
    if not isinstance(field, Image):
        raise MetricError(f"these metrics compare images, got {field.told}: choose a data set of images")
    return field.shape


def from_source(source: Source, n: int | None, seed: int, *, exact: bool = False, **facts: Any) -> ImageSet:
    """Return n rows of a data set, chosen by a permutation keyed by `seed`, unflipped, in the data set's order.

    n: None for all. exact: raise MetricError if the data set has fewer. facts: more for the protocol.
    """
    if exact and n is not None and n > len(source):
        raise MetricError(
            f"n_real={n} is more than the {len(source)} images of {source.name}: type a smaller n_real, or null"
        )
    shape = shape_of(next(iter(source.fields.values())))
    count = len(source) if n is None else min(n, len(source))
    index = order(len(source), seed, "evaluation")[:count]
    index.sort()  # a memory map is read sequentially, and a whole set in the same order as by other tools

    told = {"name": source.name, "images": len(source), "shape": list(shape), "fingerprint": source.fingerprint}
    told |= {"seed": seed, **facts}

    def span(first: int, last: int) -> ImageSet:
        def chunks() -> Iterator[Tensor]:
            for start in range(first, last, _CHUNK):
                yield eight_bits(source.rows(index[start : min(start + _CHUNK, last)], columns=("x",))["x"])

        return ImageSet(
            last - first, shape, chunks, told, span=span, told=lambda row: {"number": int(index[first + row])}
        )

    return span(0, count)


def mirrored(images: ImageSet) -> ImageSet:
    """Return images mirrored left to right, without classes and inputs; their numbers are those of the originals."""
    part = images.span
    return ImageSet(
        images.n,
        images.shape,
        lambda: (chunk.flip(-1) for chunk in images.chunks()),
        {**images.protocol, "mirrored": True},
        span=None if part is None else lambda start, stop: mirrored(part(start, stop)),
        told=images.told,
    )


def enough(name: str, there: int, n: int) -> tuple[int, list[str]]:
    """Return how many of the `there` real images to compare with n samples, and a note if they are fewer than n."""
    if there >= n:
        return n, []
    return there, [f"{name} has {there:,} real images, fewer than n={n:,}: all of them are used"]


def from_sampler(sampler: Sampler, n: int, seed: int, labelled: bool = False) -> ImageSet:
    """Return n samples of a trained game, drawn lazily; labelled: with classes. Raises MetricError if not images."""
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
    """Extract the features of every image, float32 [n, dim] on the CPU; one batch of images is in memory at a time.

    With several ranks each processes its share, cut so that batches are the same as on one rank, and all ranks get all
    features. Raises MetricError for other images than greyscale or RGB, if they differ in number, shape or type from
    their set's, or if features are not finite.
    """
    images.check_channels()
    world, unit = World.of_group(), math.lcm(CHUNK, extractor.batch_size)
    if world.size > 1 and images.span is not None:
        own = _extract(images.span(*world.rows(images.n, unit)), extractor, progress, what)
        return world.joined(own, images.n, unit)
    return _extract(images, extractor, progress, what)


def _extract(images: ImageSet, extractor: Extractor, progress: Progress | None, what: str) -> Tensor:
    """Extract on this rank only."""
    features = torch.empty(images.n, extractor.dim)
    done = 0
    for batch in batches(images.chunks(), extractor.batch_size):
        fits = images.mixed or tuple(batch.shape[1:]) == tuple(images.shape)
        if batch.dtype != torch.uint8 or not fits or done + len(batch) > images.n:
            given = f"{len(batch)} of shape {tuple(batch.shape[1:])}, {batch.dtype}, after {done}"
            raise MetricError(f"{what}: expected {images.n} of shape {tuple(images.shape)}, uint8; got {given}")
        features[done : done + len(batch)] = extractor.features(three_channels(batch))
        done += len(batch)
        if progress is not None:
            progress(what, done, images.n)
    if done != images.n:
        raise MetricError(f"{what}: expected {images.n} images, got {done}")
    if not features.isfinite().all():
        raise MetricError(
            f"{what}: the extractor's features are not finite; its weights file is damaged: give another one"
        )
    return features


def eight_bits(images: Tensor) -> Tensor:
    """Convert 16-bit images to uint8, rounded to the nearest; return 8-bit images unchanged."""
    return images if images.dtype == torch.uint8 else ((images + 128) // 257).to(torch.uint8)


def three_channels(images: Tensor) -> Tensor:
    """Expand [B, 1, H, W] to three equal channels, without a copy; return [B, 3, H, W] unchanged."""
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images


def batches(chunks: Iterable[Tensor], size: int) -> Iterator[Tensor]:
    """Regroup chunks of any length into batches of `size`; the last, and the last of each image size, may be shorter.

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
