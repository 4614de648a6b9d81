"""Rows that lie outside of memory: read from a file of pixels, or decoded when they are asked for."""

from __future__ import annotations

import os
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.data.listing import Files
from gancli.data.pixels import Shape
from gancli.errors import DataError

Index = NDArray[np.int64]


class Rows(Protocol):
    """What a Source needs of contents that are no array.

    at_hand: whether rows are in memory; else they are read, or decoded, when they are asked for.
    """

    at_hand: bool

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """A copy of these rows, [n, ...]."""


class Opened:
    """A file that is read at any place by any thread, and closed with its last user."""

    def __init__(self, path: str):
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0))
        weakref.finalize(self, os.close, self._handle)

    def read(self, size: int, offset: int) -> bytes:
        """Exactly `size` bytes. Raises EOFError where the file ends before."""
        data = os.pread(self._handle, size, offset)
        while len(data) < size:
            more = os.pread(self._handle, size - len(data), offset + len(data))
            if not more:
                raise EOFError(f"{self.path} ends too early")
            data += more
        return data

    def fill(self, view: memoryview, offset: int) -> None:
        """Fill a buffer. Raises EOFError where the file ends before."""
        while view:
            done = os.preadv(self._handle, [view], offset)
            if done == 0:
                raise EOFError(f"{self.path} ends too early")
            view, offset = view[done:], offset + done


def levels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Pixels as columns hold them: uint8, or int32 of 16 bits."""
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)


class RowFile:
    """The rows of a file of pixels, uint8 or uint16 [N, C, H, W], read as `levels` when they are asked for.

    A memory map's pages count as the process's own memory once they are touched, and after an epoch all are; what is
    read into a batch stays the system's, which takes it back when it needs to.
    """

    at_hand = False

    def __init__(self, images: np.memmap[Any, Any]):
        self.shape, self._kept = tuple(images.shape), images.dtype
        self.dtype = levels(np.empty(0, self._kept)).dtype
        self._size = int(np.prod(self.shape[1:])) * self._kept.itemsize
        self._start = int(images.offset)
        self._file = Opened(str(images.filename))

    def __len__(self) -> int:
        return int(self.shape[0])

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Rows of these numbers, [n, C, H, W]. Raises DataError where the file was cut short meanwhile."""
        rows = np.empty((len(index), *self.shape[1:]), self._kept)
        view, size = memoryview(rows.data).cast("B"), self._size
        try:
            for slot, row in enumerate(index.tolist()):
                self._file.fill(view[slot * size : (slot + 1) * size], self._start + row * size)
        except (OSError, EOFError) as error:
            raise DataError(f"{self._file.path} changed while it was read ({error}): start again") from error
        return levels(rows)


class Encoded:
    """Rows that stay in their files and are decoded, several at a time, when they are asked for."""

    at_hand = False

    def __init__(self, files: Files, shape: Shape, decoder: decode.Decoder = decode.decode, bits: int = 8):
        self.shape, self.dtype = (len(files), *shape), np.dtype(np.uint8 if bits == 8 else np.int32)
        self._files, self._shape, self._decode = files, shape, decoder
        self._workers = decode.worker_count()
        self._pool = ThreadPoolExecutor(self._workers, "decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Rows of these numbers, [n, C, H, W]. Raises DataError naming a file that cannot be read any more."""
        rows = np.empty((len(index), *self._shape), self.dtype)
        numbers = index.tolist()

        def some(first: int) -> None:
            for slot in range(first, len(numbers), self._workers):
                rows[slot] = self._decode(self._files, numbers[slot], self._shape)

        for done in [self._pool.submit(some, first) for first in range(min(self._workers, len(numbers)))]:
            done.result()
        return rows


class Picked:
    """Some rows of others, without a copy."""

    def __init__(self, rows: Rows, index: Index):
        self._rows, self._index = rows, index
        self.shape, self.dtype, self.at_hand = (len(index), *rows.shape[1:]), rows.dtype, rows.at_hand

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Rows of these numbers."""
        return self._rows[self._index[index]]


def pieces(count: int, size: int) -> Sequence[Index]:
    """0 ... count-1 in runs of `size`."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
