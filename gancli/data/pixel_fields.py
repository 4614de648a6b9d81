"""Columns of pixels: images, clips of them, and volumes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import interpolate

from gancli.data.field import Field, Geometry
from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.errors import DataError

CLIP_SECONDS = 0.125  # a frame of a clip's animation


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
