# ruff: noqa: E501
"""What the world holds: runs and a sweep, good data, hostile data, folders of others, pipes and links."""

from __future__ import annotations

import io
import json
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

QUIET = ["observers.progress=null", "observers.report=null", "device=cpu"]
LABELLED = [
    "model=sngan", "model.ch=4", "model.conditioning=projection", "model.attention=[8]", "model.latent.dim=8",
    "dataset=random", "dataset.size=[3,16,16]", "dataset.classes=3", "dataset.n=24", "game.d_steps=1", "batch_size=4",
    "observers.grid.n=4", "model.ema.decay=0.5", "steps=4", *QUIET,
]  # fmt: skip
POINTS = [
    "model=mlp", "model.hidden=[8]", "model.ema.decay=0.5", "dataset=ring", "dataset.n=50", "batch_size=4", "steps=2",
    *QUIET,
]  # fmt: skip
FULL = [
    "model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,16,16]", "dataset.n=24", "batch_size=4", "device=cpu",
    "model.ema.decay=0.5", "observers.progress=null", "observers.grid.n=4", "observers.grid.every=2",
    "observers.metrics.every=1", "observers.checkpoints.every=2", "observers.scores.every=2",
    "observers.scores.metrics=[swd]", "observers.scores.n=8", "observers.scores.standing_stats=0", "steps=4",
]  # fmt: skip
PICTURES = ["model=dcgan", "model.ch=4", "dataset=folder", "batch_size=2", "observers=none", "steps=1", "device=cpu"]
SWEEP = [
    "model=mlp", "model.hidden=[8]", "dataset=ring", "dataset.n=50", "batch_size=4", "steps=1", "observers.plane=null",
    "observers.metrics.every=1", *QUIET,
]  # fmt: skip
SMALL_EXTRACTOR = [
    "extractor=torchvision", "extractor.arch=shufflenet_v2_x0_5", "extractor.size=32", "extractor.weights=net.pth",
]  # fmt: skip


def build(place: Path, outside: Path) -> None:
    """Fill the working directory, which is `place`, and what lies outside of it."""
    from gancli.cli import main

    _of_others(place, outside)
    _good_data(place)
    _hostile_folders(place / "in")
    _hostile_archives(place / "in")
    _hostile_files(place)
    for words in (
        ["train", *LABELLED, "run_dir=outputs/train/labelled"],
        ["train", *PICTURES, "dataset.root=pics", "run_dir=outputs/train/pictures"],
        ["train", "-m", *SWEEP, "seed=1,2", "sweep_dir=outputs/sweeps/two"],
        ["train", *FULL, "run_dir=outputs/train/full"],
        ["train", *POINTS, "run_dir=outputs/train/points"],  # the newest: `last`
        ["sample", "run=outputs/train/labelled", "n=3", "format=npz", "run_dir=drawn", "device=cpu"],
    ):
        if main(words) != 0:
            raise AssertionError(f"gan {' '.join(words)}")


