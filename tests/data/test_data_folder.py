"""Folders of images: every mode, aspect and fault."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.data import decode
from gancli.data.folder import folder
from gancli.errors import ConfigError, DataError


def png(width: int, height: int, depth: int, colour: int, rows: bytes) -> bytes:
    """A PNG file written by hand, for kinds that Pillow only reads. rows: each begins with a zero byte."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")


def noisy(height: int = 10, width: int = 12, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, channels), np.uint8)


def only(root: Path, **keys: object) -> np.ndarray:
    """The one image of a folder, uint8 [C, H, W]."""
    source = folder(str(root), **keys)  # type: ignore[arg-type]
    assert len(source) == 1
    return source.rows(np.array([0]))["x"][0].numpy()


def test_colour(tmp_path: Path) -> None:
    Image.fromarray(noisy()).save(tmp_path / "a.png")
    assert np.array_equal(only(tmp_path), noisy().transpose(2, 0, 1))


def test_grey(tmp_path: Path) -> None:
    Image.fromarray(noisy()[..., 0]).save(tmp_path / "a.png")
    assert np.array_equal(only(tmp_path)[0], noisy()[..., 0])
    assert np.array_equal(only(tmp_path, size=[3, 10, 12]), noisy()[..., 0][None].repeat(3, axis=0))


def test_bits(tmp_path: Path) -> None:
    bits = noisy()[..., 0] > 127
    Image.fromarray(bits).save(tmp_path / "a.png")
    assert np.array_equal(only(tmp_path)[0], bits * np.uint8(255))


def test_alpha_goes_on_white(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 4), 100, np.uint8)
    pixels[..., 3] = np.array([0, 255, 51, 255, 255, 255, 255, 255])[None]
    Image.fromarray(pixels).save(tmp_path / "a.png")
    # 51 / 255 of 100 and the rest of 255: 20 + 204
    assert only(tmp_path)[:, 0, :4].tolist() == [[255, 100, 224, 100]] * 3


def test_grey_with_alpha(tmp_path: Path) -> None:
    pixels = np.full((8, 8, 2), 100, np.uint8)
    pixels[0, 0, 1], pixels[0, 1:, 1] = 0, 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    image = only(tmp_path)
    assert image.shape == (1, 8, 8)
    assert image[0, 0, :2].tolist() == [255, 100]


