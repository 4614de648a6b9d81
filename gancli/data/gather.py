"""Loading a place's image files as a data set: limited, resized, and decoded to memory, to the cache, or on access."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data import cache, decode
from gancli.data.index import CHECKS, Check, Index, keep, look
from gancli.data.layout import printable
from gancli.data.listing import Files, Place
from gancli.data.pixels import LARGEST, SMALLEST, Shape, Size, parse_size
from gancli.data.progress import shown
from gancli.data.rows import Encoded, RowFile, Rows, levels
from gancli.data.source import Source, StreamOptions, chosen, limit_notes, table
from gancli.errors import ConfigError

Store = Literal["raw", "encoded"]
STORES = ("raw", "encoded")
IN_MEMORY = 64 << 20
_RULES = 2  # part of the cache key: increment when decoding, cropping or resizing change


def gather(
    place: Place,
    *,
    size: Size,
    limit: int | None,
    store: Store = "raw",
    check: Check = "full",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """Build a Source of a place's images.

    Small sets are decoded to memory. raw: larger ones are decoded once, to a file of pixels in the cache directory.
    encoded: the files are decoded once for validation, and then again whenever a row is read. Rows, labels and
    fingerprint are the same in all three cases. Raises ConfigError for a wrong size, store or check, DataError for a
    file that cannot be read.
    """
    asked = asked_size(place.kind, size, store, check)
    if asked is not None and asked[0] not in (1, 3):
        raise ConfigError(
            f"dataset.size={list(asked)}: dataset={place.kind} has 1 or 3 channels; type dataset.size=[3,64,64]"
        )
    index = look(place, check)
    rows = chosen(index.count, limit)
    labels = index.labels if rows is None or index.labels is None else index.labels[rows]
    held = Held(place, index, rows, _key(place, index, size, rows), store)
    found = held.kept()
    if found is None:
        whole = asked is not None and not isinstance(size, int)
        shape, told = (asked, []) if whole and asked else _natural(held.files, asked)
        found = held.fresh(shape, told)
    notes = [*index.notes, *limit_notes(index.count, limit, labels, index.classes), *found.notes]
    return table(
        place.kind,
        found.content,
        labels,
        index.classes,
        content_hash=found.digest,
        notes=notes,
        **dealt,
    )


class Found(NamedTuple):
    """Pixels, their SHA-256 if already known, and notes on their size."""

    content: NDArray[Any] | Rows
    digest: str | None
    notes: Sequence[str]


@dataclass
class Held:
    """The pixels of some of a place's files: cached, in memory, or decoded on access.

    rows: of the index, None for all. key: a hash of everything that the pixels depend on. decoders: by bit depth.
    """

    place: Place
    index: Index
    rows: NDArray[np.int64] | None
    key: str
    store: Store
    decoders: Mapping[int, decode.Decoder] = field(default_factory=lambda: {8: decode.decode})

    @cached_property
    def files(self) -> Files:
        """The files. Raises DataError."""
        listing = self.index.listing()
        return self.place.files(listing if self.rows is None else listing.pick(self.rows))

    def kept(self) -> Found | None:
        """Return what the cache holds, None if nothing."""
        if self.store == "raw" and (found := cache.load(self.key)) is not None:
            keep(self.index, self.place)
            return Found(_file(found[0]), found[1], cache.notes(self.key))
        known = cache.facts(self.key) if self.store == "encoded" else None
        if known is None or len(known[0]) != 4 or known[2] not in self.decoders:
            return None
        shape, digest, bits = known
        keep(self.index, self.place)
        return Found(
            Encoded(self.files, (shape[1], shape[2], shape[3]), self.decoders[bits], bits),
            digest,
            cache.notes(self.key),
        )

    def fresh(self, shape: Shape, notes: Sequence[str], bits: int = 8) -> Found:
        """Decode all files, cropped and resized to a shape (C, H, W). Raises DataError naming an unreadable one."""
        total = len(self.files) * int(np.prod(shape)) * bits // 8
        if self.store == "raw" and max(total, self.index.size) < IN_MEMORY:
            pixels = np.concatenate(list(decode.images(self.files, shape, self.decoders[bits])))
            digest = None if bits == 8 else hashlib.sha256(pixels.astype("<u2").tobytes()).hexdigest()
            return Found(levels(pixels), digest, notes)
        keep(self.index, self.place)
        with cache.alone(self.key):
            return Found(*self._made(shape, notes, bits), notes)

    def _made(self, shape: Shape, notes: Sequence[str], bits: int) -> tuple[NDArray[Any] | Rows, str]:
        """Decode all files, unless another process did so while this one waited for it."""
        full, decoder = (len(self.files), *shape), self.decoders[bits]
        root = printable(self.place.root)
        if self.store == "raw":
            found = cache.load(self.key)
            if found is None:
                told = f"decoding images of {root} once, into {cache.cache_dir()}"
                parts = _watched(decode.images(self.files, shape, decoder), len(self.files), told)
                found = cache.store(self.key, full, parts, notes, bits)
            return _file(found[0]), found[1]
        known = cache.facts(self.key)
        if known is not None:
            return Encoded(self.files, shape, decoder, bits), known[1]
        parts = _watched(decode.images(self.files, shape, decoder), len(self.files), f"checking images of {root} once")
        return Encoded(self.files, shape, decoder, bits), cache.note(self.key, full, parts, notes, bits)


def asked_size(kind: str, size: Size, store: str, check: str) -> Shape | None:
    """Return the shape that `dataset.size` requests, if any. Raises ConfigError for a wrong size, store or check."""
    asked = parse_size(size, None, kind)
    for name, value, allowed in (("store", store, STORES), ("check", check, CHECKS)):
        if value not in allowed:
            raise ConfigError(f"dataset.{name}={value} is unknown: type dataset.{name}={' or '.join(allowed)}")
    return asked


def _watched(parts: Iterable[NDArray[Any]], count: int, told: str) -> Iterator[NDArray[Any]]:
    """Yield the same parts and show progress."""
    with shown(told, count) as advance:
        for part in parts:
            yield part
            advance(len(part))


def _file(images: NDArray[Any]) -> NDArray[Any] | Rows:
    return RowFile(images) if isinstance(images, np.memmap) and hasattr(os, "preadv") else levels(images)


class Sizes:
    """The sizes of many images, and the size that all are converted to."""

    def __init__(self) -> None:
        self._few: set[tuple[int, int]] = set()
        self._lowest, self._highest, self._least = 1 << 62, 0, ""

    def add(self, height: int, width: int, files: Files, i: int) -> None:
        """Add the size of file i."""
        if min(height, width) < self._lowest:
            self._least = files.name(i)
        self._lowest, self._highest = min(self._lowest, height, width), max(self._highest, height, width)
        if len(self._few) < 2:
            self._few.add((height, width))

    def common(self) -> tuple[int, int, list[str]]:
        """Return height and width: those that all have, else the square of the smallest side, with a note.

        Raises ConfigError for sides out of range.
        """
        low = self._lowest
        height, width = next(iter(self._few)) if len(self._few) == 1 else (low, low)
        if low < SMALLEST or max(height, width) > LARGEST:
            raise ConfigError(
                f"{printable(self._least)} gives images of {width}x{height} pixels, which is out of range: sides are"
                f" {SMALLEST} to {LARGEST} pixels; type another size, as in dataset.size=32"
            )
        if len(self._few) == 1:
            return height, width, []
        note = (
            f"images differ in size, with sides of {low} to {self._highest} pixels: each is cropped to its central"
            f" square and resized to {low} pixels, the smallest side; dataset.size=N sets another size"
        )
        return height, width, [note]


def _natural(files: Files, asked: Shape | None) -> tuple[Shape, list[str]]:
    """Return the shape from the files' headers (see `folder`), with notes; `asked`, if given, sets the sides."""
    sizes, channels = Sizes(), 1
    for i, (found, height, width) in enumerate(decode.headers(files)):
        channels = max(channels, found)
        sizes.add(height, width, files, i)
    if asked is not None:
        return (channels, asked[1], asked[2]), []
    height, width, notes = sizes.common()
    return (channels, height, width), notes


def _key(place: Place, index: Index, size: Size, rows: NDArray[np.int64] | None) -> str:
    """Return a hash of everything that the decoded pixels depend on."""
    asked = size if size is None or isinstance(size, int) else list(size)
    said = json.dumps([_RULES, place.root, index.digest, asked, None if rows is None else len(rows)])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
