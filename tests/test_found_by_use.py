"""Answers to what people typed: moved data of a sweep, runs given as images, bounds, files without labels."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancli.sweeps import record
from tests.conftest import TINY, Gan


def pictures(folder: Path, *names: str) -> None:
    for k, name in enumerate(names):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.random.default_rng(k).integers(0, 256, (8, 8, 3), np.uint8)).save(path)


def test_a_sweep_whose_data_were_moved_goes_on(gan: Gan) -> None:
    pictures(Path("one"), *(f"{k}.png" for k in range(6)))
    keys = ["dataset=folder", "dataset.root=one", "dataset.size=8"]
    tiny = [key for key in TINY if not key.startswith("dataset")]
    assert gan("train", "-m", *tiny, *keys, "seed=1,2", "steps=1", "observers=none", "sweep_dir=s").code == 0
    sweep = record.load(Path("s"))
    last = sweep.jobs[1]
    last.status = "waiting"
    for path in sorted((Path("s") / last.run).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    (Path("s") / last.run).rmdir()
    (Path("s/.jobs") / "0002.json").unlink()
    sweep.save()
    Path("one").rename("two")
    answer = gan("train", "-m", "resume_sweep=s", "steps=2")
    assert answer.code == 2
    assert "resume_sweep=s has its jobs already: leave steps=2 out" in answer.err
    assert gan("train", "-m", "resume_sweep=s", "dataset.root=two").code == 0
    config = (Path("s") / last.run / "config.yaml").read_text(encoding="utf-8")
    assert str(Path("two").absolute()) in config


def test_a_run_is_no_folder_of_images(gan: Gan, trained: Path) -> None:
    answer = gan("eval", f"input={trained}", f"reference={trained}", "metrics=[swd]", "n=4")
    assert answer.code == 2
    assert "is a run, not a folder of images: type run=" in answer.err


def test_folders_without_labels_are_said(gan: Gan) -> None:
    pictures(Path("d"), "x/0.png", "y/0.png", "y/1.png")
    Path("d/dataset.json").write_text(json.dumps({"labels": None}), encoding="utf-8")
    tiny = [key for key in TINY if not key.startswith("dataset")]
    answer = gan("train", *tiny, "dataset=folder", "dataset.root=d", "dataset.size=8", "batch_size=2", "steps=0")
    assert answer.code == 0
    assert "dataset.json sets no labels: x, y are not classes" in answer.err


def test_an_empty_archive_is_called_empty(gan: Gan) -> None:
    with zipfile.ZipFile("e.zip", "w"):
        pass
    answer = gan("train", "dataset=zip", "dataset.root=e.zip", "steps=0")
    assert answer.code == 2
    assert "e.zip is an empty zip archive" in answer.err


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("dataset.classes=1000000000", "dataset.classes=1000000000: at most 99,999"),
        ("game.d_steps=1000000000000", "game.d_steps=1000000000000: must be at most 10000"),
    ],
)
def test_what_no_run_comes_to_the_end_of_is_refused(gan: Gan, typed: str, said: str) -> None:
    answer = gan("train", *TINY, typed, "steps=1", "run_dir=r")
    assert answer.code == 2
    assert said in answer.err
    assert not Path("r").exists()


def test_a_penalty_that_is_paid_once_says_so(gan: Gan) -> None:
    answer = gan("train", *TINY, "observers=none", "penalty=ortho", "penalty.ortho.every=9", "steps=2", "run_dir=r")
    assert answer.code == 0
    assert "penalty.ortho.every=9: the run has 2 steps" in answer.err


def test_an_interval_goes_up(gan: Gan) -> None:
    answer = gan("train", "-m", *TINY, "search=optuna", "optimizer.G.lr=interval(1e-3,1e-5)", "steps=1")
    assert answer.code == 2
    assert "goes from a lower to a higher number" in answer.err


def test_a_file_in_the_place_of_a_folder_is_named(gan: Gan) -> None:
    assert gan("train", *TINY, "observers=none", "steps=0", "run_dir=r").code == 0
    Path("r/eval").touch()
    answer = gan("eval", "run=r", "metrics=[ms_ssim]", "n=4", "device=cpu", "standing_stats=0")
    assert answer.code == 2
    assert "there is a file where a folder should be" in answer.err
