"""Decoded images in the user's cache directory: written once, whole or not at all."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.data import cache, decode, gather
from gancli.data.folder import folder
from gancli.data.source import Source
from gancli.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that counts as large."""
    monkeypatch.setattr(gather, "IN_MEMORY", 100)
    for i in range(5):
        Image.new("L", (9, 8), i).save(tmp_path / f"{i}.png")
    return tmp_path


def cached(home: Path) -> list[Path]:
    return sorted((home / "gan" / "images").glob("*"))


def rows(source: Source) -> torch.Tensor:
    return source.rows(np.arange(len(source)))["x"]


def forbid_decoding(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise AssertionError("decoded again")

    monkeypatch.setattr(decode, "images", fail)
    monkeypatch.setattr(decode, "headers", fail)


def test_a_large_folder_is_decoded_once(pictures: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = folder(str(pictures))
    assert sorted(path.suffix for path in cached(cache_home)) == [".json", ".npy"]
    forbid_decoding(monkeypatch)
    second = folder(str(pictures))
    assert torch.equal(rows(first), rows(second))
    assert rows(second)[:, 0, 0, 0].tolist() == [0, 1, 2, 3, 4]
    assert first.fingerprint == second.fingerprint


def test_in_memory_and_cached_are_the_same_data(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    large = folder(str(pictures), size=[3, 12, 10])
    cached_rows = rows(large)
    monkeypatch.setattr(gather, "IN_MEMORY", 1 << 20)
    monkeypatch.setattr(cache, "load", lambda key: None)
    small = folder(str(pictures), size=[3, 12, 10])
    assert torch.equal(cached_rows, rows(small))
    assert large.fingerprint == small.fingerprint


def test_a_small_folder_leaves_no_cache(pictures: Path, cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "IN_MEMORY", 1 << 20)
    folder(str(pictures))
    assert cached(cache_home) == []


def test_a_changed_file_size_or_limit_is_decoded_anew(pictures: Path, cache_home: Path) -> None:
    assert rows(folder(str(pictures)))[3, 0, 0, 0] == 3
    Image.new("L", (9, 8), 77).save(pictures / "3.png")
    stat = (pictures / "3.png").stat()
    os.utime(pictures / "3.png", ns=(stat.st_atime_ns, stat.st_mtime_ns + 1))
    assert rows(folder(str(pictures)))[3, 0, 0, 0] == 77
    assert folder(str(pictures), size=16).shape == (1, 16, 16)
    assert len(folder(str(pictures), limit=4)) == 4
    assert len(cached(cache_home)) == 8


def test_twins_in_another_place_are_not_mistaken(pictures: Path) -> None:
    twin = pictures / "twin"
    twin.mkdir()
    for i in range(5):
        Image.new("L", (9, 8), i + 100).save(twin / f"{i}.png")
        os.utime(twin / f"{i}.png", ns=(0, 0))
        os.utime(pictures / f"{i}.png", ns=(0, 0))
    (pictures / "other").mkdir()
    for i in range(5):
        (pictures / f"{i}.png").rename(pictures / "other" / f"{i}.png")
    assert (pictures / "other" / "1.png").stat().st_size == (twin / "1.png").stat().st_size
    assert rows(folder(str(pictures / "other"), size=8))[1, 0, 0, 0] == 1
    assert rows(folder(str(twin), size=8))[1, 0, 0, 0] == 101


@pytest.mark.parametrize("damage", ["npy cut", "npy gone", "json gone", "json cut", "json of another"])
def test_a_damaged_cache_is_made_again(pictures: Path, cache_home: Path, damage: str) -> None:
    expected = rows(folder(str(pictures)))
    facts, array = cached(cache_home)
    if damage == "npy cut":
        array.write_bytes(array.read_bytes()[:-9])
    elif damage == "json cut":
        facts.write_text("{")
    elif damage == "json of another":
        facts.write_text('{"shape": [1, 1, 8, 8], "sha256": "0"}')
    else:
        (array if damage == "npy gone" else facts).unlink()
    assert cache.load(array.stem) is None
    assert torch.equal(rows(folder(str(pictures))), expected)
    found = cache.load(array.stem)
    assert found is not None


def test_a_broken_image_leaves_nothing_behind(pictures: Path, cache_home: Path) -> None:
    path = pictures / "4.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"4\.png cannot be used"):
        folder(str(pictures), size=[1, 8, 8])
    assert cached(cache_home) == []


def parts(fail: BaseException) -> Iterator[np.ndarray]:
    yield np.zeros((1, 1, 8, 8), np.uint8)
    raise fail


@pytest.mark.parametrize("fail", [KeyboardInterrupt(), ValueError("x")])
def test_an_interrupted_write_leaves_nothing_behind(cache_home: Path, fail: BaseException) -> None:
    with pytest.raises(type(fail)):
        cache.store("key", (2, 1, 8, 8), parts(fail))
    assert list((cache_home / "gan" / "images").iterdir()) == []


def test_the_file_appears_only_when_it_is_whole(cache_home: Path) -> None:
    def watched() -> Iterator[np.ndarray]:
        for i in range(2):
            assert cache.load("key") is None
            assert not (cache_home / "gan" / "images" / "key.npy").exists()
            yield np.full((1, 1, 8, 8), i, np.uint8)

    images, digest = cache.store("key", (2, 1, 8, 8), watched())
    assert images[:, 0, 0, 0].tolist() == [0, 1]
    assert isinstance(images, np.memmap)
    assert not images.flags.writeable
    found = cache.load("key")
    assert found is not None
    assert found[1] == digest


def test_a_full_disk_and_a_locked_folder_are_explained(cache_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(DataError, match=r"are needed and .* free\): free space, set XDG_CACHE_HOME"):
        cache.store("key", (10**9, 3, 1024, 1024), iter(()))
    (cache_home / "file").write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(cache_home / "file"))
    with pytest.raises(DataError, match=r"cannot be cached in .*file/gan/images"):
        cache.store("key", (1, 1, 8, 8), iter([np.zeros((1, 1, 8, 8), np.uint8)]))


def test_leftovers_of_killed_runs_are_swept(cache_home: Path) -> None:
    place = cache_home / "gan" / "images"
    place.mkdir(parents=True)
    old, young = place / ".old.npy.x", place / ".young.npy.x"
    for path in (old, young):
        path.write_bytes(b"")
    two_days_ago = time.time() - 2 * 86_400
    os.utime(old, (two_days_ago, two_days_ago))
    cache.store("key", (1, 1, 8, 8), iter([np.zeros((1, 1, 8, 8), np.uint8)]))
    assert not old.exists()
    assert young.exists()


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache.cache_dir() == tmp_path / "gan"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    assert cache.cache_dir() == tmp_path / "me" / ".cache" / "gan"
