"""torchvision's data sets, on tiny files in its own layouts."""

from __future__ import annotations

import hashlib
import importlib.machinery
import os
import pickle
import struct
import sys
import types
from collections.abc import Callable
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision import datasets

from gancli.data import torchvision as sets
from gancli.data.source import Source
from gancli.errors import ConfigError, DataError

RNG = np.random.default_rng(0)
NAMES = ["mnist", "fashion_mnist", "cifar10", "cifar100", "svhn", "stl10", "celeba"]


def rows(source: Source) -> np.ndarray:
    return source.rows(np.arange(len(source)))["x"].numpy()


def labels(source: Source) -> list[int]:
    found: list[int] = source.rows(np.arange(len(source)))["y"].tolist()
    return found


def write_idx(root: Path, kind: str, counts: dict[str, int]) -> dict[str, np.ndarray]:
    """MNIST's files: big-endian headers, then bytes; label i % 10."""
    images = {}
    folder = root / kind / "raw"
    folder.mkdir(parents=True)
    for part, count in counts.items():
        images[part] = RNG.integers(0, 256, (count, 28, 28), np.uint8)
        header = struct.pack(">IIII", 0x803, count, 28, 28)
        (folder / f"{part}-images-idx3-ubyte").write_bytes(header + images[part].tobytes())
        body = bytes(i % 10 for i in range(count))
        (folder / f"{part}-labels-idx1-ubyte").write_bytes(struct.pack(">II", 0x801, count) + body)
    return images


@pytest.mark.parametrize(("make", "kind"), [(sets.mnist, "MNIST"), (sets.fashion_mnist, "FashionMNIST")])
def test_idx_files(tmp_path: Path, make: Callable[..., Source], kind: str) -> None:
    images = write_idx(tmp_path, kind, {"train": 12, "t10k": 5})
    train, test = make(root=str(tmp_path)), make(root=str(tmp_path), split="test")
    assert np.array_equal(rows(train)[:, 0], images["train"])
    assert np.array_equal(rows(test)[:, 0], images["t10k"])
    assert labels(train) == [i % 10 for i in range(12)]
    assert len(train.classes) == 10
    padded = make(root=str(tmp_path), size=32, limit=3, flip=True)
    assert (len(padded), padded.shape, padded.flip) == (3, (1, 32, 32), True)
    assert rows(padded)[:, :, :2].max() == 0
    with pytest.raises(ConfigError, match=r"dataset\.split=train or dataset\.split=test"):
        make(root=str(tmp_path), split="valid")


def test_damaged_idx_files(tmp_path: Path) -> None:
    write_idx(tmp_path, "MNIST", {"train": 3, "t10k": 3})
    path = tmp_path / "MNIST" / "raw" / "train-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(
        DataError, match=r"dataset=mnist in .* cannot be read .*dataset\.download=true, or dataset\.root=PATH"
    ):
        sets.mnist(root=str(tmp_path))


def write_cifar(root: Path, kind: type, monkeypatch: pytest.MonkeyPatch, names: list[str], meta: str) -> np.ndarray:
    """CIFAR's pickles: rows of 3072 bytes, red, green, blue."""
    folder = root / kind.base_folder  # type: ignore[attr-defined]
    folder.mkdir(parents=True)
    data = RNG.integers(0, 256, (6, 3072), np.uint8)
    key = "fine_labels" if meta == "meta" else "labels"
    written = pickle.dumps({"data": data, key: [5, 0, 1, 2, 3, 4]})
    (folder / "part").write_bytes(written)
    listed = [["part", hashlib.md5(written).hexdigest()]]
    written = pickle.dumps({("fine_label_names" if meta == "meta" else "label_names"): names})
    (folder / meta).write_bytes(written)
    monkeypatch.setattr(kind, "train_list", listed)
    monkeypatch.setattr(kind, "test_list", listed)
    facts = {**kind.meta, "md5": hashlib.md5(written).hexdigest()}  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "meta", facts)
    return data.reshape(6, 3, 32, 32)


