"""A data set as the streams see it: rows by number; and the finishing that all sets share."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.compute.rng import key
from gancli.data.fields import Field, Label, field_of
from gancli.data.layout import some
from gancli.data.pixels import Size, fit
from gancli.data.rows import Picked, Rows
from gancli.errors import ConfigError, DataError, SplitError

Index = NDArray[np.int64]


def raw_bits(n: int, *purpose: object) -> NDArray[np.uint64]:
    """n random 64-bit numbers keyed by their purpose.

    Raw words of Philox: NumPy promises that they stay the same in every version, not so its distributions.
    """
    bits: NDArray[np.uint64] = np.random.Philox(key=key(*purpose)).random_raw(n)
    return bits


def order(n: int, *purpose: object) -> Index:
    """A permutation of 0 ... n-1 keyed by its purpose, int64 [n].

    >>> order(5, 0, "real", 0).tolist() == order(5, 0, "real", 0).tolist() != order(5, 0, "real", 1).tolist()
    True
    """
    return np.argsort(raw_bits(n, *purpose), kind="stable").astype(np.int64, copy=False)


def chosen(n: int, limit: int | None) -> Index | None:
    """The rows that `dataset.limit` keeps, or None for all of them.

    They are the first of one fixed shuffle, so that classes stay mixed and a smaller limit keeps a part of what a
    larger one does.
    Raises ConfigError for a limit under 1; one over n keeps everything.
    """
    check_limit(limit)
    return None if limit is None or limit >= n else order(n, "limit")[:limit]


def limit_notes(count: int, limit: int | None, labels: NDArray[Any] | None, classes: Sequence[str]) -> list[str]:
    """What `dataset.limit` does that was not asked for, a line each.

    count: of all items. labels: of the kept ones.

    >>> limit_notes(8, 10, None, [])
    ['dataset.limit=10: there are only 8, and all of them are taken']
    >>> limit_notes(8, 2, np.array([0, 0]), ["cat", "dog"])
    ['dataset.limit=2 leaves no image of dog, which is 1 of the 2 classes all the same']
    """
    if limit is None:
        return []
    if limit > count:
        return [f"dataset.limit={limit}: there are only {count:,}, and all of them are taken"]
    gone = [] if labels is None or limit == count else np.setdiff1d(np.arange(len(classes)), labels).tolist()
    if not gone:
        return []
    names = some([classes[i] for i in gone])
    which = f"{names}, which {'is' if len(gone) == 1 else 'are'} {len(gone)} of the {len(classes)} classes all the same"
    return [f"dataset.limit={limit} leaves no image of {which}"]


def check_limit(limit: int | None) -> None:
    """Raises ConfigError for a limit that keeps nothing."""
    if limit is not None and limit < 1:
        raise ConfigError(f"dataset.limit={limit} keeps nothing: type 1 or more, or dataset.limit=null for all")


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Raises SplitError, with the splits that there are, unless `split` is one of them."""
    if split not in allowed:
        listed = " or ".join(f"dataset.split={choice}" for choice in allowed)
        raise SplitError(f"dataset={name} has no split {split!r}: type {listed}")


@dataclass(frozen=True)
class Modes:
    """The Gaussians that points were drawn from: means [K, D], one standard deviation for all."""

    means: NDArray[np.float64]
    sigma: float