def noise(side: int = 16, seed: int = 0) -> Image.Image:
    """A picture of random colours."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


def coded(side: int = 16, seed: int = 0) -> bytes:
    """The same as the bytes of a PNG."""
    file = io.BytesIO()
    noise(side, seed).save(file, "PNG")
    return file.getvalue()


def pictures(folder: Path, *names: str) -> Path:
    """A folder of pictures."""
    for k, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(coded(seed=k))
    return folder


def _of_others(place: Path, outside: Path) -> None:
    for top in (place / "foreign", outside / "project"):
        (top / "samples").mkdir(parents=True)
        (top / "config.yaml").write_text("my: config\n", encoding="utf-8")
        (top / "metrics.jsonl").write_text('{"mine": 1}\n', encoding="utf-8")
        (top / "notes.txt").write_text("precious\n", encoding="utf-8")
        (top / "samples" / "20240101.png").write_bytes(coded())
        (top / "01-seed1").mkdir()
        (top / "01-seed1" / "notes.txt").write_text("precious\n", encoding="utf-8")
    pictures(outside / "photos", "20231224.png", "grid.png", "00000002.png")
    (outside / "victim").write_text("precious\n", encoding="utf-8")
    (outside / "empty").mkdir()
    (place / "empty").mkdir()
    (place / "to_foreign").symlink_to(outside / "project")
    (place / "to_empty").symlink_to(outside / "empty")
    (place / "gone").symlink_to(outside / "nothing_here")
    (place / "loop").symlink_to("loop")
    (Path(os.environ["HOME"]) / "notes.txt").write_text("precious\n", encoding="utf-8")


def _good_data(place: Path) -> None:
    pictures(place / "pics", "0.png", "90.png", "200.png")
    pictures(place / "classes", "cat/0.png", "cat/1.png", "dog/0.png")
    with zipfile.ZipFile(place / "good.zip", "w") as archive:
        for name in ("cat/0.png", "cat/1.png", "dog/0.png"):
            archive.writestr(name, coded(seed=len(name)))
    images = np.random.default_rng(0).integers(0, 256, (6, 16, 16, 3), dtype=np.uint8)
    np.savez(place / "good.npz", images=images, labels=np.array([0, 1, 2] * 2))
    with tarfile.open(place / "good.tar", "w") as archive:
        for k in range(4):
            _add(archive, f"{k:04d}.png", coded(seed=k))
            _add(archive, f"{k:04d}.cls", str(k % 2).encode())
    from torchvision.models import shufflenet_v2_x0_5

    torch.manual_seed(0)
    torch.save(shufflenet_v2_x0_5().state_dict(), place / "net.pth")


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    archive.addfile(entry, io.BytesIO(content))


# Each folder of `in/` that a data set may be read from, with what has to be said where it is taken: one of these words.
FOLDERS: dict[str, list[str]] = {
    "pipe": ["a.png"], "pipe_in_class": ["a.png"], "dangling": ["zz.png"], "circle": ["zz.png"], "circle_folder": ["zz"],
    "cut": ["cut.png"], "garbled": ["garbled.png"], "nothing": ["nothing.png"], "text": ["text.png"], "heic": ["heic"],
    "class_of_heic": ["heic", "dog"], "deep": ["cat"], "loose_and_deep": ["deeper", "sub"], "bomb": ["bomb.png"],
    "no_suffix": ["suffix", "bare", "left out", "not read"], "shards": [], "stylegan_more": ["9.png", "dataset.json"],
    "stylegan_garbled": ["dataset.json"], "stylegan_deep": ["dataset.json"], "stylegan_nan": ["dataset.json"],
    "stylegan_digits": ["dataset.json"], "stylegan_null": [], "latin": [], "newline": [], "none": [], "only_text": [],
    "long_text": [], "device": ["zero.png"], "class_empty": ["dog"], "numbers": [], "stylegan_pipe": ["dataset.json"],
}  # fmt: skip
LABELS: dict[str, str | bytes] = {
    "more": '{"labels": [["0.png", 0], ["1.png", 1], ["9.png", 2]]}',
    "garbled": b'\xff\xfe{"labels"',
    "deep": "[" * 100_000,
    "nan": '{"labels": [["0.png", NaN], ["1.png", 1]]}',
    "digits": f'{{"labels": [["0.png", {"9" * 400}], ["1.png", 1]]}}',
    "null": '{"labels": null}',
}


def _hostile_folders(top: Path) -> None:
    for name in FOLDERS:
        pictures(top / name, "0.png", "1.png")
    os.mkfifo(top / "pipe/a.png")
    pictures(top / "pipe_in_class", "cat/0.png", "dog/0.png")
    os.mkfifo(top / "pipe_in_class/cat/a.png")
    (top / "dangling/zz.png").symlink_to("/nowhere/x.png")
    (top / "circle/zz.png").symlink_to("zz.png")
    (top / "circle_folder/zz").symlink_to(".")
    (top / "device/zero.png").symlink_to("/dev/zero")
    (top / "cut/cut.png").write_bytes(coded(64)[:3000])
    (top / "garbled/garbled.png").write_bytes(_flipped(coded(64)))
    (top / "nothing/nothing.png").write_bytes(b"")
    (top / "text/text.png").write_text("no picture", encoding="utf-8")
    for k in range(5):
        (top / f"heic/IMG_{k}.HEIC").write_bytes(b"x")
        (top / f"no_suffix/bare{k}").write_bytes(coded(seed=k))
    pictures(top / "class_of_heic", "cat/0.png")
    (top / "class_of_heic/dog").mkdir()
    (top / "class_of_heic/dog/1.heic").write_bytes(b"x")
    pictures(top / "deep", "cat/a/0.png", "cat/a/1.png", "dog/0.png")
    pictures(top / "loose_and_deep", "sub/deeper/0.png")
    (top / "bomb/bomb.png").write_bytes(sized(coded(), 60_000, 60_000))
    pictures(top / "shards", "00000/2.png", "00001/3.png")
    (top / "shards/dataset.json").write_text('{"labels": [["00000/2.png", 0], ["00001/3.png", 1]]}', encoding="utf-8")
    for name, text in LABELS.items():
        (top / f"stylegan_{name}/dataset.json").write_bytes(text.encode() if isinstance(text, str) else text)
    os.mkfifo(top / "stylegan_pipe/dataset.json")
    pictures(top / "latin", "caf\udce9.png", "k\udce9/0.png", "b/0.png")
    pictures(top / "newline", "a\nb.png", "\x1b[31m.png")
    pictures(top / "class_empty", "cat/0.png")
    (top / "class_empty/dog").mkdir()
    pictures(top / "numbers", "2/0.png", "10/0.png", "1/0.png")
    for name in ("none", "only_text", "class_empty", "numbers", "deep", "class_of_heic", "shards", "pipe_in_class"):
        for k in (0, 1):
            (top / name / f"{k}.png").unlink()
    (top / "only_text/readme.txt").write_text("none\n", encoding="utf-8")
    (top / "long_text/text.png").write_bytes(_with_text(coded(), 1 << 26))


def _flipped(data: bytes) -> bytes:
    """Some bytes of the picture's stream changed."""
    return data[:100] + bytes(b ^ 255 for b in data[100:140]) + data[140:]


