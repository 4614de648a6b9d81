"""The base class of fields: what a column holds, and how its rows are stored, converted, drawn and written.

Only fields know what a row is. Stored rows are what files and caches hold (bytes, integers); ready rows are the inputs
and outputs of networks (floats, images in [-1, 1]).
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
    """How all spatial columns of a row are changed alike: enlarged, then cropped, then mirrored.

    mirrored: which rows are flipped left to right, bool [B]. corner: row and column of the crop's first pixel, int64
    [B, 2]; side: the crop's height and width. None: not applied. enlarged: pixels added to height and width first.
    """

    mirrored: Tensor | None = None
    corner: Tensor | None = None
    side: tuple[int, int] | None = None
    enlarged: int = 0


@dataclass(frozen=True)
class Field(ABC):
    """Base class of fields: rows of one shape."""

    kind: ClassVar[str]
    words: ClassVar[str]  # what messages call the rows, plural
    dtype: ClassVar[str] = "float32"  # of stored rows
    spatial: ClassVar[bool] = False
    picture_name: ClassVar[str] = "grid"  # name of a file that shows all rows

    @property
    @abstractmethod
    def shape(self) -> tuple[int, ...]:
        """Return the shape of one row."""

    @property
    def told(self) -> str:
        """Return a description of the rows."""
        return f"{self.words} of {'×'.join(map(str, self.shape)) or 'one number'}"

    @property
    def largest(self) -> int | None:
        """The largest value of a stored row, if the dtype allows more; the smallest is then 0."""
        return None

    def sized(self, height: int, width: int) -> Field:
        """Return the field with another height and width, if it is spatial."""
        return self

    def ready(self, stored: Tensor) -> Tensor:
        """Convert stored rows to network inputs."""
        return stored

    def stored(self, ready: Tensor) -> Tensor:
        """Convert a network's output to stored rows."""
        return ready.float()

    def changed(self, stored: Tensor, geometry: Geometry) -> Tensor:
        """Enlarge, crop and mirror stored rows, if the field is spatial."""
        return stored

    def shrunk(self, stored: Tensor, level: int) -> Tensor:
        """Return stored rows at 1 / 2^level of their sides. Raises DataError if the field has no levels."""
        if level:
            raise DataError(f"{self.words} have no smaller levels: only images do")
        return stored

    def variety(self, ready: Tensor) -> float:
        """Return how much rows differ: the mean standard deviation of their numbers.

        >>> import torch
        >>> from gancli.data.fields import Points
        >>> Points(2).variety(torch.tensor([[0.0, 1.0], [2.0, 1.0]]))
        0.5
        """
        return float(ready.float().flatten(1).std(0, correction=0).mean())

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels | None:
        """Draw all rows in one picture; with names, as that many equal parts in sequence. None: there is no picture."""
        return None

    def text(self, stored: Tensor) -> list[str]:
        """Return a line of text for each row."""
        flat = stored.flatten(1) if stored.dim() > 1 else stored[:, None]
        return [" ".join(f"{number:.6g}" for number in row) for row in flat.tolist()]

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """Write a file for each row; names have no suffix."""
        return _texts(folder, names, self.text(stored))

    def array(self, stored: Tensor) -> NDArray[Any]:
        """Return stored rows as NumPy files hold them for other programs."""
        return stored.numpy()

    def bytes(self) -> int:
        """Approximate bytes of a row while sampling: as floats, again when concatenated, as stored and in a picture."""
        return 9 * math.prod(self.shape) + 1000

    def plain(self) -> dict[str, Any]:
        """Return plain values for a file."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        return {"kind": self.kind} | {k: list(v) if isinstance(v, tuple) else v for k, v in own.items()}


def _texts(folder: Path, names: Sequence[str], lines: Sequence[str]) -> list[Path]:
    paths = [folder / f"{name}.txt" for name in names]
    for path, line in zip(paths, lines, strict=True):
        with whole_file(path) as file:
            file.write(f"{line}\n".encode())
    return paths
