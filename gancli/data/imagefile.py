"""Reading and writing of image files without loss: 8 or 16 bits, any channels, uint8 or uint16 [C, H, W]."""

from __future__ import annotations

import itertools
import math
import os
import struct
import sys
import zlib
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.data.layout import printable
from gancli.data.listing import open_plain
from gancli.data.pixels import eight, to_channels
from gancli.draw import pictures
from gancli.errors import DataError
from gancli.store.files import whole_file

SUFFIXES = decode.SUFFIXES | {".npy"}
WRITTEN = (".png", ".npy")  # suffixes of the files that `write` makes
_MAGIC = b"\x93NUMPY"
MOST_PAGES = 1024  # of a TIFF
_REDUCED, _KIND_OF_PAGE = 1, 254  # flag and entry of a TIFF page that is a reduced copy of another
_COLOURS = {1: 0, 3: 2, 4: 6}  # PNG colour type by number of channels
_GREY_ALPHA = "LA;16B"
# Pillow's raw mode that unpacks the lower 8 of 16 bits, by the one that unpacks the upper 8.
_LOWER = {"16L": "16B", "16B": "16L", "16N": "16B" if sys.byteorder == "little" else "16L"}


def read(path: Path) -> NDArray[Any]:
    """Read an image file upright and unconverted, uint8 or uint16 [C, H, W]. Raises DataError naming the file.

    C: 1 for grey, 3 for colour, 4 for either with alpha; for a TIFF with several grey pages their number, and for a
    NumPy file [H, W] or [H, W, C] its own. PNG, TIFF, grey PGM and NumPy files keep 16 bits. Of an animation, the first
    frame.
    """
    with decode.named(str(path)), decode.quiet(), open_plain(path) as file:
        return pixels(file)


def pixels(file: BinaryIO) -> NDArray[Any]:
    """Read an open file as `read` does. Raises what the decoders raise."""
    if file.read(len(_MAGIC)) == _MAGIC:
        return _array(file)
    file.seek(0)
    with decode.opened(file) as image:
        kept = _pages(image)
        if len(kept) == 1:
            image.seek(kept[0])
            return _page(image, file)
        layers = []
        for number in kept:
            image.seek(number)
            layers.append(_page(image, file))
    if len({(layer.shape, layer.dtype) for layer in layers}) > 1 or len(layers[0]) > 1:
        raise ValueError(_unlike(len(kept)))
    return np.concatenate(layers)


class Header(NamedTuple):
    """The header of an image file. channels: without alpha."""

    channels: int
    height: int
    width: int
    bits: int
    alpha: bool


def header(file: BinaryIO) -> Header:
    """Return the header of what `pixels` returns, without decoding. Raises what the decoders raise."""
    if file.read(len(_MAGIC)) == _MAGIC:
        (height, width, channels), kind = _array_header(file)
        return Header(channels, height, width, 8 * kind.itemsize, False)
    file.seek(0)
    image: Any
    with decode.opened(file) as image:
        kept = _pages(image)
        image.seek(kept[0])
        packed, _ = _packed(image)
        width, height = decode.upright_size(image, decode.orientation(image, file))
        deep = image.mode in decode.WIDE or ";16" in packed
        grey = image.mode in decode.GREY or packed == _GREY_ALPHA
        if len(kept) > 1:
            return Header(len(kept), height, width, 16 if deep else 8, False)
        alpha = image.has_transparency_data
        return Header(1 if grey else 3, height, width, 16 if deep else 8, alpha)


def fitted(array: NDArray[Any], channels: int, bits: int, name: str) -> NDArray[Any]:
    """Convert an image uint8 or uint16 [C, H, W] to these channels and bits (8 or 16).

    Colour becomes grey as in `pixels.to_channels`, grey is repeated, alpha is composited on white, missing alpha is
    opaque; 8 bits become 16 as x · 257, 16 become 8 as (x + 128) // 257. Raises DataError for impossible channels.
    name: of the file.
    """
    own = len(array)
    if own == 4 and channels in (1, 3):
        array = _on_white(array)
    if own in (1, 3) and channels == 4:
        opaque = np.full_like(array[:1], np.iinfo(array.dtype).max)
        array = np.concatenate([to_channels(array[None], 3, name)[0], opaque])
    if len(array) not in (1, channels) and (len(array), channels) != (3, 1):
        allowed = {1: "any", 3: "1, 3 or 4", 4: "1, 3 or 4"}.get(own, str(own))
        raise DataError(f"{printable(name)} has {own} channels, not convertible to {channels} (allowed: {allowed})")
    array = to_channels(array[None], channels, name)[0]
    if bits == 16 and array.dtype == np.uint8:
        wide: NDArray[np.uint16] = array.astype(np.uint16) * np.uint16(257)
        return wide
    return eight(array) if bits == 8 else array