def chunk(kind: bytes, content: bytes) -> bytes:
    """A part of a PNG, with its check sum."""
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def sized(data: bytes, width: int, height: int) -> bytes:
    """A PNG that says it has another size."""
    if data[12:16] != b"IHDR":
        return data
    return data[:8] + chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29]) + data[33:]


def _with_text(data: bytes, length: int) -> bytes:
    """A PNG with a compressed text of that length in it."""
    return data[:33] + chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(length), 1)) + data[33:]


# Archives and arrays of `in/`, with what reads them, and the words one of which is said where they are taken.
ARCHIVES: dict[str, tuple[str, list[str]]] = {
    "cut.zip": ("zip", []), "bomb.zip": ("zip", ["bomb.png"]), "climbs.zip": ("zip", ["x.png"]), "text.zip": ("zip", []),
    "backslash.zip": ("zip", []), "garbled.zip": ("zip", ["0.png"]), "labels.zip": ("zip", ["dataset.json"]),
    "deep.zip": ("zip", ["dataset.json"]), "digits.zip": ("zip", ["dataset.json"]), "pipe.zip": ("zip", ["pipe.zip"]),
    "heic.zip": ("zip", ["heic"]), "cut.npz": ("npz", []), "lies.npz": ("npz", ["lies.npz"]), "object.npz": ("npz", []),
    "bomb.npz": ("npz", ["bomb.npz"]), "gaps.npz": ("npz", ["class", "empty", "without"]), "negative.npz": ("npz", ["-1"]),
    "absurd.npz": ("npz", ["absurd.npz"]), "nan.npz": ("npz", ["nan"]), "text.npz": ("npz", []), "pipe.npz": ("npz", ["pipe"]),
    "flat.npz": ("npz", ["flat.npz"]), "none.npz": ("npz", ["none.npz"]), "cut.tar": ("webdataset", []), "text.tar": ("webdataset", []),
    "pipe.tar": ("webdataset", ["pipe"]), "label.tar": ("webdataset", ["cls"]),
}  # fmt: skip
# Files of statistics or features, for eval reference=; none of them is one.
REFERENCES = ["laughs.pt", "text.pt", "cut.pt", "pipe.pt", "other.pt", "bomb.npz", "lies.npz", "nan.npz", "text.npz", "pipe.npz", "object.npz", "odd.npz", "digits.npz"]  # fmt: skip


