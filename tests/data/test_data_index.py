"""A kept index: what it notices, what it does not, and that a wrong one is never believed."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.data import gather, index
from gancli.data.folder import Folder, folder
from gancli.data.loader import Stream
from gancli.data.prefetch import Prefetch, Request
from gancli.errors import DataError


@pytest.fixture
def pictures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of two classes that counts as large and was last changed a while ago."""
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    for i in range(6):
        name = tmp_path / "photos" / "ab"[i % 2]
        name.mkdir(parents=True, exist_ok=True)
        Image.new("L", (8, 8), i).save(name / f"{i}.png")
    settle(tmp_path / "photos")
    return tmp_path / "photos"


def settle(top: Path, seconds: int = 100) -> None:
    for path in (top, top / "a", top / "b"):
        found = path.stat()
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns - seconds * 10**9))


def values(top: Path, check: Any = "quick") -> list[int]:
    source = folder(str(top), check=check)
    return source.rows(np.arange(len(source)))["x"][:, 0, 0, 0].tolist()


def is_kept(top: Path, check: Any) -> bool:
    return index.look(Folder(top), check).fresh is None


def test_a_kept_index_lists_nothing(pictures: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert not is_kept(pictures, "quick")
    first = folder(str(pictures), check="quick", limit=4)
    assert is_kept(pictures, "quick")
    assert not is_kept(pictures, "full")
    assert not is_kept(pictures, "auto")
    monkeypatch.setattr(index, "FULL_UP_TO", 5)
    assert is_kept(pictures, "auto")
    monkeypatch.setattr(Folder, "listing", None)
    second = folder(str(pictures), check="auto", limit=4)
    for ours, theirs in zip(first.rows(np.arange(4)).values(), second.rows(np.arange(4)).values(), strict=True):
        assert torch.equal(ours, theirs)
    assert (first.classes, first.fingerprint) == (second.classes, second.fingerprint)


@pytest.mark.parametrize("check", ["quick", "full", "auto"])
def test_files_that_come_go_or_are_replaced_are_noticed(pictures: Path, check: str) -> None:
    assert values(pictures, check) == [0, 2, 4, 1, 3, 5]
    Image.new("L", (8, 8), 99).save(pictures / "a" / "1.png")
    assert values(pictures, check) == [0, 99, 2, 4, 1, 3, 5]
    (pictures / "b" / "3.png").unlink()
    assert values(pictures, check) == [0, 99, 2, 4, 1, 5]
    Image.new("L", (8, 8), 77).save(pictures / "x.png")
    (pictures / "x.png").replace(pictures / "b" / "5.png")
    assert values(pictures, check) == [0, 99, 2, 4, 1, 77]
    (pictures / "c").mkdir()
    Image.new("L", (8, 8), 55).save(pictures / "c" / "0.png")
    assert values(pictures, check) == [0, 99, 2, 4, 1, 77, 55]


def test_a_file_overwritten_in_place_is_noticed_by_the_full_check_only(pictures: Path) -> None:
    assert values(pictures) == [0, 2, 4, 1, 3, 5]
    Image.new("L", (8, 8), 88).save(pictures / "a" / "2.png")
    assert values(pictures) == [0, 2, 4, 1, 3, 5]
    assert values(pictures, "full") == [0, 88, 4, 1, 3, 5]
    assert values(pictures) == [0, 88, 4, 1, 3, 5]


def test_a_folder_that_changed_just_now_is_listed_again(pictures: Path) -> None:
    settle(pictures, -200)  # as if it were changed while it was listed
    values(pictures)
    assert not is_kept(pictures, "quick")


@pytest.mark.parametrize("damage", ["json", "npz", "no npz"])
def test_a_damaged_index_is_made_again(pictures: Path, cache_home: Path, damage: str) -> None:
    values(pictures)
    (facts,) = (cache_home / "gan" / "index").glob("*.json")
    if damage == "json":
        facts.write_text("[]")
    elif damage == "npz":
        facts.with_suffix(".npz").write_bytes(b"PK")
    else:
        facts.with_suffix(".npz").unlink()
    assert not is_kept(pictures, "quick")
    assert values(pictures) == [0, 2, 4, 1, 3, 5]


def test_names_that_are_no_text_come_back(tmp_path: Path) -> None:
    from gancli.data.listing import Names

    given = ["", "a", "é", os.fsdecode(b"\xff.png"), "b"]
    assert [Names.of(given)[i] for i in range(5)] == given


def test_encoded_images_take_no_disk_and_are_checked_once(pictures: Path, cache_home: Path) -> None:
    folder(str(pictures), store="encoded")
    assert [path.suffix for path in (cache_home / "gan" / "images").iterdir()] == [".json"]
    path = pictures / "a" / "2.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(DataError, match=r"2\.png cannot be used"):
        folder(str(pictures), store="encoded")


def test_a_file_that_breaks_while_it_trains_is_named(pictures: Path) -> None:
    source = folder(str(pictures), store="encoded")
    (pictures / "a" / "2.png").unlink()
    with pytest.raises(DataError, match=r"2\.png cannot be used"):
        source.rows(np.arange(6))


@pytest.mark.parametrize("store", ["raw", "encoded"])
def test_reading_ahead_changes_nothing(pictures: Path, store: Any) -> None:
    source, plain = folder(str(pictures), store=store, flip=True), folder(str(pictures), flip=True)
    kept = plain.rows(np.arange(6))["x"].numpy()
    plain._content = kept  # as an array: nothing is read ahead
    requests = [(p, t, a, b) for p in range(0, 60, 8) for t, a, b in ((4, 0, 2), (4, 2, 4), (8, 0, 8))]
    requests += [(0, 4, 0, 4), (0, 4, 0, 4), (50, 3, 1, 2), (6, 13, 0, 13)]
    ahead, straight = Stream(source, 2, "real"), Stream(plain, 2, "real")
    for request in requests:
        one, other = ahead.batch(*request), straight.batch(*request)
        assert torch.equal(one["x"], other["x"])
        assert torch.equal(one["y"], other["y"])


def test_what_comes_next_is_learned() -> None:
    read: list[Request] = []

    def answer(request: Request) -> Request:
        read.append(request)
        return request

    ahead = Prefetch(answer, depth=2)
    cycle = [Request(0, 4, 0, 2), Request(0, 4, 2, 4), Request(4, 8, 0, 8)]
    asked = [r._replace(position=r.position + 12 * k) for k in range(6) for r in cycle]
    for request in asked[:9]:
        assert ahead.take(request) == request
    ahead._pool.submit(lambda: None).result()
    assert set(asked[9:11]) <= set(read)
    known = len(read)
    for request in asked[9:]:
        assert ahead.take(request) == request
    ahead._pool.submit(lambda: None).result()
    assert len(read) == known + 9  # each was read once, and by the reader ahead


@pytest.mark.parametrize("there", [True, False])
def test_folders_of_the_cache_may_be_links(pictures: Path, cache_home: Path, tmp_path: Path, there: bool) -> None:
    """To a larger disk, whose folder may not have been made yet."""
    names = ("images", "index", "locks")
    (cache_home / "gan").mkdir()
    for name in names:
        (cache_home / "gan" / name).symlink_to(tmp_path / "large" / name)
        if there:
            (tmp_path / "large" / name).mkdir(parents=True)
    assert not is_kept(pictures, "quick")
    assert values(pictures) == [0, 2, 4, 1, 3, 5]
    assert is_kept(pictures, "quick")
    assert [len(list((tmp_path / "large" / name).iterdir())) for name in names] == [2, 2, 1]
    assert all((cache_home / "gan" / name).is_symlink() for name in names)