class Source:
    """A finished data set: images uint8 [N, C, H, W] or points float32 [N, D], with labels.

    content: an array, or `Rows` that lie outside of memory, with the SHA-256 of their bytes as content_hash if known.
    shape: (C, H, W) or (D,). classes: their names, empty where there are no labels. flip: whether the streams mirror
    images at random. dequantize: whether they deal x / 128 - 1 + U(0, 1 / 128). modes: of 2D toys, for metrics.
    notes: what was left out or changed, a line each. Raises DataError where labels and contents do not fit.
    """

    def __init__(
        self,
        name: str,
        content: NDArray[Any] | Rows,
        labels: NDArray[Any] | None = None,
        classes: Sequence[str] = (),
        *,
        flip: bool = False,
        dequantize: bool = False,
        modes: Modes | None = None,
        content_hash: str | None = None,
        notes: Sequence[str] = (),
    ):
        self.name = name
        # A plain view: indexing a np.memmap runs Python code of its own each time.
        self._content = content.view(np.ndarray) if isinstance(content, np.ndarray) else content
        self.classes = tuple(str(label) for label in classes)
        self.labels = np.zeros(len(content), np.int64) if labels is None else labels.astype(np.int64)
        self.shape: tuple[int, ...] = tuple(content.shape[1:])
        self.flip, self.dequantize = flip, dequantize
        self.modes = modes
        self.notes = tuple(notes)
        self._content_hash = content_hash
        if len(content) == 0:
            raise DataError(f"dataset={name} is empty: at least one image is needed")
        if len(self.labels) != len(content):
            raise DataError(
                f"dataset={name} has {len(content)} images and {len(self.labels)} labels: one label an image is needed"
            )
        twin = next((title for title, many in Counter(self.classes).items() if many > 1), None)
        if twin is not None:
            raise DataError(f"dataset={name} has two classes of the name {twin}: give each a name of its own")
        lowest, highest = self.labels.min(), self.labels.max()
        if lowest < 0 or highest >= max(1, len(self.classes)):
            raise DataError(
                f"dataset={name} has labels from {lowest} to {highest} and {len(self.classes)} classes: "
                "labels run from 0 to classes - 1"
            )

    def __len__(self) -> int:
        return len(self._content)

    @property
    def fields(self) -> dict[str, Field]:
        """What each column holds."""
        x: dict[str, Field] = {"x": field_of(self._content)}
        return x | ({"y": Label(self.classes)} if self.classes else {})

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what the streams deal out: contents as sized and limited, labels, class names, flips and noise."""
        facts = [self._content.dtype.name, self._content.shape, self.classes, self.flip]
        total = hashlib.sha256(json.dumps([*facts, "dequantize"] if self.dequantize else facts).encode())
        total.update((self._content_hash or self._hash_content()).encode())
        total.update(self.labels.astype("<i8").tobytes())
        return total.hexdigest()

    @property
    def in_memory(self) -> bool:
        """Whether rows are at hand; else they are read, or decoded, when they are asked for."""
        return isinstance(self._content, np.ndarray)

    def _hash_content(self) -> str:
        if not isinstance(self._content, np.ndarray):
            digest = hashlib.sha256()
            for start in range(0, len(self), 256):
                digest.update(self._content[np.arange(start, min(start + 256, len(self)))].tobytes())
            return digest.hexdigest()
        return hashlib.sha256(np.ascontiguousarray(self._content).data).hexdigest()

    def only(self, index: Index) -> Source:
        """The same data set with these rows alone."""
        kept = self._content
        content = kept[index] if isinstance(kept, np.ndarray) else Picked(kept, index)
        labels, flip, dequantize = self.labels[index], self.flip, self.dequantize
        return Source(
            self.name,
            content,
            labels,
            self.classes,
            flip=flip,
            dequantize=dequantize,
            modes=self.modes,
            notes=self.notes,
        )

    def rows(self, index: Index) -> tuple[Tensor, Tensor]:
        """The rows of these numbers, on the CPU: uint8 [n, C, H, W] or float32 [n, D], and labels int64 [n]."""
        return torch.from_numpy(self._content[index]), torch.from_numpy(self.labels[index])


def finish(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[Any] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    flip: bool,
    dequantize: bool = False,
    pad: bool = False,
    notes: Sequence[str] = (),
) -> Source:
    """A Source of images [N, C, H, W] held in memory: limited, then sized (`pixels.fit`).

    notes: on what was read. Raises DataError for what are no images.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape[1:]:
        raise DataError(f"dataset={name}: {images.dtype} {list(images.shape)} is no set of images: get its files again")
    if labels is not None and len(labels) != len(images):
        raise DataError(
            f"dataset={name} has {len(images)} images and {len(labels)} labels: one label an image is needed"
        )
    count, keep = len(images), chosen(len(images), limit)
    if keep is not None:
        images = images[keep]
        labels = None if labels is None else labels[keep]
    notes = [*notes, *limit_notes(count, limit, labels, classes)]
    return Source(name, fit(images, size, name, pad), labels, classes, flip=flip, dequantize=dequantize, notes=notes)
