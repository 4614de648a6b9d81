"""`gan eval` of several runs, with references that are files or kept, and against torch-fidelity's own command."""

from __future__ import annotations

import csv
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch_fidelity
from PIL import Image

from tests.conftest import Gan
from tests.metrics.arithmetic import FLOAT32, INCEPTION, frechet, kernel, network, singular
from tests.test_evaluate import pictures


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "gan" / "features"


def results(folder: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(Path(folder, "results.json").read_text(encoding="utf-8"))
    return found


def test_two_folders_give_what_torch_fidelitys_command_gives(gan: Gan, tmp_path: Path, weights_file: Path) -> None:
    mine, theirs = pictures(tmp_path / "mine", 6, 0), pictures(tmp_path / "theirs", 7, 1)
    keys = [f"extractor.weights={weights_file}", "metrics=[fid,kid,prc]", "metrics.kid.subset_size=5", "n_real=7"]
    exported = "export_reference=real.npz"
    assert gan("eval", "input=mine", "reference=theirs", *keys, "n=6", exported, "run_dir=r").code == 0
    ours = results("r")
    there = torch_fidelity.calculate_metrics(
        input1=str(mine), input2=str(theirs), fid=True, kid=True, prc=True, kid_subset_size=5, cuda=False,
        feature_extractor="inception-v3-compat", feature_extractor_weights_path=str(weights_file),
        save_cpu_ram=True, verbose=False, cache=False,
    )  # fmt: skip
    with np.load("real.npz") as file:
        length = float(np.linalg.norm(file["features"], axis=1).max())
        deviation = math.sqrt(np.trace(file["sigma"]))
    share = network(*INCEPTION)  # two forms of the network, each by kernels of this machine's
    fid, kid = there["frechet_inception_distance"], there["kernel_inception_distance_mean"]
    assert ours["fid"] == pytest.approx(fid, abs=frechet(fid, length, deviation, 2048, share))
    assert ours["kid"] == pytest.approx(kid, abs=kernel(length, 2048, share))
    assert (ours["precision"], ours["recall"]) == (there["precision"], there["recall"])
    assert gan("eval", "input=mine", "reference=mine", *keys[:2], "n=6", "run_dir=s").code == 0
    assert 0 <= results("s")["fid"] <= singular(2 * deviation, 2048)  # of as many images as the reference, about


def test_a_reference_is_looked_at_once_exported_and_given(
    gan: Gan, trained: Path, tmp_path: Path, weights_file: Path, cache: Path
) -> None:
    run = shutil.copytree(trained, tmp_path / "run")
    keys = [f"run={run}", f"extractor.weights={weights_file}", "metrics=[fid]", "n=5"]
    first = gan("eval", *keys, "run_dir=a", "export_reference=real.npz")
    assert first.code == 0, first.err
    assert "real images 5/5" in first.err or "real images" in first.err
    second = gan("eval", *keys, "run_dir=b")
    assert "real images" not in second.err
    a, b = results("a"), results("b")
    assert (a["reference_was_cached"], b["reference_was_cached"]) == (False, True)
    assert a["fid"] == b["fid"]
    assert a["protocol_id"] == b["protocol_id"]
    assert a["intervals"] == b["intervals"]
    assert a["protocol"]["reference"]["split"] is None or isinstance(a["protocol"]["reference"]["split"], str)
    assert "(" in next(line for line in first.out.splitlines() if line.strip().startswith("fid"))
    assert len(list(cache.iterdir())) == 1
    assert gan("eval", *keys, "run_dir=c", "cache=false", "reference=real.npz").code == 0
    assert results("c")["fid"] == a["fid"]
    assert results("c")["protocol"]["n_real"] == 5
    with np.load("real.npz") as file:
        assert sorted(file.files) == ["about", "features", "mu", "n", "sigma"]
        np.savez("stats.npz", mu=file["mu"], sigma=file["sigma"])
        mu, deviation = file["mu"], math.sqrt(np.trace(file["sigma"]))
    shown = gan("eval", *keys, "run_dir=d", "reference=stats.npz")
    assert shown.code == 0, shown.err
    assert "does not state its extractor" in shown.out
    # The same features; their mean in float32 there, in float64 here.
    mean = 2 * math.sqrt(a["fid"]) * FLOAT32 * float(np.linalg.norm(mu))
    assert results("d")["fid"] == pytest.approx(a["fid"], abs=2 * mean + singular(deviation, 2048))
    refused = gan("eval", *keys, "metrics=[kid]", "reference=stats.npz")
    assert (refused.code, "type metrics=[fid]" in refused.err) == (2, True)


def test_a_reference_that_is_there_is_not_written_over(gan: Gan, trained: Path) -> None:
    Path("real.npz").write_bytes(b"mine")
    answer = gan("eval", f"run={trained}", "metrics=[fid]", "export_reference=real.npz", "run_dir=r")
    assert (answer.code, "this file exists" in answer.err) == (2, True)
    assert Path("real.npz").read_bytes() == b"mine"


def test_a_folder_of_many_sizes_is_looked_at_with_a_note_and_its_sizes(
    gan: Gan, tmp_path: Path, weights_file: Path
) -> None:
    for name, side in (("a.png", 12), ("b.png", 16), ("c.png", 12)):
        (tmp_path / "m").mkdir(exist_ok=True)
        Image.new("RGB", (side, side), (side, 0, 99)).save(tmp_path / "m" / name)
    theirs = pictures(tmp_path / "theirs", 4, 1)
    keys = [f"extractor.weights={weights_file}", "metrics=[fid]", "n=3", f"reference={theirs}"]
    answer = gan("eval", "input=m", *keys, "run_dir=r")
    assert answer.code == 0, answer.err
    assert answer.out.count("files of 12x12 and 16x16 pixels, each resized by the extractor from its own size") == 1
    assert results("r")["protocol"]["fake"]["file_sizes"] == [[12, 12], [16, 16]]
    assert "are not torch-fidelity's own file" in answer.out


def test_what_compares_with_nothing_needs_no_reference(gan: Gan, tmp_path: Path) -> None:
    pictures(tmp_path / "mine", 4, 0)
    answer = gan(
        "eval", "input=mine", "metrics=[is]", "metrics.is.splits=2", "extractor=efficientnet_lite0", "n=4", "run_dir=r"
    )
    assert answer.code == 0, answer.err
    assert 1 <= results("r")["is_efficientnet_lite0"] <= 4
    assert results("r")["protocol"]["reference"] is None
    refused = gan("eval", "input=mine", "metrics=[swd]", "n=4")
    assert "type reference=FOLDER" in refused.err


def test_runs_are_compared_in_one_table(gan: Gan, trained: Path, tmp_path: Path, weights_file: Path) -> None:
    for name in ("a", "b"):
        shutil.copytree(trained, tmp_path / "runs" / name)
    (tmp_path / "runs" / "no-run").mkdir()
    keys = [f"extractor.weights={weights_file}", "metrics=[fid,prc]", "n=5", "checkpoint=6"]
    answer = gan("eval", "run=runs/*", *keys, "run_dir=r")
    assert answer.code == 0, answer.err
    header, first, second = answer.out.splitlines()[:3]
    assert header.split() == ["run", "step", "fid", "precision", "recall"]
    assert (first.split()[:2], second.split()[:2]) == (["a", "6"], ["b", "6"])
    assert first.split()[1:] == second.split()[1:]
    assert " to " in first
    assert "if two overlap, the order may be due to chance" in answer.out
    compared = json.loads(Path("r/comparison.json").read_text(encoding="utf-8"))
    assert [row["run"] for row in compared] == ["a", "b"]
    assert compared[0]["protocol"]["reference"] == compared[1]["protocol"]["reference"]
    rows = list(csv.DictReader(Path("r/comparison.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["run"] for row in rows] == ["a", "b"]
    assert float(rows[0]["fid_low"]) < float(rows[0]["fid"]) < float(rows[0]["fid_high"])
    assert float(rows[0]["fid"]) == compared[0]["fid"]
    assert rows[0]["n_fake"] == "5"
    assert len(list((tmp_path / "runs" / "a" / "eval").glob("*.json"))) == 1
    shutil.copytree(trained, tmp_path / "other" / "a")
    listed = gan("eval", "run=[runs/b,runs/a,other/a,runs/b]", *keys, "run_dir=s")
    named = [row["run"] for row in json.loads(Path("s/comparison.json").read_text(encoding="utf-8"))]
    assert named == ["b", "runs/a", "other/a"], listed.err
