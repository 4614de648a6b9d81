"""Fields of pixels: images, video clips and volumes."""

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

from gancli.data import imagefile
from gancli.data.field import Field, Geometry
from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.errors import DataError

CLIP_SECONDS = 0.125  # a frame of a clip's animation


def _enlarged(stored: Tensor, height: int, width: int, most: int) -> Tensor:
    """Resize levels [B, ..., H, W] by Pillow's bicubic filter (a = -0.5), rounded to nearest."""
    flat = stored.flatten(1, -3).float()
    large = interpolate(flat, (height, width), mode="bicubic", align_corners=False, antialias=True)
    return large.round_().clamp_(0, most).to(stored.dtype).reshape(*stored.shape[:-2], height, width)


def _cut(x: Tensor, corner: Tensor, side: tuple[int, int]) -> Tensor:
    """Crop a window from each row of [B, ..., H, W]; each row has its own corner."""
    windows = x.unfold(-2, side[0], 1).unfold(-2, side[1], 1).movedim((-4, -3), (1, 2))
    return windows[torch.arange(len(x), device=x.device), corner[:, 0], corner[:, 1]]


@dataclass(frozen=True)
class _Pixels(Field):
    """Base class: levels 0 ... 255 whose last two dimensions are height and width; networks get x / 127.5 - 1."""

    dtype: ClassVar[str] = "uint8"
    spatial: ClassVar[bool] = True

    @property
    def top(self) -> int:
        """The highest level, 1 for networks."""
        return 255

    def ready(self, stored: Tensor) -> Tensor:
        """Convert levels to [-1, 1]."""
        return stored.to(torch.float32).div_(self.top / 2).sub_(1)

    def stored(self, ready: Tensor) -> Tensor:
        """Convert [-1, 1] to levels, rounded to nearest."""
        levels = ((ready.float() + 1) * (self.top / 2)).round_().clamp_(0, self.top)
        return levels.to(getattr(torch, self.dtype))

    def sized(self, height: int, width: int) -> Field:
        """Return the field with another height and width."""
        return dataclasses.replace(self, height=height, width=width)  # type: ignore[call-arg]

    def changed(self, stored: Tensor, geometry: Geometry) -> Tensor:
        """Enlarge, crop and mirror left to right."""
        if geometry.enlarged:
            height, width = (side + geometry.enlarged for side in stored.shape[-2:])
            stored = _enlarged(stored, height, width, self.top)
        if geometry.corner is not None and geometry.side is not None:
            stored = _cut(stored, geometry.corner, geometry.side)
        if geometry.mirrored is None:
            return stored
        return torch.where(geometry.mirrored.view(-1, *[1] * (stored.dim() - 1)), stored.flip(-1), stored)

    def shrunk(self, stored: Tensor, level: int) -> Tensor:
        """Average blocks of 2 × 2 pixels, rounded to nearest (half to even) at each level, as in ProGAN's data."""
        for _ in range(level):
            if stored.shape[-1] % 2 or stored.shape[-2] % 2:
                raise DataError(f"{self.told} have no level {level}: their sides are not multiples of {2**level}")
            lead, (height, width) = stored.shape[:-2], stored.shape[-2:]
            blocks = stored.reshape(*lead, height // 2, 2, width // 2, 2).float()
            stored = blocks.mean((-3, -1)).round_().to(stored.dtype)
        return stored


@dataclass(frozen=True)
class Image(_Pixels):
    """Images, stored as uint8 [N, C, H, W]; with 16 bits as int32, levels 0 ... 65535. Raises ValueError."""

    kind: ClassVar[str] = "image"
    words: ClassVar[str] = "images"
    channels: int
    height: int
    width: int
    bits: int = 8

    def __post_init__(self) -> None:
        if self.bits not in (8, 16):
            raise ValueError(f"images of {self.bits} bits: 8 and 16 are supported")

    @property
    def dtype(self) -> str:  # type: ignore[override]
        """The dtype of stored rows: not uint16, for which torch has few operations."""
        return "uint8" if self.bits == 8 else "int32"

    @property
    def top(self) -> int:
        """The highest level, 1 for networks."""
        return (1 << self.bits) - 1

    @property
    def largest(self) -> int | None:
        """The highest level, if the dtype holds more."""
        return None if self.bits == 8 else self.top

    @property
    def told(self) -> str:
        """Return a description of the rows."""
        return super().told + (f" and {self.bits} bits" if self.bits != 8 else "")

    @property
    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self.channels, self.height, self.width

    def picture(self, stored: Tensor, names: Sequence[str] = ()) -> Pixels:
        """Draw a near-square sheet; with names, one row each."""
        return pictures.grid(stored, names)

    def array(self, stored: Tensor) -> NDArray[Any]:
        """Return uint8 or uint16 [N, H, W, C]."""
        return stored.permute(0, 2, 3, 1).numpy().astype(f"uint{self.bits}", copy=False)

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """Write each as a PNG of its bits, or as a NumPy file [H, W, C] if it has other channels than 1, 3 and 4."""
        images = stored.numpy().astype(f"uint{self.bits}", copy=False)
        return [imagefile.write(folder, name, image) for name, image in zip(names, images, strict=True)]

    def plain(self) -> dict[str, Any]:
        """Return plain values for a file; 8 bits are omitted, as in older files."""
        return {name: value for name, value in super().plain().items() if (name, value) != ("bits", 8)}

    def bytes(self) -> int:
        """Include its part of a sheet, in which small images are enlarged."""
        return (
            (9 if self.bits == 8 else 12) * math.prod(self.shape)
            + 3 * max(64, self.height) * max(64, self.width)
            + 1000
        )


@dataclass(frozen=True)
class Clip(_Pixels):
    """Clips of frames, stored as uint8 [N, T, C, H, W]; all frames of a clip are mirrored and cropped alike."""

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
        """Draw one row of frames per clip."""
        page = pictures.sheet(stored.flatten(0, 1), self.frames)
        return pictures.with_names(page, names) if names else page

    def write(self, folder: Path, names: Sequence[str], stored: Tensor) -> list[Path]:
        """Write an animated GIF for each clip."""
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
        """Draw the maximum along the depth."""
        return pictures.grid(stored.amax(2), names)