def write(folder: Path, stem: str, array: NDArray[Any]) -> Path:
    """Write an image uint8 or uint16 [C, H, W] atomically as FOLDER/STEM.png; STEM.npy if C is not 1, 3 or 4.

    A NumPy file is [H, W, C]. Raises RunError if it cannot be written.
    """
    if len(array) not in _COLOURS:
        path = folder / f"{stem}.npy"
        with whole_file(path) as file:
            np.save(file, np.ascontiguousarray(array.transpose(1, 2, 0)), allow_pickle=False)
        return path
    path = folder / f"{stem}.png"
    shown = array[0] if len(array) == 1 else np.ascontiguousarray(array.transpose(1, 2, 0))
    coded = _png(array) if array.dtype == np.uint16 else pictures.png(shown)
    with whole_file(path) as file:
        file.write(coded)
    return path


def _array(file: BinaryIO) -> NDArray[Any]:
    """Read a NumPy file's image; its header is validated first. Raises ValueError."""
    _array_header(file)
    file.seek(0)
    found: NDArray[Any] = np.load(file, allow_pickle=False)
    return np.ascontiguousarray(np.atleast_3d(found).transpose(2, 0, 1), f"=u{found.itemsize}")


def _array_header(file: BinaryIO) -> tuple[tuple[int, int, int], np.dtype[Any]]:
    """Return the shape (H, W, C) and the dtype of a NumPy file. Raises ValueError if it is not an image."""
    file.seek(0)
    version = np.lib.format.read_magic(file)
    heads = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}
    if version not in heads:
        raise ValueError(f"it is a NumPy file of version {version[0]}; versions 1 and 2 are supported")
    shape, _, kind = heads[version](file)
    begins = file.tell()
    if kind.kind != "u" or kind.itemsize > 2 or len(shape) not in (2, 3) or 0 in shape:
        raise ValueError(f"it holds {kind} {list(shape)}; supported are uint8 and uint16, [H,W] and [H,W,C]")
    if math.prod(shape) > 4 * decode.PIXEL_LIMIT:
        raise ValueError(f"its header gives {list(shape)}; the limit is {4 * decode.PIXEL_LIMIT:,} numbers")
    if file.seek(0, os.SEEK_END) != begins + math.prod(shape) * kind.itemsize:
        raise ValueError(f"its header gives {kind} {list(shape)}, but it has {file.tell() - begins:,} bytes of data")
    height, width, *channels = shape
    return (height, width, channels[0] if channels else 1), kind


