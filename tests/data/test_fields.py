"""What a column knows of its rows: conversion and back, mirroring, levels, pictures, texts, files."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
import pytest
import torch

from gancli.data import fields
from gancli.data.fields import (
    Attributes,
    Clip,
    Codes,
    Field,
    Geometry,
    Image,
    Label,
    Points,
    Series,
    Table,
    Tokens,
    Vector,
    Volume,
    Wave,
)
from gancli.errors import DataError

EVERY: list[Field] = [
    Image(3, 4, 6),
    Image(3, 4, 6, 16),
    Clip(2, 1, 4, 4),
    Volume(1, 2, 4, 4),
    Points(2),
    Vector(5),
    Table(("age", "height")),
    Wave(1, 8, 16000),
    Series(3, 2),
    Label(("cat", "dog")),
    Attributes(("young", "smiling")),
    Tokens(3, ("", "red", "heart")),
    Codes(2, 2, 9),
]


def stored(field: Field, n: int = 4) -> torch.Tensor:
    numbers = torch.Generator().manual_seed(1)
    high = {"uint8": 2 if isinstance(field, Attributes) else 256, "int64": 2, "int32": 1 << 16}.get(field.dtype)
    if high is None:
        return torch.rand(n, *field.shape, generator=numbers)
    return torch.randint(high, (n, *field.shape), generator=numbers).to(getattr(torch, field.dtype))


def test_every_kind_is_tried() -> None:
    assert {field.kind for field in EVERY} == set(fields.KINDS)


@pytest.mark.parametrize("field", EVERY, ids=lambda f: f.kind)
def test_it_goes_to_networks_and_back_and_to_files(field: Field, tmp_path: Path) -> None:
    rows = stored(field)
    assert torch.equal(field.stored(field.ready(rows.clone())), rows)
    assert fields.read(field.plain()) == field
    assert len(field.text(rows)) == 4
    paths = field.write(tmp_path, ["a", "b", "c", "d"], rows)
    assert [path.stem for path in paths] == ["a", "b", "c", "d"]
    assert all(path.stat().st_size > 0 for path in paths)
    assert field.variety(field.ready(rows[:1].repeat(3, *[1] * len(field.shape)))) == pytest.approx(0, abs=1e-6)


def test_a_clip_is_mirrored_whole_where_it_has_as_many_frames_as_there_are_clips() -> None:
    x = torch.arange(2 * 2 * 1 * 1 * 2.0).view(2, 2, 1, 1, 2)
    turned = Clip(2, 1, 1, 2).changed(x, Geometry(torch.tensor([True, False])))
    assert turned[0].flatten().tolist() == [1, 0, 3, 2]
    assert turned[1].equal(x[1])


def test_all_columns_of_a_row_are_cut_at_one_place() -> None:
    x = torch.arange(16.0).view(1, 1, 4, 4).repeat(2, 1, 1, 1)
    cut = Geometry(None, torch.tensor([[0, 1], [2, 0]]), (2, 2))
    assert Image(1, 4, 4).changed(x, cut).flatten(1).tolist() == [[1, 2, 5, 6], [8, 9, 12, 13]]
    assert Label(("a",)).changed(torch.zeros(2), cut).tolist() == [0, 0]


def test_a_level_is_the_mean_of_blocks_rounded_at_each_step() -> None:
    image = torch.tensor([[0, 1, 4, 4], [0, 1, 4, 5], [9, 9, 0, 0], [9, 9, 0, 0]], dtype=torch.uint8).view(1, 1, 4, 4)
    assert Image(1, 4, 4).shrunk(image, 1).flatten().tolist() == [0, 4, 9, 0]  # means 0.5 and 4.25
    assert Image(1, 4, 4).shrunk(image, 2).flatten().tolist() == [3]
    with pytest.raises(DataError, match="no level 3"):
        Image(1, 4, 4).shrunk(image, 3)
    with pytest.raises(DataError, match="points have no smaller level"):
        Points(2).shrunk(torch.zeros(1, 2), 1)


def test_texts_are_the_words() -> None:
    assert Tokens(3, ("", "red", "heart")).text(torch.tensor([[1, 2, 0], [2, 0, 0]])) == ["red heart", "heart"]
    assert Table(("a", "b")).text(torch.tensor([[1.0, 0.5]])) == ["a=1 b=0.5"]
    assert Attributes(("x", "y")).text(torch.tensor([[1, 1], [0, 0]])) == ["x, y", ""]


def test_a_wave_is_a_file_of_sixteen_bits(tmp_path: Path) -> None:
    (path,) = Wave(1, 3, 8000).write(tmp_path, ["s"], torch.tensor([[[0.0, 1.0, -1.0]]]))
    with wave.open(str(path), "rb") as file:
        assert (file.getnchannels(), file.getframerate(), file.getnframes()) == (1, 8000, 3)
        assert np.frombuffer(file.readframes(3), "<i2").tolist() == [0, 32767, -32767]


@pytest.mark.parametrize(
    "plain",
    [
        {"kind": "image", "channels": 3, "height": 4},
        {"kind": "image", "channels": "3", "height": 4, "width": 4},
        {"kind": "image", "channels": -3, "height": 4, "width": 4},
        {"kind": "label", "names": 3},
        {"kind": "points", "size": 2, "colour": 1},
        {"kind": "other"},
        {},
    ],
)
def test_what_a_stranger_writes_is_no_field(plain: dict[str, object]) -> None:
    with pytest.raises(ValueError, match=r"field"):
        fields.read(plain)


def test_arrays_are_images_or_points() -> None:
    assert fields.field_of(np.zeros((2, 1, 8, 9), np.uint8)) == Image(1, 8, 9)
    assert fields.field_of(np.zeros((2, 3), np.float32)) == Points(3)
    with pytest.raises(DataError, match=r"int64 \[N, 3\] are neither"):
        fields.field_of(np.zeros((2, 3), np.int64))
