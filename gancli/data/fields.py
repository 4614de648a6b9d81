"""The kinds of fields: numbers (defined here), pixels and symbols; and how fields are read from a file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gancli.data.field import Field, Geometry
from gancli.data.pixel_fields import Clip, Image, Volume
from gancli.data.symbol_fields import Attributes, Codes, Label, Tokens
from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.errors import DataError
from gancli.store.files import whole_file

__all__ = [
    "KINDS",
    "Attributes",
    "Clip",
    "Codes",
    "Field",
    "Geometry",
    "Image",
    "Label",
    "Numbers",
    "Points",
    "Series",
    "Table",
    "Tokens",
    "Vector",
    "Volume",
    "Wave",
    "field_of",
    "read",
]


@dataclass(frozen=True)
class Numbers(Field):
    """Base class of rows of `size` numbers, float32 [N, size], which networks get unchanged."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(size,)."""
        return (self.size,)

    @property
    def told(self) -> str:
        """Return a description of the rows."""
        return f"{self.words} of {self.size} number{'s' if self.size != 1 else ''}"


@dataclass(frozen=True)
class Points(Numbers):
    """Points on a line, in the plane or in space."""

    kind: ClassVar[str] = "points"
    words: ClassVar[str] = "points"
    picture_name: ClassVar[str] = "scatter"

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """Draw a scatter plot of the first two numbers."""
        return pictures.scatter(stored)


@dataclass(frozen=True)
class Vector(Numbers):
    """Vectors, such as features or embeddings of a text."""

    kind: ClassVar[str] = "vector"
    words: ClassVar[str] = "vectors"


@dataclass(frozen=True)
class Table(Field):
    """Rows of a table with named columns of numbers, float32 [N, columns]."""

    kind: ClassVar[str] = "table"
    words: ClassVar[str] = "table rows"
    columns: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(columns,)."""
        return (len(self.columns),)

    def text(self, stored: Tensor) -> list[str]:
        """Return `name=number` for each column."""
        rows = stored.tolist()
        return [" ".join(f"{n}={v:.6g}" for n, v in zip(self.columns, row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Wave(Field):
    """Audio, float32 [N, channels, samples] in [-1, 1], at `rate` samples per second."""

    kind: ClassVar[str] = "wave"
    words: ClassVar[str] = "waves"
    channels: int
    samples: int
    rate: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(channels, samples)."""
        return self.channels, self.samples

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """Write a 16-bit WAV file for each row."""
        import wave

        paths = [folder / f"{name}.wav" for name in names]
        for path, sound in zip(paths, stored, strict=True):
            with whole_file(path) as file, wave.open(file, "wb") as out:
                out.setnchannels(self.channels)
                out.setsampwidth(2)
                out.setframerate(self.rate)
                out.writeframes((sound.T.clamp(-1, 1) * 32767).round().numpy().astype("<i2").tobytes())
        return paths


@dataclass(frozen=True)
class Series(Field):
    """Time series of `size` numbers at each of `length` steps, float32 [N, length, size]."""

    kind: ClassVar[str] = "series"
    words: ClassVar[str] = "series"
    length: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(length, size)."""
        return self.length, self.size


KINDS: dict[str, type[Field]] = {
    kind.kind: kind
    for kind in (Image, Clip, Volume, Points, Vector, Table, Wave, Series, Label, Attributes, Tokens, Codes)
}


def read(plain: Mapping[str, Any]) -> Field:
    """Return the field that `Field.plain` describes. Raises ValueError for anything else: the file is untrusted."""
    kind = KINDS.get(str(plain.get("kind")))
    if kind is None:
        raise ValueError(f"unknown kind of field: {str(plain.get('kind'))[:40]}")
    given = {k: tuple(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in plain.items() if k != "kind"}
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    for name, value in given.items():
        wanted = {"int": int, "str": str}.get(str(known.get(name)), tuple)
        if name not in known or type(value) is not wanted or (isinstance(value, int) and value < 0):
            raise ValueError(f"a field of {kind.words} has an unknown or invalid entry {name[:40]}")
    try:
        return kind(**given)
    except TypeError:
        raise ValueError(f"a field of {kind.words} lacks an entry") from None


def field_of(content: Any) -> Field:
    """Derive an array's field from its dtype and shape: images uint8 [N, C, H, W] or points of floats [N, D].

    Raises DataError for anything else.
    """
    shape, dtype = tuple(content.shape[1:]), np.dtype(content.dtype)
    if len(shape) == 3 and dtype == np.uint8:
        return Image(*shape)
    if len(shape) == 1 and dtype.kind == "f":
        return Points(*shape)
    raise DataError(
        f"{dtype} [N, {', '.join(map(str, shape))}] are neither images uint8 [N, C, H, W] nor points [N, D]"
    )
