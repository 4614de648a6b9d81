"""One image file to one array of pixels, whatever its mode, depth, orientation and aspect."""

from __future__ import annotations

import math
import os
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from gancli.data.pixels import Images, Shape, window
from gancli.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from gancli.data.listing import Files

T = TypeVar("T")

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
_RUN = 16  # files a thread takes at once
_HELD = 1 << 26  # bytes of pixels that wait, about: large images in smaller parts


def headers(files: Files) -> Iterator[Shape]:
    """The natural shape (C, H, W) of each file, upright, C 1 or 3, by its header. Raises DataError naming the file."""
    return _in_order(lambda i: _header(files, i), len(files), _RUN)


def images(files: Files, shape: Shape) -> Iterator[Images]:
    """All files decoded, cropped and resized to `shape`, in order, as parts uint8 [n, C, H, W].

    The largest centred window of the target's aspect is resized by an antialiased Lanczos filter; a file that fits is
    left as it is. Raises DataError naming the first file that cannot be read.
    """
    size = math.prod(shape)
    chunk = max(1, min(256, _HELD // size))
    part: list[Images] = []
    for image in _in_order(lambda i: decode(files, i, shape), len(files), max(1, min(_RUN, _HELD // (64 * size)))):
        part.append(image)
        if len(part) == chunk:
            yield np.stack(part)
            part = []
    if part:
        yield np.stack(part)


def decode(files: Files, i: int, shape: Shape) -> Images:
    """File i as uint8 [C, H, W], C 1 or 3; of an animation the first frame. Raises DataError naming the file."""
    from PIL import Image, ImageOps

    channels, height, width = shape
    with _named(files, i), files.open(i) as file, Image.open(file) as opened:
        _refuse_bomb(opened)
        image = _flatten(ImageOps.exif_transpose(opened)).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            top, left, tall, wide = window(image.height, image.width, height, width)
            # Cropped first: the filter would look beyond the window.
            image = image.crop((left, top, left + math.ceil(wide), top + math.ceil(tall)))
            image = image.resize((width, height), Image.Resampling.LANCZOS, box=(0, 0, wide, tall))
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def worker_count() -> int:
    """How many threads decode: the cores that this process may use, 16 at most."""
    return max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def _header(files: Files, i: int) -> Shape:
    from PIL import Image

    with _named(files, i), files.open(i) as file, Image.open(file) as image:
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
def _named(files: Files, i: int) -> Iterator[None]:
    """Any failure inside becomes a DataError that names the file."""
    try:
        yield
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ...
        name = files.name(i)
        reason = " ".join(str(error).replace(name, "it").split()) or type(error).__name__
        raise DataError(f"{name} cannot be used as an image ({reason}): repair it or take it away") from error


def _in_order(make: Callable[[int], T], count: int, run: int) -> Iterator[T]:
    """make(0) ... make(count - 1) in order, by threads, a few runs ahead of what was taken.

    Threads suffice: Pillow decodes and resizes outside the interpreter's lock.
    """
    from PIL import Image

    def some(start: int) -> list[T]:
        return [make(i) for i in range(start, min(start + run, count))]

    Image.init()  # here rather than by several threads at once
    pool = ThreadPoolExecutor(worker_count(), "decode")
    ahead: deque[Future[list[T]]] = deque()
    starts = iter(range(0, count, run))
    try:
        with _quiet(Image.DecompressionBombWarning):
            for start in islice(starts, 4 * worker_count()):
                ahead.append(pool.submit(some, start))
            while ahead:
                done = ahead.popleft().result()
                if (start := next(starts, -1)) >= 0:
                    ahead.append(pool.submit(some, start))
                yield from done
    finally:
        pool.shutdown(cancel_futures=True)


@contextmanager
def _quiet(bomb: type[Warning]) -> Iterator[None]:
    with warnings.catch_warnings():
        # A warning about a harmless tag is not worth a line a file; the one about giant images must stop decoding.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", bomb)
        yield