@pytest.mark.parametrize(
    ("make", "kind", "meta"),
    [(sets.cifar10, datasets.CIFAR10, "batches.meta"), (sets.cifar100, datasets.CIFAR100, "meta")],
)
def test_cifar(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make: Callable[..., Source], kind: type, meta: str
) -> None:
    names = [f"class {i}" for i in range(6)]
    images = write_cifar(tmp_path, kind, monkeypatch, names, meta)
    source = make(root=str(tmp_path))
    assert source.shape == (3, 32, 32)
    assert np.array_equal(rows(source), images)
    assert labels(source) == [5, 0, 1, 2, 3, 4]
    assert source.classes == tuple(names)
    assert make(root=str(tmp_path), split="test", size=[1, 16, 16]).shape == (1, 16, 16)


def test_svhn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = RNG.integers(0, 256, (4, 3, 32, 32), np.uint8)
    (tmp_path / "small.mat").write_bytes(b"x")
    listed = ["", "small.mat", hashlib.md5(b"x").hexdigest()]
    monkeypatch.setattr(datasets.SVHN, "split_list", {"train": listed, "test": listed, "extra": listed})
    scipy, io = types.ModuleType("scipy"), types.ModuleType("scipy.io")
    scipy.__spec__ = importlib.machinery.ModuleSpec("scipy", None)
    scipy.io = io  # type: ignore[attr-defined]
    io.loadmat = lambda path: {"X": images.transpose(2, 3, 1, 0), "y": np.array([[10], [1], [9], [2]], np.uint8)}  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "scipy", scipy)
    monkeypatch.setitem(sys.modules, "scipy.io", io)
    source = sets.svhn(root=str(tmp_path), split="extra")
    assert np.array_equal(rows(source), images)
    assert labels(source) == [0, 1, 9, 2]


def test_svhn_without_scipy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(DataError, match="type pip install scipy"):
        sets.svhn(root=str(tmp_path))


