"""Samples that are made of images: what stands beside them on a sheet, in an array, and in the run's own pictures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image as Pillow

from gancli.cli import main
from gancli.data.fields import Image
from gancli.draw import pictures, reading, sheets
from gancli.draw.sheets import BETWEEN, GAP, INPUT, OUTPUT, TRUTH, Part
from tests.conftest import Gan
from tests.maps import TRAIN, move_in

KINDS = {
    "pairs": [],
    "grey": ["dataset.A=[1,8,12]", "dataset.B=[3,16,24]"],
    "feeds": ["game.feeds=true"],
    "apart": ["game.feeds=true", "dataset.apart=true"],
    "labelled": ["game.labelled=true", "dataset.classes=3", "model.sigma=0.2"],
}


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A run of two steps of each kind; nothing is written to them."""
    move_in()
    top = tmp_path_factory.mktemp("maps")
    for name, words in KINDS.items():
        assert main([*TRAIN, *words, f"run_dir={top / name}"]) == 0
    return {name: top / name for name in KINDS}


def drawn(gan: Gan, run: Path, *words: str) -> tuple[dict[str, np.ndarray], dict[str, object]]:
    """samples.npz and sample.json."""
    answer = gan("sample", f"run={run}", "format=npz", *words, "run_dir=s")
    assert answer.code == 0, answer.err
    with np.load("s/samples.npz") as file:
        return dict(file), json.loads(Path("s/sample.json").read_text(encoding="utf-8"))


def held_out(run: Path, direction: str | None = None) -> dict[str, np.ndarray]:
    """All rows that samples of a run are made from, by column, [N, H, W, C]."""
    rows = reading.load(str(run), direction=direction).rows
    found = {}
    for feed, source in rows.feeds.items():
        for name, field in source.fields.items():
            if isinstance(field, Image):
                stored = source.rows(np.arange(len(source)), columns=[name])[name]
                found[f"{feed}.{name}" if feed else name] = stored.permute(0, 2, 3, 1).numpy()
    return found


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_an_array_holds_inputs_outputs_and_truths_by_their_columns(
    gan: Gan, runs: dict[str, Path], direction: str
) -> None:
    found, about = drawn(gan, runs["pairs"], "n=5", f"direction={direction}")
    source, target = direction[0], direction[2]
    assert set(found) == {source, "images", target, "seeds"}
    rows = about["rows"][source]  # type: ignore[index]
    data = held_out(runs["pairs"])
    np.testing.assert_array_equal(found[source], data[source][rows])
    np.testing.assert_array_equal(found[target], data[target][rows])
    assert len(set(rows)) == 5
    assert (about["data"], about["split"], about["direction"]) == ("maps", "test", direction)
    net = reading.load(str(runs["pairs"])).nets[f"G_{direction}"]
    x = torch.from_numpy(found[source]).permute(0, 3, 1, 2).float() / 127.5 - 1
    with torch.no_grad():
        made = torch.cat([net(row[None]) for row in x])
    expected = ((made + 1) * 127.5).round().permute(0, 2, 3, 1)
    np.testing.assert_array_equal(found["images"], expected.to(torch.uint8).numpy())


def test_truth_is_of_partners_alone(gan: Gan, runs: dict[str, Path]) -> None:
    found, about = drawn(gan, runs["feeds"], "n=4")
    assert set(found) == {"A.x", "images", "back", "B.x", "seeds"}
    data, rows = held_out(runs["feeds"]), about["rows"]["A.x"]  # type: ignore[index]
    np.testing.assert_array_equal(found["B.x"], data["B.x"][rows])
    sampler = reading.load(str(runs["apart"]))
    assert sampler.targets([(0, 0)]) is None
    assert sampler.most == 6
    rows = torch.zeros(1, 3, 8, 12)
    shown = sampler.parts({"B.x": rows, "back": rows}, {"A.x": rows}, [(0, 0)])
    assert [part.role for part in shown] == [INPUT, OUTPUT, OUTPUT]


def test_a_sheet_shows_input_output_and_truth(gan: Gan, runs: dict[str, Path]) -> None:
    found, _ = drawn(gan, runs["grey"], "n=4")
    assert gan("sample", f"run={runs['grey']}", "n=4", "run_dir=g").code == 0
    with Pillow.open("g/grid.png") as picture:
        page = np.array(picture)
    # 8×12 grey and twice 16×24 colour: all as high as the largest, which is enlarged to at most 64 pixels.
    high, wide = 2 * 16, 2 * 24
    assert page.shape == (4 * (high + BETWEEN) + BETWEEN + 18, 3 * wide + 2 * GAP + 2 * BETWEEN, 3)
    for row in range(4):
        top = 18 + BETWEEN + row * (high + BETWEEN)
        for k, (name, scale) in enumerate((("A", 4), ("images", 2), ("B", 2))):
            left = BETWEEN + k * (wide + GAP)
            expected = found[name][row].repeat(scale, 0).repeat(scale, 1)
            np.testing.assert_array_equal(page[top : top + high, left : left + wide], expected + np.zeros(3, np.uint8))


