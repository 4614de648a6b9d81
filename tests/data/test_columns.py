"""A table of named columns: what fits each other, one draw of geometry a row, levels, several feeds."""

from __future__ import annotations

import sys
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image as Picture

from gancli.config.build import find, make
from gancli.data.columns import Column, Window
from gancli.data.embedded import emoji, fashion
from gancli.data.facts import DataFacts
from gancli.data.fields import Clip, Field, Geometry, Image, Label, Points, Table, Tokens, Vector
from gancli.data.folder import folder
from gancli.data.loader import Stream
from gancli.data.noise import KINDS, noise
from gancli.data.source import Source, Sources, lone, order, raw_bits, table
from gancli.errors import CombinationError, ConfigError, DataError

WORDS = Tokens(3, ("", "red", "blue"))


def pixels(n: int = 6, *shape: int, seed: int = 0) -> np.ndarray[Any, Any]:
    return np.random.default_rng(seed).integers(0, 256, (n, *(shape or (1, 8, 8))), dtype=np.uint8)


def pair(n: int = 6, **options: Any) -> Source:
    """Two images a row, the second the first's negative, and the row's number."""
    a = pixels(n)
    columns = {
        "a": Column(Image(1, 8, 8), a),
        "b": Column(Image(1, 8, 8), 255 - a),
        "number": Column(Table(("row",)), np.arange(n, dtype=np.float32)[:, None]),
    }
    return Source("pair", columns, **options)


@pytest.mark.parametrize(
    "options", [{"flip": True}, {"crop": 5}, {"jitter": 3}, {"flip": True, "crop": 4, "jitter": 2}]
)
def test_the_images_of_a_row_are_cut_and_mirrored_alike(options: dict[str, Any]) -> None:
    source = pair(**options)
    plain = Stream(pair(), 0, "real").batch(0, 30)
    batch = Stream(source, 0, "real").batch(0, 30)
    side = options.get("crop", 8)
    assert batch["a"].shape == batch["b"].shape == (30, 1, side, side)
    # Negatives stay negatives, but for the rounding of enlarged pixels, where a half goes to the even neighbour.
    assert (batch["a"] + batch["b"]).abs().max() <= (1.001 / 127.5 if "jitter" in options else 1e-6)
    assert torch.equal(batch["number"], plain["number"])
    assert side != 8 or not torch.equal(batch["a"], plain["a"])


def test_windows_are_drawn_once_an_epoch_and_row() -> None:
    """By hand: rows by the order, corners by the stream's bits, any place as likely as another."""
    source = pair(crop=5, flip=True)
    batch = Stream(source, 3, "real").batch(0, 12)
    for epoch in (0, 1):
        rows, bits = order(6, 3, "real", epoch), raw_bits(6, 3, "real", epoch, "corner")
        mirrored = (raw_bits(6, 3, "real", epoch, "flip") & 1).astype(bool)
        for place, row in enumerate(rows):
            i, j = (int(half) * 4 >> 32 for half in (bits[place] >> np.uint64(32), bits[place] & np.uint64(2**32 - 1)))
            image = torch.from_numpy(source.columns["a"].content[[row]])[0, :, i : i + 5, j : j + 5]
            expected = Image(1, 5, 5).ready(image.flip(-1) if mirrored[place] else image)
            assert torch.equal(batch["a"][6 * epoch + place], expected)
    corners = Window((5, 5), (8, 8), 0).corners(raw_bits(16_000, "corners"))
    counts = np.bincount(corners[:, 0] * 4 + corners[:, 1], minlength=16)
    assert (abs(counts - 1000) < 6 * 1000**0.5).all()


def test_evaluation_takes_the_middle_unmirrored() -> None:
    source = pair(crop=4, jitter=2, flip=True)
    assert source.shape == (1, 4, 4)
    assert source.fields["b"] == Image(1, 4, 4)
    rows = source.rows(np.arange(6))
    assert np.array_equal(rows["a"], pair().rows(np.arange(6))["a"][:, :, 2:6, 2:6])
    assert list(rows) == ["a", "b", "number"]
    assert list(source.rows(np.arange(2), columns=["b"])) == ["b"]


