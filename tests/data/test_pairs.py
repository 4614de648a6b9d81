"""Pairs of images: every layout of their files, and every fault."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.data import decode, gather, imagefile
from gancli.data.embedded import emoji_pairs
from gancli.data.fields import Image as Images
from gancli.data.folder import folder
from gancli.data.loader import Stream
from gancli.data.paired import KEPT
from gancli.data.pairs import pairs
from gancli.data.source import Source, Sources
from gancli.errors import ConfigError, DataError, SplitError
from tests.conftest import Gan

FEEDS = {"A.x": "image", "B.x": "image"}


def image(number: int, channels: int = 3, height: int = 8, width: int = 10, bits: int = 8) -> np.ndarray:
    kind = np.uint16 if bits == 16 else np.uint8
    return np.random.default_rng(number).integers(0, 1 << bits, (channels, height, width), kind)


def put(path: Path, pixels: np.ndarray) -> None:
    """An image under its whole name; what it holds is told by its contents."""
    made = imagefile.write(path.parent, f".{path.stem}", pixels)
    made.rename(path)


def fill(a: Path, b: Path, names: str = "abc", first: int = 0, **b_kind: int) -> None:
    for number, name in enumerate(names, first):
        put(a / f"{name}.png", image(number))
        put(b / f"{name}.png", image(100 + number, **b_kind))


def rows(source: object, n: int | None = None) -> list[np.ndarray]:
    """All of A, and all of B."""
    assert isinstance(source, Source)
    found = source.rows(np.arange(len(source) if n is None else n))
    assert list(found) == ["A", "B"]
    return [x.numpy() for x in found.values()]


def test_equal_names_are_pairs(tmp_path: Path) -> None:
    for number, name in enumerate(["b", "a", "inner/a", "c.d"]):
        put(tmp_path / "A" / f"{name}.png", image(number))
        put(tmp_path / "B" / f"{name}.{'PNG' if number else 'bmp'}", image(100 + number))
    source = pairs(str(tmp_path))
    assert isinstance(source, Source)
    assert source.fields == {"A": Images(3, 8, 10), "B": Images(3, 8, 10)}
    assert source.classes == ()
    assert source.notes == ()
    a, b = rows(source)
    assert np.array_equal(a, np.stack([image(k) for k in (1, 0, 3, 2)]))
    assert np.array_equal(b, np.stack([image(k) for k in (101, 100, 103, 102)]))


@pytest.mark.parametrize("layout", ["{s}/{d}", "{d}/{s}", "{s}{d}"])
def test_splits_are_folders(tmp_path: Path, layout: str) -> None:
    for first, split in ((0, "train"), (10, "val"), (20, "test")):
        fill(*(tmp_path / layout.format(s=split, d=d) for d in "AB"), first=first)
    for first, split in ((0, "train"), (10, "val"), (20, "test")):
        source = pairs(str(tmp_path), split=split)
        assert np.array_equal(rows(source)[1], np.stack([image(100 + first + k) for k in range(3)]))
        assert source.notes == ()


def test_val_is_held_out_where_there_is_no_test(tmp_path: Path) -> None:
    for first, split in ((0, "train"), (10, "val")):
        fill(tmp_path / split / "A", tmp_path / split / "B", first=first)
    source = pairs(str(tmp_path), split="test")
    assert np.array_equal(rows(source)[0], np.stack([image(10 + k) for k in range(3)]))
    assert source.notes == ("there is no split test: val is used instead",)


def test_splits_that_are_not_there(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    for split in ("test", "val"):
        with pytest.raises(SplitError, match=rf"finds no folders of the split {split}: type dataset\.split=train,"):
            pairs(str(tmp_path), split=split)
    with pytest.raises(SplitError, match=r"no split 'tset': type dataset\.split=train, val or test"):
        pairs(str(tmp_path), split="tset")


@pytest.mark.parametrize("inner", ["", "train"])
def test_files_that_hold_both(tmp_path: Path, inner: str) -> None:
    both = [image(k, width=24) for k in range(3)]
    for number, name in enumerate(["a", "b", "c/d"]):
        put(tmp_path / inner / f"{name}.png", both[number])
    source = pairs(str(tmp_path))
    a, b = rows(source)
    assert np.array_equal(a, np.stack(both)[..., :12])
    assert np.array_equal(b, np.stack(both)[..., 12:])
    assert source.notes == ("each file holds A and B side by side, images of 12x8",)


def test_an_odd_width_has_no_halves(tmp_path: Path) -> None:
    put(tmp_path / "a.png", image(0, width=24))
    put(tmp_path / "b.png", image(0, width=25))
    for size in (None, 16):
        with pytest.raises(DataError) as caught:
            pairs(str(tmp_path), size=size)
        told = "it is 25 pixels wide, but A and B are its halves: the width must be even"
        assert str(caught.value) == f"{tmp_path / 'b.png'} cannot be used as an image ({told}): fix or remove it"


def test_a_missing_partner_is_named(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    (tmp_path / "B" / "b.png").unlink()
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/A/b\.png has no partner in {tmp_path}/B: names of a pair differ"
    ):
        pairs(str(tmp_path))
    for name in ("b", "c"):
        (tmp_path / "A" / f"{name}.png").unlink()
    put(tmp_path / "B" / "d.png", image(0))
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/B/c\.png, {tmp_path}/B/d\.png have no partners in {tmp_path}/A:"
    ):
        pairs(str(tmp_path))


def test_two_of_one_name_are_refused(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    put(tmp_path / "A" / "a.bmp", image(0))
    with pytest.raises(
        DataError, match=rf"^{tmp_path}/A/a\.bmp and {tmp_path}/A/a\.png would have the same partner: remove one"
    ):
        pairs(str(tmp_path))


@pytest.mark.parametrize("size", [None, 16])
def test_another_size_of_the_partner_is_named(tmp_path: Path, size: int | None) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    put(tmp_path / "B" / "b.png", image(0, width=12))
    with pytest.raises(DataError) as caught:
        pairs(str(tmp_path), size=size)
    told = f"{tmp_path}/A/b.png is 10x8 and its partner {tmp_path}/B/b.png 12x8: give both one size, or remove both"
    assert str(caught.value) == told


@pytest.mark.parametrize("layout", ["{d}", "{s}/{d}", "{d}/{s}", "{s}{d}"])
def test_half_a_layout_is_named(tmp_path: Path, layout: str) -> None:
    a, b = (tmp_path / layout.format(s="train", d=d) for d in "AB")
    put(b / "a.png", image(0))
    with pytest.raises(DataError, match=rf"^{b} exists, but {a} does not: A and B are needed"):
        pairs(str(tmp_path))


def test_what_is_not_read_is_said(tmp_path: Path) -> None:
    fill(tmp_path / "train" / "A", tmp_path / "train" / "B")
    for name in ("train/A/notes.txt", "train/B/.hidden.png", "train/c.png", "read.me"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "more").mkdir()
    assert pairs(str(tmp_path)).notes == (
        f"left out of {tmp_path}: more, read.me, train/c.png",
        f"left out of {tmp_path}/train/A: 1 .txt",
        f"left out of {tmp_path}/train/B: 1 hidden file",
    )


def test_nothing_there(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"dataset=pairs needs to know which folder: type dataset\.root=PATH"):
        pairs()
    with pytest.raises(DataError, match=r"does not exist: type dataset\.root=PATH with folders A and B, or files of A"):
        pairs(str(tmp_path / "nowhere"))
    with pytest.raises(DataError, match="has neither folders A and B nor images of A and B side by side"):
        pairs(str(tmp_path))
    for domain in "AB":
        (tmp_path / domain).mkdir()
    with pytest.raises(DataError, match=f"^{tmp_path}/A and B have no images: put them there"):
        pairs(str(tmp_path))


def test_channels_of_a_and_b_may_differ(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B", channels=1)
    assert rows(pairs(str(tmp_path)))[1].shape == (3, 1, 8, 10)
    a, b = rows(pairs(str(tmp_path), channels=[1, 3]))
    assert (a.shape[1], b.shape[1]) == (1, 3)
    assert np.array_equal(b, np.stack([image(100 + k, channels=1).repeat(3, 0) for k in range(3)]))
    luma = Image.fromarray(image(0).transpose(1, 2, 0).copy()).convert("L")
    assert np.array_equal(a[0, 0], np.asarray(luma))
    assert [x.shape[1] for x in rows(pairs(str(tmp_path), channels=1))] == [1, 1]
    assert [x.shape[1] for x in rows(pairs(str(tmp_path), size=[1, 8, 10]))] == [1, 1]


def test_grey_and_colour_in_one_domain_are_colour(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    put(tmp_path / "A" / "b.png", image(1, channels=1))
    a, _ = rows(pairs(str(tmp_path)))
    assert np.array_equal(a[1], image(1, channels=1).repeat(3, 0))


def test_alpha_goes_on_white_unless_it_is_asked_for(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    clear = np.stack([*image(1), np.where(np.arange(80).reshape(8, 10) % 2, 255, 0).astype(np.uint8)])
    put(tmp_path / "B" / "b.png", clear)
    source = pairs(str(tmp_path))
    assert source.notes == (
        "B: 1 of 3 images have alpha: they are composited on white; dataset.channels=4 keeps alpha",
    )
    assert np.array_equal(rows(source)[1][1], np.where(clear[3:], clear[:3], 255))
    kept = pairs(str(tmp_path), channels=[3, 4])
    assert kept.notes == ()
    assert np.array_equal(rows(kept)[1][1], clear)
    assert np.array_equal(rows(kept)[1][0], [*image(100), np.full((8, 10), 255)])


def test_any_channels_and_sixteen_bits(tmp_path: Path) -> None:
    deep = [image(k, 6, bits=16) for k in range(2)]
    for number, pixels in enumerate(deep):
        imagefile.write(tmp_path / "A", str(number), pixels)
        imagefile.write(tmp_path / "B", str(number), image(number, 1, bits=8 + 8 * number))
    source = pairs(str(tmp_path))
    assert isinstance(source, Source)
    assert source.fields == {"A": Images(6, 8, 10, 16), "B": Images(1, 8, 10, 16)}
    assert source.notes == ("B: 1 of 2 images have 16 bits: all are converted to 16",)
    a, b = rows(source)
    assert np.array_equal(a, np.stack(deep))
    assert np.array_equal(b[0], image(0, 1).astype(int) * 257)
    assert np.array_equal(b[1], image(1, 1, bits=16))


def test_channels_that_do_not_fit(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    imagefile.write(tmp_path / "A", "d", image(0, 5))
    put(tmp_path / "B" / "d.png", image(0))
    with pytest.raises(DataError, match=r"A/a\.png has 3 channels and .*/A/d\.npy 5: type dataset\.channels=N"):
        pairs(str(tmp_path))
    with pytest.raises(DataError, match=r"A/d\.npy has 5 channels, not convertible to 3 \(allowed: 5\)"):
        pairs(str(tmp_path), channels=3)


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        ({"size": [3, 16, 16], "channels": [1, 3]}, r"set channels twice: type dataset\.size=\[16,16\]"),
        ({"channels": [1, 2, 3]}, r"dataset\.channels=\[1, 2, 3\]: type a number, or one for A and one for B"),
        ({"channels": 0}, r"dataset\.channels=0: type a number"),
        ({"size": 4}, "out of range"),
        ({"store": "none"}, r"dataset\.store=none is unknown"),
        ({"disjoint": True}, r"dataset\.disjoint=true leaves no pairs"),
        ({"limit": 0}, "keeps nothing"),
    ],
)
def test_wrong_keys(tmp_path: Path, keys: dict[str, Any], told: str) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    with pytest.raises(ConfigError, match=told):
        pairs(str(tmp_path), **keys)


def test_sizes_are_one_for_both(tmp_path: Path) -> None:
    for number, (height, width) in enumerate([(20, 12), (16, 30)]):
        put(tmp_path / "A" / f"{number}.png", image(number, 1, height, width))
        put(tmp_path / "B" / f"{number}.png", image(100 + number, 3, height, width))
    source = pairs(str(tmp_path))
    assert isinstance(source, Source)
    assert source.notes[0].startswith("images differ in size, with sides of 12 to 30 pixels: each is cropped to its")
    for keys, shape in (({}, (12, 12)), ({"size": 16}, (16, 16)), ({"size": [16, 24], "channels": [1, 3]}, (16, 24))):
        found = rows(pairs(str(tmp_path), **keys))
        for domain, pixels in zip("AB", found, strict=True):
            alone = folder(str(tmp_path / domain), size=[pixels.shape[1], *shape])
            assert np.array_equal(pixels, alone.rows(np.arange(2))["x"])


def test_sixteen_bits_are_resized_as_eight_are(tmp_path: Path) -> None:
    smooth = np.add.outer(np.arange(32) * 100, np.arange(40) * 300).astype(np.uint16)
    for domain, pixels in (("A", smooth), ("B", np.full((32, 40), 54321, np.uint16))):
        imagefile.write(tmp_path / domain, "a", pixels[None])
    a, b = rows(pairs(str(tmp_path), size=[16, 20]))
    assert (b == 54321).all()
    inner = smooth.reshape(16, 2, 20, 2).mean((1, 3))[3:-3, 3:-3]
    assert np.abs(a[0, 0, 3:-3, 3:-3] - inner).max() <= 1  # a symmetric filter keeps a plane, up to rounding


def test_a_limit_keeps_partners(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B", "abcdefgh")
    a, b = rows(pairs(str(tmp_path), limit=3))
    whole = rows(pairs(str(tmp_path)))
    kept = [int(np.flatnonzero((whole[0] == x).all((1, 2, 3)))[0]) for x in a]
    assert len(set(kept)) == 3
    assert np.array_equal(b, whole[1][kept])
    assert pairs(str(tmp_path), limit=9).notes == ("dataset.limit=9: there are only 8, all are used",)


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("side_by_side", [False, True])
def test_rows_are_the_same_wherever_they_lie(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, bits: int, side_by_side: bool
) -> None:
    for number in range(5):
        if side_by_side:
            imagefile.write(tmp_path / "train", str(number), image(number, width=20, bits=bits))
        else:
            imagefile.write(tmp_path / "train" / "A", str(number), image(number, bits=bits))
            imagefile.write(tmp_path / "train" / "B", str(number), image(9 + number, bits=bits))
    keys: dict[str, Any] = {"root": str(tmp_path), "size": [8, 8], "limit": 4}
    memory = pairs(**keys)
    assert memory.in_memory
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    kept, encoded = pairs(**keys), pairs(**keys, store="encoded")
    assert not kept.in_memory
    assert not encoded.in_memory
    for other in (kept, encoded):
        assert other.fingerprint == memory.fingerprint
        assert other.fields == memory.fields
        assert other.notes == memory.notes
        for found, expected in zip(rows(other), rows(memory), strict=True):
            assert found.dtype == (np.uint8 if bits == 8 else np.int32)
            assert np.array_equal(found, expected)
    monkeypatch.setattr(imagefile, "pixels", None)  # nothing is decoded again, and no header looked at
    monkeypatch.setattr(imagefile, "header", None)
    again = pairs(**keys)
    assert again.fingerprint == memory.fingerprint
    assert again.notes == memory.notes
    assert np.array_equal(rows(again)[1], rows(memory)[1])
    assert pairs(**keys, store="encoded").fingerprint == memory.fingerprint
    assert pairs(**keys, check="quick").fingerprint == memory.fingerprint


def test_a_changed_partner_is_decoded_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "IN_MEMORY", 0)
    fill(tmp_path / "A", tmp_path / "B")
    before = pairs(str(tmp_path))
    put(tmp_path / "B" / "b.png", image(7))
    after = pairs(str(tmp_path))
    assert after.fingerprint != before.fingerprint
    assert np.array_equal(rows(after)[1][1], image(7))
    put(tmp_path / "B" / "b.png", image(7, width=12))
    with pytest.raises(DataError, match="is 10x8 and its partner"):
        pairs(str(tmp_path))


def test_partners_are_cut_and_mirrored_alike(tmp_path: Path) -> None:
    for number in range(6):
        for domain in "AB":
            put(tmp_path / domain / f"{number}.png", image(number, height=12, width=12))
    source = pairs(str(tmp_path), flip=True, crop=8, jitter=3)
    assert isinstance(source, Source)
    batch = Stream(source, 0, "pairs").batch(0, 6)
    assert batch["A"].shape == (6, 3, 8, 8)
    assert torch.equal(batch["A"], batch["B"])


def test_games_without_pairs_get_feeds(tmp_path: Path) -> None:
    fill(tmp_path / "A", tmp_path / "B", "abcd", channels=1)
    both = pairs(str(tmp_path), columns=FEEDS)
    assert isinstance(both, Sources)
    assert both.aligned
    table = rows(pairs(str(tmp_path), columns={"A": "image", "B": "image"}))
    for (domain, feed), expected in zip(both.feeds.items(), table, strict=True):
        assert domain in "AB"
        assert np.array_equal(feed.rows(np.arange(4))["x"], expected)
    apart = pairs(str(tmp_path), columns=FEEDS, disjoint=True)
    assert isinstance(apart, Sources)
    assert not apart.aligned
    assert np.array_equal(apart.feeds["A"].rows(np.arange(2))["x"], table[0][:2])
    assert np.array_equal(apart.feeds["B"].rows(np.arange(2))["x"], table[1][2:])


@pytest.mark.parametrize("folder", ["test", "val"])
def test_held_out_rows_keep_their_partners(tmp_path: Path, folder: str) -> None:
    for first, split in ((0, "train"), (10, folder)):
        fill(tmp_path / split / "A", tmp_path / split / "B", first=first)
    held = pairs(str(tmp_path), columns=FEEDS, disjoint=True, split="test")
    assert isinstance(held, Sources)
    assert held.aligned
    assert held.notes[0 if folder == "test" else 1] == KEPT
    for feed, number in zip(held.feeds.values(), (10, 110), strict=True):
        assert np.array_equal(feed.rows(np.arange(3))["x"], np.stack([image(number + k) for k in range(3)]))


def test_emoji_say_that_test_rows_keep_their_partners() -> None:
    for split, disjoint, said in (("test", True, [KEPT]), ("test", None, []), ("train", True, [])):
        assert list(emoji_pairs(8, split=split, disjoint=disjoint, columns=FEEDS).notes) == said


@pytest.mark.parametrize("size", [None, [3, 16, 16]])
def test_a_broken_partner_is_named(tmp_path: Path, size: list[int] | None) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    path = tmp_path / "B" / "b.png"
    whole = bytearray(path.read_bytes())
    whole[len(whole) // 2] ^= 255
    for content in (b"", b"no image", bytes(whole), bytes(whole[:-60])):
        path.write_bytes(content)
        with pytest.raises(
            DataError, match=rf"^{re.escape(str(path))} cannot be used as an image \([^\n]*\): fix or remove it"
        ):
            pairs(str(tmp_path), size=size)


def test_other_kinds_than_files_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "A", tmp_path / "B")
    path = tmp_path / "B" / "b.png"
    path.unlink()
    os.mkfifo(path)
    with pytest.raises(DataError, match=rf"^{path} is a named pipe, not an image: remove it"):
        pairs(str(tmp_path))
    path.unlink()
    path.symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=rf"^{path} is a link to {tmp_path}/nothing, which does not exist"):
        pairs(str(tmp_path))
    path.unlink()
    path.symlink_to(tmp_path / "A" / "b.png")
    assert np.array_equal(rows(pairs(str(tmp_path)))[1][1], image(1))
    monkeypatch.setattr(decode, "PIXEL_LIMIT", 79)
    with pytest.raises(DataError, match="10x8; the limit is 79 pixels"):
        pairs(str(tmp_path))


@pytest.mark.slow
def test_a_run_of_pairs(tmp_path: Path, gan: Gan) -> None:
    for split, first in (("train", 0), ("test", 10)):
        for number in range(first, first + 4):
            imagefile.write(tmp_path / "data" / split / "A", str(number), image(number, 1, 32, 32, bits=16))
            imagefile.write(tmp_path / "data" / split / "B", str(number), image(number, 3, 32, 32))
    words = ["dataset=pairs", "dataset.root=data", "run_dir=r", "device=cpu", "model.ch=2", "observers=none"]
    done = gan("train", "model=pix2pix", *words, "steps=1")
    assert done.code == 0, done.err
    (tmp_path / "data").rename(tmp_path / "moved")
    assert gan("train", "resume=r", "steps=2", "dataset.root=moved").code == 0