def _hostile_archives(top: Path) -> None:
    png = coded()
    good = {"cat/0.png": png, "dog/0.png": coded(seed=1)}
    whole = _zip(good)
    (top / "cut.zip").write_bytes(whole[:-60])
    (top / "garbled.zip").write_bytes(whole[:200] + bytes(60) + whole[260:])
    (top / "backslash.zip").write_bytes(whole.replace(b"cat/", b"cat\\").replace(b"dog/", b"dog\\"))
    for name, more in {
        "bomb.zip": {"cat/bomb.png": bytes(1 << 27)},
        "climbs.zip": {"../x.png": png},
        "heic.zip": {"cat/IMG.HEIC": b"x"},
        "labels.zip": {"dataset.json": b'\xff{"labels": 3}'},
        "deep.zip": {"dataset.json": b"[" * 100_000},
        "digits.zip": {"dataset.json": f'{{"labels": [["cat/0.png", {"9" * 400}], ["dog/0.png", 0]]}}'.encode()},
    }.items():
        (top / name).write_bytes(_zip(good | more))
    for suffix in ("zip", "npz", "tar", "pt"):
        (top / f"text.{suffix}").write_text("nothing of the kind\n", encoding="utf-8")
        os.mkfifo(top / f"pipe.{suffix}")
    images = np.zeros((6, 16, 16, 3), np.uint8)
    arrays: dict[str, dict[str, object]] = {
        "gaps": {"images": images, "labels": np.array([1, 5, 9] * 2)},
        "negative": {"images": images, "labels": np.array([-1, 0, 1] * 2)},
        "absurd": {"images": images, "labels": np.array([0, 10**15, 1] * 2)},
        "nan": {"images": images.astype(np.float32) * np.nan, "features": np.full((9, 1024), np.nan)},
        "flat": {"images": np.zeros((6, 7), np.uint8)},
        "none": {"images": np.zeros((0, 16, 16, 3), np.uint8)},
        "object": {"images": np.array([{}, None], object), "features": np.array([{}, None], object)},
        "odd": {"mu": np.zeros(7), "sigma": np.eye(3), "n": np.array([[1]])},
        "digits": {"mu": np.zeros(1024), "sigma": np.eye(1024), "about": np.array("[" * 50_000), "n": np.array("9" * 400)},
    }  # fmt: skip
    for name, content in arrays.items():
        np.savez(top / f"{name}.npz", **content)  # type: ignore[arg-type]
    (top / "cut.npz").write_bytes((top.parent / "good.npz").read_bytes()[:2000])
    header = "{'descr': '<f4', 'fortran_order': False, 'shape': (3000000, 512), }".ljust(117) + "\n"
    start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
    (top / "bomb.npz").write_bytes(_bomb(["features.npy", "images.npy"], start, 6 << 30))
    (top / "lies.npz").write_bytes(_zip({"images.npy": start, "features.npy": start}))
    tar = (top.parent / "good.tar").read_bytes()
    (top / "cut.tar").write_bytes(tar[: len(tar) // 3 + 100])
    with tarfile.open(top / "label.tar", "w") as archive:
        for k in range(3):
            _add(archive, f"{k}.png", png)
            _add(archive, f"{k}.cls", b"\xff\xfe" if k else b"9" * 400)
    shared: list[object] = [1]
    for _ in range(30):
        shared = [shared, shared]
    torch.save({"mu": shared, "sigma": shared}, top / "laughs.pt")
    torch.save({"step": 3, "mu": "x", "sigma": None}, top / "other.pt")
    (top / "cut.pt").write_bytes((top / "laughs.pt").read_bytes()[:300])


def _zip(entries: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return file.getvalue()


def _bomb(names: list[str], start: bytes, size: int) -> bytes:
    """A zip whose entries unpack to `size` zeros after `start`; made without packing them, so check sums are wrong."""
    block, packer = 1 << 20, zlib.compressobj(9, zlib.DEFLATED, -15)
    head = packer.compress(start) + packer.flush(zlib.Z_FULL_FLUSH)
    piece = packer.compress(bytes(block)) + packer.flush(zlib.Z_FULL_FLUSH)
    count = size // block
    packed = head + piece * count + packer.flush(zlib.Z_FINISH)
    total, file, places = len(start) + block * count, io.BytesIO(), []
    wide = struct.pack("<HHQQ", 1, 16, total, len(packed))
    for name in names:
        places.append(file.tell())
        file.write(struct.pack("<4s5H3L2H", b"PK\3\4", 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(wide)))
        file.write(name.encode() + wide + packed)
    begin = file.tell()
    for name, place in zip(names, places, strict=True):
        file.write(struct.pack("<4s6H3L5H2L", b"PK\1\2", 45, 45, 0, 8, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), len(wide), 0, 0, 0, 0, place))  # fmt: skip
        file.write(name.encode() + wide)
    end = file.tell()
    file.write(struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(names), len(names), end - begin, begin, 0))
    return file.getvalue()


def _hostile_files(place: Path) -> None:
    special: dict[str, Callable[[Path], None]] = {
        "a_pipe": os.mkfifo,
        "a_pipe.png": os.mkfifo,
        "a_file": lambda path: path.touch(),
        "no_run.json": lambda path: path.write_text(json.dumps({"status": "x"}), encoding="utf-8") and None,
    }
    for name, make in special.items():
        make(place / name)
    pictures(place / "l\udce9", "0.png", "1.png", "2.png")
