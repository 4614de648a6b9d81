"""Scores while training: what gan eval would say, and not a bit of the run changed."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from gancli.observers.scores import Scores
from gancli.store.files import write_json
from gancli.store.rundir import RunDir
from tests.conftest import TINY, Gan

KEYS = ["dataset.size=[1,16,16]", "steps=4", "observers.metrics.every=1", "observers.checkpoints.every=100"]
SCORED = ["observers.scores.every=2", "observers.scores.metrics=[swd]", "observers.scores.n=20"]
SCORED += ["observers.checkpoints.best=swd", "observers.scores.standing_stats=3"]

SWD = ["observers.scores.metrics=[swd]"]
OTHER = ["observers.scores.metrics=[fid,swd]", "observers.scores.extractor=efficientnet_lite0"]


def state(run: str, step: int) -> dict[str, object]:
    return torch.load(f"{run}/checkpoints/{step:08d}.pt", weights_only=True)  # type: ignore[no-any-return]


def equal(a: object, b: object) -> bool:
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(equal(a[k], b[k]) for k in a)
    return a == b


def test_every_observer_on_or_off_leaves_the_run_as_it_is(gan: Gan) -> None:
    words = [w for w in TINY if not w.startswith("observers.")]
    every = [f"observers.{name}.every=1" for name in ("grid", "checkpoints", "alarms", "metrics")]
    both = ["observers=spectra", "observers.spectra.every=1", "observers.checkpoints.keep=null", "logger=tensorboard"]
    assert gan("train", *words, *KEYS[:2], *both, *SCORED, *every, "run_dir=watched").code == 0
    assert gan("train", *words, *KEYS[:2], "observers=none", "run_dir=alone").code == 0
    watched, alone = state("watched", 4), state("alone", 4)
    for part in ("game", "ema", "optimizers", "positions"):
        assert equal(watched[part], alone[part]), part
    assert len(list(Path("watched/eval").glob("*.json"))) == 3


def test_a_score_is_what_eval_says_of_its_checkpoint(gan: Gan) -> None:
    trained = gan("train", *TINY, *KEYS, *SCORED, "run_dir=r")
    assert trained.code == 0
    assert sorted(p.stem for p in Path("r/checkpoints").glob("*.pt")) == ["00000000", "00000002", "00000004"]
    scored = {
        json.loads(p.read_text(encoding="utf-8"))["step"]: json.loads(p.read_text(encoding="utf-8"))
        for p in Path("r/eval").glob("*.json")
    }
    assert scored.keys() == {0, 2, 4}
    rows = [json.loads(line) for line in Path("r/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {row["step"]: row["swd"] for row in rows if "swd" in row} == {s: r["swd"] for s, r in scored.items()}
    log = Path("r/log.txt").read_text(encoding="utf-8")
    for step, result in scored.items():
        line = f"scores at step {step}: swd {result['swd']:.4f} · swd_16 {result['swd_16']:.4f}"
        assert line in trained.err
        assert line in log
    words = ["metrics=[swd]", "n=20", "standing_stats=3", "device=cpu"]
    assert gan("eval", "run=r", "checkpoint=2", *words, "run_dir=e").code == 0
    found = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert found["swd"] == scored[2]["swd"]
    assert found["protocol"]["fake"] == scored[2]["protocol"]["fake"]
    answer = gan("sample", "run=r", "checkpoint=best", "n=4", "run_dir=s")
    best = min(scored, key=lambda step: (scored[step]["swd"], step))
    assert answer.code == 0
    assert f"at step {best:,}" in answer.out


def test_a_score_has_the_protocol_of_eval_and_its_numbers(gan: Gan, weights_file: Path) -> None:
    words = ["metrics=[fid,kid,swd]", "n=6", "standing_stats=3"]
    scores = [f"observers.scores.{word}" for word in [*words, f"weights={weights_file}", "every=2"]]
    scores += ['observers.scores.options=["metrics.kid.subset_size=4"]', "dataset.size=[1,16,16]", "dataset.split=test"]
    assert gan("train", *TINY, *scores, "steps=2", "run_dir=r").code == 0
    scored = [json.loads(p.read_text(encoding="utf-8")) for p in Path("r/eval").glob("*.json")]
    words += ["metrics.kid.subset_size=4", f"extractor.weights={weights_file}", "device=cpu"]
    assert gan("eval", "run=r", *words, "run_dir=e").code == 0
    found = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    same = next(each for each in scored if each["step"] == found["step"] == 2)
    assert found["protocol"]["reference"]["split"] == same["protocol"]["reference"]["split"] == "test"
    assert found["protocol_id"] == same["protocol_id"]
    assert {each["protocol_id"] for each in scored} == {found["protocol_id"]}
    assert found["intervals"].keys() == {"fid", "kid"}
    apart = ("protocol", "reference_was_cached")  # the protocol has the time of day, too
    assert {k: v for k, v in found.items() if k not in apart} == {k: v for k, v in same.items() if k != "protocol"}


@pytest.mark.parametrize(("words", "name"), [(SWD, "swd"), (OTHER, "fd_efficientnet_lite0")])
def test_the_first_score_chooses_the_best_that_stays(gan: Gan, words: list[str], name: str) -> None:
    keys = [*TINY, *words, "observers.scores.every=2", "observers.scores.n=4", "dataset.size=[1,16,16]"]
    assert gan("train", *keys, "observers.checkpoints.keep=1", "steps=2", "run_dir=r").code == 0
    (path,) = Path("r/eval").glob("00000002-*.json")
    write_json(path, json.loads(path.read_text(encoding="utf-8")) | {name: -1.0})  # better than any step to come
    assert gan("train", "resume=r", "steps=6").code == 0
    run = RunDir(Path("r"))
    assert [*run.listing()] == [0, 2, 6]
    assert (run.best_by(), run.checkpoint("best").stem) == (name, "00000002")


def test_weights_are_found_from_any_folder_of_any_name(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[str] = []
    load = Scores._load

    def seen(self: Scores, config: Mapping[str, Any]) -> None:
        found.append(config["extractor"]["weights"])
        load(self, config)

    monkeypatch.setattr(Scores, "_load", seen)
    here = tmp_path / "it's (2)"
    here.mkdir()
    monkeypatch.chdir(here)
    for name in ("w.pth", "w (1).pth"):
        Path(name).write_bytes(b"")
    keys = [*TINY, *SWD, "dataset.size=[1,16,16]", "observers.scores.every=9", "observers.scores.n=4"]
    options = """observers.scores.options=["extractor.weights='w (1).pth'","extractor.batch_size=8"]"""
    assert gan("train", *keys, options, "steps=1", "run_dir=../r").code == 0
    assert gan("train", *keys, "observers.scores.weights=w.pth", "steps=1", "run_dir=../w").code == 0
    monkeypatch.chdir(tmp_path)
    assert [gan("train", f"resume={run}", "steps=2").code for run in ("r", "w")] == [0, 0]
    assert found == [str(here / "w (1).pth"), str(here / "w.pth")] * 2


def test_what_cannot_be_scored_is_said_before_anything_is_written(gan: Gan) -> None:
    for words, remedy in (
        (["observers.scores.metrics=[fdi]"], "did you mean fid?"),
        (["observers.scores.metrics=[modes]"], "use gan eval"),
        (["observers.scores.weights=nowhere.pth"], "nowhere.pth"),
        (["observers.scores.n=1"], "n at least 2"),
        (['observers.scores.options=["n=30"]'], "observers.scores.n=30 instead"),
        (['observers.scores.options=["n_real=30"]'], "gan eval, after the training"),
        (['observers.scores.options=["metrics=[fid]"]'], "observers.scores.metrics=[fid] instead"),
        (['observers.scores.options=["~metrics.kid"]'], "only keys of metrics and of the extractor"),
        ([*SWD, "observers.checkpoints.best=fid"], "computes only swd: choose swd"),
        (["observers.scores.metrics=[ms_ssim]", "observers.checkpoints.best=swd"], "set best=auto, or add its metric"),
        ([*OTHER, "observers.checkpoints.best=fid"], "choose fd_efficientnet_lite0 or swd (auto"),
    ):
        answer = gan("train", *TINY, "steps=2", "observers.scores.every=1", *words, "run_dir=r")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert remedy in answer.err
        assert not Path("r").exists()
