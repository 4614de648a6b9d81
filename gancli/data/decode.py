"""One image file to one array of pixels, whatever its mode, depth, orientation and aspect."""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from gancli.data.pixels import Images, Shape, window
from gancli.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset(
    [
        ".png",
        ".jpg",
        ".jpeg",
        ".jfif",
        ".webp",
        ".avif",
        ".bmp",
        ".gif",
        ".tif",
        ".tiff",
        ".ppm",
        ".pgm",
        ".pbm",
        ".pnm",
    ]
)
PIXEL_LIMIT = 89_478_485  # 256 MiB as RGB
_GREY = frozenset(["1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"])
_WIDE = frozenset(["I", "I;16", "I;16L", "I;16B", "I;16N"])
_CHUNK = 256


def headers(paths: Sequence[Path]) -> list[Shape]:
    """The natural shape (C, H, W) of each file, upright, C 1 or 3, by its header. Raises DataError naming the file."""
    with _workers() as pool:
        return list(pool.map(_header, paths))


def images(paths: Sequence[Path], shape: Shape) -> Iterator[Images]:
    """All files decoded, cropped and resized to `shape`, in order, as parts uint8 [n, C, H, W].

    The largest centred window of the target's aspect is resized by an antialiased Lanczos filter; a file that fits is
    left as it is. Raises DataError naming the first file that cannot be read.
    """
    for start in range(0, len(paths), _CHUNK):
        with _workers() as pool:
            part = np.stack(list(pool.map(lambda path: decode(path, shape), paths[start : start + _CHUNK])))
        yield part


def decode(path: Path, shape: Shape) -> Images:
    """One file as uint8 [C, H, W], C 1 or 3; of an animation the first frame. Raises DataError naming the file."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _named(path), Image.open(path) as opened:
        _refuse_bomb(opened)
        image = _flatten(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            top, left, tall, wide = window(image.height, image.width, height, width)
            # Cropped first: the filter would look beyond the window.
            image = image.crop((left, top, left + math.ceil(wide), top + math.ceil(tall)))
            image = image.resize((width, height), Image.Resampling.LANCZOS, box=(0, 0, wide, tall))
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def _header(path: Path) -> Shape:
    from PIL import Image

    with _named(path), Image.open(path) as image:
        _refuse_bomb(image)
        width, height = image.size
        # Asking a PNG without this entry for its orientation would decode the whole of it.
        if "exif" in image.info and image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
            width, height = height, width
        return 1 if image.mode in _GREY else 3, height, width


def _flatten(image: Image.Image) -> Image.Image:
    """Eight bits a channel, and what was transparent on white."""
    from PIL import Image

    if image.mode in _WIDE:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its whole numbers do not fit in 16 bits")
        return Image.fromarray(((values + 128) // 257).astype(np.uint8))  # 65535 = 255 * 257
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save them as 8 or 16 bits")
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
    return image


def _refuse_bomb(image: Image.Image) -> None:
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"it says it is {width}x{height}, and {PIXEL_LIMIT:,} pixels are the limit; make it smaller")


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Any failure inside becomes a DataError that names the file."""
    try:
        yield
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ...
        reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
        raise DataError(f"{path} cannot be used as an image ({reason}): repair it or take it away") from error


@contextmanager
def _workers() -> Iterator[ThreadPoolExecutor]:
    """Threads for decoding, which Pillow does outside the interpreter's lock."""
    from PIL import Image

    Image.init()  # here rather than by several threads at once
    with warnings.catch_warnings():
        # A warning about a harmless tag is not worth a line a file; the one about giant images must stop decoding.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
        try:
            yield pool
        finally:
            pool.shutdown(cancel_futures=True)