def test_enlarged_images_are_pillows() -> None:
    """Of middling pixels, since Pillow clips between its two passes; it rounds there, too, so one may be off by one."""
    image = 64 + pixels(1, 1, 16, 16) // 2
    turned = Image(1, 16, 16).changed(torch.from_numpy(image), Geometry(enlarged=5))
    theirs = np.asarray(Picture.fromarray(image[0, 0]).resize((21, 21), Picture.Resampling.BICUBIC))
    assert abs(turned[0, 0].numpy().astype(int) - theirs).max() <= 1


def test_clips_as_long_as_the_batch_are_mirrored_whole() -> None:
    clips = pixels(4, 4, 1, 4, 4)
    columns = {"x": Column(Clip(4, 1, 4, 4), clips)}
    batch = Stream(Source("clips", columns, flip=True), 0, "real").batch(0, 4)["x"]
    plain = Stream(Source("clips", columns), 0, "real").batch(0, 4)["x"]
    turned = [torch.equal(a, b.flip(-1)) for a, b in zip(batch, plain, strict=True)]
    assert 0 < sum(turned) < 4
    assert all(turn or torch.equal(a, b) for turn, a, b in zip(turned, batch, plain, strict=True))


@pytest.mark.parametrize("cuts", [[0, 8], [0, 3, 8], [0, 1, 2, 5, 8]])
def test_columns_of_all_kinds_are_dealt_in_parts(cuts: list[int]) -> None:
    """Tokens, tables and the rest at micro-batches and ranks: as they are, whatever the batch is cut into."""
    source = lone(noise(size=[1, 8, 8], n=6, flip=True, crop=5, columns={kind: kind for kind in KINDS}))
    whole = Stream(source, 1, "real").batch(4, 8)  # crosses the border of two epochs
    parts = [Stream(source, 1, "real").batch(4, 8, a, b) for a, b in pairwise(cuts)]
    index = np.concatenate([order(6, 1, "real", 0)[4:], order(6, 1, "real", 1)])[:8]
    stored = source.stored(index)
    for name, field in source.fields.items():
        assert torch.equal(torch.cat([part[name] for part in parts]), whole[name])
        if not field.spatial:
            assert torch.equal(whole[name], field.ready(stored[name]))
    assert whole["tokens"].dtype == whole["codes"].dtype == whole["label"].dtype == torch.int64
    assert all(t.dtype == torch.float32 for name, t in whole.items() if name not in ("tokens", "codes", "label"))


def test_levels_are_means_of_blocks() -> None:
    source = lone(noise(size=[1, 16, 16], n=6, crop=8))
    stream = Stream(source, 0, "real")
    whole, half = stream.batch(0, 6), stream.batch(0, 6, level=1)
    assert half["x"].shape == (6, 1, 4, 4)
    assert torch.equal(half["y"], whole["y"])
    means = torch.nn.functional.avg_pool2d((whole["x"] + 1) * 127.5, 2)
    assert ((half["x"] + 1) * 127.5 - means).abs().max() <= 0.5001  # rounded to bytes
    assert source.rows(np.arange(2), level=3)["x"].shape == (2, 1, 1, 1)
    noisy = Stream(lone(noise(size=[1, 16, 16], n=6, dequantize=True)), 0, "real")
    assert noisy.batch(0, 6, level=2)["x"].shape == (6, 1, 4, 4)
    with pytest.raises(DataError, match=r"no level 1: only images have"):
        Stream(table("x", np.zeros((2, 2), np.float32)), 0, "real").batch(0, 2, level=1)
    with pytest.raises(DataError, match=r"no level 4"):
        source.rows(np.arange(2), level=4)


