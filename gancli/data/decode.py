"""Decoding of image files to arrays of pixels, for any mode, depth, orientation and aspect."""

from __future__ import annotations

import math
import os
import re
import warnings
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, BinaryIO, TypeVar

import numpy as np
from numpy.typing import NDArray

from gancli.data.layout import printable
from gancli.data.pixels import Images, Shape, eight, window
from gancli.errors import DataError

if TYPE_CHECKING:
    from PIL import Image

    from gancli.data.listing import Files

T = TypeVar("T")
Decoder = Callable[["Files", int, Shape], NDArray[Any]]

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
# The formats of those suffixes. Pillow tries no other decoder: some start programs.
_FORMATS = ("PNG", "JPEG", "WEBP", "AVIF", "BMP", "DIB", "GIF", "TIFF", "PPM")
PIXEL_LIMIT = 89_478_485  # 256 MiB as RGB
GREY = frozenset(["1", "L", "LA", "La", "I", "I;16", "I;16L", "I;16B", "I;16N"])
WIDE = frozenset(["I", "I;16", "I;16L", "I;16B", "I;16N"])
_ORIENTATION = 0x0112  # EXIF and TIFF tag; 1: upright, 2 to 8: mirrored or rotated
_XMP = re.compile(rb"""tiff:Orientation\s*(?:=\s*["']|>)\s*([1-8])""")
RUN = 16  # files per task of a thread
_HELD = 1 << 26  # bytes of decoded pixels held ahead, approximately: large images come in smaller parts


def headers(files: Files) -> Iterator[Shape]:
    """Yield the natural shape of each file, as `header` returns it."""
    return in_order(lambda i: header(files, i), len(files), RUN)