def test_smaller_pictures_stay_within_the_largest() -> None:
    large, small = torch.zeros(1, 3, 40, 10), torch.zeros(1, 1, 9, 30) - 1
    shown = [Part("a", INPUT, Image(1, 9, 30), small), Part("", OUTPUT, Image(3, 40, 10), large)]
    page = sheets.page(shown)
    assert page is not None
    assert page.shape == (40 + 2 * BETWEEN, 30 + GAP + 10 + 2 * BETWEEN, 3)  # too narrow for titles
    dark = page[:, BETWEEN : BETWEEN + 30, 0] == 0
    assert dark.any(1).sum() == 9
    assert np.flatnonzero(dark.all(1)).tolist() == [*range(BETWEEN + 15, BETWEEN + 24)]  # in the middle


def test_classes_have_a_row_each(gan: Gan, runs: dict[str, Path]) -> None:
    found, about = drawn(gan, runs["labelled"], "n=2", "classes=all")
    assert about["classes"] == [0, 0, 1, 1, 2, 2]
    assert set(found) == {"A", "images", "B", "seeds", "labels"}
    np.testing.assert_array_equal(found["A"][:2], found["A"][4:])
    assert not np.array_equal(found["images"][:2], found["images"][4:])
    sampler = reading.load(str(runs["labelled"]))
    page = sheets.page(_parts(sampler, [(0, 0), (0, 1)], [0, 2]), ["first kind", "second"])
    assert page is not None
    plain = sheets.page(_parts(sampler, [(0, 0), (0, 1)], [0, 2]))
    assert plain is not None
    np.testing.assert_array_equal(page[:, -plain.shape[1] :][18:], plain[18:])


def _parts(sampler: reading.Sampler, pairs: list[tuple[int, int]], labels: list[int]) -> list[Part]:
    given = sampler.given(pairs, labels)
    return sampler.parts(sampler.generate(sampler.inputs(pairs, given), pairs), given, pairs)


@pytest.mark.parametrize("kind", ["pairs", "feeds"])
def test_an_image_is_made_alone(runs: dict[str, Path], kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    sampler = reading.load(str(runs[kind]))
    sizes: list[int] = []
    sampler.nets["G_A2B"].register_forward_pre_hook(lambda net, args: sizes.append(len(args[0])))
    pairs = [(1, k) for k in range(3)]
    many = sampler.sample(pairs)
    assert sizes == [1, 1, 1]
    for k, pair in enumerate(pairs):
        assert torch.equal(sampler.sample([pair])[0], many[k])


@pytest.mark.parametrize(("kind", "shown"), [("pairs", 3), ("feeds", 3), ("grey", 3), ("labelled", 3)])
def test_pictures_of_a_run_show_the_same(runs: dict[str, Path], kind: str, shown: int) -> None:
    """Of two feeds that are no pairs: the input, the output and what was made back of it."""
    files = sorted((runs[kind] / "samples").glob("[0-9]*.png"))
    assert [path.name for path in files] == ["00000000.png", "00000002.png"]
    pages = [np.asarray(Pillow.open(path)) for path in files]
    high, wide = (32, 48) if kind == "grey" else (40, 60)
    assert pages[0].shape == (3 * (high + BETWEEN) + BETWEEN + 18, shown * (wide + GAP) - GAP + 2 * BETWEEN, 3)
    places = [BETWEEN + k * (wide + GAP) for k in range(shown)]
    cells = [[page[18 + BETWEEN :][:high, left : left + wide] for left in places] for page in pages]
    same = [np.array_equal(before, after) for before, after in zip(*cells, strict=True)]
    assert same == ([True, False, False] if kind == "feeds" else [True, False, True])


def test_a_lone_kind_of_picture_is_the_grid_of_before() -> None:
    rows = torch.rand(5, 1, 8, 8) * 2 - 1
    page = sheets.page([Part("", OUTPUT, Image(1, 8, 8), rows)])
    np.testing.assert_array_equal(page, pictures.grid(Image(1, 8, 8).stored(rows)))
    titles = [Part("b", TRUTH, Image(1, 8, 8), rows).title, Part("back", OUTPUT, Image(1, 8, 8), rows).title]
    assert titles == ["truth", "back"]


def test_few_are_drawn_where_no_number_is_said(gan: Gan, runs: dict[str, Path]) -> None:
    found, about = drawn(gan, runs["pairs"])
    assert about["n"] == len(found["images"]) == 12  # all that there are; else 16
    answer = gan("sample", f"run={runs['pairs']}", "n=13")
    assert answer.code == 2
    assert "13 samples are made from one row each, and maps has 12 rows: type n=12 or less" in answer.err
