"""Moved samples, by gan sample and gan interpolate, of a generator whose images are rolled and turned exactly."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.draw import reading
from gancli.errors import ConfigError
from gancli.games.styles import StyledGame
from tests import styled
from tests.conftest import Gan


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """StyleGAN 2 on images of 16 by 16 pixels, with classes."""
    folder = tmp_path_factory.mktemp("moving")
    return styled.train(folder, "stylegan2", "model.conditioning=projection", "dataset.classes=3")


@pytest.fixture
def moves(monkeypatch: pytest.MonkeyPatch) -> None:
    """Styled games move their samples."""
    plain = StyledGame.generate

    def generate(self: StyledGame, nets: Any, inputs: Any, direction: str = "") -> dict[str, Tensor]:
        inputs = dict(inputs)
        transform = inputs.pop("transform", None)
        x = plain(self, nets, inputs, direction)["x"]
        if transform is None:
            return {"x": x}
        rows = []
        for image, (right, down, degrees) in zip(x, transform.tolist(), strict=True):
            turned = torch.rot90(image, round(degrees / 90), (1, 2))
            rows.append(turned.roll((round(down * 16), round(right * 16)), (1, 2)))
        return {"x": torch.stack(rows)}

    monkeypatch.setattr(StyledGame, "generate", generate)
    monkeypatch.setattr(StyledGame, "moves_samples", lambda self, direction="": True)


def last(said: str) -> Path:
    return Path(said.strip().rpartition(": ")[2])


def images(gan: Gan, *words: str) -> tuple[Any, dict[str, Any]]:
    answer = gan("sample", *words, "format=npz")
    assert answer.code == 0, answer.err
    file = last(answer.out)
    about = json.loads((file.parent / "sample.json").read_text(encoding="utf-8"))
    with np.load(file) as arrays:
        return arrays["images"], about


def test_all_samples_are_moved(gan: Gan, run: Path, moves: None) -> None:
    for words in (["n=3"], ["seeds=4,9"], ["n=2", "classes=2"], ["n=2", "truncation=0.5"]):
        plain, said = images(gan, f"run={run}", *words)
        assert "translate" not in said
        moved, about = images(gan, f"run={run}", *words, "translate=[0.25,-0.125]", "rotate=90")
        assert np.array_equal(moved, np.roll(np.rot90(plain, 1, (1, 2)), (-2, 4), (1, 2)))
        assert (about["translate"], about["rotate"]) == ([0.25, -0.125], 90.0)
    turned, about = images(gan, f"run={run}", "n=2", "rotate=-90")
    assert np.array_equal(turned, np.rot90(images(gan, f"run={run}", "n=2")[0], -1, (1, 2)))
    assert about["translate"] == [0.0, 0.0]


def test_files_of_styles_sheets_and_figures_are_moved_too(gan: Gan, run: Path, moves: None) -> None:
    assert gan("sample", f"run={run}", "n=2", "format=w", "run_dir=kept").code == 0
    plain, _ = images(gan, f"run={run}", "w=kept/styles.npz")
    moved, about = images(gan, f"run={run}", "w=kept/styles.npz", "translate=[0,0.5]")
    assert np.array_equal(moved, np.roll(plain, 8, 1))
    assert about["translate"] == [0.0, 0.5]
    for words in (["mixing=coarse", "n=2"], ["arithmetic=1 - 2 + 3"], ["n=4"], ["n=4", "format=png"]):
        answers = [gan("sample", f"run={run}", *words, *more) for more in ([], ["rotate=180"])]
        assert all(answer.code == 0 for answer in answers), answers
        files = [last(answer.out) for answer in answers]
        files = [file if file.is_file() else file / "000000.png" for file in files]
        assert files[0].read_bytes() != files[1].read_bytes()


def test_a_sampler_in_python_is_moved(run: Path, moves: None) -> None:
    sampler = reading.load(str(run))
    plain, moved = (next(each.samples(3)) for each in (sampler, sampler.moved(0.5, 0.0, 0.0)))
    assert torch.equal(moved, plain.roll(8, 3))


def frames_of(gan: Gan, *words: str) -> tuple[Any, dict[str, Any]]:
    """The images of a sheet [rows, frames, 64, 64, 3], which shows each enlarged, and what the JSON says."""
    answer = gan("interpolate", *words)
    assert answer.code == 0, answer.err
    file = last(answer.out)
    with Image.open(file) as picture:
        page = np.asarray(picture.convert("RGB"))
    side = 66
    cells = page[2:, 2:].reshape(page.shape[0] // side, side, page.shape[1] // side, side, 3).swapaxes(1, 2)
    return cells[:, :, :64, :64], json.loads((file.parent / "interpolate.json").read_text(encoding="utf-8"))


def test_paths_translate_samples_from_left_to_right(gan: Gan, run: Path, moves: None) -> None:
    found, about = frames_of(gan, f"run={run}", "axis=translate", "rows=2", "frames=5")
    for k, right in enumerate((-4, -2, 0, 2, 4)):
        assert np.array_equal(found[:, k], np.roll(found[:, 2], 4 * right, 2))  # enlarged four times
    assert not np.array_equal(found[0, 2], found[1, 2])
    assert (about["axis"], about["strength"]) == ("translate", 0.25)
    wide, _ = frames_of(gan, f"run={run}", "axis=translate", "rows=2", "frames=3", "strength=0.5")
    assert np.array_equal(wide[:, 1], found[:, 2])
    assert np.array_equal(wide[:, 2], np.roll(found[:, 2], 32, 2))


def test_paths_rotate_samples_all_the_way_round(gan: Gan, run: Path, moves: None) -> None:
    found, about = frames_of(gan, f"run={run}", "axis=rotate", "rows=2", "frames=4", "classes=1", "truncation=0.7")
    for k in range(4):
        assert np.array_equal(found[:, k], np.rot90(found[:, 0], k, (1, 2)))
    assert (about["axis"], about["strength"], about["classes"]) == ("rotate", 360.0, "1")
    part, _ = frames_of(gan, f"run={run}", "axis=rotate", "rows=2", "frames=3", "strength=180")
    assert np.array_equal(part[:, 2], np.rot90(part[:, 0], 2, (1, 2)))


def test_whole_turns_are_animated_without_a_way_back(gan: Gan, run: Path, moves: None) -> None:
    counts = {"axis=rotate": 4, "axis=rotate strength=720": 4, "axis=rotate strength=270": 6, "axis=translate": 6}
    for words, count in counts.items():
        answer = gan("interpolate", f"run={run}", *words.split(), "rows=2", "frames=4", "format=gif")
        assert answer.code == 0, answer.err
        with Image.open(last(answer.out)) as film:
            assert film.n_frames == count, words  # type: ignore[attr-defined]


def test_rows_of_a_file_are_moved(gan: Gan, run: Path, moves: None) -> None:
    assert gan("sample", f"run={run}", "n=3", "format=w", "run_dir=kept").code == 0
    words = [f"run={run}", "axis=translate", "frames=3", "strength=0.5"]
    found, about = frames_of(gan, *words, "w=kept/styles.npz")
    direct, _ = frames_of(gan, *words, "rows=3")
    assert np.array_equal(found, direct)
    assert about["rows"] == 3


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("sample translate=0.1", "translate=0.1: expected a list of numbers or null"),
        ("sample translate=[0.1]", "translate=[0.1]: two fractions of the shorter side"),
        ("sample translate=[0,inf]", "expected a finite number"),
        ("sample rotate=nan", "expected a finite number"),
        ("sample rotate=left", "rotate=left: expected a number or null"),
        ("sample rotate=30 format=w", "format=w writes styles, not images: leave rotate out"),
        ("sample rotate=0 format=safetensors", "writes the generator, not images: leave rotate out"),
        ("sample translate=[0,0] serve=true", "translate= and serve=true"),
        ("sample rotate=0 project=x.png", "rotate= and project="),
        ("sample rotate=10 input=x.png", "rotate= and input="),
        ("interpolate axis=rotate layers=0", "layers=0 moves along a direction"),
        ("interpolate axis=translate mode=lerp", "mode= has no effect with axis=translate, which keeps the latents"),
        ("interpolate axis=translate strength=0", "strength=0 moves nothing"),
        ("interpolate axis=turn", "direction1, direction2, ..., translate, rotate"),
    ],
)
def test_what_makes_no_sense_is_refused(gan: Gan, run: Path, moves: None, words: str, said: str) -> None:
    answer = gan(words.split()[0], f"run={run}", *words.split()[1:])
    assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
    assert said in answer.err


def test_games_that_do_not_move_samples_refuse_it(gan: Gan, run: Path) -> None:
    remedy = "or train model=stylegan3"
    for words, said in (
        (["sample", "translate=[0.1,0]", "rotate=0"], "translate=[0.1,0.0] rotate=0.0: samples of this game cannot"),
        (["sample", "rotate=-30", "mixing=coarse"], "rotate=-30.0: samples of this game cannot be moved: leave it out"),
        (["interpolate", "axis=rotate"], "axis=rotate: samples of this game cannot be moved: leave axis out"),
        (["interpolate", "axis=turn"], "direction1, direction2, ..."),
    ):
        answer = gan(words[0], f"run={run}", *words[1:])
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert said in answer.err
        assert (remedy in answer.err) == ("turn" not in words[1])
    with pytest.raises(ConfigError, match=r"moved\(0, 0, 30\): samples of this game cannot be moved"):
        reading.load(str(run)).moved(0.0, 0.0, 30.0)


def test_stylegan3_is_moved_as_its_metrics_measure(gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = styled.train(tmp_path, "stylegan3", "model.variant=R")
    found: list[dict[str, Any]] = []
    for _ in range(2):
        answer = gan("eval", f"run={run}", "metrics=[eq_t,eq_r]", "n=3", f"run_dir={len(found)}")
        assert answer.code == 0, answer.err
        found.append(json.loads(Path(f"{len(found)}/results.json").read_text(encoding="utf-8")))
        # The plain method takes no transform.
        monkeypatch.setattr("gancli.games.stylegan3.StyleGame3.generate", StyledGame.generate)
    follows, ignores = found
    assert follows["eq_t"] > ignores["eq_t"] + 10
    assert follows["eq_r"] > ignores["eq_r"] + 10
    assert follows["protocol"]["eq_r"]["samples"] == 3
