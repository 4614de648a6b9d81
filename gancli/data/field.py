"""What every column of a data set knows of its rows.

Only here and in the kinds of fields is it asked what a row is. Stored rows are what files and caches hold (bytes, whole
numbers); ready ones are what networks take and make (numbers, images in [-1, 1]).
"""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

from numpy.typing import NDArray
from torch import Tensor

from gancli.draw.pictures import Pixels
from gancli.errors import DataError
from gancli.store.files import whole_file


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

        >>> import torch
        >>> from gancli.data.fields import Points
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


def _texts(folder: Path, names: Sequence[str], lines: Sequence[str]) -> list[Path]:
    paths = [folder / f"{name}.txt" for name in names]
    for path, line in zip(paths, lines, strict=True):
        with whole_file(path) as file:
            file.write(f"{line}\n".encode())
    return paths