def test_noise_is_drawn_for_each_image_column() -> None:
    """Of the first by the numbers that a lone one has."""
    both = {"x": Column(Image(1, 8, 8), pixels()), "z": Column(Image(1, 8, 8), pixels())}
    first = Stream(table("one", pixels(), dequantize=True), 0, "real").batch(0, 6)["x"]
    dealt = Stream(Source("two", both, dequantize=True), 0, "real").batch(0, 6)
    assert torch.equal(dealt["x"], first)
    assert not torch.equal(dealt["z"], first)
    assert (dealt["z"] - first).abs().max() < 1 / 128
    alone = Stream(Source("two", both, dequantize=True), 0, "real", columns=["z"]).batch(0, 6)
    assert list(alone) == ["z"]
    assert torch.equal(alone["z"], dealt["z"])


def test_the_fingerprint_is_of_every_column() -> None:
    changed = pair()
    changed.columns["b"].content[3, 0, 0, 0] ^= 1  # type: ignore[index]
    other = Source("pair", dict(reversed(pair().columns.items())))
    renamed = Source("pair", {"c" if name == "b" else name: c for name, c in pair().columns.items()})
    choices: list[dict[str, Any]] = [{}, {"flip": True}, {"crop": 4}, {"jitter": 1}, {"dequantize": True}]
    prints = [source.fingerprint for source in (changed, other, renamed, *(pair(**choice) for choice in choices))]
    assert len(set(prints)) == 8
    assert pair().fingerprint in prints
    assert len({table("x", pixels(), np.arange(6) % 2, names).fingerprint for names in ("ab", "ac")}) == 2


@pytest.mark.parametrize(
    ("column", "said"),
    [
        (
            Column(Image(1, 8, 8), pixels(6, 1, 8, 9)),
            r"uint8 \[N, 1, 8, 9\], but images of 1×8×8 need uint8 \[N, 1, 8, 8\]",
        ),
        (Column(Points(2), np.zeros((6, 2))), r"float64 \[N, 2\], but points of 2 numbers need float32 \[N, 2\]"),
        (Column(Points(2), np.zeros((6, 2), np.int64)), "int64"),
        (Column(WORDS, np.full((6, 3), 3)), r"column b has 3 to 3, but sequences of 3 of 3 tokens 0 to 2"),
        (Column(WORDS, np.full((6, 3), -1)), "has -1 to -1"),
        (Column(WORDS, np.zeros((6, 3), np.int32)), "int32"),
        (Column(Label(("p", "q")), np.full(6, 2)), "labels from 2 to 2 but 2 classes"),
        (Column(Label(("p", "p")), np.zeros(6, np.int64)), "two classes named p"),
        (Column(Vector(3), np.zeros((5, 3), np.float32)), r"columns of different lengths \(a 6, b 5\)"),
        (Column(Vector(0), np.zeros((6, 0), np.float32)), "which are empty"),
    ],
)
def test_a_column_that_does_not_fit_is_refused(column: Column, said: str) -> None:
    with pytest.raises(DataError, match=said) as caught:
        Source("d", {"a": Column(Image(1, 8, 8), pixels()), "b": column})
    assert "dataset=d" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "labels",
    [np.array([[0.5, 0.2]] * 6), np.zeros(6), np.zeros((6, 1), np.int64), np.zeros(6, bool), np.array(["a"] * 6)],
)
def test_labels_that_are_no_whole_numbers_are_refused(labels: np.ndarray[Any, Any]) -> None:
    with pytest.raises(DataError, match=r"dataset=d has labels .*: labels must be integers \[6\]"):
        table("d", pixels(), labels, ["a", "b"])


