"""Exact pixel arithmetic for arrays of images: parsing of sizes, conversion of channels, cropping, resizing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from gancli.errors import ConfigError

Size = int | list[int] | None
Images = NDArray[np.uint8]
Levels = TypeVar("Levels", NDArray[np.uint8], NDArray[np.uint16])
Shape = tuple[int, int, int]

SMALLEST, LARGEST = 8, 8192
_CHUNK_BYTES = 1 << 26


def parse_size(size: Size, natural: Shape | None, name: str) -> Shape | None:
    """Return the shape (C, H, W) that `dataset.size` requests; `natural` if it is null.

    size: one side of a square with the natural channels, or [C, H, W], or None. Raises ConfigError for anything else
    and for sides outside 8 to 8192 pixels.

    >>> parse_size(32, (1, 28, 28), "fashion")
    (1, 32, 32)
    """
    if size is None:
        return natural
    given: Any = size
    if _whole(given):
        given = [natural[0] if natural else 3, given, given]
    if not isinstance(given, Sequence) or isinstance(given, str) or len(given) != 3 or not all(map(_whole, given)):
        shown = list(given) if isinstance(given, Sequence) and not isinstance(given, str) else given
        raise ConfigError(
            f"dataset.size={shown} is neither a side nor [channels,height,width] (dataset={name}): "
            "type dataset.size=32 or dataset.size=[3,32,32]"
        )
    channels, height, width = given
    if channels < 1 or min(height, width) < SMALLEST or max(height, width) > LARGEST:
        raise ConfigError(
            f"dataset.size={[channels, height, width]} is out of range (dataset={name}): sides are {SMALLEST} to "
            f"{LARGEST} pixels and channels at least 1, as in dataset.size=[3,32,32]"
        )
    return channels, height, width


def _whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def to_channels(images: Levels, channels: int, name: str) -> Levels:
    """Convert images [N, C, H, W] of 8 or 16 bits to these channels: colour becomes grey, grey is repeated.

    Grey is the luma of ITU-R BT.601 in 16-bit integers, the same numbers as Pillow's. Raises ConfigError for other
    conversions.
    """
    own = images.shape[1]
    if own == channels:
        return images
    if own == 3 and channels == 1:
        red, green, blue = (images[:, i].astype(np.uint32) for i in range(3))
        return ((19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16).astype(images.dtype)[:, None]
    if own == 1:
        return np.repeat(images, channels, axis=1)
    allowed = "1 or 3" if own == 3 else str(own)
    raise ConfigError(
        f"dataset.size requests {channels} channels, but dataset={name} has {own}: type {allowed}, "
        f"as in dataset.size=[{own},{images.shape[2]},{images.shape[3]}]"
    )


def eight(levels: NDArray[Any]) -> Images:
    """Convert levels of 16 bits to 8, rounded to nearest; 8 bits are unchanged.

    >>> eight(np.array([128, 129, 65535], np.uint16)).tolist()
    [0, 1, 255]
    """
    if levels.dtype == np.uint8:
        return levels
    narrow: Images = ((levels.astype(np.uint32) + 128) // 257).astype(np.uint8)  # 65535 = 255 * 257
    return narrow


def window(height: int, width: int, target_height: int, target_width: int) -> tuple[int, int, float, float]:
    """Return the largest centred window of the target's aspect: top, left, height, width in pixels.

    The corner is a whole pixel, so that a crop without a resize stays exact.

    >>> window(218, 178, 64, 64)
    (20, 0, 178.0, 178.0)
    """
    scale = min(height / target_height, width / target_width)
    tall, wide = target_height * scale, target_width * scale
    return int((height - tall) / 2), int((width - wide) / 2), tall, wide


def _axis(length: int, low: int, span: float, out: int) -> NDArray[np.float64]:
    """Return weights [out, length] that resample the pixels [low, low + span) of an axis to `out` pixels.

    Shrinking averages by the covered area (box filter); enlarging interpolates linearly.
    """
    step = span / out
    first = low + np.arange(out)[:, None] * step
    pixel = np.arange(length)[None, :]
    if step >= 1:
        weights = np.clip(np.minimum(first + step, pixel + 1) - np.maximum(first, pixel), 0, None)
    else:
        centre = np.clip(first + step / 2 - 0.5, 0, length - 1)
        weights = np.clip(1 - np.abs(centre - pixel), 0, None)
    normed: NDArray[np.float64] = weights / weights.sum(axis=1, keepdims=True)
    return normed


def resize(images: Images, height: int, width: int) -> Images:
    """Crop images [N, C, H, W] to the target's aspect and resample to [N, C, height, width], halves rounded up."""
    count, channels, own_height, own_width = images.shape
    if (own_height, own_width) == (height, width):
        return images
    top, left, tall, wide = window(own_height, own_width, height, width)
    rows = _axis(own_height, top, tall, height)
    columns = _axis(own_width, left, wide, width).T
    result = np.empty((count, channels, height, width), np.uint8)
    step = max(1, _CHUNK_BYTES // (8 * channels * max(own_height, height) * max(own_width, width)))
    for start in range(0, count, step):
        part = rows @ (images[start : start + step].astype(np.float64) @ columns)
        # The small term rounds exact halves, which float64 may miss slightly, alike on every machine.
        result[start : start + step] = np.floor(part + (0.5 + 1e-9))
    return result


def fit(images: Images, size: Size, name: str, pad: bool = False) -> Images:
    """Convert images [N, C, H, W] to the shape that `dataset.size` requests, contiguous.

    pad: digits and clothes on black go from 28x28 to 32x32 by a border of two black pixels, which keeps every pixel
    unchanged; all other sizes are cropped to the aspect and resized. Raises ConfigError for an impossible size.
    """
    natural: Shape = (images.shape[1], images.shape[2], images.shape[3])
    shape = parse_size(size, natural, name)
    assert shape is not None
    channels, height, width = shape
    if channels < natural[0]:
        images = to_channels(images, channels, name)
    if pad and natural[1:] == (28, 28) and (height, width) == (32, 32):
        images = np.pad(images, ((0, 0), (0, 0), (2, 2), (2, 2)))
    return np.ascontiguousarray(to_channels(resize(images, height, width), channels, name))
