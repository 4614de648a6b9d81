"""`gan eval`: results with their protocol, in their own directory and in the run."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from gancli.store.files import write_json
from gancli.store.rundir import RunDir
from gancli.verbs import measuring
from tests.conftest import Gan


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the trained run that may be written to."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def pictures(folder: Path, n: int, seed: int) -> Path:
    folder.mkdir()
    for k in range(n):
        pixels = np.random.default_rng([seed, k]).integers(0, 256, (16, 16, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{k}.png")
    return folder


def test_a_run_against_its_data(gan: Gan, run: Path, weights_file: Path) -> None:
    keys = [f"extractor.weights={weights_file}", "metrics=[fid,kid]", "n=12", "metrics.kid.subset_size=6"]
    answer = gan("eval", f"run={run}", *keys, "run_dir=eval-last")
    assert answer.code == 0, answer.err
    results = json.loads(Path("eval-last/results.json").read_text(encoding="utf-8"))
    assert results["fid"] > 0
    assert isinstance(results["kid"], float)
    assert results["step"] == 6
    protocol = results["protocol"]
    assert (protocol["n_fake"], protocol["n_real"]) == (12, 12)
    assert protocol["kid"]["subset_size"] == 6
    assert protocol["fake"]["ema"] is True
    assert protocol["reference"]["name"] == "random"
    assert len(protocol["weights_sha256"]) == 64
    assert protocol["versions"]["torch_fidelity" if "torch_fidelity" in protocol["versions"] else "torch-fidelity"]
    (kept,) = [json.loads(p.read_text(encoding="utf-8")) for p in (run / "eval").glob("*.json")]
    assert kept == results
    assert "fid" in answer.out
    assert "results with protocol" in answer.out
    assert RunDir(run).checkpoint("best").stem == "00000006"
    write_json(run / "eval" / "better.json", {**results, "fid": results["fid"] / 2, "step": 2})
    assert "at step 2" in gan("sample", f"run={run}", "checkpoint=best", "n=1").out


def test_the_same_evaluation_gives_the_same_numbers(gan: Gan, run: Path, weights_file: Path) -> None:
    for name in "ab":
        done = gan("eval", f"run={run}", f"extractor.weights={weights_file}", "metrics=[prc]", "n=8", f"run_dir={name}")
        assert done.code == 0
    a, b = (json.loads(Path(f"{name}/results.json").read_text(encoding="utf-8")) for name in "ab")
    assert (a["precision"], a["recall"]) == (b["precision"], b["recall"])
    assert len(list((run / "eval").glob("*.json"))) == 1


def test_two_folders(gan: Gan, tmp_path: Path, weights_file: Path) -> None:
    pictures(tmp_path / "mine", 10, 0), pictures(tmp_path / "theirs", 12, 1)
    keys = [f"extractor.weights={weights_file}", "metrics=[kid,prc]", "metrics.kid.subset_size=5"]
    assert gan("eval", "input=mine", "reference=theirs", *keys, "run_dir=r").code == 0
    results = json.loads(Path("r/results.json").read_text(encoding="utf-8"))
    assert 0 <= results["precision"] <= 1
    assert results["protocol"]["n_fake"] == results["protocol"]["n_real"] == 10
    assert gan("eval", "input=mine", "reference=mine", *keys, "run_dir=s").code == 0
    same = json.loads(Path("s/results.json").read_text(encoding="utf-8"))
    assert (same["precision"], same["recall"]) == (1, 1)
    assert same["kid"] < results["kid"]


def test_changed_data_are_not_compared_with(gan: Gan, run: Path, weights_file: Path) -> None:
    import torch

    file = run / "checkpoints" / "00000006.pt"
    state = torch.load(file, weights_only=True)
    state["data"]["fingerprint"] = "another"
    torch.save(state, file)
    file.with_suffix(".json").unlink()
    answer = gan("eval", f"run={run}", f"extractor.weights={weights_file}", "metrics=[fid]", "n=8")
    assert answer.code == 2
    assert "has changed" in answer.err
    assert "reference=FOLDER" in answer.err


def test_a_run_of_points_is_not_judged_by_images(gan: Gan, weights_file: Path) -> None:
    keys = ["model=mlp", "dataset=ring", "dataset.n=50", "batch_size=8", "steps=1", "run_dir=r"]
    assert gan("train", *keys, "observers.progress=null").code == 0
    with Image.open("r/samples/00000001.png") as picture:
        assert picture.size == (774, 384)
    answer = gan("eval", "run=r", f"extractor.weights={weights_file}", "n=8")
    assert answer.code == 2
    assert "points" in answer.err
    assert gan("sample", "run=r", "run_dir=s").code == 0
    assert Path("s/scatter.png").exists()
    assert gan("interpolate", "run=r").code == 2


def test_a_table_and_a_chart_over_thresholds(gan: Gan, run: Path, weights_file: Path) -> None:
    keys = [f"extractor.weights={weights_file}", "metrics=[fid,prc]", "n=8"]
    answer = gan("eval", f"run={run}", *keys, "truncation=[0.5,null]", "run_dir=curve")
    assert answer.code == 0, answer.err
    found = json.loads(Path("curve/results.json").read_text(encoding="utf-8"))
    assert found["truncation"] == [0.5, None]
    cut, whole = found["results"]
    assert cut["protocol"]["fake"]["truncation"] == 0.5
    assert whole["protocol"]["fake"]["truncation"] is None
    assert cut["protocol_id"] != whole["protocol_id"]
    assert len(list((run / "eval").glob("*.json"))) == 2
    with Image.open("curve/truncation.png") as picture:
        assert picture.size == (2 * 380, 280)
        assert len(picture.getcolors(1 << 20)) > 10
    header, first, second = answer.out.splitlines()[1:4]
    assert header.split() == ["truncation", "fid", "precision", "recall"]
    assert first.split()[:2] == ["0.5", f"{cut['fid']:.4f}"]
    assert second.split()[0] == "none"
    assert gan("eval", f"run={run}", *keys, "run_dir=alone").code == 0
    alone = json.loads(Path("alone/results.json").read_text(encoding="utf-8"))
    assert (alone["fid"], alone["protocol_id"]) == (whole["fid"], whole["protocol_id"])


def test_class_accuracy_needs_no_extractor(
    gan: Gan, labelled: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    copied = shutil.copytree(labelled, tmp_path / "labelled")
    monkeypatch.setattr(measuring, "extractor_of", lambda settings: pytest.fail("an extractor was made"))
    keys = ["metrics=[class_accuracy]", "metrics.class_accuracy.images=128", "n=40"]
    answer = gan("eval", f"run={copied}", *keys, "run_dir=r")
    assert answer.code == 0, answer.err
    results = json.loads(Path("r/results.json").read_text(encoding="utf-8"))
    assert 0 <= results["class_accuracy"] <= 1
    assert set(results["class_accuracy_by_class"]) == {"0", "1", "2"}
    assert results["protocol"]["reference"] is None
    assert "class_accuracy" in answer.out
