"""Endless streams of batches: the rows are a function of (seed, name, position) alone."""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.compute.rng import key
from gancli.data.columns import Index
from gancli.data.fields import Geometry
from gancli.data.prefetch import Prefetch, Request
from gancli.data.source import Source, order, raw_bits

PER_BLOCK = 4 * 4  # 16-bit numbers per step of Philox's counter: four 64-bit words


class Fetched(NamedTuple):
    """Stored rows by column, the geometry of the spatial columns, and dequantization noise by column."""

    rows: dict[str, Tensor]
    geometry: Geometry | None
    noise: dict[str, Tensor]


class Epoch(NamedTuple):
    """One epoch of a stream: the source's row numbers, which rows are mirrored, and the corner of each row's crop."""

    rows: Index
    mirrored: NDArray[np.bool_] | None
    corners: Index | None

    def cut(self, start: int, stop: int) -> Epoch:
        """Return a slice of the epoch."""
        mirrored = None if self.mirrored is None else self.mirrored[start:stop]
        corners = None if self.corners is None else self.corners[start:stop]
        return Epoch(self.rows[start:stop], mirrored, corners)


class Stream:
    """An endless stream of a source's rows: epochs are concatenated, no row is dropped.

    Epoch e is a permutation keyed (seed, name, e); mirroring and crops are keyed alike. columns: those to yield (None:
    all). Resume needs no state from here: cached permutations and prefetched batches only save time.
    """

    def __init__(
        self,
        source: Source,
        seed: int,
        name: str,
        device: torch.device | str = "cpu",
        columns: Sequence[str] | None = None,
    ):
        self.source = source
        self.seed = seed
        self.name = name
        self.device = torch.device(device)
        self.columns = tuple(source.columns if columns is None else columns)
        images = [title for title, field in source.fields.items() if field.kind == "image"] if source.dequantize else []
        # The first column's noise is keyed by the stream alone, so that it does not depend on their number.
        self._noisy = {title: (title,) if k else () for k, title in enumerate(images) if title in self.columns}
        self._fields = [(title, source.fields[title]) for title in self.columns]
        self._spatial = [(title, field) for title, field in self._fields if field.spatial]
        self._far = self.device.type != "cpu"
        self._rows = len(source)
        self._kept: dict[int, Epoch] = {}
        self._lock = threading.Lock()
        self._ahead = None if source.in_memory else Prefetch(self._read)

    def batch(
        self, position: int, total: int, start: int = 0, stop: int | None = None, level: int = 0
    ) -> dict[str, Tensor]:
        """Return rows start:stop of the batch of `total` rows that begins at row `position` of the stream, by column.

        On the device, in network format (`Field.ready`): images float32 [B, C, H, W] in [-1, 1], points [B, D] and
        classes int64 [B] unchanged. Images are x / 127.5 - 1, or dequantized x / 128 - 1 + U(0, 1 / 128), with noise
        keyed by the position in the stream and the seed. level: spatial columns at 1 / 2^level of their sides. Raises
        ValueError for rows outside the batch, DataError for a missing level.
        """
        stop = total if stop is None else stop
        if position < 0 or not 0 <= start <= stop <= total:
            raise ValueError(f"rows {start}:{stop} of a batch of {total} at {position} do not exist")
        request = Request(position, total, start, stop, level)
        rows, geometry, noise = self._read(request) if self._ahead is None else self._ahead.take(request)
        # Converted on the device: only a quarter of the bytes is transferred.
        if self._far:
            rows = {title: self._move(x) for title, x in rows.items()}
        if geometry is not None:
            mirrored, corner, side, enlarged = geometry
            mirrored, corner = (None if t is None else self._move(t) for t in (mirrored, corner))
            geometry = Geometry(mirrored, corner, side, enlarged)
            for title, field in self._spatial:
                rows[title] = field.changed(rows[title], geometry)
        if level:
            rows = self.source.shrunk(rows, level)
        for title, field in self._fields:
            rows[title] = self._noised(rows[title], noise[title]) if title in noise else field.ready(rows[title])
        return rows

    def _noised(self, x: Tensor, noise: Tensor) -> Tensor:
        # 16 bits of noise plus 8 of the image: every step is exact, and 1 is never reached.
        x = x.to(torch.float32)
        return x.add_(self._move(noise).to(x).div_(1 << 16).add_(0.5)).div_(128).sub_(1)

    def _read(self, request: Request) -> Fetched:
        """Read the rows of a request, ready for transfer to the device."""
        position, count = request.position + request.start, request.stop - request.start
        index, mirrored, corners = self._numbers(position, count)
        rows = self.source.stored(index, self.columns)
        noise = {title: self._noise(title, request.level, position, count) for title in self._noisy}
        turned = torch.from_numpy(mirrored) if mirrored is not None and mirrored.any() else None
        corner = None if corners is None else torch.from_numpy(corners)
        if self.device.type == "cuda":
            rows, noise = ({title: t.pin_memory() for title, t in each.items()} for each in (rows, noise))
            turned, corner = (None if t is None else t.pin_memory() for t in (turned, corner))
        if turned is None and corner is None:
            return Fetched(rows, None, noise)
        window = self.source.window
        geometry = Geometry(turned) if window is None else Geometry(turned, corner, window.side, window.enlarged)
        return Fetched(rows, geometry, noise)

    def _noise(self, title: str, level: int, position: int, count: int) -> Tensor:
        """Return noise for the images at these positions of the stream, uniform int16 [count, C, H, W].

        Philox's counter starts at the position, so that an image's noise does not depend on its batch.
        """
        channels, height, width = self.source.fields[title].shape
        shape = channels, height >> level, width >> level
        blocks = -(-math.prod(shape) // PER_BLOCK)
        purpose = key(self.seed, self.name, "dequantize", *self._noisy[title])
        generator = np.random.Philox(key=purpose, counter=position * blocks)
        numbers = generator.random_raw(4 * blocks * count).astype("<u8", copy=False).view("<i2")
        used = numbers.reshape(count, PER_BLOCK * blocks)[:, : math.prod(shape)]
        return torch.from_numpy(used).reshape(count, *shape)

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def _numbers(self, position: int, count: int) -> Epoch:
        """Return the rows at these positions of the stream, which may span several epochs."""
        n, parts = self._rows, []
        while True:
            epoch, offset = divmod(position, n)
            parts.append(self._epoch(epoch).cut(offset, offset + count))
            done = min(count, n - offset)
            position += done
            count -= done
            if count == 0:
                break
        if len(parts) == 1:
            return parts[0]
        mirrored = [part.mirrored for part in parts if part.mirrored is not None]
        corners = [part.corners for part in parts if part.corners is not None]
        return Epoch(
            np.concatenate([part.rows for part in parts]),
            np.concatenate(mirrored) if mirrored else None,
            np.concatenate(corners) if corners else None,
        )

    def _epoch(self, epoch: int) -> Epoch:
        with self._lock:  # the prefetch thread calls this, too
            if epoch not in self._kept:
                n, source = self._rows, self.source
                purpose = (self.seed, self.name, epoch)
                mirrored = (raw_bits(n, *purpose, "flip") & 1).astype(bool) if source.flip else None
                corners = None if source.window is None else source.window.corners(raw_bits(n, *purpose, "corner"))
                while len(self._kept) > (0 if self._ahead is None else 1):
                    del self._kept[next(iter(self._kept))]
                self._kept[epoch] = Epoch(order(n, *purpose), mirrored, corners)
            return self._kept[epoch]