def images(files: Files, shape: Shape, decoder: Decoder | None = None) -> Iterator[NDArray[Any]]:
    """Yield all files decoded, cropped and resized to `shape`, in order, as parts [n, C, H, W].

    decoder: decodes one file; None: `decode`. The largest centred window of the target's aspect is resized by an
    antialiased Lanczos filter; a file that already fits is unchanged. Raises DataError naming the first unreadable
    file.
    """
    size = math.prod(shape)
    chunk = max(1, min(256, _HELD // size))
    part: list[NDArray[Any]] = []
    one = decoder or decode
    for image in in_order(lambda i: one(files, i, shape), len(files), max(1, min(RUN, _HELD // (64 * size)))):
        part.append(image)
        if len(part) == chunk:
            yield np.stack(part)
            part = []
    if part:
        yield np.stack(part)


def decode(files: Files, i: int, shape: Shape) -> Images:
    """Decode file i to uint8 [C, H, W], C 1 or 3; of an animation the first frame. Raises DataError naming it."""
    from PIL import Image

    channels, height, width = shape
    with named(files.name(i)), files.open(i) as file, opened(file) as image:
        image = _flatten(upright(image, orientation(image, file))).convert("L" if channels == 1 else "RGB")
        if image.size != (width, height):
            top, left, tall, wide = window(image.height, image.width, height, width)
            # Crop first: the filter would read pixels outside the window.
            image = image.crop((left, top, left + math.ceil(wide), top + math.ceil(tall)))
            image = image.resize((width, height), Image.Resampling.LANCZOS, box=(0, 0, wide, tall))
        pixels = np.asarray(image)
    return pixels[None] if channels == 1 else pixels.transpose(2, 0, 1)


def worker_count() -> int:
    """Return the number of decoding threads: the cores available to this process, 16 at most."""
    return max(1, min(16, len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1))


def header(files: Files, i: int) -> Shape:
    """Return the natural shape (C, H, W) of file i, upright, C 1 or 3. Raises DataError naming the file."""
    with named(files.name(i)), files.open(i) as file, opened(file) as image:
        width, height = upright_size(image, orientation(image, file))
        return 1 if image.mode in GREY else 3, height, width


def opened(file: BinaryIO) -> Image.Image:
    """Open an image and read only its header. Raises ValueError if it is not an image or has too many pixels."""
    from PIL import Image, UnidentifiedImageError

    try:
        image = Image.open(file, formats=_FORMATS)
    except UnidentifiedImageError:
        # Pillow's message names a Python object.
        empty = not file.seek(0, os.SEEK_END)
        raise ValueError("it is empty" if empty else "it is not an image of a supported format") from None
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ValueError(f"its header gives more than {PIXEL_LIMIT:,} pixels, the limit") from None
    width, height = image.size
    if width * height > PIXEL_LIMIT:
        raise ValueError(f"its header gives {width}x{height}; the limit is {PIXEL_LIMIT:,} pixels: make it smaller")
    return image


def orientation(image: Image.Image, file: BinaryIO) -> int:
    """Return an image's EXIF orientation, 1 to 8: from its EXIF (or TIFF) entry, else its XMP entry, else 1.

    A PNG with these entries after its pixels is decoded here. Raises what Pillow raises for damaged entries.
    """
    from PIL import Image

    if image.format == "PNG" and "exif" not in image.info and _metadata_after_pixels(file):
        image.load()
    # The base class's method: a PNG's own decodes the whole image if it has no such entry.
    value = Image.Image.getexif(image).get(_ORIENTATION)
    if value is None:
        told = image.info.get("xmp") or image.info.get("XML:com.adobe.xmp") or b""
        told = told.encode("utf-8", "replace") if isinstance(told, str) else told
        found = _XMP.search(told) if isinstance(told, bytes) else None
        value = int(found[1]) if found else 1
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _metadata_after_pixels(file: BinaryIO) -> bool:
    """Whether a PNG has EXIF or text chunks after its pixels; only the chunk headers are read."""
    before = file.tell()
    try:
        place, behind = 8, False
        while True:
            file.seek(place)
            header = file.read(8)
            kind = header[4:]
            if len(header) < 8 or kind == b"IEND":
                return False
            if behind and kind in (b"eXIf", b"iTXt"):
                return True
            behind = behind or kind == b"IDAT"
            place += 12 + int.from_bytes(header[:4], "big")
    finally:
        file.seek(before)


def upright_size(image: Image.Image, turn: int) -> tuple[int, int]:
    """Return the width and height of the upright image."""
    tags = getattr(image, "tag_v2", None)
    # Some versions of Pillow swap the sides of a TIFF on opening.
    width, height = image.size if tags is None else (tags[256], tags[257])
    return (height, width) if turn >= 5 else (width, height)


def upright(image: Image.Image, turn: int) -> Image.Image:
    """Decode the image and turn it upright. Raises ValueError if its size then differs from its header's."""
    from PIL import Image

    turns = Image.Transpose
    methods = (turns.FLIP_LEFT_RIGHT, turns.ROTATE_180, turns.FLIP_TOP_BOTTOM, turns.TRANSPOSE, turns.ROTATE_270,
               turns.TRANSVERSE, turns.ROTATE_90)  # fmt: skip
    size = upright_size(image, turn)
    before = Image.Image.getexif(image).get(_ORIENTATION)
    image.load()
    # Some versions of Pillow turn a TIFF on loading and remove the entry.
    turned = before is not None and _ORIENTATION not in Image.Image.getexif(image)
    found = image if turned or turn == 1 else image.transpose(methods[turn - 2])
    if found.size != size:
        raise ValueError(f"it has {found.width}x{found.height} pixels, and its header gives {size[0]}x{size[1]}")
    return found


def _flatten(image: Image.Image) -> Image.Image:
    """Convert to 8 bits per channel, transparent pixels on white."""
    from PIL import Image

    if image.mode in WIDE:
        values = np.asarray(image).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integer pixels do not fit in 16 bits")
        return Image.fromarray(eight(values))
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers; save them as 8 or 16 bits")
    if image.has_transparency_data:
        colour = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", colour.size, "white"), colour).convert("RGB")
    return image


@contextmanager
def named(name: str) -> Iterator[None]:
    """Turn any exception inside into a DataError that names the file."""
    try:
        yield
    except Exception as error:  # decoders raise anything: OSError, SyntaxError, struct.error, ...
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error).replace(name, "it")
        reason = " ".join(reason.split())[:300] or type(error).__name__
        raise DataError(f"{printable(name)} cannot be used as an image ({reason}): fix or remove it") from error


def in_order(make: Callable[[int], T], count: int, run: int) -> Iterator[T]:
    """Yield make(0) ... make(count - 1) in order, computed by threads a few runs ahead.

    Threads suffice: Pillow decodes and resizes without holding the interpreter lock.
    """
    from PIL import Image

    def some(start: int) -> list[T]:
        return [make(i) for i in range(start, min(start + run, count))]

    Image.init()  # here, not in several threads at once
    pool = ThreadPoolExecutor(worker_count(), "decode")
    ahead: deque[Future[list[T]]] = deque()
    starts = iter(range(0, count, run))
    try:
        with quiet():
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
def quiet() -> Iterator[None]:
    """Silence decoders' warnings, but raise for an image that is too large."""
    from PIL import Image

    with warnings.catch_warnings():
        # Warnings about harmless tags would print a line per file; the one about giant images must stop decoding.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
