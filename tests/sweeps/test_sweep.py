"""A sweep ends whatever its jobs do, goes on where it stopped, and runs nothing twice."""

from __future__ import annotations

import csv
import json
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gancli import rundir
from gancli.engine import Engine
from gancli.report.__main__ import main as report
from gancli.sweeps import record
from gancli.verbs import train
from tests.conftest import TINY, Gan
from tests.test_train import same_run

QUICK = [*TINY, "observers.metrics.every=1"]


def only_sweep() -> Path:
    (path,) = Path("outputs/sweeps").iterdir()
    return path


def jobs(path: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((path / "sweep.json").read_text(encoding="utf-8"))["jobs"]
    return found


def table(path: Path) -> list[dict[str, str]]:
    with (path / "ranking.csv").open() as file:
        return list(csv.DictReader(file))


def times(path: Path) -> dict[Path, int]:
    return {p: p.stat().st_mtime_ns for run in path.glob("[0-9]*-*") for p in run.rglob("*")}


def test_twelve_jobs_of_which_two_fail(gan: Gan) -> None:
    keys = [
        *QUICK,
        "loss=lsgan",
        "optimizer=sgd",
        "optimizer.D.lr=0.01,0.02,0.03,0.04,0.05,1e30",
        "seed=1,2",
        "steps=2",
    ]
    answer = gan("train", "-m", *keys, "sweep_dir=all")
    path = Path("all")
    assert answer.code == 2
    last = answer.err.splitlines()[-1]
    assert last.startswith("gan: 2 of 12 jobs failed: [optimizer.D.lr=1e+30 seed=1] ")
    assert "[optimizer.D.lr=1e+30 seed=2] " in last
    assert last.endswith("to run them again: gan train -m resume_sweep=all retry=true")
    states = [job["status"] for job in jobs(path)]
    assert states == ["finished"] * 10 + ["failed"] * 2
    runs = [json.loads((path / job["run"] / "run.json").read_text(encoding="utf-8"))["status"] for job in jobs(path)]
    assert runs == states
    assert [job["run"] for job in jobs(path)][-1] == "12-lr1e30-seed2"
    rows = table(path)
    assert sorted(int(row["job"]) for row in rows) == list(range(1, 13))
    assert [row["place"] for row in rows] == [str(k) for k in (1, 2, 3, 4, 5) for _ in "ab"] + ["", ""]
    assert all("no longer a finite number" in row["reason"] for row in rows[-2:])
    assert "5 │" in answer.out
    with Image.open(path / "ranking.png") as image:
        assert image.size[0] > 300

    before = times(path)
    for again in (["resume_sweep=all"], [*keys, "sweep_dir=all"]):
        answer = gan("train", "-m", *again)
        assert answer.code == 2
        assert "2 of 12 jobs failed" in answer.err
        assert "\njob " not in answer.err
        assert times(path) == before
        assert table(path) == rows
    assert list(Path().iterdir()) == [path]


def test_a_sweep_ends_with_a_comparison(
    gan: Gan, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    answer = gan("train", "-m", *QUICK, "steps=1", "seed=1,2", "sweep_dir=s")
    assert answer.code == 0
    page = Path("s/comparison.html")
    assert f"\ncomparison: {page}\n" in answer.out
    assert all(f"<tr><td>{job['run']}</td>" in page.read_text(encoding="utf-8") for job in jobs(Path("s")))
    page.unlink()
    assert report(["s"]) == 0
    assert capsys.readouterr().out == f"{page}\n"
    assert page.is_file()

    def broken(*args: object) -> Path:
        raise ValueError("no page today")

    monkeypatch.setattr("gancli.report.page.compare", broken)
    answer = gan("train", "-m", "resume_sweep=s")
    assert answer.code == 0
    assert "note: no comparison.html: no page today" in answer.err


def test_a_stopped_sweep_goes_on_to_the_same_bits(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Engine.step
    calls: list[int] = []

    def stopped(self: Engine) -> Any:
        calls.append(self.step_number)
        if len(calls) == 8:
            signal.raise_signal(signal.SIGINT)
        return step(self)

    monkeypatch.setattr(Engine, "step", stopped)
    keys = [*QUICK, "steps=5", "seed=5,6", "model.ch=4,6"]
    answer = gan("train", "-m", *keys)
    monkeypatch.setattr(Engine, "step", step)
    path = only_sweep()
    assert answer.code == 0
    assert answer.err.splitlines()[-1] == f"stopped; go on with: gan train -m resume_sweep={path}"
    assert [job["status"] for job in jobs(path)] == ["finished", "interrupted", *["waiting"] * 2]
    assert not (path / "ranking.csv").exists()
    done = {p: t for p, t in times(path).items() if p.is_relative_to(path / jobs(path)[0]["run"])}

    assert gan("train", "-m", "resume_sweep=last").code == 0
    assert [job["status"] for job in jobs(path)] == ["finished"] * 4
    assert {p: p.stat().st_mtime_ns for p in done} == done
    resumed = path / jobs(path)[1]["run"]
    assert "resumed at step 3" in (resumed / "log.txt").read_text(encoding="utf-8")
    assert [job["choices"] for job in jobs(path)] == [{"model.ch": c, "seed": s} for c in "46" for s in "56"]
    # What a job did in this process before leaves nothing behind: each is the same as on its own.
    assert gan("train", *QUICK, "steps=5", "seed=6", "model.ch=4", "run_dir=alone").code == 0
    same_run(resumed, Path("alone"), 5)
    assert gan("train", *QUICK, "steps=5", "seed=6", "model.ch=6", "run_dir=last").code == 0
    same_run(path / jobs(path)[3]["run"], Path("last"), 5)
    assert rundir.find("last")[0].path == Path("outputs") / "sweeps" / path.name / jobs(path)[3]["run"]


def test_a_killed_job_goes_on(gan: Gan) -> None:
    """State files that say `running` are what SIGKILL leaves."""
    keys = [*QUICK, "steps=4", "seed=1,2,3", "observers.checkpoints.every=2"]
    assert gan("train", "-m", *keys, "sweep_dir=s").code == 0
    path = Path("s")
    names = [job["run"] for job in jobs(path)]
    for number in (1, 2, 3):
        record.write_state(path, number, status="running")
    for number in (2, 3):
        run = rundir.RunDir(path / names[number - 1])
        run.update(status="running")
    run.metrics.write_text(
        run.metrics.read_text(encoding="utf-8").rsplit("\n", 2)[0] + "\n"
    )  # the row of step 4 is lost
    for file in [*(path / names[1] / "checkpoints").iterdir()]:
        if not file.name.startswith("00000000"):
            file.unlink()
    before = times(path)
    answer = gan("train", "-m", "resume_sweep=s")
    assert answer.code == 0, answer.err
    assert [line for line in answer.err.splitlines() if line.startswith("resumed")] == [
        "resumed at step 0", "resumed at step 2",
    ]  # fmt: skip
    untouched = path / names[0]
    assert all(p.stat().st_mtime_ns == t for p, t in before.items() if p.is_relative_to(untouched))
    for name, seed in zip(names[1:], (2, 3), strict=True):
        assert (
            gan("train", *QUICK, "steps=4", f"seed={seed}", "observers.checkpoints.every=2", f"run_dir=a{seed}").code
            == 0
        )
        same_run(path / name, Path(f"a{seed}"), 4)


def test_a_job_that_was_killed_before_its_first_checkpoint_begins_anew(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=2", "seed=1,2", "sweep_dir=s").code == 0
    path = Path("s")
    run = path / jobs(path)[1]["run"]
    for file in (run / "checkpoints").iterdir():
        file.unlink()
    (run / "run.json").unlink()
    record.write_state(path, 2, status="running")
    assert gan("train", "-m", "resume_sweep=s").code == 0
    assert gan("train", *QUICK, "steps=2", "seed=2", "run_dir=alone").code == 0
    same_run(run, Path("alone"), 2)


def test_an_error_that_nobody_foresaw_is_the_jobs_own(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    real, broken = train.run, [True]

    def run(config: dict[str, Any], overrides: Sequence[str]) -> Path:
        if config["seed"] == 2 and broken[0]:
            raise ZeroDivisionError("seed\n2")
        return real(config, overrides)

    monkeypatch.setattr(train, "run", run)
    answer = gan("train", "-m", *QUICK, "steps=1", "seed=1,2,3", "sweep_dir=its here")
    assert answer.code == 2
    assert answer.err.splitlines()[-1] == (
        "gan: 1 of 3 jobs failed: [seed=2] ZeroDivisionError: seed 2; to run them again:"
        " gan train -m resume_sweep='its here' retry=true"
    )
    assert [job["status"] for job in jobs(Path("its here"))] == ["finished", "failed", "finished"]
    trace = record.read_state(Path("its here"), 2)["traceback"]
    assert trace[0] == "Traceback (most recent call last):"

    broken[0] = False
    assert gan("train", "-m", "resume_sweep=its here", "retry=true").code == 0
    assert [job["status"] for job in jobs(Path("its here"))] == ["finished"] * 3


def test_recorded_runs_are_ordinary_runs(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=1", "loss=hinge,ns", "note=a\\, b").code == 0
    path = only_sweep()
    run = path / jobs(path)[0]["run"]
    assert gan("sample", f"run={run}", "n=2", "run_dir=drawn").code == 0
    assert gan("train", f"resume={run}", "steps=2").code == 0
    # The longer run is still what the sweep says it is, and is not run again.
    assert gan("train", "-m", "resume_sweep=last").code == 0
    assert json.loads((run / "run.json").read_text(encoding="utf-8"))["step"] == 2


def test_max_time_ends_a_job_for_good(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=100000", "seed=1,2", "max_time=0.001", "sweep_dir=s").code == 0
    assert [job["status"] for job in jobs(Path("s"))] == ["finished"] * 2
    before = times(Path("s"))
    assert gan("train", "-m", "resume_sweep=s").code == 0
    assert times(Path("s")) == before


def test_sweeps_of_other_verbs_stay_with_hydra(gan: Gan, trained: Path) -> None:
    assert gan("sample", "-m", f"run={trained}", "n=2", "seed=1,2").code == 0
    assert len(list(Path("outputs/sample").glob("*/*.png"))) == 2


def test_two_processes_on_one_sweep(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=1", "seed=1,2", "sweep_dir=s").code == 0
    held = rundir.RunDir(Path("s"))
    held.lock()
    try:
        answer = gan("train", "-m", "resume_sweep=s")
    finally:
        held.unlock()
    assert answer.code == 2
    assert "another process" in answer.err


def test_a_run_that_outlived_its_sweep_is_left_alone(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=2", "seed=1,2", "sweep_dir=s").code == 0
    record.write_state(Path("s"), 2, status="running")
    held = rundir.RunDir(Path("s") / jobs(Path("s"))[1]["run"])
    held.update(status="running")
    held.lock()
    try:
        answer = gan("train", "-m", "resume_sweep=s")
    finally:
        held.unlock()
    assert answer.code == 2
    assert "1 of 2 jobs are not over" in answer.err
    assert gan("train", "-m", "resume_sweep=s").code == 0


def test_torchrun_does_not_start_sweeps(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    answer = gan("train", "-m", *QUICK, "seed=1,2")
    assert answer.code == 2
    assert "torchrun runs one job on many ranks: leave one out" in answer.err
    assert list(Path().iterdir()) == []


def test_a_missing_extra_is_named(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in (("joblib", "joblib"), ("submitit", "slurm"), ("optuna", "optuna")):
        monkeypatch.setitem(sys.modules, module, None)
        word = "search=optuna" if module == "optuna" else f"launcher={extra}"
        answer = gan("train", "-m", *QUICK, "loss=ns,hinge", word)
        assert answer.code == 2
        assert answer.err == f"gan: {module} is not installed: pip install 'gancli[{extra}]'\n"
    assert list(Path().iterdir()) == []
