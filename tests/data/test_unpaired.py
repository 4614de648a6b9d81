"""Images of two domains without pairs: every layout of their folders, and every fault."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from gancli.data import gather, imagefile
from gancli.data.fields import Image as Images
from gancli.data.loader import Stream
from gancli.data.source import Sources
from gancli.data.unpaired import unpaired
from gancli.errors import CombinationError, ConfigError, DataError, SplitError


def image(number: int, channels: int = 3, height: int = 8, width: int = 10, bits: int = 8) -> np.ndarray:
    kind = np.uint16 if bits == 16 else np.uint8
    return np.random.default_rng(number).integers(0, 1 << bits, (channels, height, width), kind)


def fill(folder: Path, first: int, count: int = 3, **kind: int) -> np.ndarray:
    """Some images, and what they are."""
    made = [image(first + k, **kind) for k in range(count)]
    for k, pixels in enumerate(made):
        imagefile.write(folder, f"{first + k:03}", pixels)
    return np.stack(made)


def feeds(source: object) -> list[np.ndarray]:
    """All of A's, and all of B's."""
    assert isinstance(source, Sources)
    assert not source.aligned
    assert list(source.feeds) == ["A", "B"]
    assert all(list(feed.columns) == ["x"] for feed in source.feeds.values())
    return [feed.rows(np.arange(len(feed)))["x"].numpy() for feed in source.feeds.values()]


@pytest.mark.parametrize("layout", ["{s}{d}", "{d}/{s}", "{s}/{d}"])
def test_domains_are_folders(tmp_path: Path, layout: str) -> None:
    made = {}
    for k, (split, domain) in enumerate((s, d) for s in ("train", "test") for d in "AB"):
        made[split, domain] = fill(tmp_path / layout.format(s=split, d=domain), 10 * k, 2 + k)
    for split in ("train", "test"):
        source = unpaired(str(tmp_path), split=split)
        assert source.notes == ()
        for found, domain in zip(feeds(source), "AB", strict=True):
            assert np.array_equal(found, made[split, domain])


def test_two_folders_have_no_held_out_rows(tmp_path: Path) -> None:
    a, b = fill(tmp_path / "A" / "inner", 0), fill(tmp_path / "B", 10, 4)
    for keys in ({"root": str(tmp_path)}, {"root": str(tmp_path / "A"), "root_B": str(tmp_path / "B")}):
        found = feeds(unpaired(**keys))
        assert np.array_equal(found[0], a)
        assert np.array_equal(found[1], b)
        with pytest.raises(SplitError, match=r"finds no folders of the split test: type dataset\.split=train,"):
            unpaired(**keys, split="test")


def test_val_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    for k, name in enumerate(("trainA", "trainB", "valA", "valB")):
        fill(tmp_path / name, 10 * k)
    source = unpaired(str(tmp_path), split="test")
    assert source.notes == ("there is no split test: val is used instead",)
    assert np.array_equal(feeds(source)[1][0], image(30))


def test_the_smallest_square_of_both_domains(tmp_path: Path) -> None:
    fill(tmp_path / "trainA", 0, height=20, width=12)
    fill(tmp_path / "trainB", 10, height=16, width=30, channels=1)
    source = unpaired(str(tmp_path))
    a, b = feeds(source)
    assert a.shape == (3, 3, 12, 12)
    assert b.shape == (3, 1, 12, 12)
    assert source.notes[0].startswith("images differ in size, with sides of 12 to 30 pixels: each is cropped to its")
    shown = Image.fromarray(image(10, 1, 16, 30)[0]).crop((7, 0, 23, 16)).resize((12, 12), Image.Resampling.LANCZOS)
    assert np.array_equal(b[0, 0], np.asarray(shown))
    assert [x.shape[1:] for x in feeds(unpaired(str(tmp_path), size=[3, 16, 24]))] == [(3, 16, 24)] * 2
    assert [x.shape[1:] for x in feeds(unpaired(str(tmp_path), size=[16, 24], channels=[1, 3]))] == [
        (1, 16, 24),
        (3, 16, 24),
    ]


def test_one_size_is_kept_and_so_are_sixteen_bits(tmp_path: Path) -> None:
    a, b = fill(tmp_path / "trainA", 0, bits=16), fill(tmp_path / "trainB", 10, channels=7)
    source = unpaired(str(tmp_path))
    assert isinstance(source, Sources)
    assert [feed.fields["x"] for feed in source.feeds.values()] == [Images(3, 8, 10, 16), Images(7, 8, 10)]
    found = feeds(source)
    assert np.array_equal(found[0], a)
    assert np.array_equal(found[1], b)


def test_each_domain_is_limited(tmp_path: Path) -> None:
    fill(tmp_path / "A", 0, 3)
    fill(tmp_path / "B", 10, 6)
    source = unpaired(str(tmp_path), limit=4)
    assert [len(x) for x in feeds(source)] == [3, 4]
    assert source.notes == ("A: dataset.limit=4: there are only 3, all are used",)


def test_each_is_dealt_in_an_order_of_its_own(tmp_path: Path) -> None:
    for domain in "AB":
        fill(tmp_path / domain, 0, 8)
    source = unpaired(str(tmp_path), crop=8, jitter=2, flip=True)
    assert isinstance(source, Sources)
    a, b = (Stream(feed, 0, name).batch(0, 8)["x"] for name, feed in source.feeds.items())
    assert a.shape == b.shape == (8, 3, 8, 8)
    assert not a.equal(b)


def test_a_game_that_learns_from_pairs_is_refused(tmp_path: Path) -> None:
    fill(tmp_path / "A", 0)
    fill(tmp_path / "B", 10)
    with pytest.raises(CombinationError) as caught:
        unpaired(str(tmp_path), columns={"A": "image", "B": "image"})
    told = "dataset=unpaired has no pairs, but this game learns from pairs: type dataset=pairs or model=cyclegan"
    assert str(caught.value) == told
    assert feeds(unpaired(str(tmp_path), columns={"A.x": "image", "B.x": "image"}))[0].shape == (3, 3, 8, 10)


def test_what_is_missing_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset=unpaired needs to know which folder: type dataset\.root=PATH"):
        unpaired()
    with pytest.raises(
        DataError, match=r"neither folders trainA and trainB nor A and B: make them, or type dataset\.ro"
    ):
        unpaired(str(tmp_path))
    with pytest.raises(
        DataError, match=r"dataset\.root_B=nowhere does not exist: type dataset\.root_B=PATH with images"
    ):
        unpaired(str(tmp_path), "nowhere")
    fill(tmp_path / "trainA", 0)
    with pytest.raises(DataError, match=rf"^{tmp_path}/trainA exists, but {tmp_path}/trainB does not"):
        unpaired(str(tmp_path))
    (tmp_path / "trainB").mkdir()
    with pytest.raises(DataError, match=rf"^{tmp_path}/trainB has no images: put them there \(\.avif"):
        unpaired(str(tmp_path))


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    for k, name in enumerate(("trainA", "trainB", "testA", "testB")):
        fill(tmp_path / name, 10 * k)
    fill(tmp_path, 50, 1)
    (tmp_path / "trainA" / "dataset.json").write_text("{}", encoding="utf-8")
    assert unpaired(str(tmp_path)).notes == (
        f"left out of {tmp_path}: 050.png",
        f"left out of {tmp_path}/trainA: 1 .json",
    )


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "A", 0)
    fill(tmp_path / "B", 10)
    path = tmp_path / "B" / "011.png"
    path.write_bytes(path.read_bytes()[:-60])
    with pytest.raises(DataError, match=rf"^{path} cannot be used as an image \("):
        unpaired(str(tmp_path))
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=rf"^{path} is a named pipe, not an image"):
        unpaired(str(tmp_path))


def test_rows_are_the_same_wherever_they_lie(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "A", 0, bits=16)
    fill(tmp_path / "B", 10, 5, height=12)
    keys: dict[str, Any] = {"root": str(tmp_path)}
    memory = unpaired(**keys)
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    for other in (unpaired(**keys), unpaired(**keys, store="encoded"), unpaired(**keys)):
        assert other.fingerprint == memory.fingerprint
        assert other.notes == memory.notes
        for found, expected in zip(feeds(other), feeds(memory), strict=True):
            assert np.array_equal(found, expected)