def test_labels_of_any_whole_kind_are_taken() -> None:
    for kind in (np.uint8, np.int32, np.uint64, np.dtype(">i8")):
        assert table("d", pixels(), np.arange(6).astype(kind) % 2, "ab").labels.tolist() == [0, 1] * 3
    with pytest.raises(DataError, match="labels from"):
        table("d", pixels(), np.full(6, 2**64 - 1, np.uint64), "ab")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"crop": 9}, r"dataset\.crop=9: the images of dataset=pair are 8×8 pixels: type a side of 1 to 8"),
        ({"crop": 0}, r"dataset\.crop=0"),
        ({"jitter": 9}, r"dataset\.jitter=9: .* type 0 to 8"),
    ],
)
def test_windows_that_cannot_be_had_are_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        pair(**options)


@pytest.mark.parametrize("option", [{"crop": 2}, {"jitter": 1}, {"flip": True}, {"dequantize": True}])
def test_options_of_images_are_refused_without_any(option: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match=rf"dataset\.{next(iter(option))}=.*dataset=p has no images"):
        table("p", np.zeros((2, 2), np.float32), **option)
    sizes = {"a": Column(Image(1, 8, 8), pixels()), "b": Column(Image(1, 4, 4), pixels(6, 1, 4, 4))}
    if next(iter(option)) in ("crop", "jitter"):
        with pytest.raises(ConfigError, match="images of several sizes"):
            Source("two", sizes, **option)


@pytest.mark.parametrize("names", [[], ["a.b"], [""], ["two words"]])
def test_names_that_a_batch_cannot_tell_apart_are_refused(names: list[str]) -> None:
    column = Column(Image(1, 8, 8), pixels())
    with pytest.raises(DataError, match="dataset=d has"):
        Source("d", dict.fromkeys(names, column))
    with pytest.raises(DataError, match="dataset=d has"):
        Sources("d", dict.fromkeys(names, pair()))


def test_some_rows_alone() -> None:
    few = pair(crop=4).only(np.array([4, 1]))
    assert (len(few), few.crop) == (2, 4)
    assert few.rows(np.array([0]))["number"].tolist() == [[4.0]]