def _pages(image: Any) -> list[int]:
    """Return the numbers of a TIFF's pages that are not reduced copies of others; [0] for other formats."""
    if image.format != "TIFF":
        return [0]
    kept, total, sizes = list[int](), 0, set[tuple[int, int]]()
    for number in itertools.count():  # counting all pages first would apply no limit
        try:
            image.seek(number)
        except EOFError:
            break
        if number == MOST_PAGES:
            raise ValueError(f"it has more than {MOST_PAGES:,} pages, the limit")
        if not int(image.tag_v2.get(_KIND_OF_PAGE, 0)) & _REDUCED:
            kept.append(number)
            total += image.width * image.height
            sizes.add(image.size)
        if max(image.width * image.height, total // 4) > decode.PIXEL_LIMIT:
            raise ValueError(f"its pages have more than {decode.PIXEL_LIMIT:,} pixels, the limit")
    if len(sizes) > 1:  # before any is decoded
        raise ValueError(_unlike(len(kept)))
    return kept or [0]


def _unlike(pages: int) -> str:
    return f"it has {pages} pages: several pages must be grey and of one size and depth"


def _packed(image: Any) -> tuple[str, int]:
    """Return an unloaded image's raw mode, as Pillow names it, and a PPM's highest level."""
    told = image.tile[0][3] if image.tile else ""
    words = (told, 0) if isinstance(told, str) else (*told, 0)
    return str(words[0]), words[1] if isinstance(words[1], int) else 0


def _page(image: Any, file: BinaryIO) -> NDArray[Any]:
    """Decode the current page, upright. Raises ValueError for unsupported pixels, and what Pillow raises."""
    packed, most = _packed(image)  # before it is loaded
    key = image.info.get("transparency")
    turn = decode.orientation(image, file)
    if image.mode in decode.WIDE:
        values = np.asarray(decode.upright(image, turn)).astype(np.int64)
        if values.min() < 0 or values.max() > 65535:
            raise ValueError("its integer pixels do not fit in 16 bits")
        return _keyed(values.astype(np.uint16)[None], key)
    if ";16" in packed:
        return _keyed(_colour(image, file, turn, packed), key)
    if image.format == "PPM" and most > 255:
        raise ValueError("a colour PPM with more than 8 bits is not supported: save it as PNG")
    if image.mode == "F":
        raise ValueError("its pixels are floating-point numbers: save them as 8 or 16 bits")
    image = decode.upright(image, turn)
    kind = "RGBA" if image.has_transparency_data else "L" if image.mode in decode.GREY else "RGB"
    found = np.asarray(image.convert(kind))
    return found[None] if kind == "L" else np.ascontiguousarray(found.transpose(2, 0, 1))


def _colour(image: Any, file: BinaryIO, turn: int, packed: str) -> NDArray[np.uint16]:
    """Decode 16 bits per channel, of which Pillow keeps the upper 8: unpack twice, once in the other byte order.

    Grey with alpha is unpacked once, its four bytes as four channels.
    """
    if packed == _GREY_ALPHA:
        raw = _unpacked(image, file, turn, "RGBA")
        return _joined(raw[0::2], raw[1::2])[[0, 0, 0, 1]]
    kind, _, order = packed.partition(";")
    if kind not in ("RGB", "RGBX", "RGBA") or order not in _LOWER:
        raise ValueError(f"16 bits of {packed} are not supported: save it as PNG, or as 8 bits")
    lower = _unpacked(image, file, turn, f"{kind};{_LOWER[order]}")
    return _joined(_unpacked(image, file, turn, packed), lower)


def _joined(upper: NDArray[np.uint8], lower: NDArray[np.uint8]) -> NDArray[np.uint16]:
    joined: NDArray[np.uint16] = upper.astype(np.uint16) * np.uint16(256) + lower
    return joined


def _unpacked(image: Any, file: BinaryIO, turn: int, packed: str) -> NDArray[np.uint8]:
    """Decode the current page, upright, with this raw mode: uint8 [C, H, W]."""
    from PIL import Image

    file.seek(0)
    page: Any
    with Image.open(file, formats=[image.format]) as page:
        page.seek(image.tell())
        page.tile = [_with_raw_mode(tile, packed) for tile in page.tile]
        found: NDArray[np.uint8] = np.asarray(decode.upright(page, turn)).transpose(2, 0, 1)
    return found


def _with_raw_mode(tile: Any, packed: str) -> Any:
    """Return one of Pillow's tiles with another raw mode."""
    *rest, told = tile
    args = packed if isinstance(told, str) else (packed, *told[1:])
    return type(tile)((*rest, args)) if type(tile) is tuple else type(tile)(*rest, args)


def _keyed(array: NDArray[np.uint16], key: Any) -> NDArray[np.uint16]:
    """Add alpha if the file names a transparent colour; otherwise return the array unchanged."""
    if key is None or len(array) == 4:
        return array
    hit = (array == np.array(key).reshape(-1, 1, 1)).all(0, keepdims=True)
    alpha = np.where(hit, 0, 65535).astype(np.uint16)
    return np.concatenate([to_channels(array[None], 3, "")[0], alpha])


def _on_white(array: NDArray[Any]) -> NDArray[Any]:
    """Composite colour with alpha [4, H, W] on white [3, H, W], rounded to nearest."""
    most = int(np.iinfo(array.dtype).max)
    colour, alpha = array[:3].astype(np.int64), array[3:].astype(np.int64)
    return ((colour * alpha + most * (most - alpha) + most // 2) // most).astype(array.dtype)


def _png(array: NDArray[np.uint16]) -> bytes:
    """Encode [C, H, W] of 1, 3 or 4 channels as a 16-bit PNG (ISO/IEC 15948)."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    channels, height, width = array.shape
    step = 2 * channels
    rows = np.ascontiguousarray(array.transpose(1, 2, 0).astype(">u2")).view(np.uint8).reshape(height, step * width)
    lines = np.ones((height, 1 + step * width), np.uint8)  # each begins with its filter, 1: minus the pixel to the left
    lines[:, 1 : 1 + step] = rows[:, :step]
    lines[:, 1 + step :] = rows[:, step:] - rows[:, :-step]
    header = struct.pack(">IIBBBBB", width, height, 16, _COLOURS[channels], 0, 0, 0)
    parts = chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(lines.tobytes())), chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)