def test_palette(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png")
    assert only(tmp_path)[:, 0, :2].tolist() == [[10, 40], [20, 50], [30, 60]]


def test_palette_with_a_transparent_colour(tmp_path: Path) -> None:
    image = Image.new("P", (8, 8))
    image.putpalette([10, 20, 30, 40, 50, 60])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    assert only(tmp_path)[:, 0, :2].tolist() == [[10, 255], [20, 255], [30, 255]]


def test_sixteen_bits_of_grey(tmp_path: Path) -> None:
    values = np.zeros((8, 8), np.uint16)
    values[0, :6] = 65535, 257 * 7, 128, 129, 257 * 100 + 128, 257 * 100 + 129
    Image.fromarray(values).save(tmp_path / "a.png")
    assert only(tmp_path)[0, 0, :6].tolist() == [255, 7, 0, 1, 100, 101]
    Image.fromarray(values).save(tmp_path / "a.tif")
    (tmp_path / "a.png").unlink()
    assert only(tmp_path)[0, 0, :6].tolist() == [255, 7, 0, 1, 100, 101]


def test_sixteen_bits_of_colour(tmp_path: Path) -> None:
    row = b"\x00" + struct.pack(">HHH", 65535, 257 * 9, 0) * 8
    (tmp_path / "a.png").write_bytes(png(8, 8, 16, 2, row * 8))
    assert only(tmp_path)[:, 3, 3].tolist() == [255, 9, 0]


def test_cmyk(tmp_path: Path) -> None:
    Image.new("CMYK", (8, 8), (255, 0, 0, 0)).save(tmp_path / "a.tif")
    assert only(tmp_path)[:, 0, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("suffix", ["jpg", "webp", "bmp", "gif", "tiff", "ppm", "PNG", "JPEG"])
def test_kinds_of_files(tmp_path: Path, suffix: str) -> None:
    Image.new("RGB", (9, 8), (200, 100, 50)).save(tmp_path / f"a.{suffix}")
    image = only(tmp_path)
    assert image.shape == (3, 8, 9)
    assert np.abs(image.astype(int) - np.array([200, 100, 50])[:, None, None]).max() <= 3


def test_exif_says_what_is_up(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera stood on its side: turn clockwise
    Image.fromarray(noisy(10, 12)).save(tmp_path / "a.png", exif=exif)
    assert np.array_equal(only(tmp_path), np.rot90(noisy(10, 12), -1).transpose(2, 0, 1))


def test_floats_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.zeros((8, 8), np.float32)).save(tmp_path / "deep.tiff")
    with pytest.raises(DataError, match=r"deep\.tiff cannot be used .*floating-point"):
        folder(str(tmp_path))


def test_any_aspect_is_cropped_and_resized(tmp_path: Path) -> None:
    stripes = np.zeros((8, 24, 3), np.uint8)
    stripes[:, 8:16] = 255
    Image.fromarray(stripes).save(tmp_path / "wide.png")
    Image.fromarray(stripes.transpose(1, 0, 2).copy()).save(tmp_path / "tall.png")
    source = folder(str(tmp_path), size=[3, 16, 16])
    x = source.rows(np.arange(2))["x"]
    assert x.shape == (2, 3, 16, 16)
    assert (x == 255).all()  # the central third, and nothing of what lies beside it


def test_shrinking_is_antialiased(tmp_path: Path) -> None:
    lines = np.zeros((64, 64), np.uint8)
    lines[:, ::2] = 255
    Image.fromarray(lines).save(tmp_path / "lines.png")
    inner = only(tmp_path, size=8)[0, :, 2:6]
    assert np.abs(inner.astype(int) - 127).max() <= 8


def test_natural_size(tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(noisy(10, 12)).save(tmp_path / f"{name}.png")
    assert folder(str(tmp_path)).shape == (3, 10, 12)
    Image.fromarray(noisy(30, 9)[..., 0]).save(tmp_path / "c.png")
    assert folder(str(tmp_path)).shape == (3, 9, 9)
    assert folder(str(tmp_path), size=16).shape == (3, 16, 16)
    assert folder(str(tmp_path), size=[1, 16, 20]).shape == (1, 16, 20)


def test_all_grey_is_one_channel(tmp_path: Path) -> None:
    for name in "ab":
        Image.fromarray(noisy()[..., 0]).save(tmp_path / f"{name}.png")
    assert folder(str(tmp_path), size=16).shape == (1, 16, 16)


def test_sub_folders_are_classes(tmp_path: Path) -> None:
    for name, count in (("Food & Drink", 2), ("[a]", 3), ("empty", 0)):
        (tmp_path / name).mkdir()
        for i in range(count):
            Image.new("L", (8, 8), 10 * count + i).save(tmp_path / name / f"{i}.png")
    source = folder(str(tmp_path))
    x, y = source.rows(np.arange(5)).values()
    assert source.classes == ("Food & Drink", "[a]")
    assert y.tolist() == [0, 0, 1, 1, 1]
    assert x[:, 0, 0, 0].tolist() == [20, 21, 30, 31, 32]
    few = folder(str(tmp_path), limit=3)
    x, y = few.rows(np.arange(3)).values()
    assert all((pixel < 30) == (label == 0) for pixel, label in zip(x[:, 0, 0, 0].tolist(), y.tolist(), strict=True))


def test_hidden_and_other_files_are_skipped(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    for name in (".hidden.png", "._a.png", "notes.txt", "Thumbs.db"):
        (tmp_path / name).write_bytes(b"no image")
    (tmp_path / ".git").mkdir()
    Image.new("L", (8, 8)).save(tmp_path / ".git" / "b.png")
    source = folder(str(tmp_path))
    assert len(source) == 1
    assert source.classes == ()


def broken(root: Path, kind: str) -> Path:
    """A folder of good images with one bad one in it."""
    for i in range(3):
        Image.fromarray(noisy(32, 32)).save(root / f"good{i}.png")
    path = root / f"bad-{kind}"
    if kind == "text.png":
        path.write_bytes(b"this is no image")
    elif kind == "empty.jpg":
        path.write_bytes(b"")
    elif kind == "crc.png":
        data = bytearray((root / "good0.png").read_bytes())
        data[len(data) // 2] ^= 255
        path.write_bytes(data)
    else:
        Image.fromarray(noisy(32, 32)).save(path)
        path.write_bytes(path.read_bytes()[:-400])
    return path


@pytest.mark.parametrize(
    "kind", ["text.png", "empty.jpg", "cut.png", "cut.jpg", "cut.webp", "cut.bmp", "cut.tif", "crc.png"]
)
@pytest.mark.parametrize("size", [None, [3, 16, 16]])
def test_a_broken_file_is_named(tmp_path: Path, kind: str, size: list[int] | None) -> None:
    path = broken(tmp_path, kind)
    with pytest.raises(DataError) as caught:
        folder(str(tmp_path), size=size)
    assert str(caught.value).startswith(f"{path} cannot be used as an image (")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("side", [9_500, 60_000])
@pytest.mark.parametrize("size", [None, [3, 16, 16]])
def test_a_decompression_bomb_is_refused(tmp_path: Path, side: int, size: list[int] | None) -> None:
    (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 0, b"\x00" * 1000))
    with pytest.raises(DataError, match=r"bomb\.png cannot be used as an image \(.*(bomb|limit)"):
        folder(str(tmp_path), size=size)


def test_the_limit_of_pixels_is_ours_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "a.png")
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 399)
    with pytest.raises(DataError, match=r"a\.png .*20x20"):
        folder(str(tmp_path), size=8)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"has no images in it or in its sub-folders: put images there \(.*\.png"):
        folder(str(tmp_path))


def test_a_folder_one_too_high(tmp_path: Path) -> None:
    (tmp_path / "train" / "cats").mkdir(parents=True)
    Image.new("L", (8, 8)).save(tmp_path / "train" / "cats" / "a.png")
    with pytest.raises(DataError, match=rf"type dataset\.root={tmp_path / 'train'}"):
        folder(str(tmp_path))


def test_loose_images_beside_classes(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    for path in (tmp_path / "a.png", tmp_path / "cats" / "b.png"):
        Image.new("L", (8, 8)).save(path)
    with pytest.raises(DataError, match=r"has images \(a\.png, \.\.\.\) and sub-folders of images \(cats"):
        folder(str(tmp_path))


def test_a_missing_or_wrong_root(tmp_path: Path) -> None:
    (tmp_path / "data.npz").write_bytes(b"")
    with pytest.raises(ConfigError, match=r"type dataset\.root=PATH"):
        folder()
    with pytest.raises(DataError, match=r"does not exist: type dataset\.root=PATH"):
        folder(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="is a file, not a folder: type dataset=npz"):
        folder(str(tmp_path / "data.npz"))
    with pytest.raises(ConfigError, match="no split 'test'"):
        folder(str(tmp_path), split="test")


def test_channels_that_files_cannot_have(tmp_path: Path) -> None:
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="dataset=folder has 1 or 3 channels"):
        folder(str(tmp_path), size=[4, 8, 8])


def test_tiny_images_need_a_size(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 9).save(tmp_path / "a.png")
    with pytest.raises(ConfigError, match="out of range"):
        folder(str(tmp_path))
    assert (only(tmp_path, size=8) == 9).all()


def test_order_of_files_is_by_name(tmp_path: Path) -> None:
    for i in (7, 3, 5, 1):
        Image.new("L", (8, 8), i).save(tmp_path / f"{i}.png")
    assert folder(str(tmp_path)).rows(np.arange(4))["x"][:, 0, 0, 0].tolist() == [1, 3, 5, 7]
    assert torch.equal(
        folder(str(tmp_path), limit=2).rows(np.arange(2))["x"], folder(str(tmp_path), limit=3).rows(np.arange(2))["x"]
    )
