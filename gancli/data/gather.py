"""From a place's image files to a data set: limited, sized, and decoded into memory, into the cache, or when asked."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data import cache, decode
from gancli.data.index import CHECKS, Check, Index, keep, look
from gancli.data.layout import printable
from gancli.data.listing import Files, Place
from gancli.data.pixels import LARGEST, SMALLEST, Images, Shape, Size, parse_size
from gancli.data.progress import shown
from gancli.data.rows import Encoded, RowFile, Rows
from gancli.data.source import Dealt, Source, chosen, limit_notes, table
from gancli.errors import ConfigError

Store = Literal["raw", "encoded"]
STORES = ("raw", "encoded")
IN_MEMORY = 64 << 20
_RULES = 2  # part of the cache's key: count up when decoding, cropping or resizing change


def gather(
    place: Place,
    *,
    size: Size,
    limit: int | None,
    store: Store = "raw",
    check: Check = "full",
    **dealt: Unpack[Dealt],
) -> Source:
    """A Source of a place's images.

    Small sets are decoded in memory. raw: larger ones are decoded once into a file of pixels in the cache directory.
    encoded: the files stay as they are, are decoded once to know that they can be, and then when a row is asked for.
    Rows, labels and fingerprint are the same in all three. Raises ConfigError for a wrong size, store or check,
    DataError for a file that cannot be read.
    """
    asked = _asked(place.kind, size, store, check)
    index = look(place, check)
    rows = chosen(index.count, limit)
    labels = index.labels if rows is None or index.labels is None else index.labels[rows]
    key = _key(place, index, size, rows)
    content, digest, sized = _content(place, index, rows, key, size, asked, store)
    notes = [*index.notes, *limit_notes(index.count, limit, labels, index.classes), *sized]
    return table(
        place.kind,
        content,
        labels,
        index.classes,
        content_hash=digest,
        notes=notes,
        **dealt,
    )


def _asked(kind: str, size: Size, store: str, check: str) -> Shape | None:
    asked = parse_size(size, None, kind)
    if asked is not None and asked[0] not in (1, 3):
        raise ConfigError(
            f"dataset.size={list(asked)}: dataset={kind} has 1 or 3 channels; type dataset.size=[3,64,64]"
        )
    for name, value, allowed in (("store", store, STORES), ("check", check, CHECKS)):
        if value not in allowed:
            raise ConfigError(f"dataset.{name}={value} is unknown: type dataset.{name}={' or '.join(allowed)}")
    return asked


def _content(
    place: Place,
    index: Index,
    rows: NDArray[np.int64] | None,
    key: str,
    size: Size,
    asked: Shape | None,
    store: Store,
) -> tuple[NDArray[Any] | Rows, str | None, Sequence[str]]:
    """The pixels, their SHA-256 where it is known without them, and notes on their size."""

    def files() -> Files:
        listing = index.listing()
        return place.files(listing if rows is None else listing.pick(rows))

    if store == "raw" and (found := cache.load(key)) is not None:
        keep(index, place)
        return _file(found[0]), found[1], cache.notes(key)
    if store == "encoded" and (known := cache.facts(key)) is not None and len(known[0]) == 4:
        keep(index, place)
        return Encoded(files(), known[0][1:]), known[1], cache.notes(key)
    entries = files()
    shape, notes = (asked, []) if asked and not isinstance(size, int) else _natural(entries, asked)
    total = len(entries) * int(np.prod(shape))
    if store == "raw" and max(total, index.size) < IN_MEMORY:
        return np.concatenate(list(decode.images(entries, shape))), None, notes
    keep(index, place)
    with cache.alone(key):
        return *_made(place, entries, shape, key, store, notes), notes


def _made(
    place: Place, entries: Files, shape: Shape, key: str, store: Store, notes: Sequence[str]
) -> tuple[NDArray[Any] | Rows, str]:
    """Decode all, unless another process has done so while this one waited for it."""
    full = (len(entries), *shape)
    if store == "raw":
        found = cache.load(key)
        if found is None:
            told = f"decoding images of {printable(place.root)} once, into {cache.cache_dir()}"
            found = cache.store(key, full, _watched(decode.images(entries, shape), len(entries), told), notes)
        return _file(found[0]), found[1]
    known = cache.facts(key)
    if known is not None:
        return Encoded(entries, shape), known[1]
    told = f"checking images of {printable(place.root)} once"
    parts = _watched(decode.images(entries, shape), len(entries), told)
    return Encoded(entries, shape), cache.note(key, full, parts, notes)


def _watched(parts: Iterable[Images], count: int, told: str) -> Iterator[Images]:
    """The same parts, with progress shown."""
    with shown(told, count) as advance:
        for part in parts:
            yield part
            advance(len(part))


def _file(images: Images) -> NDArray[Any] | Rows:
    return RowFile(images) if isinstance(images, np.memmap) and hasattr(os, "preadv") else images


def _natural(files: Files, asked: Shape | None) -> tuple[Shape, list[str]]:
    """The shape that the files' headers give (see `folder`), and notes on it; `asked` gives the sides where there.

    Raises ConfigError for sides that no network takes.
    """
    sizes: set[tuple[int, int]] = set()
    channels, lowest, highest, least = 1, 1 << 62, 0, 0
    for i, (found, height, width) in enumerate(decode.headers(files)):
        least = i if min(height, width) < lowest else least
        channels, lowest, highest = max(channels, found), min(lowest, height, width), max(highest, height, width)
        if len(sizes) < 2:
            sizes.add((height, width))
    if asked is not None:
        return (channels, asked[1], asked[2]), []
    height, width = sizes.pop() if len(sizes) == 1 else (lowest, lowest)
    if lowest < SMALLEST or max(height, width) > LARGEST:
        raise ConfigError(
            f"{printable(files.name(least))} gives images of {width}x{height} pixels, which is out of range: sides are"
            f" {SMALLEST} to {LARGEST} pixels; type dataset.size=32, say, for another size"
        )
    if not sizes:
        return (channels, height, width), []
    return (channels, height, width), [
        f"images differ in size, with sides of {lowest} to {highest} pixels: their central squares, resized to {lowest}"
        " pixels, the smallest side, are taken; dataset.size= chooses another size"
    ]


def _key(place: Place, index: Index, size: Size, rows: NDArray[np.int64] | None) -> str:
    """A hash of all that the decoded pixels depend on."""
    asked = size if size is None or isinstance(size, int) else list(size)
    said = json.dumps([_RULES, place.root, index.digest, asked, None if rows is None else len(rows)])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
