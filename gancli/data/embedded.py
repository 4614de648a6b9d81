"""Data sets inside the package: they need no download. Licences lie beside the files."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.columns import Column, Index
from gancli.data.fields import Tokens
from gancli.data.pixels import Size
from gancli.data.source import Dealt, Source, check_split, finish
from gancli.errors import ConfigError, DataError

FOLDER = Path(__file__).parent / "embedded"
MAKERS = ("google", "twitter")
HELD_OUT = 200  # emoji of the test split


def fashion(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    **dealt: Unpack[Dealt],
) -> Source:
    """The 10,000 test images of Fashion-MNIST: 28x28 grey, 10 classes.

    size: 32 pads with two black pixels on each side, other sizes resize. All images are `train`. Raises ConfigError for
    another split or an impossible size. Source: Xiao, Rasul, Vollgraf 2017, arXiv:1708.07747 (MIT).
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
    **dealt: Unpack[Dealt],
) -> Source:
    """1,906 base emoji in colour on white, 9 classes, each with its name as a text; both makers' together are 3,812.

    size: drawn from 64x64 (native: null or 64) by box filter. split: `test` are the 200 whose names have the lowest
    SHA-256, `train` the other 1,706, all of one name on one side; all: both. Raises ConfigError for another split, an
    unknown maker or an impossible size. Sources: Noto Emoji (Google, Apache-2.0) and Twemoji (Twitter, CC-BY-4.0).
    """
    check_split("emoji", split, ["all", "train", "test"])
    if maker not in (*MAKERS, "both"):
        raise ConfigError(f"dataset.maker={maker} is unknown: type dataset.maker=google, twitter or both")
    makers = MAKERS if maker == "both" else (maker,)
    try:
        facts = json.loads((FOLDER / "emoji64.json").read_text(encoding="utf-8"))
        sheets = [_tiles(FOLDER / f"emoji64_{name}.webp", facts["tile"], facts["count"]) for name in makers]
        names, labels = list(map(str, facts["names"])), np.asarray(facts["labels"], np.int64)
    except (OSError, ValueError, KeyError) as error:
        raise _damaged("emoji", error) from error
    rows = _split(names, split)
    text = worded(names)
    return finish(
        "emoji",
        np.concatenate([sheet[rows] for sheet in sheets]),
        np.tile(labels[rows], len(makers)),
        facts["classes"],
        more={"text": Column(text.field, np.tile(text.content[rows], (len(makers), 1)))},
        size=size,
        limit=limit,
        **dealt,
    )


def _split(names: Sequence[str], split: str) -> Index:
    """The rows of a split: those of one name are all on one side."""
    ordered = sorted(range(len(names)), key=lambda i: (hashlib.sha256(names[i].encode()).digest(), i))
    chosen = {"all": ordered, "test": ordered[:HELD_OUT], "train": ordered[HELD_OUT:]}[split]
    return np.array(sorted(chosen), np.int64)


def worded(texts: Sequence[str]) -> Column:
    """Texts as tokens, a word each: the vocabulary is sorted, and its first word, which is none, fills up."""
    words = [text.split(" ") for text in texts]
    vocabulary = ("", *sorted({word for line in words for word in line}))
    numbers = {word: k for k, word in enumerate(vocabulary)}
    tokens = np.zeros((len(texts), max(map(len, words))), np.int64)
    for row, line in zip(tokens, words, strict=True):
        row[: len(line)] = [numbers[word] for word in line]
    return Column(Tokens(tokens.shape[1], vocabulary), tokens)


def _tiles(path: Path, tile: int, count: int) -> NDArray[np.uint8]:
    """The first `count` tiles of a sprite sheet, row by row: uint8 [count, 3, tile, tile]."""
    from PIL import Image

    with Image.open(path) as sheet:
        pixels: NDArray[np.uint8] = np.asarray(sheet.convert("RGB"))
    rows, columns = pixels.shape[0] // tile, pixels.shape[1] // tile
    tiles: NDArray[np.uint8] = pixels.reshape(rows, tile, columns, tile, 3).transpose(0, 2, 4, 1, 3)
    return tiles.reshape(rows * columns, 3, tile, tile)[:count]


def _damaged(name: str, error: Exception) -> DataError:
    return DataError(f"dataset={name} cannot be read from {FOLDER} ({error}): install gancli again")
