"""Noise data (`dataset=random`): columns of any kind that a game takes, for parameter counts, benchmarks and tests."""

from __future__ import annotations

import dataclasses
import hashlib
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.columns import Column, Index
from gancli.data.fields import (
    Attributes,
    Clip,
    Codes,
    Field,
    Image,
    Label,
    Points,
    Series,
    Table,
    Tokens,
    Vector,
    Volume,
    Wave,
)
from gancli.data.pixels import Shape, Size, parse_size
from gancli.data.source import DataSet, Source, Sources, StreamOptions, check_limit, check_split, limit_notes, raw_bits
from gancli.errors import ConfigError

_LARGEST_BYTES = 1 << 34

MOST_CLASSES = 99_999  # as for labels in files

# An example field of each kind, given the images' shape and the number of classes.
KINDS: dict[str, Callable[[Shape, int], Field]] = {
    "image": lambda shape, _: Image(*shape),
    "clip": lambda shape, _: Clip(4, *shape),
    "volume": lambda shape, _: Volume(shape[0], 4, *shape[1:]),
    "points": lambda *_: Points(2),
    "vector": lambda *_: Vector(16),
    "table": lambda *_: Table(("a", "b", "c")),
    "wave": lambda *_: Wave(1, 1024, 8000),
    "series": lambda *_: Series(16, 3),
    "label": lambda _, classes: Label(tuple(map(str, range(classes)))),
    "attributes": lambda *_: Attributes(("p", "q", "r", "s", "t")),
    "tokens": lambda *_: Tokens(8, ("", *"abcdefghijklmno")),
    "codes": lambda *_: Codes(4, 4, 16),
}


class NoiseRows:
    """Uniform numbers, drawn on first access, so that counting parameters takes no memory.

    Bytes and integers up to the field's largest value, else float32 in [-1, 1).
    """

    at_hand = True

    def __init__(self, purpose: tuple[Any, ...], field: Field, n: int):
        self.dtype = np.dtype(field.dtype)
        self._purpose: tuple[Any, ...] | None = purpose
        self._largest = field.largest
        # Empty memory is not allocated until it is filled.
        self._content = np.empty((n, *field.shape), self.dtype)
        self.shape = self._content.shape

    def __len__(self) -> int:
        return len(self._content)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Return these rows."""
        if self._purpose is not None:
            flat = self._content.reshape(-1)
            if self.dtype == np.uint8:
                words = raw_bits(-(-flat.size // 8), *self._purpose)
                flat[:] = words.astype("<u8", copy=False).view(np.uint8)[: flat.size]
                if self._largest is not None:
                    flat %= self._largest + 1
            elif self._largest is not None:
                flat[:] = raw_bits(flat.size, *self._purpose) % np.uint64(self._largest + 1)
            else:
                flat[:] = (raw_bits(flat.size, *self._purpose) >> np.uint64(40)).astype(np.float32) / 2**23 - 1
            self._purpose = None
        return self._content[index]


def noise(
    size: Size = 32,
    limit: int | None = None,
    split: str = "train",
    classes: int = 10,
    n: int = 256,
    seed: int = 0,
    channels_B: int | None = None,
    bits: int = 8,
    *,
    columns: Mapping[str, str] | None = None,
    **dealt: Unpack[StreamOptions],
) -> DataSet:
    """n rows of uniform noise (`dataset=random`): images and labels, or the columns that a game takes.

    size: of images, any [C, H, W]; one side means a colour square. classes: labels cycle through 0, 1, ...; 0 for none.
    channels_B: of the images of the column or feed B, None: those of size. bits: of images, 8 or 16. columns: name ->
    kind (`KINDS`), or FEED.NAME -> kind for several feeds. `test` is another draw. Raises ConfigError.
    """
    check_split("random", split, ["train", "test"])
    shape = parse_size(size, (3, 32, 32), "random")
    assert shape is not None
    if classes > MOST_CLASSES:
        raise ConfigError(f"dataset.classes={classes}: at most {MOST_CLASSES:,}")
    if classes < 0:
        raise ConfigError(f"dataset.classes={classes}: type a number of classes, or dataset.classes=0 for no labels")
    check_limit(limit)
    if n < 1:
        raise ConfigError(f"dataset.n={n}: dataset=random needs at least one image; type dataset.n=256")
    notes = limit_notes(n, limit, None, ())
    n = n if limit is None else min(n, limit)
    wanted = {"x": "image", "y": "label"} if columns is None else dict(columns)
    made = {name: KINDS[kind](shape, classes) for name, kind in wanted.items() if kind != "label" or classes}
    made = _other_images(made, channels_B, bits)
    if n < classes and "label" in wanted.values():
        notes.append(f"{n} images of noise are fewer than the {classes} classes: the last {classes - n} have none")
    if sum(n * math.prod(f.shape) * np.dtype(f.dtype).itemsize for f in made.values()) > _LARGEST_BYTES:
        raise ConfigError(f"dataset=random of {n} images {list(shape)} is over 16 GiB: type a smaller dataset.n")
    feeds: dict[str, dict[str, Column]] = {}
    for name, field in made.items():
        feed, _, title = name.rpartition(".")
        feeds.setdefault(feed, {})[title] = _column(("random", split, seed), name, field, n)

    def finished(found: Mapping[str, Column], notes: Sequence[str] = ()) -> Source:
        if "" not in feeds and not any(column.field.spatial for column in found.values()):
            return Source("random", found)  # the options apply to the images of other feeds
        return Source("random", found, notes=notes, **dealt)

    if set(feeds) == {""}:
        return finished(feeds[""], notes)
    return Sources("random", {feed: finished(found) for feed, found in feeds.items()}, notes)


def _other_images(made: Mapping[str, Field], channels_B: int | None, bits: int) -> dict[str, Field]:
    """Set the bits of images, and the channels of B's. Raises ConfigError if there are no such images."""
    if bits not in (8, 16):
        raise ConfigError(f"dataset.bits={bits}: type dataset.bits=8 or dataset.bits=16")
    of_b = [name for name, field in made.items() if isinstance(field, Image) and name.partition(".")[0] == "B"]
    if channels_B is not None and (channels_B < 1 or not of_b):
        said = "this game takes no images B" if not of_b else "type 1 or more"
        raise ConfigError(f"dataset.channels_B={channels_B}: {said}, or leave it out")
    found = dict(made)
    for name, field in made.items():
        if isinstance(field, Image):
            channels = channels_B if channels_B is not None and name in of_b else field.channels
            found[name] = dataclasses.replace(field, channels=channels, bits=bits)
    return found


def _column(purpose: tuple[Any, ...], name: str, field: Field, n: int) -> Column:
    """Return a column of cycling labels, or of noise, hashed by its key: hashing the bytes would draw them."""
    if isinstance(field, Label):
        return Column(field, np.arange(n) % len(field.names))
    purpose = purpose if name == "x" else (*purpose, name)
    digest = hashlib.sha256(repr((purpose, n, field.plain())).encode()).hexdigest()
    return Column(field, NoiseRows(purpose, field, n), digest)
