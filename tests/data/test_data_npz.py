"""NumPy archives as data sets."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

import numpy as np
import pytest

from gancli.data import npz as npz_module
from gancli.data.npz import npz
from gancli.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
COLOUR = RNG.integers(0, 256, (6, 9, 8, 3), np.uint8)


def saved(path: Path, **arrays: object) -> str:
    np.savez_compressed(path / "x.npz", **arrays)  # type: ignore[arg-type]
    return str(path / "x.npz")


def all_rows(root: str, **keys: object) -> np.ndarray:
    source = npz(root, **keys)  # type: ignore[arg-type]
    return source.rows(np.arange(len(source)))["x"].numpy()


def test_layouts(tmp_path: Path) -> None:
    first = COLOUR.transpose(0, 3, 1, 2)
    assert np.array_equal(all_rows(saved(tmp_path, images=COLOUR)), first)
    assert np.array_equal(all_rows(saved(tmp_path, images=first)), first)
    assert np.array_equal(all_rows(saved(tmp_path, images=COLOUR[..., 0])), first[:, :1])
    assert np.array_equal(all_rows(saved(tmp_path, images=COLOUR[..., :1])), first[:, :1])
    many = RNG.integers(0, 256, (2, 8, 9, 10), np.uint8)
    assert np.array_equal(all_rows(saved(tmp_path, images=many), layout="nchw"), many)
    assert np.array_equal(all_rows(saved(tmp_path, images=many), layout="nhwc"), many.transpose(0, 3, 1, 2))
    with pytest.raises(DataError, match=r"which axis .* Type dataset\.layout=nhwc or nchw"):
        npz(saved(tmp_path, images=many))


def test_labels_and_classes(tmp_path: Path) -> None:
    labels = np.array([0, 1, 2, 2, 1, 0], np.uint8)
    named = npz(saved(tmp_path, images=COLOUR, labels=labels, classes=np.array(["a", "b", "c", "d"])))
    assert named.classes == ("a", "b", "c")
    assert named.notes == (f"{tmp_path / 'x.npz'}: no image has the classes d; the 3 classes are a, b, c",)
    assert named.rows(np.arange(6))["y"].tolist() == labels.tolist()
    assert npz(saved(tmp_path, images=COLOUR, labels=labels)).classes == ("0", "1", "2")
    assert npz(saved(tmp_path, images=COLOUR)).classes == ()


def test_common_keys(tmp_path: Path) -> None:
    source = npz(saved(tmp_path, images=COLOUR, labels=np.zeros(6, int)), size=[1, 16, 12], limit=4, flip=True)
    assert (len(source), source.shape, source.flip) == (4, (1, 16, 12), True)
    with pytest.raises(ConfigError, match="no split 'test'"):
        npz(saved(tmp_path, images=COLOUR), split="test")


@pytest.mark.parametrize(
    ("arrays", "problem"),
    [
        ({"pictures": COLOUR}, "holds pictures but no `images`"),
        ({"images": COLOUR.astype(np.float32)}, r"images are float32 \[6, 9, 8, 3\], but uint8 is needed"),
        ({"images": COLOUR[0, 0]}, r"images are uint8 \[8, 3\], but uint8"),
        ({"images": COLOUR[:0]}, "images are empty"),
        ({"images": COLOUR, "labels": np.zeros(5, int)}, r"labels are int64 \[5\], but integers \[6\]"),
        ({"images": COLOUR, "labels": np.zeros(6)}, r"labels are float64 \[6\]"),
        ({"images": COLOUR, "labels": np.full(6, -1)}, "the smallest label is -1"),
        ({"images": COLOUR, "labels": np.full(6, 2), "classes": ["a", "b"]}, "go up to 2 but classes has 2"),
        ({"images": COLOUR, "classes": np.array(["a", None], object)}, "cannot be read .*allow_pickle"),
        ({"images": np.array([{}], object)}, "cannot be read .*allow_pickle"),
    ],
)
def test_wrong_contents_are_explained(tmp_path: Path, arrays: dict[str, object], problem: str) -> None:
    with pytest.raises(DataError, match=rf"x\.npz.*{problem}"):
        npz(saved(tmp_path, **arrays))


def test_wrong_files_are_explained(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    with pytest.raises(ConfigError, match=r"type dataset\.root=FILE\.npz"):
        npz()
    with pytest.raises(DataError, match="does not exist"):
        npz(str(path))
    with pytest.raises(DataError, match="is a folder, not a file: type dataset=folder"):
        npz(str(tmp_path))
    path.write_bytes(b"no archive")
    with pytest.raises(DataError, match=r"cannot be read as an \.npz file"):
        npz(str(path))
    data = bytearray(Path(saved(tmp_path, images=COLOUR)).read_bytes())
    path.write_bytes(data[:-50])
    with pytest.raises(DataError, match=r"x\.npz cannot be read"):
        npz(str(path))
    data[200:260] = bytes(60)
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.npz (cannot be read|is damaged)"):
        npz(str(path))
    with pytest.raises(ConfigError, match=r"dataset\.layout=chw"):
        npz(str(path), layout="chw")  # type: ignore[arg-type]


def test_an_archive_that_unpacks_to_too_much_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = saved(tmp_path, images=np.zeros((100, 64, 64), np.uint8))
    with zipfile.ZipFile(root) as file:
        packed, unpacked = (sum(getattr(m, kind) for m in file.infolist()) for kind in ("compress_size", "file_size"))
    monkeypatch.setattr(npz_module, "LARGEST_BYTES", (packed + unpacked) // 2)
    with pytest.raises(DataError, match="over the limit"):
        npz(root)


def test_a_header_that_asks_for_too_much_memory(tmp_path: Path) -> None:
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, {"descr": "|u1", "fortran_order": False, "shape": (10**14, 8, 8)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("images.npy", header.getvalue() + bytes(64))
    with pytest.raises(DataError, match=r"images\.npy has the header \[100000000000000, 8, 8\] of uint8, but 64"):
        npz(str(tmp_path / "x.npz"))


def test_labels_that_would_name_a_billion_classes(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="labels run from 0 to 10000000000"):
        npz(saved(tmp_path, images=COLOUR, labels=np.array([0, 0, 0, 0, 0, 10**10])))
