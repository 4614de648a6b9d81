"""Pictures of samples: sheets of images, scatters of points, PNG and GIF files."""

from __future__ import annotations

import io
import math
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancli.data.pixels import eight
from gancli.store.files import files, open_regular, whole_file

Pixels = np.ndarray[Any, np.dtype[np.uint8]]
INK, DATA, PAPER = (200, 30, 60), (165, 175, 190), (255, 255, 255)
LARGEST_FRAME = 1 << 26  # pixels of an animation's frame, at most; those written here have below one million
MANY, ROW = 64, 8  # default number of images on a sheet, and in a row of one class
MADE = 16  # default number on a sheet that shows inputs too


def to_pixels(image: Tensor) -> Pixels:
    """Convert an image [C, H, W] of 8 or 16 bits to [H, W, 3]; grey is repeated, channels past the third dropped."""
    array = eight(image.numpy())
    channels = [array[min(c, len(array) - 1)] for c in range(3)]
    return np.stack(channels, axis=-1)


def sheet(images: Tensor, columns: int, gap: int = 2, scale: int | None = None) -> Pixels:
    """Lay out images [n, C, H, W] uint8 row by row on white, [H', W', 3]; small ones are enlarged by an integer."""
    n, _, height, width = images.shape
    scale = scale or max(1, 64 // max(height, width))
    rows = -(-n // columns)
    h, w = height * scale + gap, width * scale + gap
    page = np.full((rows * h + gap, columns * w + gap, 3), 255, np.uint8)
    for k, image in enumerate(images):
        top, left = gap + k // columns * h, gap + k % columns * w
        page[top : top + h - gap, left : left + w - gap] = to_pixels(image).repeat(scale, 0).repeat(scale, 1)
    return page


def with_names(page: Pixels, names: Sequence[str], size: int = 14) -> Pixels:
    """Add a name at the left of each of a sheet's rows, which are equally high."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    margin = round(max(font.getlength(name) for name in names)) + 14
    wide = np.full((page.shape[0], page.shape[1] + margin, 3), 255, np.uint8)
    wide[:, margin:] = page
    image = Image.fromarray(wide)
    for row, name in enumerate(names):
        middle = (row + 0.5) * page.shape[0] / len(names)
        ImageDraw.Draw(image).text((margin - 8, middle), name, font=font, fill=(40, 44, 52), anchor="rm")
    return np.asarray(image)


def with_titles(page: Pixels, titles: Sequence[tuple[float, str]], size: int = 11) -> Pixels:
    """Add titles above a sheet, centred at the given x in pixels; returns the sheet unchanged if they would overlap."""
    from PIL import Image, ImageDraw, ImageFont

    font = ImageFont.load_default(size)
    spans = [(x - font.getlength(title) / 2 - 1, x + font.getlength(title) / 2 + 1) for x, title in titles]
    if any(right > left for (_, right), (left, _) in pairwise(spans)):
        return page
    high = np.full((page.shape[0] + size + 7, page.shape[1], 3), 255, np.uint8)
    high[size + 7 :] = page
    image = Image.fromarray(high)
    for x, title in titles:
        ImageDraw.Draw(image).text((x, size + 5), title, font=font, fill=(40, 44, 52), anchor="ms")
    return np.asarray(image)


def scatter(points: Tensor, reference: Tensor | None = None, size: int = 512) -> Pixels:
    """Draw points [n, 2] in red over reference points in grey, [size, size, 3]; points [n, 1] on a horizontal line."""
    if points.shape[1] == 1:
        points = torch.cat([points, torch.zeros_like(points)], 1)
        reference = None if reference is None else torch.cat([reference, torch.zeros_like(reference)], 1)
    page = np.full((size, size, 3), PAPER, np.uint8)
    frame = (points if reference is None else reference)[:, :2].double()
    middle = (frame.amax(0) + frame.amin(0)) / 2
    reach = float((frame.amax(0) - frame.amin(0)).max()) * 0.6 or 1.0
    for cloud, colour, radius in ((reference, DATA, 0), (points, INK, 1)):
        if cloud is None:
            continue
        place = ((cloud[:, :2].double() - middle) / reach + 1) / 2 * (size - 1)
        xy = place.nan_to_num(-1, -1, -1).round().clamp(-9, size + 9).long().numpy()
        for dx in range(-radius, radius + 1):
            for dy in range(-radius, radius + 1):
                x, y = xy[:, 0] + dx, size - 1 - xy[:, 1] + dy
                inside = (x >= 0) & (x < size) & (y >= 0) & (y < size)
                page[y[inside], x[inside]] = colour
    return page


def columns_for(n: int) -> int:
    """Return the number of columns of a near-square sheet: 8 for 64 images, 5 for 20."""
    return max(1, round(math.sqrt(n) + 0.24))


def grid(images: Tensor, names: Sequence[str] = ()) -> Pixels:
    """Lay out images [n, C, H, W] uint8 near-square; with names, in one row per name, with the name beside it."""
    if not names:
        return sheet(images, columns_for(len(images)))
    return with_names(sheet(images, len(images) // len(names)), names)


def png(pixels: Pixels) -> bytes:
    """Encode pixels as PNG."""
    from PIL import Image

    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def save_png(path: Path, pixels: Pixels) -> None:
    """Write a PNG atomically."""
    with whole_file(path) as file:
        file.write(png(pixels))


def save_gif(path: Path, frames: Sequence[Pixels], seconds: float) -> None:
    """Write a looping GIF of `seconds` per frame, atomically."""
    from PIL import Image

    pages = [Image.fromarray(f).quantize(255) for f in frames]
    with whole_file(path) as file:
        pages[0].save(file, "GIF", save_all=True, append_images=pages[1:], duration=round(seconds * 1000), loop=0)


def save_film(folder: Path, name: str, seconds: float, most: int = 120) -> None:
    """Write folder/NAME.gif from the PNGs in the folder, in the order of their names, at most `most` of them.

    Damaged ones and those of another size than the newest are ignored.
    """
    there = files(folder, "[0-9]*.png")
    kept = [there[round(k * (len(there) - 1) / (most - 1))] for k in range(most)] if len(there) > most else there
    shown = [frame for frame in map(_frame, kept) if frame is not None]
    frames = [frame for frame in shown if frame.shape == shown[-1].shape]
    if frames:
        save_gif(folder / f"{name}.gif", frames, max(0.04, seconds / len(frames)))


def _frame(path: Path) -> Pixels | None:
    """Read a frame [H, W, 3]; None for a file that is not a PNG, damaged or too large."""
    from PIL import Image

    try:
        with open_regular(path) as file, Image.open(file, formats=["PNG"]) as picture:
            if picture.width * picture.height <= LARGEST_FRAME:
                return np.asarray(picture.convert("RGB"))
    except Exception:  # Pillow raises many kinds for a damaged file
        pass
    return None
