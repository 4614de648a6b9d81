"""Which files are images of which class, and that what is left out is said: the same in folder and archive."""

from __future__ import annotations

import inspect
import json
import os
import socket
import sys
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gancli.data import gather
from gancli.data.embedded import fashion
from gancli.data.folder import folder
from gancli.data.layout import IgnoredFiles, by_description, by_folders, present, printable
from gancli.data.noise import noise
from gancli.data.npz import npz
from gancli.data.shards import webdataset
from gancli.data.source import Source, table
from gancli.data.toys import ring
from gancli.data.zipped import archive
from gancli.errors import ConfigError, DataError

Read = Callable[..., Source]


def fill(top: Path, *names: str) -> Path:
    """Images of a shade of their own, and whatever else is named, as a line of text."""
    for shade, name in enumerate(names):
        (top / name).parent.mkdir(parents=True, exist_ok=True)
        if name.endswith("/"):
            (top / name).mkdir(exist_ok=True)
        elif name.lower().endswith((".png", ".bmp")):
            Image.new("L", (8, 8), shade).save(top / name)
        else:
            (top / name).write_text("text", encoding="utf-8")
    return top


def as_folder(top: Path, **keys: Any) -> Source:
    return folder(str(top), **keys)


def as_zip(top: Path, **keys: Any) -> Source:
    with zipfile.ZipFile(top.with_suffix(".zip"), "w") as file:
        for path in sorted(top.rglob("*")):
            file.write(path, path.relative_to(top))
    return archive(str(top.with_suffix(".zip")), **keys)


def as_shard(top: Path, **keys: Any) -> Source:
    with tarfile.open(top.with_suffix(".tar"), "w") as file:
        for path in sorted(top.rglob("*")):
            file.add(path, path.relative_to(top), recursive=False)
    return webdataset(str(top.with_suffix(".tar")), **keys)


def shades(source: Source) -> list[tuple[int, str]]:
    """Each row's shade, and its class."""
    x, y = source.rows(np.arange(len(source)))["x"], source.labels
    classes = source.classes or ("",)
    return [(int(pixel), classes[label]) for pixel, label in zip(x[:, 0, 0, 0], y, strict=True)]


FORMS = [as_folder, as_zip, as_shard]


@pytest.mark.parametrize("read", FORMS)
def test_a_class_is_all_that_lies_below_its_folder(tmp_path: Path, read: Read) -> None:
    top = fill(tmp_path / "d", "owl/b.png", "owl/far/off/a.png", "newt/pond/a.png", "newt/c.png", "owl/a/z.png")
    assert shades(read(top)) == [(3, "newt"), (2, "newt"), (4, "owl"), (0, "owl"), (1, "owl")]


@pytest.mark.parametrize("read", FORMS)
def test_what_is_left_out_is_counted(tmp_path: Path, read: Read) -> None:
    top = fill(
        tmp_path / "d", "owl/a.png", "newt/b.png", "owl/c.HEIC", "newt/d.heic", "owl/e.cr2", "newt/scan", ".x.png"
    )
    (note,) = read(top).notes
    parts = note.removeprefix("left out: ").split(", ")
    assert {"2 .heic", "1 .cr2", "1 file without a suffix", "1 hidden file"} <= {*parts}


@pytest.mark.parametrize("read", FORMS)
def test_a_folder_of_which_nothing_can_be_read_is_named(tmp_path: Path, read: Read) -> None:
    source = read(fill(tmp_path / "d", "owl/a.png", "newt/b.png", "eft/c.heic", "toad/"))
    assert source.classes == ("newt", "owl")
    assert source.notes[0].startswith("left out: 1 .heic")
    assert source.notes[1:] == ("folders without supported images are not classes: eft, toad",)


def test_nothing_that_can_be_read(tmp_path: Path) -> None:
    top = fill(tmp_path / "d", "a.heic", "owl/b.heic", ".c.png")
    with pytest.raises(DataError, match=r"put images there \(.*\); left out: 2 \.heic, 1 hidden file$"):
        folder(str(top))
    with pytest.raises(DataError, match=r"holds no images: .*; left out: 2 \.heic, 1 hidden file$"):
        as_zip(top)


def test_hidden_folders_count_as_one(tmp_path: Path) -> None:
    source = folder(str(fill(tmp_path, "a.png", ".thumbs/a.png", ".thumbs/b.png", "._a.png", "b.tar.gz")))
    assert len(source) == 1
    assert source.notes == ("left out: 1 .gz, 1 hidden file, 1 hidden folder",)


@pytest.mark.parametrize("read", FORMS)
@pytest.mark.parametrize("deeper", ["more/b.png", "more/and/more/b.png"])
def test_loose_images_beside_others_are_refused(tmp_path: Path, read: Read, deeper: str) -> None:
    with pytest.raises(DataError, match="images") as caught:
        read(fill(tmp_path / "d", "a.png", deeper))
    assert deeper in str(caught.value)


