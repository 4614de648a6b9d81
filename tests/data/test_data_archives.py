"""Zips, shards and tables: the same rows as the same images in a folder, and nothing hostile let in."""

from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.data import gather, listing
from gancli.data.folder import folder
from gancli.data.hub import hub
from gancli.data.layout import by_folders
from gancli.data.loader import Stream
from gancli.data.shards import webdataset
from gancli.data.source import Source
from gancli.data.zipped import archive
from gancli.errors import ConfigError, DataError

N = 9


def picture(i: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(i).integers(0, 256, (12, 10, 3), np.uint8)
    Image.fromarray(pixels).save(file, "PNG" if i % 2 else "JPEG")
    return file.getvalue()


def named() -> dict[str, bytes]:
    """Nine files in two classes."""
    return {f"{'cats' if i < 4 else 'dogs'}/{i:03d}.{'png' if i % 2 else 'jpg'}": picture(i) for i in range(N)}


@pytest.fixture
def in_folder(tmp_path: Path) -> Path:
    for name, data in named().items():
        (tmp_path / "photos" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(data)
    return tmp_path / "photos"


def zipped(path: Path, files: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> str:
    with zipfile.ZipFile(path, "w", method) as file:
        for name, data in reversed(files.items()):
            file.writestr(name, data)
    return str(path)


def add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))


def sharded(path: Path, files: dict[str, bytes], shards: int = 3) -> str:
    for k in range(shards):
        with tarfile.open(path / f"s-{k}.tar", "w") as tar:
            for name, data in list(files.items())[k::shards]:
                add(tar, name, data)
    return str(path / f"s-{{0..{shards - 1}}}.tar")


def everything(source: Source) -> tuple[torch.Tensor, ...]:
    return tuple(source.rows(np.arange(len(source))).values())


def same(first: Source, second: Source) -> None:
    """Equal rows, labels, fingerprint and batches."""
    for ours, theirs in zip(everything(first), everything(second), strict=True):
        assert torch.equal(ours, theirs)
    assert first.fingerprint == second.fingerprint
    streams = [Stream(source, 5, "real") for source in (first, second)]
    for position in (0, 4, 8, 40):
        one, other = (stream.batch(position, 4) for stream in streams)
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["y"], other["y"])


def table(path: Path) -> str:
    import datasets

    features = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=["cats", "dogs"])})
    cells = [{"bytes": data, "path": None} for data in named().values()]
    rows = {"image": cells, "label": [int(name.startswith("dogs")) for name in named()]}
    datasets.disable_progress_bars()
    datasets.Dataset.from_dict(rows, features).save_to_disk(str(path / "table"))
    return str(path / "table")


FORMS: dict[str, Callable[[Path], tuple[Callable[..., Source], str]]] = {
    "folder": lambda path: (folder, str(path / "photos")),
    "zip": lambda path: (archive, zipped(path / "x.zip", named())),
    "stored zip": lambda path: (archive, zipped(path / "x.zip", named(), zipfile.ZIP_STORED)),
    "zip of a folder": lambda path: (archive, zipped(path / "x.zip", {f"a/b/{k}": v for k, v in named().items()})),
    "shards": lambda path: (webdataset, sharded(path, named())),
    "hub": lambda path: (hub, table(path)),
}


@pytest.mark.parametrize("store", ["raw", "encoded"])
@pytest.mark.parametrize("large", [False, True])
@pytest.mark.parametrize("form", FORMS)
def test_the_same_images_are_the_same_data(
    tmp_path: Path, in_folder: Path, monkeypatch: pytest.MonkeyPatch, form: str, large: bool, store: str
) -> None:
    expected = folder(str(in_folder), size=8, flip=True)
    limited = folder(str(in_folder), limit=5)
    if large:
        monkeypatch.setattr(gather, "IN_MEMORY", 0)
    make, root = FORMS[form](tmp_path)
    for _ in range(2):  # decoded anew, then as it was kept
        found = make(root, size=8, flip=True, store=store)
        assert found.in_memory == (store == "raw" and not large)
        assert found.classes == ("cats", "dogs")
        same(expected, found)
    same(limited, make(root, limit=5, store=store))


