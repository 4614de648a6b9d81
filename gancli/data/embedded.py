"""Data sets in the package: no download needed. Their licences are beside the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.columns import Column, Index
from gancli.data.fields import Label, Tokens, field_of
from gancli.data.paired import KEPT, as_feeds, asks_feeds
from gancli.data.pixels import Size, fit
from gancli.data.source import DataSet, Source, StreamOptions, check_split, chosen, finish, limit_notes
from gancli.errors import ConfigError, DataError

FOLDER = Path(__file__).parent / "embedded"
MAKERS = ("google", "twitter")
SPLITS = ("all", "train", "test")
HELD_OUT = 200  # emoji of the test split


def fashion(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """The 10,000 test images of Fashion-MNIST: 28x28 grey, 10 classes.

    size: 32 pads with two black pixels on each side, other sizes resize. The only split is `train`. Raises ConfigError
    for another split or an impossible size. Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747 (MIT).
    """
    check_split("fashion", split, ["train"])
    try:
        with np.load(FOLDER / "fashion_10k.npz", allow_pickle=False) as file:
            images, labels, classes = file["images"], file["labels"], file["classes"]
    except (OSError, ValueError, KeyError) as error:
        raise _damaged("fashion", error) from error
    return finish(
        "fashion",
        images[:, None],
        labels,
        list(classes),
        size=size,
        limit=limit,
        pad=True,
        **dealt,
    )


def emoji(
    size: Size = 32,
    limit: int | None = None,
    split: str = "all",
    maker: Literal["google", "twitter", "both"] = "google",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """1,906 base emoji in colour on white, 9 classes, each with its name as a text; 3,812 with both makers.

    size: resized from 64x64 (native: null or 64) by a box filter. split: `test` is the 200 whose names have the lowest
    SHA-256, `train` the other 1,706; rows of one name are in one split; `all`: both. Raises ConfigError for another
    split or maker, or an impossible size. Sources: Noto Emoji (Google, Apache-2.0) and Twemoji (Twitter, CC-BY-4.0).
    """
    check_split("emoji", split, SPLITS)
    if maker not in (*MAKERS, "both"):
        raise ConfigError(f"dataset.maker={maker} is unknown: type dataset.maker=google, twitter or both")
    makers = MAKERS if maker == "both" else (maker,)
    read = _emoji("emoji", makers, split)
    return finish(
        "emoji",
        np.concatenate(read.images),
        np.tile(read.labels, len(makers)),
        read.classes,
        more={"text": Column(read.text, np.tile(read.words, (len(makers), 1)))},
        size=size,
        limit=limit,
        **dealt,
    )


def emoji_pairs(
    size: Size = 64,
    limit: int | None = None,
    split: str = "train",
    disjoint: bool | None = None,
    *,
    columns: Mapping[str, str] | None = None,
    **dealt: Unpack[StreamOptions],
) -> DataSet:
    """The same 1,906 emoji by two makers: A is Google's, B is Twitter's; a pair has one class and one name.

    size, split: as in `emoji`. columns: what the game takes. If these are feeds, A and B have separate orders, and
    with `disjoint` (null: true) from different rows: A from the first half, B from the second, so that the data has
    no pairs. Test rows keep their partner. Raises ConfigError as `emoji`, and if disjoint is set for a game that needs
    pairs. Sources: Noto Emoji (Google, Apache-2.0) and Twemoji (Twitter, CC-BY-4.0).
    """
    check_split("emoji_pairs", split, SPLITS)
    apart = asks_feeds(columns)
    if disjoint and not apart:
        raise ConfigError("dataset.disjoint=true leaves no pairs, but this game needs them: type dataset.disjoint=null")
    read = _emoji("emoji_pairs", MAKERS, split)
    count, keep = len(read.labels), chosen(len(read.labels), limit)
    found = {
        name: Column(field_of(x := fit(images, size, "emoji_pairs")), x)
        for name, images in zip("AB", read.images, strict=True)
    }
    found |= {"y": Column(Label(tuple(read.classes)), read.labels), "text": Column(read.text, read.words)}
    if keep is not None:
        found = {name: column.only(keep) for name, column in found.items()}
    notes = limit_notes(count, limit, read.labels if keep is None else read.labels[keep], read.classes)
    notes += [KEPT] if disjoint and split == "test" else []
    table = Source("emoji_pairs", found, notes=notes, **dealt)
    return as_feeds(table, disjoint=split != "test" and disjoint is not False) if apart else table


class _Emoji(NamedTuple):
    """The images of each maker, uint8 [N, 3, 64, 64]; labels, class names, and each emoji's name as tokens."""

    images: list[NDArray[np.uint8]]
    labels: Index
    classes: list[str]
    text: Tokens
    words: Index


def _emoji(name: str, makers: Sequence[str], split: str) -> _Emoji:
    """Read a split of the emoji. Raises DataError if the package is damaged."""
    try:
        facts = json.loads((FOLDER / "emoji64.json").read_text(encoding="utf-8"))
        sheets = [_tiles(FOLDER / f"emoji64_{maker}.webp", facts["tile"], facts["count"]) for maker in makers]
        names, labels = list(map(str, facts["names"])), np.asarray(facts["labels"], np.int64)
        classes = list(map(str, facts["classes"]))
    except (OSError, ValueError, KeyError) as error:
        raise _damaged(name, error) from error
    rows = _split(names, split)
    text, words = worded(names)
    return _Emoji([sheet[rows] for sheet in sheets], labels[rows], classes, text, words[rows])


def _split(names: Sequence[str], split: str) -> Index:
    """Return the rows of a split: all rows of one name are in the same split."""
    ordered = sorted(range(len(names)), key=lambda i: (hashlib.sha256(names[i].encode()).digest(), i))
    chosen = {"all": ordered, "test": ordered[:HELD_OUT], "train": ordered[HELD_OUT:]}[split]
    return np.array(sorted(chosen), np.int64)


def worded(texts: Sequence[str]) -> tuple[Tokens, Index]:
    """Encode texts as one token per word: the vocabulary is sorted; token 0 is the empty word, used as padding."""
    words = [text.split(" ") for text in texts]
    vocabulary = ("", *sorted({word for line in words for word in line}))
    numbers = {word: k for k, word in enumerate(vocabulary)}
    tokens = np.zeros((len(texts), max(map(len, words))), np.int64)
    for row, line in zip(tokens, words, strict=True):
        row[: len(line)] = [numbers[word] for word in line]
    return Tokens(tokens.shape[1], vocabulary), tokens


def _tiles(path: Path, tile: int, count: int) -> NDArray[np.uint8]:
    """Return the first `count` tiles of a sprite sheet, row by row: uint8 [count, 3, tile, tile]."""
    from PIL import Image

    with Image.open(path) as sheet:
        pixels: NDArray[np.uint8] = np.asarray(sheet.convert("RGB"))
    rows, columns = pixels.shape[0] // tile, pixels.shape[1] // tile
    tiles: NDArray[np.uint8] = pixels.reshape(rows, tile, columns, tile, 3).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(rows * columns, 3, tile, tile)[:count]


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"dataset={name} cannot be read from {FOLDER} ({error}): install gancli again")