def test_splits_are_no_classes_and_train_comes_first(tmp_path: Path) -> None:
    top = fill(tmp_path / "d", "test/owl/a.png", "train/owl/b.png", "Val/owl/c.png")
    with pytest.raises(DataError, match="splits") as caught:
        folder(str(top))
    words = str(caught.value)
    assert words.endswith(f"type dataset.root={top}/train or dataset.root={top}/Val or dataset.root={top}/test")
    with pytest.raises(DataError, match=r"the splits of a data set \(train, Val, test\).*one of them"):
        as_zip(top)
    assert folder(str(fill(tmp_path / "e", "train/a.png", "bus/b.png"))).classes == ("bus", "train")


def test_classes_that_lie_one_deeper(tmp_path: Path) -> None:
    top = fill(tmp_path / "d", "photos/owl/a.png", "photos/newt/b.png")
    with pytest.raises(DataError, match=rf"type dataset\.root={top}/photos$"):
        folder(str(top))
    assert as_zip(top).classes == ("newt", "owl")
    flat = as_zip(fill(tmp_path / "e", "photos/a.png", "photos/b.png"))
    assert (flat.classes, flat.notes) == ((), ("all images are in photos: they have no classes",))


def describe(top: Path, labels: object) -> Path:
    (top / "dataset.json").write_text(json.dumps({"labels": labels}), encoding="utf-8")
    return top


@pytest.mark.parametrize("read", [as_folder, as_zip])
def test_a_description_gives_the_labels(tmp_path: Path, read: Read) -> None:
    top = fill(tmp_path / "d", "00000/a.png", "00000/b.png", "00001/a.png")
    shards = read(top)
    assert shards.classes == ("00000", "00001")
    assert "are used as classes; if they are only shards" in shards.notes[-1]
    plain = read(describe(top, None))
    assert (shades(plain), plain.classes, plain.notes) == ([(0, ""), (1, ""), (2, "")], (), ())
    named = read(describe(top, [["00001/a.png", 0], ["00000/b.png", 0], ["00000\\a.png", 1]]))
    assert shades(named) == [(0, "1"), (1, "0"), (2, "0")]
    flat = read(describe(fill(tmp_path / "e", "a.png", "b.png"), [["a.png", 2], ["b.png", 0]]))
    assert shades(flat) == [(0, "2"), (1, "0")]
    assert flat.notes[0].endswith("dataset.json: no image has the labels 1; the 2 classes are 0, 2")


@pytest.mark.parametrize("read", [as_folder, as_zip])
def test_a_description_of_more_than_is_there(tmp_path: Path, read: Read) -> None:
    labels = [["a.png", 0], ["b.png", 1], ["c.png", 2], ["d/e.png", 2]]
    source = read(describe(fill(tmp_path / "d", "a.png", "b.png"), labels))
    assert source.classes == ("0", "1")
    assert source.notes[0].endswith("dataset.json labels 2 images without a file: c.png, d/e.png")


@pytest.mark.parametrize("read", [as_folder, as_zip])
@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b'{"labels": [["a.png", 0], ["a.png", 1]]}', "has a.png twice"),
        (b'{"labels": [["a.png", 0], ["./a.png", 1', "cannot be read as JSON"),
        (b'{"labels": [["a\xe9.png", 0]]}', "is not UTF-8 text"),
        (b'{"labels": [["a.png", ' + b"9" * 400 + b"]]}", "number the classes from 0"),
        (b'{"labels": [["a.png", ' + b"9" * 5000 + b"]]}", "cannot be read as JSON"),
        (b'{"labels": [["a.png", 0.5]]}', "integer labels"),
        (b'{"labels": [["a.png", NaN]]}', "integer labels"),
        (b'{"labels": [["a.png", true]]}', "integer labels"),
        (b'{"labels": [["a.png", [1, 0]]]}', "integer labels"),
        (b'{"labels": {"a.png": 0}}', "integer labels"),
        (b'{"images": []}', "integer labels"),
        (b'{"labels": []}', "has no label for a.png"),
        (b"[" * 100_000, "cannot be read as JSON"),
        (b"", "cannot be read as JSON"),
    ],
)
def test_a_description_that_is_none(tmp_path: Path, read: Read, content: bytes, problem: str) -> None:
    top = fill(tmp_path / "d", "a.png")
    (top / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=rf"dataset\.json .*{problem}"):
        read(top)


def test_a_changed_description_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    top = describe(fill(tmp_path / "d", "a.png", "b.png"), [["a.png", 0], ["b.png", 1]])
    for path in (top, top / "dataset.json"):
        os.utime(path, ns=(0, 10**18))
    assert folder(str(top), check="quick").labels.tolist() == [0, 1]
    describe(top, [["a.png", 1], ["b.png", 0]])
    os.utime(top, ns=(0, 10**18))
    assert folder(str(top), check="quick").labels.tolist() == [1, 0]