def test_labels_as_the_tool_of_stylegan_writes_them(tmp_path: Path) -> None:
    files = {f"0000{i % 2}/img{i:08d}.png": picture(i) for i in range(4)}
    labels = [[name, i % 3] for i, name in enumerate(files)]
    told = json.dumps({"labels": labels}).encode()
    source = archive(zipped(tmp_path / "x.zip", {"dataset.json": told, **files}))
    assert everything(source)[1].tolist() == [0, 2, 1, 0]  # by name: folder 00000 has images 0 and 2
    assert source.classes == ("0", "1", "2")
    plain = archive(zipped(tmp_path / "y.zip", {"dataset.json": b'{"labels": null}', **files}))
    assert plain.classes == ()
    assert torch.equal(everything(plain)[0], everything(source)[0])


def test_labels_of_samples(tmp_path: Path) -> None:
    files = {f"{i}.{kind}": data for i in range(4) for kind, data in (("png", picture(1)), ("cls", b"%d" % (3 - i)))}
    assert everything(webdataset(sharded(tmp_path, files, 1)))[1].tolist() == [3, 2, 1, 0]
    told = {f"{i}.{kind}": d for i in range(3) for kind, d in (("json", b'{"label": %d}' % i), ("png", picture(1)))}
    assert everything(webdataset(sharded(tmp_path, told, 1)))[1].tolist() == [0, 1, 2]
    pairs = {"a.left.png": picture(1), "a.right.png": picture(3)}
    right = webdataset(sharded(tmp_path, pairs, 1), image="right.png")
    expected = np.asarray(Image.open(io.BytesIO(picture(3)))).transpose(2, 0, 1)
    assert np.array_equal(everything(right)[0][0].numpy(), expected)
    with pytest.raises(DataError, match=r"dataset\.image=EXTENSION"):
        webdataset(sharded(tmp_path, pairs, 1))
    both = {"a.png": picture(1), "a.jpg": picture(2)}
    with pytest.raises(DataError, match=r"a has 2 images .*dataset\.image=jpg"):
        webdataset(sharded(tmp_path, both, 1))
    with pytest.raises(DataError, match="label all or none"):
        webdataset(sharded(tmp_path, {"a.png": picture(1), "a.cls": b"0", "b.png": picture(1)}, 1))


def test_columns_of_a_table(tmp_path: Path) -> None:
    root = table(tmp_path)
    assert hub(root, label=None).classes == ()
    with pytest.raises(ConfigError, match=r"dataset\.label=kind is not a column .*image, label or null"):
        hub(root, label="kind")
    with pytest.raises(DataError, match="holds no images"):
        hub(root, image="label")
    with pytest.raises(ConfigError, match="no split 'test'"):
        hub(root, split="test")
    with pytest.raises(DataError, match="is not a folder"):
        hub("./nowhere")
    with pytest.raises(ConfigError, match=r"type dataset\.root=OWNER/NAME"):
        hub()


def hostile_zip(path: Path, name: str, edit: Callable[[zipfile.ZipInfo], None] = lambda entry: None) -> str:
    with zipfile.ZipFile(path / "x.zip", "w") as file:
        file.writestr("good.png", picture(1))
        entry = zipfile.ZipInfo(name)
        edit(entry)
        file.writestr(entry, picture(3))
    return str(path / "x.zip")


@pytest.mark.parametrize("name", ["../bad.png", "/etc/bad.png", "a/../../bad.png", "..\\bad.png", "C:bad.png", "../x"])
def test_entries_that_point_out_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="points outside it") as caught:
        archive(hostile_zip(tmp_path, name))
    assert repr(name) in str(caught.value)
    with pytest.raises(DataError, match="points outside it"):
        webdataset(sharded(tmp_path, {"good.png": picture(1), name: picture(3)}, 1))