def test_stl10(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "stl10_binary"
    folder.mkdir()
    images = RNG.integers(0, 256, (3, 3, 96, 96), np.uint8)
    files = {
        "train_X.bin": images.transpose(0, 1, 3, 2).tobytes(),  # columns first
        "train_y.bin": bytes([1, 10, 2]),
        "unlabeled_X.bin": images[:2].transpose(0, 1, 3, 2).tobytes(),
        "class_names.txt": "\n".join(f"c{i}" for i in range(10)).encode(),
        "fold_indices.txt": b"",
    }
    for name, data in files.items():
        (folder / name).write_bytes(data)
    listed = [[name, hashlib.md5(data).hexdigest()] for name, data in files.items()][:3]
    monkeypatch.setattr(datasets.STL10, "train_list", listed)
    monkeypatch.setattr(datasets.STL10, "test_list", [])
    train, unlabelled = (sets.stl10(root=str(tmp_path), split=split) for split in ("train", "unlabeled"))
    assert np.array_equal(rows(train), images)
    assert labels(train) == [0, 9, 1]
    assert train.classes == tuple(f"c{i}" for i in range(10))
    assert np.array_equal(rows(unlabelled), images[:2])
    assert unlabelled.classes == ()


def write_celeba(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight faces of 178x218: even grey, with white above and below the central square (8 rows off it: JPEG blurs)."""
    folder = root / "celeba"
    (folder / "img_align_celeba").mkdir(parents=True)
    names = [f"{i:06}.jpg" for i in range(8)]
    for i, name in enumerate(names):
        pixels = np.full((218, 178, 3), 255, np.uint8)
        pixels[12:206] = 20 * i
        Image.fromarray(pixels).save(folder / "img_align_celeba" / name, quality=100)
    split = [0, 0, 0, 1, 1, 2, 2, 2]
    texts = {
        "list_eval_partition.txt": [f"{name} {part}" for name, part in zip(names, split, strict=True)],
        "identity_CelebA.txt": [f"{name} 1" for name in names],
        "list_bbox_celeba.txt": ["8", "image_id x y w h", *(f"{name} 1 1 1 1" for name in names)],
        "list_landmarks_align_celeba.txt": ["8", "lefteye_x", *(f"{name} 1" for name in names)],
        "list_attr_celeba.txt": ["8", "Male Smiling ", *(f"{n} -1 {1 if i % 2 else -1}" for i, n in enumerate(names))],
    }
    for name, lines in texts.items():
        (folder / name).write_text("\n".join(lines) + "\n")
    monkeypatch.setattr(datasets.CelebA, "file_list", [("", None, name) for name in texts])


def test_celeba(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_celeba(tmp_path, monkeypatch)
    train = sets.celeba(root=str(tmp_path))
    assert (len(train), train.shape, train.classes) == (3, (3, 64, 64), ())
    inner = rows(train).astype(int)
    assert np.abs(inner - np.array([0, 20, 40])[:, None, None, None]).max() <= 2  # the central square alone
    assert [len(sets.celeba(root=str(tmp_path), split=split)) for split in ("valid", "test", "all")] == [2, 3, 8]
    assert sets.celeba(root=str(tmp_path), size=None).shape == (3, 218, 178)
    smiling = sets.celeba(root=str(tmp_path), attribute="Smiling")
    assert smiling.classes == ("not Smiling", "Smiling")
    assert labels(smiling) == [0, 1, 0]
    with pytest.raises(ConfigError, match=r"dataset\.attribute=Cat is unknown: type one of Male, Smiling"):
        sets.celeba(root=str(tmp_path), attribute="Cat")
    (tmp_path / "celeba" / "img_align_celeba" / "000001.jpg").unlink()
    with pytest.raises(DataError, match=r"000001\.jpg cannot be read"):
        sets.celeba(root=str(tmp_path), size=32)


@pytest.mark.parametrize("name", NAMES)
def test_missing_data_name_both_remedies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(DataError) as caught:
        getattr(sets, name)(root=str(tmp_path / "no"))
    message = str(caught.value)
    assert message.startswith(f"dataset={name} is incomplete in {tmp_path / 'no'}")
    assert "dataset.download=true" in message
    assert "dataset.root=PATH" in message


@pytest.mark.parametrize("name", NAMES)
def test_a_failed_download_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    def fail(self: object) -> None:
        raise URLError("no route\nto host")

    for kind in ("MNIST", "CIFAR10", "SVHN", "STL10", "CelebA"):
        monkeypatch.setattr(getattr(datasets, kind), "download", fail)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: object())
    with pytest.raises(DataError) as caught:
        getattr(sets, name)(root=str(tmp_path), download=True)
    message = str(caught.value)
    assert f"dataset={name} could not be downloaded into {tmp_path}" in message
    assert "no route to host" in message
    assert "\n" not in message


def test_root_defaults_to_the_cache(cache_home: Path) -> None:
    write_idx(cache_home / "gan" / "torchvision", "MNIST", {"train": 2, "t10k": 2})
    source = sets.mnist()
    assert isinstance(source.rows(np.array([0]))["x"], torch.Tensor)
    assert len(source) == 2


def test_pipes_and_giants_are_never_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_idx(tmp_path, "MNIST", {"train": 2, "t10k": 2})
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    monkeypatch.setattr(sets, "_LARGEST_FILE", path.stat().st_size - 1)
    with pytest.raises(DataError, match=r"dataset=mnist: .* has 0 GiB, larger than any of its own files"):
        sets.mnist(root=str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=rf"dataset=mnist: {path} is a named pipe, not a file"):
        sets.mnist(root=str(tmp_path))
    with pytest.raises(ConfigError, match=r"was given an empty dataset\.root"):
        sets.mnist(root="")
