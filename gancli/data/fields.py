"""What a column of a data set holds: how it is stored, what networks are given of it, how it is drawn and written.

Only here is it asked what a row is. Stored rows are what files and caches hold (bytes, whole numbers); ready ones are
what networks take and make (numbers, images in [-1, 1]).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.errors import DataError
from gancli.store.files import whole_file

CLIP_SECONDS = 0.125  # a frame of a clip's animation


class Geometry(NamedTuple):
    """What is done to all spatial columns of a row alike, in the opposite order of these.

    mirrored: which rows are turned left to right, bool [B]. corner: row and column of the crop's first pixel, int64
    [B, 2], and side: its height and width. None: nothing of the kind. enlarged: pixels that height and width gain
    before.
    """

    mirrored: Tensor | None = None
    corner: Tensor | None = None
    side: tuple[int, int] | None = None
    enlarged: int = 0


@dataclass(frozen=True)
class Field(ABC):
    """Base: rows of one shape."""

    kind: ClassVar[str]
    words: ClassVar[str]  # what rows are called, in the plural
    dtype: ClassVar[str] = "float32"  # of stored rows
    spatial: ClassVar[bool] = False
    symbols: ClassVar[bool] = False  # whether rows are made of names, between which there is nothing
    picture_name: ClassVar[str] = "grid"  # of a file with all of them

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Of one row."""

    @property
    def told(self) -> str:
        """What it holds, in words."""
        return f"{self.words} of {'×'.join(map(str, self.shape)) or 'one number'}"

    @property
    def largest(self) -> int | None:
        """The largest number that a stored row may hold, where the dtype holds more; the smallest is then 0."""
        return None

    def sized(self, height: int, width: int) -> Field:
        """The same in another height and width, where it lies in space."""
        return self

    def ready(self, stored: Tensor) -> Tensor:
        """What networks are given of stored rows."""
        return stored

    def stored(self, ready: Tensor) -> Tensor:
        """Rows as files hold them, of what a network made."""
        return ready.float()

    def changed(self, stored: Tensor, geometry: Geometry) -> Tensor:
        """Stored rows enlarged, cut out and mirrored, where they lie in space."""
        return stored

    def shrunk(self, stored: Tensor, level: int) -> Tensor:
        """Stored rows at a 2^level-th of their sides. Raises DataError where there is no such thing."""
        if level:
            raise DataError(f"{self.words} have no smaller level: only images have")
        return stored

    def variety(self, ready: Tensor) -> float:
        """How far rows differ from each other: the mean standard deviation of their numbers.

        >>> Points(2).variety(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        0.5
        """
        return float(ready.float().flatten(1).std(0, correction=0).mean())

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels | None:
        """One picture of all rows; with names, of as many equal parts one after another. None: there is none."""
        return None

    def text(self, stored: Tensor) -> list[str]:
        """A line for each row."""
        flat = stored.flatten(1) if stored.dim() > 1 else stored[:, None]
        return [" ".join(f"{number:.6g}" for number in row) for row in flat.tolist()]

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """A file for each row, by its name without a suffix."""
        return _texts(folder, names, self.text(stored))

    def array(self, stored: Tensor) -> NDArray[Any]:
        """As others read it in a NumPy file."""
        return stored.numpy()

    def bytes(self) -> int:
        """Of a row while it is drawn, about: as numbers, once more joined, as stored and in a picture."""
        return 9 * math.prod(self.shape) + 1000

    def plain(self) -> dict[str, Any]:
        """As plain values for a file."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}


def _enlarged(stored: Tensor, height: int, width: int) -> Tensor:
    """Bytes [B, ..., H, W] in another size by the bicubic filter of Pillow (a = -0.5), rounded to the nearest."""
    flat = stored.flatten(1, -3).float()
    large = interpolate(flat, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return large.round_().clamp_(0, 255).to(torch.uint8).reshape(*stored.shape[:-2], height, width)


def _cut(x: Tensor, corner: Tensor, side: tuple[int, int]) -> Tensor:
    """A window of each row of [B, ..., H, W], whose first pixel is the row's own corner."""
    windows = x.unfold(-2, side[0], 1).unfold(-2, side[1], 1).movedim((-4, -3), (1, 2))
    return windows[torch.arange(len(x), device=x.device), corner[:, 0], corner[:, 1]]


