"""What `gan eval` does where it cannot write, where runs differ in kind, and where a run's data have moved."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.conftest import TINY, Gan
from tests.test_evaluate_given import SWD, fill


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    return found


@pytest.fixture
def points(gan: Gan, tmp_path: Path) -> Path:
    """A run of points."""
    keys = ["model=mlp", "model.hidden=[4]", "dataset=ring", "dataset.n=30", "batch_size=4", "steps=1"]
    assert gan("train", *keys, "device=cpu", "observers=none", f"run_dir={tmp_path / 'points'}").code == 0
    return tmp_path / "points"


def test_numbers_are_shown_where_they_cannot_be_kept(gan: Gan, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(labelled, tmp_path / "run")
    (run / "eval").write_text("", encoding="utf-8")  # as on a disk that cannot be written
    answer = gan("eval", f"run={run}", *SWD, "n=6", "run_dir=e")
    assert answer.code == 2
    assert f"  swd        {results('e')['swd']:.4f}" in answer.out
    assert answer.err.count("gan: ") == 1
    assert "the results are shown above but could not be stored: " in answer.err
    assert str(run / "eval") in answer.err
    both = gan("eval", f"run=[{run},{labelled}]", *SWD, "n=6", "run_dir=f")
    assert (both.code, "could not be stored: " in both.err) == (2, True)
    assert both.out.splitlines()[0].split() == ["run", "step", "swd", "swd_16"]
    assert Path("f/comparison.json").exists()


def test_numbers_are_shown_where_the_folder_cannot_be_made(gan: Gan, labelled: Path, tmp_path: Path) -> None:
    run = shutil.copytree(labelled, tmp_path / "run")
    Path("outputs").write_text("", encoding="utf-8")
    answer = gan("eval", f"run={run}", *SWD, "n=6")
    assert (answer.code, "swd  " in answer.out, "could not be stored: " in answer.err) == (2, True, True)
    assert len(list((run / "eval").glob("*.json"))) == 1


@pytest.mark.parametrize("second", ["points", "missing", "damaged"])
def test_runs_are_refused_before_the_first_is_judged(gan: Gan, labelled: Path, points: Path, second: str) -> None:
    run, damaged = (Path(shutil.copytree(labelled, name)) for name in ("run", "damaged"))
    for file in (damaged / "checkpoints").glob("*.pt"):
        file.write_bytes(b"")
    shutil.rmtree(run / "eval", ignore_errors=True)
    other = {"points": str(points), "missing": "nowhere", "damaged": "damaged"}[second]
    for words in ([*SWD], ["metrics=[swd,cas]"], ["metrics=[class_accuracy]"]):
        answer = gan("eval", f"run=[run,{other}]", *words, "n=6", "run_dir=e")
        assert answer.code == 2
        assert answer.out == ""
        assert not Path("e").exists()
        assert not (Path("run") / "eval").exists()


@pytest.mark.parametrize(
    ("metric", "words"),
    [
        ("parzen", "metrics=parzen takes images; for points type"),
        ("errors", "metrics=errors counts test errors of a D that classifies"),
        ("cas", "metrics=cas needs samples conditioned on a class"),
        ("linear_probe", "metrics=linear_probe needs classes and ring has none"),
    ],
)
def test_a_metric_of_runs_refuses_before_others_are_computed(
    gan: Gan, points: Path, metric: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def computed(*args: object) -> None:
        raise AssertionError("computed")

    monkeypatch.setattr("gancli.metrics.modes.Modes.measure", computed)
    answer = gan("eval", f"run={points}", f"metrics=[modes,{metric}]", "n=4", "run_dir=e")
    assert (answer.code, words in answer.err) == (2, True), answer.err


def test_data_that_moved_are_named_and_looked_at(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path / "data", *[(16, 16)] * 8)
    tiny = [key for key in TINY if not key.startswith("dataset")]
    keys = ["dataset=folder", "dataset.root=data", "steps=1", "run_dir=run"]
    assert gan("train", *tiny, *keys).code == 0
    assert gan("eval", "run=run", *SWD, "n=4", "run_dir=a").code == 0
    shutil.move("data", "moved")
    lost = gan("eval", "run=run", *SWD, "n=4", "run_dir=x")
    assert (lost.code, "type dataset.root=PATH" in lost.err) == (2, True)
    found = gan("eval", "run=run", *SWD, "n=4", "dataset.root=moved", "run_dir=b")
    assert found.code == 0, found.err
    assert results("b")["swd"] == results("a")["swd"]
    assert results("b")["protocol_id"] == results("a")["protocol_id"]
    Image.fromarray(np.zeros((16, 16, 3), np.uint8)).save("moved/00.png")
    other = gan("eval", "run=run", *SWD, "n=4", "dataset.root=moved", "run_dir=y")
    assert (other.code, "has changed since the run was trained on it" in other.err) == (2, True)
    assert "type dataset.root=PATH with the original data" in other.err
    assert not Path("y").exists()


def test_a_place_for_data_that_have_none_is_refused(gan: Gan, trained: Path) -> None:
    answer = gan("eval", f"run={trained}", *SWD, "dataset.root=elsewhere", "run_dir=e")
    assert (answer.code, "the data of run (random) need no folder: leave it out" in answer.err) == (2, True)


@pytest.mark.parametrize(
    "words",
    ["[[kid]]", "[null]", "{}", "[kid,kid]", "[{kid:1}]", "[2]", "[true]", "[[]]", "[]", "[fid,[kid,prc]]"],
)
def test_metrics_that_are_no_list_of_names(gan: Gan, words: str) -> None:
    answer = gan("eval", "run=nowhere", f"metrics={words}")
    assert answer.code == 2
    assert answer.err.startswith("gan: metrics")
    assert answer.err.count("\n") == 1


def test_any_name_may_be_exported_to(gan: Gan, tmp_path: Path) -> None:
    fill(tmp_path / "mine", *[(16, 16)] * 3)
    keys = ["input=mine", "reference=mine", "metrics=[fid]", "extractor.weights=nothere.pth"]
    for name in ("my ref, 1=2.npz", "a(b).npz", "it's.npz", "ä & [ö].npz"):
        answer = gan("eval", *keys, f"export_reference={name}")
        assert "extractor.weights=nothere.pth does not exist" in answer.err
    assert "type a file name that ends with .npz" in gan("eval", *keys, "export_reference=a b.txt").err
