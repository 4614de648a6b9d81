"""Streams of batches: an endless order of a data set that is a function of (seed, name, position) alone."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.data.source import Index, Source, order, raw_bits


class Stream:
    """An endless stream of a source's rows: epoch after epoch, joined, none dropped.

    Epoch e is a permutation keyed (seed, name, e). Resume needs nothing from here: the one permutation that
    is kept only saves its making.
    """

    def __init__(self, source: Source, seed: int, name: str, device: torch.device | str = "cpu"):
        self.source = source
        self.seed = seed
        self.name = name
        self.device = torch.device(device)
        self._kept: tuple[int, Index, NDArray[np.bool_] | None] | None = None

    def batch(self, position: int, total: int, start: int = 0, stop: int | None = None) -> dict[str, Tensor]:
        """Rows start:stop of a batch that begins at row `position` of the stream and is `total` rows long.

        x: float32 [B, C, H, W] in [-1, 1], or points [B, D] as they are; y: int64 [B]; both on the device. Raises
        ValueError for rows outside the batch.
        """
        stop = total if stop is None else stop
        if position < 0 or not 0 <= start <= stop <= total:
            raise ValueError(f"rows {start}:{stop} of a batch of {total} at {position} do not exist")
        index, mirrored = self._numbers(position + start, stop - start)
        x, y = self.source.rows(index)
        x, y = self._move(x), self._move(y)
        if mirrored is not None and mirrored.any():
            x = torch.where(self._move(torch.from_numpy(mirrored)).view(-1, 1, 1, 1), x.flip(-1), x)
        if x.dtype == torch.uint8:
            # On the device: a quarter of the bytes cross over.
            x = x.to(torch.float32).div_(127.5).sub_(1)
        return {"x": x, "y": y}

    def _move(self, tensor: Tensor) -> Tensor:
        if self.device.type == "cuda":
            return tensor.pin_memory().to(self.device, non_blocking=True)
        return tensor.to(self.device)

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
        if self._kept is None or self._kept[0] != epoch:
            n = len(self.source)
            permutation = order(n, self.seed, self.name, epoch)
            mirrored = (raw_bits(n, self.seed, self.name, epoch, "flip") & 1).astype(bool) if self.source.flip else None
            self._kept = epoch, permutation, mirrored
        return self._kept[1:]
