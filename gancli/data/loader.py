"""Streams of batches: an endless order of a data set that is a function of (seed, name, position) alone."""

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
from gancli.data.ahead import Ahead, Request
from gancli.data.columns import Index
from gancli.data.fields import Geometry
from gancli.data.source import Source, order, raw_bits

PER_BLOCK = 4 * 4  # numbers of 16 bits in the four words of a step of Philox's counter


class Dealt(NamedTuple):
    """Rows as they lie in the source, by column, what is done to all their spatial columns, and noise by column."""

    rows: dict[str, Tensor]
    geometry: Geometry | None
    noise: dict[str, Tensor]


class Epoch(NamedTuple):
    """An epoch of a stream: the source's row numbers, which are mirrored, and where each row's window begins."""

    rows: Index
    mirrored: NDArray[np.bool_] | None
    corners: Index | None

    def cut(self, start: int, stop: int) -> Epoch:
        """These places of it."""
        mirrored = None if self.mirrored is None else self.mirrored[start:stop]
        corners = None if self.corners is None else self.corners[start:stop]
        return Epoch(self.rows[start:stop], mirrored, corners)


class Stream:
    """An endless stream of a source's rows: epoch after epoch, joined, none dropped.

    Epoch e is a permutation keyed (seed, name, e), and so are mirrored rows and windows. columns: those that are dealt
    (None: all). Resume needs nothing from here: the permutations that are kept and the batches that are read ahead only
    save time.
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
        # The first one's numbers are keyed by the stream alone, however many there are.
        self._noisy = {title: (title,) if k else () for k, title in enumerate(images) if title in self.columns}
        self._fields = [(title, source.fields[title]) for title in self.columns]
        self._spatial = [(title, field) for title, field in self._fields if field.spatial]
        self._far = self.device.type != "cpu"
        self._rows = len(source)
        self._kept: dict[int, Epoch] = {}
        self._lock = threading.Lock()
        self._ahead = None if source.in_memory else Ahead(self._read)

    def batch(
        self, position: int, total: int, start: int = 0, stop: int | None = None, level: int = 0
    ) -> dict[str, Tensor]:
        """Rows start:stop of a batch that begins at row `position` of the stream and is `total` rows long, by column.

        On the device, as networks are given them (`Field.ready`): images float32 [B, C, H, W] in [-1, 1], points [B, D]
        and classes int64 [B] as they are. Images are x / 127.5 - 1, or dequantized x / 128 - 1 + U(0, 1 / 128), numbers
        of the position in the stream and the seed. level: spatial columns at a 2^level-th of their sides. Raises
        ValueError for rows outside the batch, DataError for a level that is not there.
        """
        stop = total if stop is None else stop
        if position < 0 or not 0 <= start <= stop <= total:
            raise ValueError(f"rows {start}:{stop} of a batch of {total} at {position} do not exist")
        request = Request(position, total, start, stop, level)
        rows, geometry, noise = self._read(request) if self._ahead is None else self._ahead.take(request)
        # On the device: a quarter of the bytes cross over.
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
        # 16 bits of noise beside 8 of the image: every step is exact, and 1 is never reached.
        x = x.to(torch.float32)
        return x.add_(self._move(noise).to(x).div_(1 << 16).add_(0.5)).div_(128).sub_(1)

    def _read(self, request: Request) -> Dealt:
        """What a request asks for, ready to cross over."""
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
            return Dealt(rows, None, noise)
        window = self.source.window
        geometry = Geometry(turned) if window is None else Geometry(turned, corner, window.side, window.enlarged)
        return Dealt(rows, geometry, noise)

    def _noise(self, title: str, level: int, position: int, count: int) -> Tensor:
        """Numbers for the images at these positions of the stream, uniform int16 [count, C, H, W].

        Philox is entered at any place, so that an image's numbers do not depend on what is dealt with it.
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
        """What stands at this place of the stream, which may lie in several epochs."""
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
        with self._lock:  # a reader ahead asks, too
            if epoch not in self._kept:
                n, source = self._rows, self.source
                purpose = (self.seed, self.name, epoch)
                mirrored = (raw_bits(n, *purpose, "flip") & 1).astype(bool) if source.flip else None
                corners = None if source.window is None else source.window.corners(raw_bits(n, *purpose, "corner"))
                while len(self._kept) > (0 if self._ahead is None else 1):
                    del self._kept[next(iter(self._kept))]
                self._kept[epoch] = Epoch(order(n, *purpose), mirrored, corners)
            return self._kept[epoch]
