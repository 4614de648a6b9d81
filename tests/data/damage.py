"""Small valid data files of every kind, and ways to damage them that know what they are made of."""

from __future__ import annotations

import gzip
import io
import json
import random
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Files = dict[str, bytes]  # of one data set, by name
Damage = Callable[[random.Random, bytes], bytes]

NUMBERS = [0, 1, 2, 3, 5, 8, 9, 255, 256, 65535, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1]
XMP = b'<x><rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/" tiff:Orientation="6"/></x>'
VALUES: list[Any] = [
    None, True, False, 0, 1, -1, 0.5, float("nan"), float("inf"), 10**12, 10**400, "", "a.png", "\ud800", "\udce9",
    "../a.png", "a\0b", [], {}, [[]], [["a.png", 1]], {"labels": None}, ["a.png", 0], "x" * 5000,
]  # fmt: skip
NAMES = [
    b"",
    b"/",
    b"..",
    b"../a.png",
    b"C:a.png",
    b".png",
    b"a\\b.png",
    b"\xff\xfe.png",
    b"a\0.png",
    b"dataset.json",
    b"a" * 300,
]


def picture(kind: str, shade: int = 0, **keys: Any) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(shade).integers(0, 256, (12, 16, 3), np.uint8)
    Image.fromarray(pixels).save(file, kind, **keys)
    return file.getvalue()


def turned() -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112], exif[0x010E] = 6, "a description"
    return exif


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def deep_png(pixels: np.ndarray, colour: int, *more: bytes) -> bytes:
    """A PNG of 16 bits [H, W, C], unfiltered, with more chunks before the pixels."""
    height, width = pixels.shape[:2]
    rows = b"".join(b"\x00" + row.astype(">u2").tobytes() for row in pixels)
    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + b"".join([header, *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b"")])


