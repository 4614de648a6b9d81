"""Image files of any depth and channels, in and out."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancli.data import imagefile
from gancli.errors import DataError
from tests.data.damage import chunk, deep_png, deep_tiff


def noisy(*shape: int, bits: int = 16) -> np.ndarray:
    kind = np.uint16 if bits == 16 else np.uint8
    return np.random.default_rng(sum(shape)).integers(0, 1 << bits, shape, kind)


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("bits", [8, 16])
def test_what_is_written_is_read_back_by_all(tmp_path: Path, channels: int, bits: int) -> None:
    image = noisy(channels, 9, 13, bits=bits)
    path = imagefile.write(tmp_path / "inner", "a", image)
    assert path == tmp_path / "inner" / "a.png"
    found = imagefile.read(path)
    assert found.dtype == image.dtype
    assert np.array_equal(found, image)
    with Image.open(path) as seen:
        shown = np.atleast_3d(np.asarray(seen)).transpose(2, 0, 1)
    # Pillow has no 16 bits of colour: it shows the upper byte of each
    assert np.array_equal(shown, image >> 8 if bits == 16 and channels > 1 else image)


@pytest.mark.parametrize("channels", [2, 5])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_other_channels_are_a_numpy_file(tmp_path: Path, channels: int, kind: type) -> None:
    image = noisy(channels, 9, 13).astype(kind)
    path = imagefile.write(tmp_path, "a.b", image)
    assert path.name == "a.b.npy"
    assert np.load(path).shape == (9, 13, channels)
    assert imagefile.read(path).dtype == kind
    assert np.array_equal(imagefile.read(path), image)


def test_numpy_files(tmp_path: Path) -> None:
    path, image = tmp_path / "a.npy", noisy(9, 13)
    np.save(path, image)
    assert np.array_equal(imagefile.read(path), image[None])
    np.save(path, np.asfortranarray(noisy(9, 13, 6).astype(">u2")))
    assert np.array_equal(imagefile.read(path), noisy(9, 13, 6).transpose(2, 0, 1))
    assert imagefile.read(path).dtype == np.dtype("=u2")


@pytest.mark.parametrize(
    ("array", "told"),
    [
        (np.zeros((8, 8), np.float32), r"it holds float32 \[8, 8\]; supported are uint8 and uint16, \[H,W\] and"),
        (np.zeros((2, 8, 8, 3), np.uint8), r"it holds uint8 \[2, 8, 8, 3\]"),
        (np.zeros((0, 8), np.uint8), r"it holds uint8 \[0, 8\]"),
        (np.array([[object()]]), "it holds object"),
    ],
)
def test_numpy_files_of_other_things(tmp_path: Path, array: np.ndarray, told: str) -> None:
    np.save(tmp_path / "a.npy", array, allow_pickle=True)
    with pytest.raises(DataError, match=rf"a\.npy cannot be used as an image \({told}.*\): fix or remove it"):
        imagefile.read(tmp_path / "a.npy")


def test_numpy_files_that_lie(tmp_path: Path) -> None:
    path = tmp_path / "a.npy"
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(
            file, {"descr": "|u1", "fortran_order": False, "shape": (1 << 20, 1 << 20)}
        )
    with pytest.raises(DataError, match="the limit"):
        imagefile.read(path)
    np.save(path, noisy(9, 13))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=r"its header gives uint16 \[9, 13\], but it has 233 bytes"):
        imagefile.read(path)
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"a\.npy cannot be used"):
        imagefile.read(path)


def test_eight_bits_of_all_modes(tmp_path: Path) -> None:
    colour = noisy(9, 13, 4, bits=8)
    for mode, channels in (("1", 1), ("L", 1), ("LA", 4), ("P", 3), ("RGB", 3), ("RGBA", 4)):
        image = Image.fromarray(colour if "A" in mode else colour[..., :3].copy()).convert(mode)
        image.save(tmp_path / "a.png")
        found = imagefile.read(tmp_path / "a.png")
        assert found.shape == (channels, 9, 13), mode
        assert found.dtype == np.uint8
        kind = {1: "L", 3: "RGB", 4: "RGBA"}[channels]
        assert np.array_equal(found, np.atleast_3d(np.asarray(image.convert(kind))).transpose(2, 0, 1))
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert imagefile.read(tmp_path / "a.tif")[:, 0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize(("colour", "channels"), [(0, 1), (2, 3), (4, 2), (6, 4)])
def test_sixteen_bits_of_png(tmp_path: Path, colour: int, channels: int) -> None:
    image = noisy(9, 13, channels)
    (tmp_path / "a.png").write_bytes(deep_png(image, colour))
    expected = image[..., [0, 0, 0, 1]] if channels == 2 else image
    assert np.array_equal(imagefile.read(tmp_path / "a.png"), expected.transpose(2, 0, 1))


def test_a_transparent_colour_of_sixteen_bits(tmp_path: Path) -> None:
    for channels, colour in ((1, 0), (3, 2)):
        image = noisy(9, 13, channels)
        key = chunk(b"tRNS", image[2, 3].astype(">u2").tobytes())
        (tmp_path / "a.png").write_bytes(deep_png(image, colour, key))
        found = imagefile.read(tmp_path / "a.png")
        assert np.array_equal(found[:3], np.broadcast_to(image.transpose(2, 0, 1), (3, 9, 13)))
        assert np.argwhere(found[3] == 0).tolist() == [[2, 3]]
        assert np.unique(found[3]).tolist() == [0, 65535]


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_sixteen_bits_of_tiff(tmp_path: Path, order: str, packed: bool, channels: int) -> None:
    image = noisy(9, 13, channels)
    more = ((338, 2),) if channels == 4 else ()
    (tmp_path / "a.tif").write_bytes(deep_tiff(image, order, *more, packed=packed))
    found = imagefile.read(tmp_path / "a.tif")
    assert found.dtype == np.uint16
    assert np.array_equal(found, image.transpose(2, 0, 1))


def test_sixteen_bits_that_were_multiplied_are_refused(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(deep_tiff(noisy(9, 13, 4), "<", (338, 1)))
    with pytest.raises(DataError, match="16 bits of RGBa;16L are not supported: save it as PNG"):
        imagefile.read(tmp_path / "a.tif")


@pytest.mark.parametrize("lies", range(1, 9))
@pytest.mark.parametrize("kind", ["a.png", "a.tif", "grey.tif", "a.jpg"])
def test_sixteen_bits_stand_upright(tmp_path: Path, lies: int, kind: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = lies
    x = noisy(8, 16, 1 if kind == "grey.tif" else 3)
    if kind == "a.png":
        (tmp_path / kind).write_bytes(deep_png(x, 2, chunk(b"eXIf", exif.tobytes()[6:])))
    elif kind == "a.jpg":
        Image.new("RGB", (16, 8)).save(tmp_path / kind, exif=exif)
        x = np.zeros((8, 16, 3), np.uint8)
    else:
        (tmp_path / kind).write_bytes(deep_tiff(x, "<", (274, lies)))
    # EXIF 2.32 (4.6.5.1.6): where the file's first row and first column belong
    expected = {
        1: x, 2: x[:, ::-1], 3: np.rot90(x, 2), 4: x[::-1], 5: x.transpose(1, 0, 2), 6: np.rot90(x, -1),
        7: x[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(x, 1),
    }[lies]  # fmt: skip
    assert np.array_equal(imagefile.read(tmp_path / kind), expected.transpose(2, 0, 1))


def test_pages_of_grey_are_channels(tmp_path: Path) -> None:
    for kind in (np.uint8, np.uint16):
        pages = noisy(5, 9, 13).astype(kind)
        first, *rest = map(Image.fromarray, pages)
        first.save(tmp_path / "a.tif", save_all=True, append_images=rest)
        found = imagefile.read(tmp_path / "a.tif")
        assert found.dtype == kind
        assert np.array_equal(found, pages)


@pytest.mark.parametrize("other", [Image.new("RGB", (13, 9)), Image.new("L", (13, 8)), Image.new("I;16", (13, 9))])
def test_pages_that_differ_are_refused(tmp_path: Path, other: Image.Image) -> None:
    Image.new("L", (13, 9)).save(tmp_path / "a.tif", save_all=True, append_images=[other])
    with pytest.raises(DataError, match="it has 2 pages: several pages must be grey and of one size and depth"):
        imagefile.read(tmp_path / "a.tif")


def test_pages_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small, large = Image.new("L", (10, 10)), Image.new("L", (20, 20))
    monkeypatch.setattr("gancli.data.decode.PIXEL_LIMIT", 399)
    small.save(tmp_path / "a.tif", save_all=True, append_images=[large])
    with pytest.raises(DataError, match="its pages have more than 399 pixels, the limit"):
        imagefile.read(tmp_path / "a.tif")
    small.save(tmp_path / "a.tif", save_all=True, append_images=[small] * 15)
    with pytest.raises(DataError, match="its pages have more than 399 pixels"):
        imagefile.read(tmp_path / "a.tif")
    monkeypatch.setattr(imagefile, "MOST_PAGES", 3)
    for pages in (3, 4):
        small.save(tmp_path / f"{pages}.tif", save_all=True, append_images=[small] * (pages - 1))
    assert imagefile.read(tmp_path / "3.tif").shape == (3, 10, 10)
    with pytest.raises(DataError, match="it has more than 3 pages, the limit"):
        imagefile.read(tmp_path / "4.tif")
    small.save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("L", (10, 11))])
    with (tmp_path / "a.tif").open("rb") as file, pytest.raises(ValueError, match="it has 2 pages: several"):
        imagefile.header(file)  # before a page is decoded


def test_a_small_copy_is_no_page(tmp_path: Path) -> None:
    small = Image.new("RGB", (4, 4))
    small.encoderinfo = {"tiffinfo": {254: 1}}
    Image.fromarray(noisy(9, 13, 3, bits=8)).save(tmp_path / "a.tif", save_all=True, append_images=[small])
    with Image.open(tmp_path / "a.tif") as image:
        assert image.n_frames == 2
    assert np.array_equal(imagefile.read(tmp_path / "a.tif"), noisy(9, 13, 3, bits=8).transpose(2, 0, 1))


def test_channels_fit() -> None:
    colour, grey = noisy(3, 9, 13), noisy(1, 9, 13)
    assert np.array_equal(imagefile.fitted(grey, 5, 16, "a"), grey.repeat(5, 0))
    red, green, blue = colour.astype(np.int64)
    luma = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    assert np.array_equal(imagefile.fitted(colour, 1, 16, "a"), luma[None])
    assert np.array_equal(imagefile.fitted(colour, 4, 16, "a"), [*colour, np.full((9, 13), 65535)])
    assert np.array_equal(imagefile.fitted(grey, 4, 16, "a"), [*grey.repeat(3, 0), np.full((9, 13), 65535)])
    assert imagefile.fitted(noisy(7, 9, 13), 7, 16, "a").shape == (7, 9, 13)
    for own, channels, allowed in ((7, 3, "7"), (3, 5, "1, 3 or 4"), (4, 5, "1, 3 or 4"), (2, 4, "2")):
        with pytest.raises(DataError) as caught:
            imagefile.fitted(noisy(own, 9, 13), channels, 16, "dir/a.npy")
        told = f"dir/a.npy has {own} channels, not convertible to {channels} (allowed: {allowed})"
        assert str(caught.value) == told


def test_alpha_goes_on_white() -> None:
    levels, alpha = np.meshgrid(np.arange(256, dtype=np.uint8), np.arange(256, dtype=np.uint8))
    image = np.stack([levels, levels, levels, alpha])
    white = Image.new("RGBA", (256, 256), "white")
    expected = Image.alpha_composite(white, Image.fromarray(image.transpose(1, 2, 0).copy())).convert("RGB")
    assert np.array_equal(imagefile.fitted(image, 3, 8, "a"), np.asarray(expected).transpose(2, 0, 1))
    assert np.array_equal(imagefile.fitted(image, 1, 8, "a")[0], np.asarray(expected)[..., 0])
    deep = imagefile.fitted(image.astype(np.uint16) * 257, 3, 16, "a")
    exact = (levels * (alpha / 255) + 255 * (1 - alpha / 255)) * 257
    assert np.abs(deep[0] - exact).max() <= 0.5 + 1e-9


def test_depths_fit() -> None:
    every = np.arange(65536, dtype=np.uint16).reshape(1, 256, 256)
    narrow = imagefile.fitted(every, 1, 8, "a")
    assert narrow.dtype == np.uint8
    assert np.array_equal(narrow, np.rint(every / 257).astype(np.uint8))
    wide = imagefile.fitted(every[:, 0].astype(np.uint8)[:, None], 1, 16, "a")
    assert wide.dtype == np.uint16
    assert np.array_equal(wide.ravel(), np.arange(256) * 257)
    assert np.array_equal(imagefile.fitted(wide, 1, 8, "a").ravel(), np.arange(256))


@pytest.mark.parametrize("name", ["cut.png", "crc.png", "cut.tif", "text.tif", "empty.png", "text.npy"])
def test_a_broken_file_is_named(tmp_path: Path, name: str) -> None:
    path, image = tmp_path / name, noisy(32, 32, 3)
    whole = deep_png(image, 2) if name.endswith("png") else deep_tiff(image)
    broken = bytearray(whole[:-400])
    if name == "crc.png":
        broken = bytearray(whole)
        broken[len(broken) // 2] ^= 255
    path.write_bytes(b"no image at all" if name.startswith("text") else b"" if name.startswith("empty") else broken)
    with pytest.raises(DataError) as caught:
        imagefile.read(path)
    assert str(caught.value).startswith(f"{path} cannot be used as an image (")
    assert "\n" not in str(caught.value)


def test_other_faults_are_named(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "link.png").symlink_to(tmp_path / "nothing")
    (tmp_path / "folder.png").mkdir()
    giant = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 9_500, 9_500, 16, 2, 0, 0, 0))
    (tmp_path / "bomb.png").write_bytes(giant + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b""))
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "deep.tif")
    (tmp_path / "deep.ppm").write_bytes(b"P6 2 2 65535\n" + bytes(24))
    told = {
        "pipe.png": "it is a named pipe", "link.png": "No such file", "folder.png": "it is a folder",
        "bomb.png": "limit", "deep.tif": "floating-point", "deep.ppm": "a colour PPM with more than 8 bits",
    }  # fmt: skip
    for name, why in told.items():
        with pytest.raises(DataError, match=rf"{name} cannot be used as an image \(.*{why}"):
            imagefile.read(tmp_path / name)


def test_grey_of_other_kinds(tmp_path: Path) -> None:
    (tmp_path / "a.pgm").write_bytes(b"P5 2 1 65535\n" + b"\x12\x34\xff\xff")
    assert imagefile.read(tmp_path / "a.pgm").tolist() == [[[0x1234, 0xFFFF]]]
    file = io.BytesIO()
    Image.fromarray(noisy(9, 13)).save(file, "TIFF", compression="tiff_lzw")
    (tmp_path / "a.tif").write_bytes(file.getvalue())
    assert np.array_equal(imagefile.read(tmp_path / "a.tif"), noisy(9, 13)[None])
