"""Images of nothing but noise, of any size and class count: for counting parameters and for benchmarks."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancli.data.pixels import Shape, Size, parse_size
from gancli.data.source import Index, Source, check_limit, check_split, limit_notes, raw_bits
from gancli.errors import ConfigError

_LARGEST_BYTES = 1 << 34


MOST_CLASSES = 99_999  # as of labels in files


class NoiseSource(Source):
    """Uniform uint8 noise, drawn when the first row is asked for, so that counting parameters costs no memory."""

    def __init__(
        self,
        purpose: tuple[Any, ...],
        n: int,
        shape: Shape,
        classes: int,
        flip: bool,
        dequantize: bool,
        notes: Sequence[str] = (),
    ):
        # Empty memory is not touched, hence not taken, until it is filled.
        content = np.empty((n, *shape), np.uint8)
        labels = np.arange(n) % max(1, classes)
        # The purpose says all of the content; a hash of the bytes would have to draw them.
        digest = hashlib.sha256(repr((purpose, n, shape)).encode()).hexdigest()
        names = [str(i) for i in range(classes)]
        super().__init__(
            "random", content, labels, names, flip=flip, dequantize=dequantize, content_hash=digest, notes=notes
        )
        self._purpose: tuple[Any, ...] | None = purpose

    def rows(self, index: Index) -> tuple[Tensor, Tensor]:
        """Noise uint8 [n, C, H, W] and labels int64 [n]."""
        if self._purpose is not None:
            flat = np.asarray(self._content).reshape(-1)
            words = raw_bits(-(-flat.size // 8), *self._purpose)
            flat[:] = words.astype("<u8", copy=False).view(np.uint8)[: flat.size]
            self._purpose = None
        return torch.from_numpy(self._content[index]), torch.from_numpy(self.labels[index])

    def only(self, index: Index) -> Source:
        """These rows alone, which have to be drawn for that."""
        self.rows(index)
        return super().only(index)


def noise(
    size: Size = 32,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    classes: int = 10,
    n: int = 256,
    seed: int = 0,
) -> Source:
    """n images of uniform noise, labels 0, 1, ... in turn (`dataset=random`).

    size: any [C, H, W]; one side means a colour square. classes: 0 for no labels. `test` is another draw.
    Raises ConfigError.
    """
    check_split("random", split, ["train", "test"])
    shape = parse_size(size, (3, 32, 32), "random")
    assert shape is not None
    if classes > MOST_CLASSES:
        raise ConfigError(f"dataset.classes={classes}: at most {MOST_CLASSES:,}")
    if classes < 0:
        raise ConfigError(f"dataset.classes={classes}: type a number of classes, or dataset.classes=0 for no labels")
    check_limit(limit)
    if n < 1:
        raise ConfigError(f"dataset.n={n}: dataset=random needs at least one image; type dataset.n=256")
    notes = limit_notes(n, limit, None, ())
    n = n if limit is None else min(n, limit)
    if n < classes:
        notes.append(f"{n} images of noise are fewer than the {classes} classes: the last {classes - n} have none")
    if n * shape[0] * shape[1] * shape[2] > _LARGEST_BYTES:
        raise ConfigError(f"dataset=random of {n} images {list(shape)} is over 16 GiB: type a smaller dataset.n")
    return NoiseSource(("random", split, seed), n, shape, classes, flip, dequantize, notes)