def test_folders_by_backslashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as file:
        for name in ("owl/a.png", "newt/b.png", "newt/far/c.png"):
            file.write(fill(tmp_path / "d", name) / name, name)
        file.writestr("eft/", "")
    raw = (tmp_path / "x.zip").read_bytes()
    for name in (b"owl/", b"newt/far/", b"newt/", b"eft/"):
        raw = raw.replace(name, name.replace(b"/", b"\\"))
    (tmp_path / "x.zip").write_bytes(raw)
    source = archive(str(tmp_path / "x.zip"))
    assert [source.classes[label] for label in source.labels] == ["newt", "newt", "owl"]
    assert source.notes == ("folders without supported images are not classes: eft",)


def test_links(tmp_path: Path) -> None:
    top = fill(tmp_path / "d", "owl/a.png", "newt/b.png")
    fill(tmp_path / "far", "c.png")
    (top / "eft").symlink_to(tmp_path / "far")
    (top / "owl" / "round").symlink_to(top)
    (top / "also").symlink_to(top / "owl")
    (top / "notes").symlink_to(tmp_path / "nowhere")
    source = folder(str(top))
    assert source.classes == ("eft", "newt", "owl")
    assert len(source) == 3
    left = "also (a link to a folder that was already read), notes (a broken link), "
    assert source.notes[0] == f"left out: {left}owl/round (a link to a folder that was already read)"
    (top / "owl" / "b.png").symlink_to(tmp_path / "nowhere.png")
    with pytest.raises(DataError, match=rf"{top}/owl/b\.png is a link to {tmp_path}/nowhere\.png, which does not ex"):
        folder(str(top))


def test_pipes_and_sockets_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(fill(tmp_path / "d", "a.png"))  # a socket's path is a short one
    os.mkfifo("pipe")
    with socket.socket(socket.AF_UNIX) as made:
        made.bind("control.sock")
    assert folder(".").notes == ("left out: control.sock (a socket), pipe (a named pipe)",)
    os.mkfifo("b.PNG")
    with pytest.raises(DataError, match=r"b\.PNG is a named pipe, not an image: remove it"):
        folder(".")
    Path("b.PNG").unlink()
    os.mkfifo("dataset.json")
    with pytest.raises(DataError, match=r"dataset\.json cannot be read \(it is a named pipe, not a file\)"):
        folder(".")
    for read, root in ((folder, "pipe"), (archive, "pipe"), (npz, "pipe")):
        with pytest.raises(DataError, match=r"dataset\.root=pipe is a named pipe: type"):
            read(root)  # type: ignore[operator]
    Path("pipe").rename("x.tar")
    with pytest.raises(DataError, match=r"x\.tar is a named pipe: type"):
        webdataset("x.tar")


def test_names_that_are_no_utf8(tmp_path: Path) -> None:
    top = fill(
        tmp_path / os.fsdecode(b"d\xe9"), os.fsdecode(b"caf\xe9/a\xff.png"), "tea/b.png", os.fsdecode(b"mat\xe9/x")
    )
    source = folder(str(top))
    assert source.classes == (r"caf\xe9", "tea")
    assert source.notes[-1] == r"folders without supported images are not classes: mat\xe9"
    assert len(bytes.fromhex(source.fingerprint)) == 32
    (top / os.fsdecode(b"caf\xe9/b\xff.png")).write_bytes(b"")
    with pytest.raises(DataError, match=r"d\\xe9/caf\\xe9/b\\xff\.png cannot be used as an image \(it is empty\)"):
        folder(str(top))
    assert printable("a\n\t\u2028b\ud800 é 日本 \U0001f469\u200d\U0001f680") == (
        r"a\n\t\u2028b\ud800 é 日本 " + "\U0001f469\u200d\U0001f680"
    )


def test_a_folder_deeper_than_functions_may_call_themselves(tmp_path: Path) -> None:
    (tmp_path / ("a/" * 200)).mkdir(parents=True)
    before = sys.getrecursionlimit()
    sys.setrecursionlimit(len(inspect.stack()) + 150)
    try:
        with pytest.raises(DataError, match="has no images in it"):
            folder(str(tmp_path))
    finally:
        sys.setrecursionlimit(before)


def test_folders_that_cannot_be_told_apart(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"two folders that are both shown as a\\xe9"):
        by_folders("x", ["a\udce9/1.png", "a\\xe9/2.png"])
    with pytest.raises(DataError, match="two classes named owl"):
        table("x", np.zeros((2, 1, 8, 8), np.uint8), np.array([0, 1]), ["owl", "owl"])
    assert by_description("j", b'{"labels": [["p/a", 3]]}', ["t/p/a"], "t/").classes == ["3"]