@dataclass(frozen=True)
class _Pixels(Field):
    """Bytes 0 ... 255 whose last two dimensions are height and width; networks are given x / 127.5 - 1."""

    dtype: ClassVar[str] = "uint8"
    spatial: ClassVar[bool] = True

    def ready(self, stored: Tensor) -> Tensor:
        """In [-1, 1]."""
        return stored.to(torch.float32).div_(127.5).sub_(1)

    def stored(self, ready: Tensor) -> Tensor:
        """As uint8, rounded to the nearest."""
        return ((ready.float() + 1) * 127.5).round_().clamp_(0, 255).to(torch.uint8)

    def sized(self, height: int, width: int) -> Field:
        """The same in another height and width."""
        return dataclasses.replace(self, height=height, width=width)  # type: ignore[call-arg]

    def changed(self, stored: Tensor, geometry: Geometry) -> Tensor:
        """Enlarged, cut out, and mirrored left to right."""
        if geometry.enlarged:
            height, width = (side + geometry.enlarged for side in stored.shape[-2:])
            stored = _enlarged(stored, height, width)
        if geometry.corner is not None and geometry.side is not None:
            stored = _cut(stored, geometry.corner, geometry.side)
        if geometry.mirrored is None:
            return stored
        return torch.where(geometry.mirrored.view(-1, *[1] * (stored.dim() - 1)), stored.flip(-1), stored)

    def shrunk(self, stored: Tensor, level: int) -> Tensor:
        """Means of blocks of 2 × 2 pixels, rounded to the nearest (half to even) at each level, as ProGAN's data."""
        for _ in range(level):
            if stored.shape[-1] % 2 or stored.shape[-2] % 2:
                raise DataError(f"{self.told} have no level {level}: their sides are no multiples of {2**level}")
            lead, (height, width) = stored.shape[:-2], stored.shape[-2:]
            blocks = stored.reshape(*lead, height // 2, 2, width // 2, 2).float()
            stored = blocks.mean((-3, -1)).round_().to(torch.uint8)
        return stored


@dataclass(frozen=True)
class Image(_Pixels):
    """Images, stored as uint8 [N, C, H, W]."""

    kind: ClassVar[str] = "image"
    words: ClassVar[str] = "images"
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """A near-square sheet; with names, a row each."""
        return pictures.grid(stored, names)

    def array(self, stored: Tensor) -> NDArray[Any]:
        """uint8 [N, H, W, C]."""
        return stored.permute(0, 2, 3, 1).numpy()

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """A PNG each."""
        paths = [folder / f"{name}.png" for name in names]
        for path, image in zip(paths, stored, strict=True):
            pictures.save_png(path, pictures.to_pixels(image))
        return paths

    def bytes(self) -> int:
        """With its part of a sheet, in which small images are enlarged."""
        return 9 * math.prod(self.shape) + 3 * max(64, self.height) * max(64, self.width) + 1000


@dataclass(frozen=True)
class Clip(_Pixels):
    """Clips of frames, stored as uint8 [N, T, C, H, W]; all frames of one are mirrored and cut alike."""

    kind: ClassVar[str] = "clip"
    words: ClassVar[str] = "clips"
    frames: int
    channels: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(T, C, H, W)."""
        return self.frames, self.channels, self.height, self.width

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """A row of frames a clip."""
        page = pictures.sheet(stored.flatten(0, 1), self.frames)
        return pictures.with_names(page, names) if names else page

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """An animation each."""
        paths = [folder / f"{name}.gif" for name in names]
        for path, clip in zip(paths, stored, strict=True):
            pictures.save_gif(path, [pictures.to_pixels(frame) for frame in clip], CLIP_SECONDS)
        return paths


@dataclass(frozen=True)
class Volume(_Pixels):
    """Blocks of voxels, stored as uint8 [N, C, Z, H, W]."""

    kind: ClassVar[str] = "volume"
    words: ClassVar[str] = "volumes"
    channels: int
    depth: int
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, Z, H, W)."""
        return self.channels, self.depth, self.height, self.width

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """The brightest voxel behind each pixel."""
        return pictures.grid(stored.amax(2), names)


@dataclass(frozen=True)
class Numbers(Field):
    """Base of rows of `size` numbers that networks are given as they are, float32 [N, size]."""

    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(size,)."""
        return (self.size,)

    @property
    def told(self) -> str:
        """What it holds, in words."""
        return f"{self.words} of {self.size} number{'s' if self.size != 1 else ''}"


@dataclass(frozen=True)
class Points(Numbers):
    """Points on a line, in the plane or in space."""

    kind: ClassVar[str] = "points"
    words: ClassVar[str] = "points"
    picture_name: ClassVar[str] = "scatter"

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """A scatter of the first two numbers."""
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
        """name=number, each."""
        rows = stored.tolist()
        return [" ".join(f"{n}={v:.6g}" for n, v in zip(self.columns, row, strict=True)) for row in rows]


@dataclass(frozen=True)
class Wave(Field):
    """Sound, float32 [N, channels, samples] in [-1, 1] of `rate` samples a second."""

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
        """A WAV file of 16 bits each."""
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
    """Series of `size` numbers at each of `length` moments, float32 [N, length, size]."""

    kind: ClassVar[str] = "series"
    words: ClassVar[str] = "series"
    length: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(length, size)."""
        return self.length, self.size


@dataclass(frozen=True)
class Label(Field):
    """One class of several a row, stored as int64 [N]."""

    kind: ClassVar[str] = "label"
    words: ClassVar[str] = "labels"
    dtype: ClassVar[str] = "int64"
    symbols: ClassVar[bool] = True
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """()."""
        return ()

    @property
    def told(self) -> str:
        """How many classes."""
        return f"labels of {len(self.names)} classes"

    @property
    def largest(self) -> int | None:
        """The last class."""
        return len(self.names) - 1

    def stored(self, ready: Tensor) -> Tensor:
        """As they are."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """The chance that two rows differ."""
        return _differ(ready[:, None])

    def text(self, stored: Tensor) -> list[str]:
        """The class's name."""
        return [self.names[k] for k in stored.tolist()]


@dataclass(frozen=True)
class Attributes(Field):
    """Several yes or no a row, stored as uint8 [N, names]; networks are given 0 and 1."""

    kind: ClassVar[str] = "attributes"
    words: ClassVar[str] = "attributes"
    dtype: ClassVar[str] = "uint8"
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(names,)."""
        return (len(self.names),)

    @property
    def largest(self) -> int | None:
        """Yes."""
        return 1

    def ready(self, stored: Tensor) -> Tensor:
        """As 0.0 and 1.0."""
        return stored.to(torch.float32)

    def stored(self, ready: Tensor) -> Tensor:
        """Yes from one half."""
        return (ready >= 0.5).to(torch.uint8)

    def text(self, stored: Tensor) -> list[str]:
        """The names of those that hold."""
        return [", ".join(n for n, yes in zip(self.names, row, strict=True) if yes) for row in stored.tolist()]


@dataclass(frozen=True)
class Tokens(Field):
    """Sequences of `length` tokens, numbers of `vocabulary`, int64 [N, length]; token 0 fills up and is not read.

    between: what stands between two tokens in a text.
    """

    kind: ClassVar[str] = "tokens"
    words: ClassVar[str] = "sequences"
    dtype: ClassVar[str] = "int64"
    symbols: ClassVar[bool] = True
    length: int
    vocabulary: tuple[str, ...]
    between: str = " "

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    def told(self) -> str:
        """Length and vocabulary."""
        return f"sequences of {self.length} of {len(self.vocabulary)} tokens"

    @property
    def largest(self) -> int | None:
        """The last word."""
        return len(self.vocabulary) - 1

    def stored(self, ready: Tensor) -> Tensor:
        """As they are."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """The chance that two rows differ at a place, over all places."""
        return _differ(ready)

    def text(self, stored: Tensor) -> list[str]:
        """The tokens' words."""
        return [self.between.join(self.vocabulary[k] for k in row if k) for row in stored.tolist()]


@dataclass(frozen=True)
class Codes(Field):
    """Grids of numbers of a codebook of `size` entries, int64 [N, H, W]."""

    kind: ClassVar[str] = "codes"
    words: ClassVar[str] = "codes"
    dtype: ClassVar[str] = "int64"
    symbols: ClassVar[bool] = True
    height: int
    width: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.height, self.width

    @property
    def largest(self) -> int | None:
        """The last entry."""
        return self.size - 1

    def stored(self, ready: Tensor) -> Tensor:
        """As they are."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """The chance that two rows differ at a place, over all places."""
        return _differ(ready.flatten(1))


KINDS: dict[str, type[Field]] = {
    kind.kind: kind
    for kind in (Image, Clip, Volume, Points, Vector, Table, Wave, Series, Label, Attributes, Tokens, Codes)
}


def read(plain: Mapping[str, Any]) -> Field:
    """The field that `Field.plain` describes. Raises ValueError for anything else: a file may be a stranger's."""
    kind = KINDS.get(str(plain.get("kind")))
    if kind is None:
        raise ValueError(f"no field of the kind {str(plain.get('kind'))[:40]}")
    given = {k: tuple(map(str, v)) if isinstance(v, (list, tuple)) else v for k, v in plain.items() if k != "kind"}
    known = {f.name: f.type for f in dataclasses.fields(kind)}
    for name, value in given.items():
        wanted = {"int": int, "str": str}.get(str(known.get(name)), tuple)
        if name not in known or type(value) is not wanted or (isinstance(value, int) and value < 0):
            raise ValueError(f"a field of {kind.words} has no such {name[:40]}")
    try:
        return kind(**given)
    except TypeError:
        raise ValueError(f"a field of {kind.words} lacks a size") from None


def field_of(content: Any) -> Field:
    """What an array holds, by its numbers: images of bytes [N, C, H, W], points of other numbers [N, D].

    Raises DataError for what is neither.
    """
    shape, dtype = tuple(content.shape[1:]), np.dtype(content.dtype)
    if len(shape) == 3 and dtype == np.uint8:
        return Image(*shape)
    if len(shape) == 1 and dtype.kind == "f":
        return Points(*shape)
    raise DataError(
        f"{dtype} [N, {', '.join(map(str, shape))}] are neither images uint8 [N, C, H, W] nor points [N, D]"
    )


def _differ(symbols: Tensor) -> float:
    """The chance that two rows of [N, places] differ at a place, over all places.

    >>> _differ(torch.tensor([[1, 2], [1, 3]]))
    0.5
    """
    n = len(symbols)
    if n < 2:
        return 0.0
    same = sum(int((torch.unique(column, return_counts=True)[1] ** 2).sum()) - n for column in symbols.T)
    return 1 - same / (n * (n - 1)) / symbols.shape[1]


def _texts(folder: Path, names: Sequence[str], lines: Sequence[str]) -> list[Path]:
    paths = [folder / f"{name}.txt" for name in names]
    for path, line in zip(paths, lines, strict=True):
        with whole_file(path) as file:
            file.write(f"{line}\n".encode())
    return paths
