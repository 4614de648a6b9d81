"""Rows outside memory: read from a file of pixels, or decoded on access."""

from __future__ import annotations

import os
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Protocol

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.data.listing import Files
from gancli.data.pixels import Shape
from gancli.errors import DataError

Index = NDArray[np.int64]


class Rows(Protocol):
    """The interface of contents that are not arrays.

    at_hand: whether rows are in memory; if not, they are read or decoded on access.
    """

    at_hand: bool

    @property
    def shape(self) -> tuple[int, ...]: ...

    @property
    def dtype(self) -> np.dtype[Any]: ...

    def __len__(self) -> int: ...

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Return a copy of these rows, [n, ...]."""


class Opened:
    """A file for reads at any offset from any thread, closed with its last user."""

    _moving: ClassVar[threading.Lock] = threading.Lock()

    def __init__(self, path: str):
        self.path = path
        self._handle = os.open(path, os.O_RDONLY | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0))
        weakref.finalize(self, os.close, self._handle)

    def read(self, size: int, offset: int) -> bytes:
        """Read exactly `size` bytes. Raises EOFError if the file ends before."""
        data = self._some(size, offset)
        while len(data) < size:
            more = self._some(size - len(data), offset + len(data))
            if not more:
                raise EOFError(f"{self.path} ends too early")
            data += more
        return data

    def _some(self, size: int, offset: int) -> bytes:
        """At most `size` bytes."""
        if hasattr(os, "pread"):
            return os.pread(self._handle, size, offset)
        with self._moving:  # Windows: threads share the handle's position
            os.lseek(self._handle, offset, os.SEEK_SET)
            return os.read(self._handle, size)

    def fill(self, view: memoryview, offset: int) -> None:
        """Fill a buffer. Raises EOFError if the file ends before."""
        while view:
            done = os.preadv(self._handle, [view], offset)
            if done == 0:
                raise EOFError(f"{self.path} ends too early")
            view, offset = view[done:], offset + done


def levels(pixels: NDArray[Any]) -> NDArray[Any]:
    """Convert pixels to the dtype of columns: uint8, or int32 for 16 bits."""
    return pixels if pixels.dtype == np.uint8 else pixels.astype(np.int32)


class RowFile:
    """The rows of a file of pixels, uint8 or uint16 [N, C, H, W], read on access and converted by `levels`.

    Pages of a memory map count as the process's memory once touched, and after an epoch all are. Data read into a batch
    stays in the system's page cache, which is freed when needed.
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
        """Return these rows, [n, C, H, W]. Raises DataError if the file was truncated meanwhile."""
        rows = np.empty((len(index), *self.shape[1:]), self._kept)
        view, size = memoryview(rows.data).cast("B"), self._size
        try:
            for slot, row in enumerate(index.tolist()):
                self._file.fill(view[slot * size : (slot + 1) * size], self._start + row * size)
        except (OSError, EOFError) as error:
            raise DataError(f"{self._file.path} changed while it was read ({error}): start again") from error
        return levels(rows)


class Encoded:
    """Rows that stay in their files and are decoded, several at a time, on access."""

    at_hand = False

    def __init__(self, files: Files, shape: Shape, decoder: decode.Decoder = decode.decode, bits: int = 8):
        self.shape, self.dtype = (len(files), *shape), np.dtype(np.uint8 if bits == 8 else np.int32)
        self._files, self._shape, self._decode = files, shape, decoder
        self._workers = decode.worker_count()
        self._pool = ThreadPoolExecutor(self._workers, "decode")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Return these rows, [n, C, H, W]. Raises DataError naming a file that can no longer be read."""
        rows = np.empty((len(index), *self._shape), self.dtype)
        numbers = index.tolist()

        def some(first: int) -> None:
            for slot in range(first, len(numbers), self._workers):
                rows[slot] = self._decode(self._files, numbers[slot], self._shape)

        for done in [self._pool.submit(some, first) for first in range(min(self._workers, len(numbers)))]:
            done.result()
        return rows


class Picked:
    """A selection of other rows, without a copy."""

    def __init__(self, rows: Rows, index: Index):
        self._rows, self._index = rows, index
        self.shape, self.dtype, self.at_hand = (len(index), *rows.shape[1:]), rows.dtype, rows.at_hand

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: Index) -> NDArray[Any]:
        """Return these rows."""
        return self._rows[self._index[index]]


def pieces(count: int, size: int) -> Sequence[Index]:
    """Return 0 ... count-1 in runs of `size`."""
    return [np.arange(start, min(start + size, count)) for start in range(0, count, size)]