@pytest.mark.parametrize("first", [0, 1, 4])
def test_numbers_without_an_image_are_no_classes(tmp_path: Path, first: int) -> None:
    images, labels = np.zeros((6, 8, 8), np.uint8), first + np.array([7, 0, 3, 3, 0, 7])
    np.savez(tmp_path / "x.npz", images=images, labels=labels)
    source = npz(str(tmp_path / "x.npz"))
    assert source.classes == (str(first), str(first + 3), str(first + 7))
    assert source.labels.tolist() == [2, 0, 1, 1, 0, 2]
    assert "no image has the labels " in source.notes[0]
    for i, label in enumerate(labels):
        fill(tmp_path / "d", f"{i}.png")
        (tmp_path / "d" / f"{i}.cls").write_text(str(label), encoding="utf-8")
    assert as_shard(tmp_path / "d").classes == source.classes


def test_names_without_an_image_are_no_classes() -> None:
    labels, classes, notes = present("x", np.array([2, 0]), ["owl", "newt", "eft"])
    assert (labels.tolist(), classes) == ([1, 0], ["owl", "eft"])
    assert notes == ["x: no image has the classes newt; the 2 classes are owl, eft"]
    assert present("x", np.array([1, 0]), ["owl", "newt"])[2] == []


def test_arrays_that_are_not_read(tmp_path: Path) -> None:
    images = np.zeros((2, 8, 8), np.uint8)
    np.savez(tmp_path / "x.npz", images=images, label=np.arange(2), classes=np.array([b"owl", b"n\xe9"]))
    assert [note.partition(f"{tmp_path / 'x.npz'}")[2] for note in npz(str(tmp_path / "x.npz")).notes] == [
        ": label (images, labels and classes are read)", ": classes without labels are not used",
    ]  # fmt: skip
    np.savez(tmp_path / "x.npz", images=images, labels=np.arange(2), classes=np.array([b"owl", b"n\xe9"]))
    assert npz(str(tmp_path / "x.npz")).classes == ("owl", r"n\xe9")


def test_a_limit_that_cannot_be_had_is_said(tmp_path: Path) -> None:
    top = fill(tmp_path / "d", "owl/a.png", "newt/b.png", "newt/c.png")
    told = "dataset.limit=9: there are only 3, all are used"
    for read in FORMS:
        assert read(top, limit=9).notes == (told,)
        assert read(top, limit=3).notes == ()
    (note,) = folder(str(top), limit=1).notes
    assert note.startswith("dataset.limit=1 leaves no image of ")
    assert fashion(limit=10_001).notes == ("dataset.limit=10001: there are only 10,000, all are used",)
    assert ring(n=5, limit=6).notes == ("dataset.limit=6: there are only 5, all are used",)
    assert noise(n=5, classes=2, limit=6).notes == ring(n=5, limit=6).notes
    assert noise(n=5, classes=2).notes == ()


@pytest.mark.parametrize("store", ["raw", "encoded"])
def test_sizes_that_differ_are_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, store: Any) -> None:
    for i, size in enumerate([(9, 12), (30, 20)]):
        Image.new("L", size).save(tmp_path / f"{i}.png")
    told = (
        "images differ in size, with sides of 9 to 30 pixels: each is cropped to its central square and resized to"
        " 9 pixels, the smallest side; dataset.size=N sets another size"
    )
    assert folder(str(tmp_path)).notes == (told,)
    assert folder(str(tmp_path), size=8).notes == ()
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    for _ in range(2):  # decoded now, then as it was kept
        assert folder(str(tmp_path), store=store).notes == (told,)


def test_notes_are_kept_with_the_index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    top = fill(tmp_path / "d", "a.png", "b.heic")
    os.utime(top, ns=(0, 10**18))
    first = folder(str(top), check="quick")
    monkeypatch.setattr("gancli.data.walk.Walk.run", None)  # it is not listed again
    assert folder(str(top), check="quick").notes == first.notes == ("left out: 1 .heic",)


def test_many_kinds_are_one_line() -> None:
    left = IgnoredFiles()
    for k in range(12):
        left.file(f"x.k{k:02d}")
    left.file("x.k11")
    left.file("a." + "b" * 30)
    assert left.note() == [
        "left out: 2 .k11, 1 .k00, 1 .k01, 1 .k02, 1 .k03, 1 .k04, 1 .k05, 1 .k06, 5 of 5 more kinds"
    ]


@pytest.mark.parametrize("read", [folder, archive, npz, webdataset])
def test_an_empty_root_is_refused(read: Read) -> None:
    for root in ("", " "):
        with pytest.raises(ConfigError, match=r"was given an empty dataset\.root: type dataset\.root="):
            read(root)