def test_links_and_encryption_are_refused(tmp_path: Path) -> None:
    def link(entry: zipfile.ZipInfo) -> None:
        entry.external_attr = 0o120777 << 16

    with pytest.raises(DataError, match=r"bad\.png is a link"):
        archive(hostile_zip(tmp_path, "bad.png", link))
    path = Path(hostile_zip(tmp_path, "bad.png"))
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        data[data.rindex(mark) + place] |= 1
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"bad\.png is encrypted"):
        archive(str(path))
    for kind in (tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.FIFOTYPE):
        with tarfile.open(tmp_path / "l.tar", "w") as tar:
            add(tar, "good.png", picture(1))
            member = tarfile.TarInfo("bad.png")
            member.type, member.linkname = kind, "/etc/passwd"
            tar.addfile(member)
        with pytest.raises(DataError, match=r"bad\.png is not a regular file"):
            webdataset(str(tmp_path / "l.tar"))


def lie(path: Path, size: int) -> None:
    """Let the last entry say another unpacked size."""
    data = bytearray(path.read_bytes())
    for mark, place in ((b"PK\x03\x04", 22), (b"PK\x01\x02", 24)):
        struct.pack_into("<I", data, data.rindex(mark) + place, size)
    path.write_bytes(data)


@pytest.mark.parametrize("store", ["raw", "encoded"])
def test_sizes_that_lie_are_refused(tmp_path: Path, store: Any) -> None:
    path = tmp_path / "x.zip"
    zipped(path, {"b.png": bytes(100_000), "a.png": picture(1)})  # the bomb of zeros is written last
    lie(path, 50)
    with pytest.raises(DataError, match=r"\.png cannot be used as an image \(it does not unpack to the"):
        archive(str(path), size=8, store=store)
    zipped(path, {"b.png": picture(3), "a.png": picture(1)})
    lie(path, 1 << 30)
    with pytest.raises(DataError, match=r"\.png unpacks to 1024 MiB; the limit is 256"):
        archive(str(path))
    with tarfile.open(tmp_path / "l.tar", "w") as tar:
        member = tarfile.TarInfo("a.png")
        member.size = 1 << 40
        tar.addfile(member, None)
    with pytest.raises(DataError, match=r"is truncated: the entry a\.png"):
        webdataset(str(tmp_path / "l.tar"))


def test_an_image_bomb_in_an_archive_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gancli.data.decode.PIXEL_LIMIT", 119)
    with pytest.raises(DataError, match=r"x\.zip:000\.png cannot be used .*10x12; the limit is 119 pixels"):
        archive(zipped(tmp_path / "x.zip", {"000.png": picture(1)}))


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_damaged_entries_are_named(tmp_path: Path, method: int) -> None:
    path = Path(zipped(tmp_path / "x.zip", {"a.png": picture(1)}, method))
    data = bytearray(path.read_bytes())
    data[120] ^= 255
    path.write_bytes(data)
    with pytest.raises(DataError, match=r"x\.zip:a\.png cannot be used as an image"):
        archive(str(path))


@pytest.mark.parametrize("cut", [30, 700])
def test_archives_cut_short_are_refused(tmp_path: Path, cut: int) -> None:
    path = Path(zipped(tmp_path / "x.zip", named()))
    path.write_bytes(path.read_bytes()[:-cut])
    with pytest.raises(DataError, match=r"x\.zip cannot be read as a zip archive"):
        archive(str(path))
    shard = Path(sharded(tmp_path, named(), 1).replace("{0..0}", "0"))
    whole = shard.read_bytes().rstrip(b"\0")
    shard.write_bytes(whole[:-cut])
    with pytest.raises(DataError, match="is truncated"):
        webdataset(str(shard))