def deep_tiff(pixels: np.ndarray, order: str = "<", *more: tuple[int, int], packed: bool = False) -> bytes:
    """A TIFF of one strip of 16 bits [H, W, C], as libtiff writes them."""
    height, width, channels = pixels.shape
    data = pixels.astype(f"{order}u2").tobytes()
    data = zlib.compress(data) if packed else data
    entries = {
        256: width, 257: height, 259: 8 if packed else 1, 262: 2 if channels > 1 else 1, 277: channels, 278: height,
        279: len(data), **dict(more),
    }  # fmt: skip
    tags = sorted([*entries, 258, 273])
    ends = 8 + 2 + 12 * len(tags) + 4
    head = (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HIH", 42, 8, len(tags))
    for tag in tags:
        if tag == 258:
            head += (
                struct.pack(f"{order}HHII", tag, 3, channels, ends)
                if channels > 2
                else (struct.pack(f"{order}HHIHH", tag, 3, channels, 16, 16))
            )
        else:
            value = ends + 8 if tag == 273 else entries[tag]
            head += struct.pack(f"{order}HHII", tag, 4, 1, value)
    return head + struct.pack(f"{order}I", 0) + struct.pack(f"{order}4H", *[16] * 4) + data


def saved(array: Any) -> bytes:
    """A NumPy file."""
    file = io.BytesIO()
    np.save(file, array, allow_pickle=True)
    return file.getvalue()


def late_png() -> bytes:
    plain = picture("png")
    place = plain.index(b"IEND") - 4
    text = b"XML:com.adobe.xmp\0\1\0\0\0" + zlib.compress(XMP)
    return plain[:place] + chunk(b"eXIf", turned().tobytes()[6:]) + chunk(b"iTXt", text) + plain[place:]


def zipped(files: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", method) as made:
        for name, data in files.items():
            made.writestr(name, data)
    return file.getvalue()


def sharded(files: Mapping[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            made.addfile(member, io.BytesIO(data))
    return file.getvalue()


def arrays(**given: Any) -> bytes:
    file = io.BytesIO()
    np.savez_compressed(file, **given)
    return file.getvalue()


def idx(values: np.ndarray) -> bytes:
    """MNIST's own format: two zeros, the kind (8: uint8), how many axes, each one's length, the values."""
    return struct.pack(f">HBB{values.ndim}I", 0, 8, values.ndim, *values.shape) + values.tobytes()


LABELS = json.dumps({"labels": [["a/0.png", 0], ["b/1.png", 1]]}).encode()
TWO = {"a/0.png": picture("png", 1), "b/1.png": picture("png", 2)}
DIGITS: Files = {
    f"MNIST/raw/{split}-{name}": idx(values)
    for split in ("train", "t10k")
    for name, values in (
        ("images-idx3-ubyte", np.random.default_rng(0).integers(0, 256, (6, 28, 28), np.uint8)),
        ("labels-idx1-ubyte", np.arange(6, dtype=np.uint8)),
    )
}
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 9, 8, 3), np.uint8)
DEEP, WHOLE = np.random.default_rng(0).integers(0, 1 << 16, (12, 16, 3), np.uint16), picture("png")
# Each data set: which reader, its files, and which of them is damaged.
SETS: dict[str, tuple[str, Files, str]] = {
    "png": ("folder", {"x.png": late_png()}, "x.png"),
    "early png": ("folder", {"x.png": picture("png", exif=turned())}, "x.png"),
    "jpg": ("folder", {"x.jpg": picture("jpeg", exif=turned(), xmp=XMP)}, "x.jpg"),
    "webp": ("folder", {"x.webp": picture("webp", exif=turned(), xmp=XMP)}, "x.webp"),
    "gif": ("folder", {"x.gif": picture("gif")}, "x.gif"),
    "bmp": ("folder", {"x.bmp": picture("bmp")}, "x.bmp"),
    "tif": ("folder", {"x.tif": picture("tiff", tiffinfo={274: 6, 700: XMP})}, "x.tif"),
    "lzw tif": ("folder", {"x.tif": picture("tiff", compression="tiff_lzw")}, "x.tif"),
    "ppm": ("folder", {"x.ppm": picture("ppm")}, "x.ppm"),
    "description": ("folder", {"dataset.json": LABELS, **TWO}, "dataset.json"),
    "zip": ("zip", {"x.zip": zipped({"dataset.json": LABELS, **TWO})}, "x.zip"),
    "stored zip": ("zip", {"x.zip": zipped({"c/": b"", **TWO}, zipfile.ZIP_STORED)}, "x.zip"),
    "tar": ("tar", {"x.tar": sharded({**TWO, "a/0.cls": b"0", "b/1.json": b'{"label": 4}'})}, "x.tar"),
    "npz": ("npz", {"x.npz": arrays(images=IMAGES, labels=np.arange(6) % 2, classes=["owl", "newt"])}, "x.npz"),
    "deep png": ("pairs", {"A/x.png": deep_png(DEEP, 2), "B/x.png": WHOLE}, "A/x.png"),
    "deep tif": ("pairs", {"A/x.tif": deep_tiff(DEEP, ">"), "B/x.png": WHOLE}, "A/x.tif"),
    "packed deep tif": ("pairs", {"A/x.tif": deep_tiff(DEEP, packed=True), "B/x.png": WHOLE}, "A/x.tif"),
    "npy": ("pairs", {"A/x.npy": saved(DEEP), "B/x.png": WHOLE}, "A/x.npy"),
    "idx": ("mnist", DIGITS, "MNIST/raw/train-images-idx3-ubyte"),
    "idx labels": ("mnist", DIGITS, "MNIST/raw/train-labels-idx1-ubyte"),
}


def any_bytes(draw: random.Random, data: bytes) -> bytes:
    """What may happen to any file: cut, flipped, doubled, filled, or exchanged for something else."""
    a, b = sorted(draw.randrange(len(data) + 1) for _ in range(2))
    b = min(b, a + draw.choice([1, 4, 64, 1000]))
    return draw.choice(
        [
            lambda: data[:a],
            lambda: data[:a] + bytes(255 - byte for byte in data[a:b]) + data[b:],
            lambda: data[:a] + bytes([draw.choice([0, 255, 128])]) * (b - a) + data[b:],
            lambda: data[:a] + data[a:b] * draw.choice([0, 2, 50]) + data[b:],
            lambda: data[:a] + draw.randbytes(b - a) + data[b:],
            lambda: draw.choice([b"", b"\0" * 700, b"{}", b"PK", gzip.compress(data), data[::-1]]),
        ]
    )()


def number(draw: random.Random, data: bytes) -> bytes:
    """A number of two or four bytes, at any place of the head or the tail, that is another one."""
    form = draw.choice(["<H", ">H", "<I", ">I"])
    size = struct.calcsize(form)
    place = draw.choice([draw.randrange(64), len(data) - 1 - draw.randrange(120), draw.randrange(len(data))])
    place = max(0, min(place, len(data) - size))
    return data[:place] + struct.pack(form, draw.choice(NUMBERS) % (1 << 8 * size)) + data[place + size :]


def chunks_of_png(draw: random.Random, data: bytes) -> bytes:
    """Chunks with right checksums that are changed, doubled, dropped, or stand elsewhere."""
    found, place = [], 8
    while place < len(data):
        length = int.from_bytes(data[place : place + 4], "big")
        found.append((data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    k = draw.randrange(len(found))
    kind, body = found[k]
    kinds = [b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"iTXt", b"zTXt", b"iCCP", b"acTL", b"fcTL", b"IDAT", b"IEND"]
    found[k : k + 1] = draw.choice(
        [
            lambda: [(kind, any_bytes(draw, body or b"\0"))],
            lambda: [(kind, number(draw, body) if len(body) > 4 else b"")],
            lambda: [(kind, body)] * 3,
            list,
            lambda: [(kind, body), (draw.choice(kinds), draw.randbytes(draw.choice([0, 5, 13, 300])))],
            lambda: [(draw.choice(kinds), body)],
        ]
    )()
    if draw.random() < 0.2:
        draw.shuffle(found)
    return data[:8] + b"".join(chunk(kind, body) for kind, body in found)


def segments_of_jpg(draw: random.Random, data: bytes) -> bytes:
    """A segment's length, kind or contents."""
    marks = [i for i in range(len(data) - 4) if data[i] == 255 and 0xC0 <= data[i + 1] < 0xFF]
    place = draw.choice(marks)
    piece = draw.choice([bytes([255, draw.randrange(0xC0, 0xFF)]), data[place : place + 2] + draw.randbytes(2), b""])
    return data[:place] + piece + data[place + max(2, len(piece)) :]


def description(draw: random.Random, data: bytes) -> bytes:
    """A JSON text of which one value, of any depth, is another one; or the text itself is no longer JSON."""
    found = json.loads(data)
    spots: list[tuple[Any, Any]] = [([found], 0)]
    for holder, key in spots:  # which grows meanwhile
        inner = holder[key]
        if isinstance(inner, (dict, list)):
            spots += [(inner, k) for k in (inner if isinstance(inner, dict) else range(len(inner)))]
    holder, key = draw.choice(spots)
    holder[key] = draw.choice(VALUES)
    text = json.dumps(spots[0][0][0], ensure_ascii=draw.random() < 0.7)
    coded = text.encode(draw.choice(["utf-8", "utf-8", "utf-16", "utf-8-sig"]), "surrogatepass")
    return any_bytes(draw, coded) if draw.random() < 0.3 else coded


def entries_of_zip(draw: random.Random, data: bytes) -> bytes:
    """A field of an entry, here or in the directory: sizes, offsets, methods, flags, names."""
    name = draw.choice([b"a/0.png", b"b/1.png", b"dataset.json"])
    if name in data and draw.random() < 0.4:
        other = draw.choice(NAMES)[: len(name)].ljust(len(name), b"x")
        return data.replace(name, other, draw.choice([1, 2, 9]))
    marks = [(b"PK\x03\x04", 30), (b"PK\x01\x02", 46), (b"PK\x05\x06", 22)]
    mark, length = draw.choice([m for m in marks if m[0] in data])
    places = [i for i in range(len(data)) if data.startswith(mark, i)]
    place, form = draw.choice(places) + draw.randrange(4, length - 3), draw.choice(["<H", "<I"])
    size = struct.calcsize(form)
    return data[:place] + struct.pack(form, draw.choice(NUMBERS) % (1 << 8 * size)) + data[place + size :]


def members_of_tar(draw: random.Random, data: bytes) -> bytes:
    """A field of a member's header, with a right checksum."""
    blocks = [i for i in range(0, len(data) - 512, 512) if data[i + 257 : i + 262] == b"ustar"]
    place = draw.choice(blocks)
    header = bytearray(data[place : place + 512])
    start, length = draw.choice([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)])
    value = draw.choice(
        [*NAMES, b"7777777", b"-1", b"\x80" + b"\xff" * 10, b"x", b"2", b"5", b"S", b"g", b"L", b"0000"]
    )
    header[start : start + length] = value[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return data[:place] + bytes(header) + data[place + 512 :]


def members_of_npz(draw: random.Random, data: bytes) -> bytes:
    """An archive with another array, or another header, or bytes that are none, in one array's place."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        members = {name: file.read(name) for name in file.namelist()}
    name = draw.choice(sorted(members))
    others: list[Any] = [
        np.array([{}, "x", None, 1, 2, 3], object), np.arange(6) + 0.5, np.array([0, 1, np.nan, 0, 1, 0]),
        np.zeros((6, 2), int), np.arange(5), np.float32(3), np.array([b"owl", b"\xff\xfe"]), np.array(["\ud800", "b"]),
        np.zeros((6, 0, 8, 3), np.uint8), np.zeros((0, 9, 8, 3), np.uint8), np.zeros((6, 9, 8, 7), np.uint8),
        np.arange(6).astype("datetime64[s]"), np.array(["a", "a"]), np.full(6, 2**64 - 1, np.uint64),
        np.full(6, -(2**62)), np.zeros(6, [("a", "u1")]), np.array(7), np.full(6, 99_999), np.zeros(6, bool),
        np.zeros((6, 9, 8, 3), ">u2"), np.zeros((6, 9, 8), np.int8), np.array([1, 5, 1, 5, 9, 9]),
    ]  # fmt: skip
    header = {"descr": "|u1", "fortran_order": False, "shape": (6, 9, 8, 3)}
    values = [(10**14, 8), (-1, -1), "|O", "<f8", "|V7", True, 3, (), None, "('x',)", (6, 9.5)]
    odd = {**header, draw.choice(sorted(header)): draw.choice(values)}

    def headed() -> bytes:
        text = repr(odd).encode() + b"\n"
        return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + bytes(200)

    ways = [lambda: saved(draw.choice(others)), headed, lambda: any_bytes(draw, members[name])]
    members[name] = draw.choice([ways[0], *ways])()
    if draw.random() < 0.2:
        members[draw.choice(["images", "labels", "x.txt", "labels.npy/"])] = members.pop(name)
    return zipped(members)


KNOWING: dict[str, Damage] = {
    "png": chunks_of_png,
    "early png": chunks_of_png,
    "jpg": segments_of_jpg,
    "deep png": chunks_of_png,
    "description": description,
    "zip": entries_of_zip,
    "stored zip": entries_of_zip,
    "tar": members_of_tar,
    "npz": members_of_npz,
}


def damaged(kind: str, seed: int) -> Files:
    """A data set's files, one of them damaged in a way that (kind, seed) says."""
    draw = random.Random(f"{kind} {seed}")
    _, files, name = SETS[kind]
    ways = [any_bytes, number, *[KNOWING[kind]] * 4] if kind in KNOWING else [any_bytes, number, number]
    return {**files, name: draw.choice(ways)(draw, files[name])}


def write(top: Path, files: Files) -> None:
    for name, data in files.items():
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        (top / name).write_bytes(data)
