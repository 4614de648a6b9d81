"""How an image lies in its file: all eight ways, said by EXIF, TIFF or XMP, before or behind the pixels."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancli.data import decode
from gancli.data.folder import Folder, folder
from gancli.errors import DataError

XMP = (
    b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf:RDF xmlns:rdf="http://www.w3.org/1999/02/22-rdf-syntax-ns#">'
    b'<rdf:Description xmlns:tiff="http://ns.adobe.com/tiff/1.0/"%s></rdf:RDF></x:xmpmeta>'
)


def stored() -> np.ndarray:
    """16 rows of 24 pixels, dark but for a bright and a middling quarter: no way of turning it looks like another."""
    pixels = np.zeros((16, 24, 3), np.uint8)
    pixels[:8, :12], pixels[:8, 12:] = 255, 128
    return pixels


def upright(lies: int) -> np.ndarray:
    """`stored` as EXIF 2.32 (4.6.5.1.6) says: where the file's first row and first column belong."""
    x = stored()
    return {
        1: x, 2: x[:, ::-1], 3: np.rot90(x, 2), 4: x[::-1], 5: x.transpose(1, 0, 2), 6: np.rot90(x, -1),
        7: x[::-1, ::-1].transpose(1, 0, 2), 8: np.rot90(x, 1),
    }[lies]  # fmt: skip


def headers(top: Path) -> list[tuple[int, int, int]]:
    place = Folder(top)
    return list(decode.headers(place.files(place.listing())))


def saved(kind: str, **keys: object) -> bytes:
    file = io.BytesIO()
    more = {"quality": 100} if kind == "jpeg" else {"lossless": True} if kind == "webp" else {}
    Image.fromarray(stored()).save(file, kind, **more, **keys)  # type: ignore[arg-type]
    return file.getvalue()


def by_exif(lies: int) -> Image.Exif:
    exif = Image.Exif()
    exif[0x0112] = lies
    return exif


def by_xmp(lies: int, form: bytes = b' tiff:Orientation="%d"/>') -> bytes:
    return XMP % (form % lies)


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def with_chunk(kind: bytes, data: bytes, late: bool) -> bytes:
    """A PNG with a chunk before its pixels or behind them."""
    plain = saved("png")
    place = plain.index(b"IEND" if late else b"IDAT") - 4
    return plain[:place] + chunk(kind, data) + plain[place:]


def png_xmp(lies: int, late: bool, packed: bool) -> bytes:
    text = by_xmp(lies)
    return with_chunk(
        b"iTXt",
        b"XML:com.adobe.xmp\0" + bytes([packed, 0]) + b"\0\0" + (zlib.compress(text) if packed else text),
        late,
    )


def tiff(lies: int, **keys: object) -> bytes:
    return saved("tiff", tiffinfo={274: lies}, **keys)


ELEMENT, QUOTED = b"><tiff:Orientation>%d</tiff:Orientation></rdf:Description>", b" tiff:Orientation = '%d'/>"
WAYS: dict[str, Callable[[int], bytes]] = {
    "a.jpg": lambda lies: saved("jpeg", exif=by_exif(lies)),
    "xmp.jpg": lambda lies: saved("jpeg", xmp=by_xmp(lies)),
    "element.jpg": lambda lies: saved("jpeg", xmp=by_xmp(lies, ELEMENT)),
    "quoted.jpg": lambda lies: saved("jpeg", xmp=by_xmp(lies, QUOTED)),
    "both.jpg": lambda lies: saved("jpeg", exif=by_exif(lies), xmp=by_xmp(9 - lies)),
    "a.png": lambda lies: saved("png", exif=by_exif(lies)),
    "late.png": lambda lies: with_chunk(b"eXIf", by_exif(lies).tobytes()[6:], late=True),
    "xmp.png": lambda lies: png_xmp(lies, late=False, packed=False),
    "packed.png": lambda lies: png_xmp(lies, late=False, packed=True),
    "latexmp.png": lambda lies: png_xmp(lies, late=True, packed=False),
    "latepacked.png": lambda lies: png_xmp(lies, late=True, packed=True),
    "a.webp": lambda lies: saved("webp", exif=by_exif(lies)),
    "xmp.webp": lambda lies: saved("webp", xmp=by_xmp(lies)),
    "a.tif": tiff,
    "packed.tif": lambda lies: tiff(lies, compression="tiff_lzw"),
    "xmp.tif": lambda lies: saved("tiff", tiffinfo={700: by_xmp(lies)}),
    "quoted.tif": lambda lies: saved("tiff", tiffinfo={700: by_xmp(lies, QUOTED)}),
    "xmp and packed.tif": lambda lies: saved("tiff", tiffinfo={700: by_xmp(lies)}, compression="tiff_deflate"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("lies", range(1, 9))
def test_shape_and_picture_agree(tmp_path: Path, way: str, lies: int) -> None:
    (tmp_path / way).write_bytes(WAYS[way](lies))
    expected = upright(lies)
    source = folder(str(tmp_path))
    assert source.shape == (3, *expected.shape[:2])
    assert headers(tmp_path) == [(3, *expected.shape[:2])]
    image = source.rows(np.array([0]))["x"][0].numpy().transpose(1, 2, 0)
    if way.endswith("jpg"):  # quantised; blocks of 8x8 are flat, so that only their mean is
        assert np.abs(image.astype(int) - expected).max() <= 2
    else:
        assert np.array_equal(image, expected)


@pytest.mark.parametrize("lies", [0, 9, 65535])
def test_other_numbers_mean_as_it_is(tmp_path: Path, lies: int) -> None:
    (tmp_path / "a.png").write_bytes(saved("png", exif=by_exif(lies)))
    (tmp_path / "b.tif").write_bytes(tiff(lies))
    x = folder(str(tmp_path)).rows(np.arange(2))["x"].numpy()
    assert np.array_equal(x, np.stack([stored().transpose(2, 0, 1)] * 2))


def test_only_what_is_late_costs_a_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.png").write_bytes(with_chunk(b"tEXt", b"a\0b", late=True))
    from PIL import PngImagePlugin

    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", None)
    assert headers(tmp_path) == [(3, 16, 24)]


def test_other_kinds_under_a_known_suffix_are_no_images(tmp_path: Path) -> None:
    Image.fromarray(stored()).save(tmp_path / "a.eps")
    (tmp_path / "a.eps").rename(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png cannot be used .*\(it is not an image of a supported format\)"):
        folder(str(tmp_path))
    assert {suffix for suffix, kind in Image.registered_extensions().items() if kind in decode._FORMATS} >= {
        *decode.SUFFIXES
    }