def test_twins_are_refused(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        file.writestr("a.png", picture(1))
        with pytest.warns(UserWarning, match="Duplicate name"):
            file.writestr("a.png", picture(3))
    with pytest.raises(DataError, match=r"has the entry a\.png twice"):
        archive(str(tmp_path / "x.zip"))
    with tarfile.open(tmp_path / "x.tar", "w") as tar:
        add(tar, "a.png", picture(1))
        add(tar, "a.png", picture(3))
    with pytest.raises(DataError, match=r"has the entry a\.png twice"):
        webdataset(str(tmp_path / "x.tar"))


def test_overlapping_entries_are_refused(tmp_path: Path) -> None:
    path = Path(zipped(tmp_path / "x.zip", {"b.png": picture(3), "a.png": picture(1)}, zipfile.ZIP_STORED))
    data = bytearray(path.read_bytes())
    struct.pack_into("<I", data, data.rindex(b"PK\x01\x02") + 42, 0)  # both begin at the first one's place
    path.write_bytes(data)
    with pytest.raises(DataError, match="overlap"):
        archive(str(path))


def test_an_archive_in_an_archive_is_not_opened(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no images \(archives in archives, such as inner\.zip, are not opened"):
        archive(zipped(tmp_path / "x.zip", {"inner.zip": b"PK"}))


def test_an_archive_beyond_four_gigabytes(tmp_path: Path) -> None:
    path = tmp_path / "x.zip"
    with path.open("wb") as file:
        file.seek(5 << 30)  # a hole: no disk is taken
        with zipfile.ZipFile(file, "w") as made:
            for name, data in named().items():
                made.writestr(name, data)
    assert path.stat().st_size > 5 << 30
    source = archive(str(path), store="encoded", size=8)
    assert torch.equal(everything(source)[0], everything(archive(zipped(tmp_path / "y.zip", named()), size=8))[0])


@pytest.mark.parametrize(
    ("told", "problem"),
    [
        ({"labels": [["a.png", 0]]}, r"no label for b\.png"),
        ({"labels": [["a.png", [1, 0]], ["b.png", [0, 1]]]}, "integer labels"),
        ({"labels": [["a.png", -1], ["b.png", 0]]}, "number the classes from 0"),
        ({"labels": [["a.png", 10**12], ["b.png", 0]]}, "number the classes from 0"),
        ({"labels": [["a.png", 10**30], ["b.png", 0]]}, "number the classes from 0"),
        ([1], "integer labels"),
    ],
)
def test_labels_that_fit_nothing(tmp_path: Path, told: Any, problem: str) -> None:
    files = {"dataset.json": json.dumps(told).encode(), "a.png": picture(1), "b.png": picture(3)}
    with pytest.raises(DataError, match=problem):
        archive(zipped(tmp_path / "x.zip", files))


def test_layouts_that_fit_nothing() -> None:
    assert by_folders("x", ["t/b/1.png", "t/a/2.png"])[0] == [1, 0]
    assert by_folders("x", ["c/2.png", "a/b/1.png"]).classes == ["a", "c"]
    with pytest.raises(DataError, match="loose images and folders"):
        by_folders("x", ["1.png", "c/2.png"])


def test_shards_of_elsewhere_are_refused(tmp_path: Path) -> None:
    for root in ("pipe:cat x.tar", "https://example.org/x.tar"):
        with pytest.raises(DataError, match="local disks only"):
            webdataset(root)
    with pytest.raises(DataError, match="more than 100,000 shards"):
        webdataset("x-{0..9999999999}.tar")
    with pytest.raises(DataError, match=r"is not a \.tar file"):
        webdataset("x.tar.gz")
    with pytest.raises(DataError, match=r"x\.tar does not exist"):
        webdataset(str(tmp_path / "x.tar"))


def test_files_that_are_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGEST_FILE", 100)
    monkeypatch.setattr("gancli.data.shards.LARGEST_FILE", 100)
    with pytest.raises(DataError, match=r"a\.png has 0 MiB; the limit is 256"):
        webdataset(sharded(tmp_path, {"a.png": picture(1)}, 1))


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """No test asks the network."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
