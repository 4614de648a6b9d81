"""The data sets inside the package."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
import torch

from gancli.data.embedded import FOLDER, emoji, fashion
from gancli.data.fields import Tokens
from gancli.data.source import Source
from gancli.errors import ConfigError

EMOJI_CLASSES = {
    "Activities": 85,
    "Animals & Nature": 159,
    "Flags": 270,
    "Food & Drink": 131,
    "Objects": 264,
    "People & Body": 386,
    "Smileys & Emotion": 169,
    "Symbols": 224,
    "Travel & Places": 218,
}


def test_fashion() -> None:
    source = fashion()
    x, y = source.rows(np.arange(len(source))).values()
    assert x.shape == (10_000, 1, 28, 28)
    assert x.dtype == torch.uint8
    assert len(source.classes) == 10
    assert source.classes[0] == "T-shirt/top"
    assert torch.bincount(y).tolist() == [1000] * 10


def test_fashion_of_32_is_padded() -> None:
    native, padded = (fashion(size=size).rows(np.arange(9))["x"] for size in (None, 32))
    assert padded.shape == (9, 1, 32, 32)
    assert torch.equal(padded[..., 2:30, 2:30], native)
    assert padded.sum() == native.sum()


def test_emoji() -> None:
    source = emoji()
    labels = source.rows(np.arange(len(source)))["y"]
    assert (len(source), source.shape) == (1906, (3, 32, 32))
    assert dict(zip(source.classes, torch.bincount(labels).tolist(), strict=True)) == EMOJI_CLASSES


def test_emoji_of_32_are_box_filtered_from_64() -> None:
    native, small = (emoji(size=size).rows(np.arange(1906))["x"] for size in (64, 32))
    means = native.reshape(1906, 3, 32, 2, 32, 2).double().mean(dim=(3, 5))
    assert torch.equal(small.double(), (means + 0.5).floor())
    assert native.shape == (1906, 3, 64, 64)


def test_emoji_makers() -> None:
    google, twitter, both = (emoji(maker=maker) for maker in ("google", "twitter", "both"))
    index = np.arange(1906)
    assert len(both) == 2 * 1906
    assert torch.equal(both.rows(index)["x"], google.rows(index)["x"])
    assert torch.equal(both.rows(index + 1906)["x"], twitter.rows(index)["x"])
    assert torch.equal(both.rows(index)["y"], both.rows(index + 1906)["y"])
    assert len({google.fingerprint, twitter.fingerprint, both.fingerprint}) == 3
    with pytest.raises(ConfigError, match=r"dataset\.maker=apple"):
        emoji(maker="apple")  # type: ignore[arg-type]


def test_tiles_are_whole_pictures() -> None:
    x = emoji(size=64).rows(np.arange(1906))["x"]
    border = torch.cat([x[:, :, 0], x[:, :, -1], x[:, :, :, 0], x[:, :, :, -1]], dim=-1)
    # Drawings stand on white: a sheet cut one pixel off would bring neighbours into the frame.
    assert (border.float().mean(dim=(1, 2)) > 250).float().mean() > 0.7
    assert (x.flatten(1).float().std(dim=1) > 5).all()  # none is blank


@pytest.mark.parametrize("make", [fashion, emoji])
@pytest.mark.parametrize("size", [[1, 28, 28], [3, 32, 32], [3, 8, 24], [1, 40, 64]])
def test_any_size(make: object, size: list[int]) -> None:
    source = make(size=size, limit=12)  # type: ignore[operator]
    assert source.rows(np.arange(12))["x"].shape == (12, *size)


def test_splits() -> None:
    with pytest.raises(ConfigError, match=r"no split 'test': type dataset\.split=train"):
        fashion(split="test")
    with pytest.raises(ConfigError, match=r"no split 'val': type dataset\.split=all or .*train or .*test"):
        emoji(split="val")


def names(source: Source) -> list[str]:
    return source.fields["text"].text(source.rows(np.arange(len(source)))["text"])


def test_names_are_a_column_of_words() -> None:
    known = json.loads((FOLDER / "emoji64.json").read_text(encoding="utf-8"))["names"]
    field = emoji().fields["text"]
    assert isinstance(field, Tokens)
    assert names(emoji()) == known
    assert names(emoji(maker="both")) == known * 2
    assert field.vocabulary == ("", *sorted({word for name in known for word in name.split(" ")}))
    assert (field.length, len(field.vocabulary)) == (11, 1819)


def test_emoji_are_split_by_name() -> None:
    whole, train, test = (emoji(split=split) for split in ("all", "train", "test"))
    assert [len(each) for each in (whole, train, test)] == [1906, 1706, 200]
    hashes = [[hashlib.sha256(name.encode()).hexdigest() for name in names(each)] for each in (train, test)]
    assert max(hashes[1]) < min(hashes[0])
    assert len(set(names(whole))) == 1905
    assert train.classes == test.classes == whole.classes
    assert train.fields == test.fields == whole.fields
    rows = whole.rows(np.array([k for k, name in enumerate(names(whole)) if name in set(names(test))]))
    assert all(torch.equal(rows[title], x) for title, x in test.rows(np.arange(200)).items())
    both = emoji(maker="both", split="test", limit=50)
    assert (len(both), len(emoji(maker="both", split="test")), both.fields) == (50, 400, whole.fields)
    assert set(names(both)) <= set(names(test))


def test_licences_lie_beside_the_data() -> None:
    texts = {
        name: (FOLDER / f"LICENSE-{name}.txt").read_text(encoding="utf-8")
        for name in ("fashion-mnist", "noto-emoji", "twemoji")
    }
    assert "Zalando SE" in texts["fashion-mnist"]
    assert "Permission is hereby granted" in texts["fashion-mnist"]
    assert "Google" in texts["noto-emoji"]
    assert "Apache License" in texts["noto-emoji"]
    assert "END OF TERMS AND CONDITIONS" in texts["noto-emoji"]
    assert "Twitter, Inc" in texts["twemoji"]
    assert "creativecommons.org/licenses/by/4.0" in texts["twemoji"]


def test_the_embedded_files_are_small_and_accounted_for() -> None:
    assert sum(path.stat().st_size for path in FOLDER.iterdir()) < 13_000_000
    facts = json.loads((FOLDER / "emoji64.json").read_text(encoding="utf-8"))
    assert len(facts["names"]) == len(facts["labels"]) == facts["count"] == 1906