@pytest.mark.parametrize("store", ["raw", "encoded"])
def test_readers_pass_windows_on(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """From memory, from the mapped cache, and read ahead from the files: the same batches."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    for k, image in enumerate(pixels(5, 12, 12, 3)):
        Picture.fromarray(image).save(tmp_path / "files" / f"{k}.png")
    plain = folder(str(tmp_path / "files"), crop=8, jitter=2, flip=True)
    monkeypatch.setattr("gancli.data.gather.IN_MEMORY", 0)
    source = folder(str(tmp_path / "files"), crop=8, jitter=2, flip=True, store=store)  # type: ignore[arg-type]
    assert plain.in_memory
    assert not source.in_memory
    assert source.fingerprint == plain.fingerprint
    assert source.shape == (3, 8, 8)
    streams = [Stream(each, 2, "real") for each in (source, plain)]
    for position, level in ((0, 0), (4, 1), (8, 0), (12, 1)):
        ours, theirs = (stream.batch(position, 4, level=level)["x"] for stream in streams)
        assert torch.equal(ours, theirs)
    assert [c["x"].shape for c in (fashion(crop=20).rows(np.arange(2)), emoji(crop=8).rows(np.arange(2)))] == [
        (2, 1, 20, 20),
        (2, 3, 8, 8),
    ]


@pytest.mark.parametrize("store", ["raw", "encoded"])
def test_files_may_stand_beside_arrays(tmp_path: Path, store: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair of which one image lies outside of memory is dealt as one that is wholly at hand."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    (tmp_path / "files").mkdir()
    images = pixels(5, 3, 8, 8)
    for k, image in enumerate(images):
        Picture.fromarray(image.transpose(1, 2, 0)).save(tmp_path / "files" / f"{k}.png")
    monkeypatch.setattr("gancli.data.gather.IN_MEMORY", 0)
    outside = folder(str(tmp_path / "files"), store=store).columns["x"]  # type: ignore[arg-type]
    beside = {"b": Column(Image(3, 8, 8), 255 - images), "text": Column(WORDS, np.ones((5, 3), np.int64))}
    mixed, plain = (
        Source("pair", {"a": first, **beside}, flip=True, crop=6) for first in (outside, Column(Image(3, 8, 8), images))
    )
    assert (mixed.in_memory, plain.in_memory) == (False, True)
    assert mixed.fingerprint == plain.fingerprint
    streams = [Stream(each, 2, "real") for each in (mixed, plain)]
    for position in (0, 4, 8):
        ours, theirs = (stream.batch(position, 4) for stream in streams)
        assert all(torch.equal(ours[name], theirs[name]) for name in ("a", "b", "text"))
        assert (ours["a"] + ours["b"]).abs().max() <= 1e-6


def test_a_data_set_is_what_says_it_returns_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """A table, tables, or either of them; nothing else, and no class."""
    module = ModuleType("gancli.data.mine")
    lines = "from gancli.data.source import DataSet, Source, Sources\n"
    lines += "".join(f"def {kind.lower()}() -> {kind}: ...\n" for kind in ("Source", "Sources", "DataSet", "int"))
    exec(lines, module.__dict__)
    monkeypatch.setitem(sys.modules, module.__name__, module)
    for name in ("source", "sources", "dataset"):
        assert find(f"gancli.data.mine.{name}", "dataset") is getattr(module, name)
    for target in ("mine.int", "source.Source", "source.Sources", "source.order"):
        with pytest.raises(ConfigError, match="not allowed in dataset"):
            find(f"gancli.data.{target}", "dataset")
    with pytest.raises(ConfigError, match="dataset: cannot be built with these values"):
        make({"_target_": "gancli.data.source.table", "name": "d", "content": "rows"}, "dataset")


def test_several_tables_are_several_feeds() -> None:
    both = Sources("both", {"u": pair(), "v": table("d", pixels(4), np.arange(4), "pqrs", notes=["left out: 1"])})
    assert both.notes == ("left out: 1",)
    facts = DataFacts.of(both)
    assert list(facts.fields) == ["u.a", "u.b", "u.number", "v.x", "v.y"]
    assert facts.rows == {"u": 6, "v": 4}
    assert (facts.shape, facts.classes, facts.images) == ((1, 8, 8), ("p", "q", "r", "s"), 6)
    other = Sources("both", {"u": pair(flip=True), "v": both.feeds["v"]})
    assert len({both.fingerprint, other.fingerprint, Sources("both", {"u": pair()}).fingerprint}) == 3
    with pytest.raises(CombinationError, match=r"this game takes one table, but dataset=both has the feeds u, v"):
        lone(both)


def test_noise_is_of_any_kind_and_feed() -> None:
    """As lazily as images; a column's numbers do not depend on what stands beside it."""
    names = {"x": "image", **{kind: kind for kind in KINDS}}
    source = lone(noise(size=[1, 8, 8], n=6, columns=names))
    again = lone(noise(size=[1, 8, 8], n=6, columns={"tokens": "tokens", "x": "image"}))
    plain = lone(noise(size=[1, 8, 8], n=6))
    rows = source.rows(np.arange(6))
    assert torch.equal(rows["tokens"], again.rows(np.arange(6))["tokens"])
    assert torch.equal(rows["x"], plain.rows(np.arange(6))["x"])
    for name, field in source.fields.items():
        kind: Field = field
        assert (str(rows[name].dtype), rows[name].shape[1:]) == (f"torch.{kind.dtype}", kind.shape)
        assert rows[name].float().std() > 0
        if kind.largest is not None:
            assert rows[name].min() >= 0
            assert rows[name].max() <= kind.largest
    feeds = noise(size=[1, 8, 8], n=6, flip=True, columns={"u.x": "image", "v.words": "tokens", "v.y": "label"})
    assert isinstance(feeds, Sources)
    assert [list(each.columns) for each in feeds.feeds.values()] == [["x"], ["words", "y"]]
    assert (feeds.feeds["u"].flip, feeds.feeds["v"].flip) == (True, False)
