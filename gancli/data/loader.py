"""Streams of batches: an endless order of a data set that is a function of (seed, name, position) alone."""

from __future__ import annotations

import math
import threading

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.compute.rng import key
from gancli.data.ahead import Ahead, Request
from gancli.data.source import Index, Source, order, raw_bits

PER_BLOCK = 4 * 4  # numbers of 16 bits in the four words of a step of Philox's counter


class Stream:
    """An endless stream of a source's rows: epoch after epoch, joined, none dropped.

    Epoch e is a permutation keyed (seed, name, e). Resume needs nothing from here: the permutations that are kept and
    the batches that are read ahead only save time.
    """

    def __init__(self, source: Source, seed: int, name: str, device: torch.device | str = "cpu"):
        self.source = source
        self.seed = seed
        self.name = name
        self.device = torch.device(device)
        self._kept: dict[int, tuple[Index, NDArray[np.bool_] | None]] = {}
        self._lock = threading.Lock()
        self._ahead = None if source.in_memory else Ahead(self._read)

    def batch(self, position: int, total: int, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
        """Rows start:stop of a batch that begins at row `position` of the stream and is `total` rows long.

        x: float32 [B, C, H, W] in [-1, 1], or points [B, D] as they are; y: int64 [B]; both on the device. Images are
        x / 127.5 - 1, or dequantized x / 128 - 1 + U(0, 1 / 128), numbers of the position in the stream and the seed.
        Raises ValueError for rows outside the batch.
        """
        stop = total if stop is None else stop
        if position < 0 or not 0 <= start <= stop <= total:
            raise ValueError(f"rows {start}:{stop} of a batch of {total} at {position} do not exist")
        request = Request(position, total, start, stop)
        x, y, mirrored, noise = self._read(request) if self._ahead is None else self._ahead.take(request)
        x, y = self._move(x), self._move(y)
        if mirrored is not None:
            x = torch.where(self._move(mirrored).view(-1, 1, 1, 1), x.flip(-1), x)
        if x.dtype == torch.uint8:
            # On the device: a quarter of the bytes cross over.
            x = x.to(torch.float32)
            # 16 bits of noise beside 8 of the image: every step is exact, and 1 is never reached.
            x = x.div_(127.5) if noise is None else x.add_(self._move(noise).to(x).div_(1 << 16).add_(0.5)).div_(128)
            x = x.sub_(1)
        return {"x": x, "y": y}

    def _read(self, request: Request) -> tuple[Tensor, Tensor, Tensor | None, Tensor | None]:
        """The rows as they lie in the source, their labels, which are mirrored and their noise; ready to cross over."""
        position, count = request.position + request.start, request.stop - request.start
        index, mirrored = self._numbers(position, count)
        x, y = self.source.rows(index)
        turned = torch.from_numpy(mirrored) if mirrored is not None and mirrored.any() else None
        noise = self._noise(position, count) if self.source.dequantize else None
        if self.device.type == "cuda":
            x, y = x.pin_memory(), y.pin_memory()
            turned, noise = (None if t is None else t.pin_memory() for t in (turned, noise))
        return x, y, turned, noise

    def _noise(self, position: int, count: int) -> Tensor:
        """Numbers for the images at these positions of the stream, uniform int16 [count, C, H, W].

        Philox is entered at any place, so that an image's numbers do not depend on what is dealt with it.
        """
        shape = self.source.shape
        blocks = -(-math.prod(shape) // PER_BLOCK)
        generator = np.random.Philox(key=key(self.seed, self.name, "dequantize"), counter=position * blocks)
        numbers = generator.random_raw(4 * blocks * count).astype("<u8", copy=False).view("<i2")
        used = numbers.reshape(count, PER_BLOCK * blocks)[:, : math.prod(shape)]
        return torch.from_numpy(used).reshape(count, *shape)

    def _move(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.device, non_blocking=self.device.type == "cuda")

    def _numbers(self, position: int, count: int) -> tuple[Index, NDArray[np.bool_] | None]:
        """The source's row numbers at this place of the stream, and which of them are mirrored."""
        rows, mirrors = [], []
        while True:
            epoch, offset = divmod(position, len(self.source))
            permutation, mirrored = self._epoch(epoch)
            rows.append(permutation[offset : offset + count])
            if mirrored is not None:
                mirrors.append(mirrored[offset : offset + count])
            position += len(rows[-1])
            count -= len(rows[-1])
            if count == 0:
                break
        return np.concatenate(rows), np.concatenate(mirrors) if mirrors else None

    def _epoch(self, epoch: int) -> tuple[Index, NDArray[np.bool_] | None]:
        with self._lock:  # a reader ahead asks, too
            if epoch not in self._kept:
                n = len(self.source)
                flip = self.source.flip
                mirrored = (raw_bits(n, self.seed, self.name, epoch, "flip") & 1).astype(bool) if flip else None
                while len(self._kept) > (0 if self._ahead is None else 1):
                    del self._kept[next(iter(self._kept))]
                self._kept[epoch] = order(n, self.seed, self.name, epoch), mirrored
            return self._kept[epoch]
