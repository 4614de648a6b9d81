"""Columns of a table: fields with their validated rows; and the crop window of spatial columns."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from gancli.data.fields import Field, Geometry, Label
from gancli.data.rows import Picked, Rows, pieces
from gancli.errors import ConfigError, DataError

Index = NDArray[np.int64]


@dataclass(frozen=True)
class Column:
    """A field and its stored rows.

    content: an array, or `Rows` outside memory; content_hash: the SHA-256 of its bytes, if known.
    """

    field: Field
    content: NDArray[Any] | Rows
    content_hash: str | None = None

    @property
    def at_hand(self) -> bool:
        """Whether rows are in memory; if not, they are read or decoded on access."""
        return isinstance(self.content, np.ndarray) or self.content.at_hand

    def only(self, index: Index) -> Column:
        """Return a column of these rows only."""
        kept = self.content
        return Column(self.field, kept[index] if isinstance(kept, np.ndarray) else Picked(kept, index))

    def hash(self) -> str:
        """Return the SHA-256 of all rows' bytes."""
        if self.content_hash is not None:
            return self.content_hash
        if isinstance(self.content, np.ndarray):
            little = self.content.astype(self.content.dtype.newbyteorder("<"), copy=False)
            return hashlib.sha256(np.ascontiguousarray(little).data).hexdigest()
        digest = hashlib.sha256()
        for index in pieces(len(self.content), 256):
            digest.update(self.content[index].tobytes())
        return digest.hexdigest()


def checked(where: str, columns: Mapping[str, Column]) -> dict[str, Column]:
    """Validate columns and return them, memory maps as plain arrays. where: `dataset=NAME`.

    Raises DataError if there are no columns, if rows do not fit their field, or if columns differ in length.
    """
    refuse_names(where, "columns", columns)
    found = {name: _checked(where, name, column) for name, column in columns.items()}
    lengths = {name: len(column.content) for name, column in found.items()}
    if len(set(lengths.values())) > 1:
        said = ", ".join(f"{name} {n:,}" for name, n in lengths.items())
        raise DataError(f"{where} has columns of different lengths ({said}): all need the same number of rows")
    return found


def refuse_names(where: str, what: str, names: Collection[str]) -> None:
    """Raise DataError if there are no names, or if one is not an identifier: a batch names columns FEED.COLUMN."""
    if not names:
        raise DataError(f"{where} has no {what}: at least one is needed")
    for name in names:
        if not isinstance(name, str) or not name.isidentifier():
            raise DataError(f"{where} has {what} named {name!r}: use letters, digits and _, as in x")


def _checked(where: str, name: str, column: Column) -> Column:
    """Return a column whose rows fit its field. Raises DataError."""
    field, content = column.field, column.content
    found, wanted = (np.dtype(content.dtype), tuple(content.shape[1:])), (np.dtype(field.dtype), field.shape)
    if found != wanted:
        said, needed = (f"{kind} {['N', *shape]}".replace("'", "") for kind, shape in (found, wanted))
        raise DataError(f"{where}: column {name} is {said}, but {field.told} need {needed}")
    if len(content) == 0:
        raise DataError(f"{where} is empty: at least one {'image' if field.spatial else 'row'} is needed")
    if 0 in field.shape:
        raise DataError(f"{where}: column {name} has {field.told}, which are empty")
    if isinstance(field, Label):
        twin = next((title for title, many in Counter(field.names).items() if many > 1), None)
        if twin is not None:
            raise DataError(f"{where} has two classes named {twin}: rename one of them")
    if not isinstance(content, np.ndarray):
        return column
    if field.largest is not None:
        lowest, highest = int(content.min()), int(content.max())
        if lowest < 0 or highest > field.largest:
            if isinstance(field, Label):
                rule = f"{len(field.names)} classes: labels must be 0 to classes - 1"
                raise DataError(f"{where} has labels from {lowest} to {highest} but {rule}")
            raise DataError(f"{where}: column {name} has {lowest} to {highest}, but {field.told} 0 to {field.largest}")
    # A plain view: indexing an np.memmap runs extra Python code each time.
    return Column(field, content.view(np.ndarray), column.content_hash)


@dataclass(frozen=True)
class Window:
    """The crop window of spatial columns: `side` pixels of the `stored` ones, which may be enlarged first.

    side, stored: height and width. enlarged: pixels added to both sides before cropping.
    """

    side: tuple[int, int]
    stored: tuple[int, int]
    enlarged: int

    def middle(self, n: int) -> Geometry:
        """Return the central window of n rows, without enlarging."""
        corner = [(own - side) // 2 for own, side in zip(self.stored, self.side, strict=True)]
        return Geometry(None, torch.tensor([corner]).expand(n, 2), self.side)

    def corners(self, bits: NDArray[np.uint64]) -> Index:
        """Return the corner of each row's window, int64 [n, 2], from 64 random bits per row, uniform over positions."""
        places = [own + self.enlarged - side + 1 for own, side in zip(self.stored, self.side, strict=True)]
        halves = (bits >> np.uint64(32), bits & np.uint64(0xFFFFFFFF))
        drawn = [(half * np.uint64(many)) >> np.uint64(32) for half, many in zip(halves, places, strict=True)]
        return np.stack(drawn, 1).astype(np.int64)


def refuse_idle(name: str, columns: Mapping[str, Column], flip: bool, dequantize: bool) -> None:
    """Raise ConfigError if `dataset.flip` or `dataset.dequantize` is set but would change nothing."""
    kinds = [column.field for column in columns.values()]
    for key, asked, some in (
        ("flip", flip, any(field.spatial for field in kinds)),
        ("dequantize", dequantize, any(field.kind == "image" for field in kinds)),
    ):
        if key == "dequantize" and asked and any(field.largest is not None for field in kinds if field.kind == "image"):
            raise ConfigError(
                f"dataset.dequantize=true: dataset={name} has images of 16 bits, not 8: type dataset.dequantize=false"
            )
        if asked and not some:
            raise ConfigError(f"dataset.{key}=true: dataset={name} has no images; type dataset.{key}=false")


def window(name: str, columns: Mapping[str, Column], crop: int | None, jitter: int) -> Window | None:
    """Return the window that `dataset.crop` and `dataset.jitter` set, None for neither. Raises ConfigError."""
    if crop is None and not jitter:
        return None
    asked = f"dataset.jitter={jitter}" if crop is None else f"dataset.crop={crop}"
    sizes = {(shape[-2], shape[-1]) for shape in (c.field.shape for c in columns.values() if c.field.spatial)}
    if len(sizes) != 1:
        said = "images of several sizes" if sizes else "no images"
        none = "dataset.jitter=0" if crop is None else "dataset.crop=null"
        raise ConfigError(f"{asked}: dataset={name} has {said}, but cropping needs images of one size: type {none}")
    stored = sizes.pop()
    shown = f"the images of dataset={name} are {stored[0]}×{stored[1]} pixels"
    if crop is not None and not 1 <= crop <= min(stored):
        raise ConfigError(f"dataset.crop={crop}: {shown}: type a side of 1 to {min(stored)}, or null for no crop")
    if not 0 <= jitter <= min(stored):
        raise ConfigError(f"dataset.jitter={jitter}: {shown}: type 0 to {min(stored)}")
    return Window(stored if crop is None else (crop, crop), stored, jitter)
