"""A sweep ends whatever its jobs do, goes on where it stopped, and runs nothing twice."""

from __future__ import annotations

import csv
import json
import shlex
import shutil
import signal
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image

from gancli.report.__main__ import main as report
from gancli.store import finding, rundir
from gancli.store.files import HALF
from gancli.sweeps import record
from gancli.train.engine import Engine
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
    places = [row["place"] for row in rows]
    assert places[::2] == places[1::2]  # of two seeds each
    assert places[0] == "1"
    assert places[-2:] == ["", ""]
    assert [int(place) for place in places[:-2]] == sorted(int(place) for place in places[:-2])
    assert all("is not finite at step" in row["reason"] for row in rows[-2:])
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
    assert answer.err.splitlines()[-1] == f"stopped; resume with: gan train -m resume_sweep={path}"
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
    assert finding.find("last")[0].path == Path("outputs") / "sweeps" / path.name / jobs(path)[3]["run"]


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
    shutil.rmtree(run)
    (run / "checkpoints").mkdir(parents=True)
    (run / ".lock").write_bytes(rundir.MARK)
    (run / "config.yaml").write_text("seed: 2\n", encoding="utf-8")
    (run / "checkpoints" / f".00000000.pt.1{HALF}").write_bytes(b"PK")
    record.write_state(path, 2, status="running")
    assert gan("train", "-m", "resume_sweep=s").code == 0
    assert gan("train", *QUICK, "steps=2", "seed=2", "run_dir=alone").code == 0
    same_run(run, Path("alone"), 2)


@pytest.mark.parametrize("left", ["notes", "link"])
def test_a_jobs_directory_that_holds_something_else_is_left_alone(gan: Gan, left: str) -> None:
    assert gan("train", "-m", *QUICK, "steps=1", "seed=1,2", "sweep_dir=s").code == 0
    run = Path("s") / jobs(Path("s"))[1]["run"]
    shutil.rmtree(run)
    Path("mine").mkdir()
    Path("mine/notes.txt").write_text("mine", encoding="utf-8")
    if left == "link":
        run.symlink_to(Path("mine").resolve())
    else:
        Path("mine").rename(run)
    record.write_state(Path("s"), 2, status="interrupted")
    answer = gan("train", "-m", "resume_sweep=s")
    assert answer.code == 2
    assert (
        "is a link, but a sweep only writes in its own directory" if left == "link" else "other files in it"
    ) in answer.err
    assert sorted(p.name for p in run.iterdir()) == ["notes.txt"]


@pytest.mark.parametrize("name", [".jobs", "logs", ".stop"])
def test_links_in_a_sweep_are_not_written_through(gan: Gan, name: str) -> None:
    assert gan("train", "-m", *QUICK, "steps=1", "seed=1", "sweep_dir=s").code == 0
    Path("mine").mkdir()
    shutil.rmtree(Path("s") / name, ignore_errors=True)
    (Path("s") / name).symlink_to(Path("mine/new" if name == ".stop" else "mine").resolve())
    answer = gan("train", "-m", "resume_sweep=s")
    assert answer.code == 2
    assert answer.err == f"gan: s/{name} is a link, but a sweep only writes in its own directory: remove it\n"
    assert list(Path("mine").iterdir()) == []


def test_a_folder_with_other_things_is_no_sweeps(gan: Gan) -> None:
    Path("s/01-seed1").mkdir(parents=True)
    Path("s/01-seed1/notes.txt").write_text("mine", encoding="utf-8")
    answer = gan("train", "-m", *QUICK, "steps=1", "seed=1,2", "sweep_dir=s")
    assert answer.code == 2
    assert answer.err.startswith("gan: sweep_dir=s is a folder with other files in it (01-seed1)")
    assert [p.name for p in Path("s").rglob("*")] == ["01-seed1", "notes.txt"]


@pytest.mark.parametrize("where", [[], ["sweep_dir=a/s"], ["sweep_dir=here"]])
def test_a_sweep_of_wrong_jobs_leaves_nothing(gan: Gan, where: list[str]) -> None:
    Path("here").mkdir()
    wrong = ["dataset=folder", "dataset.root=nowhere", "steps=1", "seed=1,2"]
    answer = gan("train", "-m", *[w for w in QUICK if not w.startswith("dataset")], *wrong, *where)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].startswith("gan: none of the 2 jobs can start: dataset.root=")
    assert [str(p) for p in Path().rglob("*")] == ["here"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["seed=range(1,1000000000)"], "seed=range(1,1000000000): 999,999,999 jobs; a sweep has at most 10,000"),
        (["seed=shuffle(range(0,1,1e-30))"], ": over 1,000,000,000,000,000 jobs; a sweep has"),
        (["seed=range(1,101)", "steps=range(1,102)"], "steps=range(1,102): 10,100 jobs; a sweep has at most 10,000"),
        (["seed=range(0,inf)"], "a range has a finite start, stop and step, and the step is not 0"),
        (["seed=range(0,9,0)"], "a range has a finite start, stop and step, and the step is not 0"),
        (["seed=range(5,1)"], "seed=range(5,1): has no values"),
        (["seed=glob(*)"], "seed=glob(*): glob matches the choices of a group, as in 'loss=glob(*)'; list"),
        (["loss=glob(x*)"], "loss=glob(x*): no choice matches; choices: "),
        (["seed=interval(1,5)"], "seed=interval(1,5): a grid takes no intervals; add search=optuna, or list values"),
        (["seed=1,2", "launcher=process", "launcher.jobs=1000000000"], "launcher.jobs=1000000000: from 1 to 1,024"),
        (["loss=ns,hinge", "search=optuna", "search.trials=1000000000"], "search.trials=1000000000: from 1 to 10,000"),
        (["steps=range(1,1000000000)", "search=optuna"], "over 10,000 values; give an interval(LOW,HIGH) instead"),
        (["note=[range(1,3)],b"], "gan: "),
    ],
)  # fmt: skip
def test_sweeps_that_no_machine_holds_are_refused_at_once(gan: Gan, words: list[str], said: str) -> None:
    answer = gan("train", "-m", *QUICK, *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_a_glob_lists_the_choices_of_a_group(gan: Gan) -> None:
    assert gan("train", "-m", *QUICK, "steps=0", "loss=glob([h*,ns*])", "sweep_dir=s").code == 0
    assert [job["choices"] for job in jobs(Path("s"))] == [{"loss": "hinge"}, {"loss": "ns"}]


def test_what_a_sweep_records_chooses_no_commands(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    assert gan("train", "-m", *QUICK, "steps=1", "seed=1,2", "sweep_dir=s", "launcher=local").code == 0
    about = json.loads(Path("s/sweep.json").read_text(encoding="utf-8"))
    for keys in (["launcher=slurm", 'launcher.setup=["echo x"]'], ["launcher._target_=gancli.sweeps.slurm.Slurm"]):
        Path("s/sweep.json").write_text(json.dumps(about | {"keys": keys}), encoding="utf-8")
        answer = gan("train", "-m", "resume_sweep=s")
        assert answer.code == 2
        assert "is not accepted, since a directory may not choose what is run on this machine: type it" in answer.err
        assert all(shlex.quote(key) in answer.err for key in keys)
        assert gan("train", "-m", "resume_sweep=s", "launcher=local").code == 0


def test_jobs_to_come_are_sent_nowhere_unasked(gan: Gan) -> None:
    keys = [*QUICK, "steps=1", "optimizer.G.lr=0.1,0.2", "search=optuna", "search.trials=1", "sweep_dir=s"]
    assert gan("train", "-m", *keys).code == 0
    about = json.loads(Path("s/sweep.json").read_text(encoding="utf-8"))
    about["overrides"] += ["logger=mlflow", "observers.logger.uri=http://localhost:9"]
    Path("s/sweep.json").write_text(json.dumps(about), encoding="utf-8")
    answer = gan("train", "-m", "resume_sweep=s", "search.trials=2")
    assert answer.code == 2
    assert answer.err.startswith(
        "gan: s/sweep.json, later jobs: observers.logger.uri=http://localhost:9 comes from the recorded run"
    )
    assert len(jobs(Path("s"))) == 1


def test_a_sweeps_jobs_ask_this_machine_for_nothing(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    """A person's own command may: what it gave is recorded, and nothing has to be asked later."""
    monkeypatch.setenv("CANARY", "s3cr3t")
    keys = [*QUICK, "steps=1", "seed=1,2", "note=${oc.env:CANARY}", "sweep_dir=s"]
    assert gan("train", "-m", *keys).code == 0
    monkeypatch.delenv("CANARY")
    about = json.loads(Path("s/sweep.json").read_text(encoding="utf-8"))
    assert [job["overrides"][-1] for job in about["jobs"]] == ["++note='s3cr3t'"] * 2
    record.write_state(Path("s"), 2, status="interrupted")
    shutil.rmtree(Path("s") / about["jobs"][1]["run"])
    assert gan("train", "-m", "resume_sweep=s").code == 0
    monkeypatch.setenv("CANARY", "s3cr3t")
    about["jobs"][1] |= {"overrides": [*QUICK, "steps=1", "note=a ${oc.env:CANARY}"], "status": "waiting", "run": "x"}
    Path("s/sweep.json").write_text(json.dumps(about), encoding="utf-8")
    record.write_state(Path("s"), 2, status="waiting")
    answer = gan("train", "-m", "resume_sweep=s")
    assert answer.code == 2
    assert answer.err.startswith("gan: s/sweep.json, job 2: note: its recorded value uses a resolver")
    assert "repeat the sweep's original command, with sweep_dir=s" in answer.err
    assert not Path("s/x").exists()


NPZ = ["dataset=npz", "steps=1", *(word for word in QUICK if not word.startswith("dataset"))]


def pictures(path: Path, seed: int) -> None:
    np.savez(path, images=np.random.default_rng(seed).integers(0, 256, (8, 8, 8), dtype=np.uint8))


@pytest.mark.parametrize("search", ["grid", "optuna"])
def test_a_sweep_goes_on_from_another_folder(
    gan: Gan, search: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
    pictures(tmp_path / "a" / "d.npz", 0)
    pictures(tmp_path / "a" / "e.npz", 1)
    pictures(tmp_path / "b" / "e.npz", 2)  # which is not meant
    monkeypatch.chdir(tmp_path / "a")
    keys = [*NPZ, "dataset.root=d.npz,e.npz", f"search={search}", "sweep_dir=s"]
    assert gan("train", "-m", *keys, *(["search.trials=1"] if search == "optuna" else [])).code == 0
    about = json.loads(Path("s/sweep.json").read_text(encoding="utf-8"))
    assert "dataset.root=d.npz,e.npz" in about["overrides"]
    monkeypatch.chdir(tmp_path / "b")
    if search == "grid":
        record.write_state(tmp_path / "a" / "s", 2, status="waiting")
        shutil.rmtree(tmp_path / "a" / "s" / about["jobs"][1]["run"])
    assert gan("train", "-m", "resume_sweep=../a/s", *(["search.trials=3"] if search == "optuna" else [])).code == 0
    found = jobs(tmp_path / "a" / "s")
    assert {job["choices"]["dataset.root"] for job in found} == {"d.npz", "e.npz"}
    for job in found:
        root = tmp_path / "a" / job["choices"]["dataset.root"]
        assert f"dataset.root='{root}'" in job["overrides"]
        config = yaml.safe_load((tmp_path / "a" / "s" / job["run"] / "config.yaml").read_text(encoding="utf-8"))
        assert config["dataset"]["root"] == str(root)


def test_other_paths_of_a_sweep_are_whole_too(gan: Gan, tmp_path: Path) -> None:
    pictures(tmp_path / "d.npz", 0)
    Path("w.pt").write_bytes(b"")
    Path("conf/experiment").mkdir(parents=True)
    text = "# @package _global_\ndataset:\n  root: d.npz\n"
    Path("conf/experiment/mine.yaml").write_text(text, encoding="utf-8")
    assert gan("train", *NPZ, "dataset.root=d.npz").code == 0
    (run,) = (tmp_path / "outputs" / "train").iterdir()
    keys = ["--config-dir", "conf", *NPZ, "experiment=mine", "steps=0", "sweep_dir=s"]
    keys += ["init=last", "observers.scores.weights=w.pt"]
    assert gan("train", "-m", *keys).code == 0
    whole = [
        f"init='{run}'",
        f"observers.scores.weights='{tmp_path / 'w.pt'}'",
        f"++dataset.root='{tmp_path / 'd.npz'}'",
    ]
    assert [job["overrides"][-3:] for job in jobs(Path("s"))] == [whole]


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
    assert "1 of 2 jobs are not finished" in answer.err
    assert gan("train", "-m", "resume_sweep=s").code == 0


def test_torchrun_does_not_start_sweeps(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    answer = gan("train", "-m", *QUICK, "seed=1,2")
    assert answer.code == 2
    assert "torchrun runs one job in several processes: leave one of them out" in answer.err
    assert list(Path().iterdir()) == []


def test_a_missing_extra_is_named(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    for module, extra in (("joblib", "joblib"), ("submitit", "slurm"), ("optuna", "optuna")):
        monkeypatch.setitem(sys.modules, module, None)
        word = "search=optuna" if module == "optuna" else f"launcher={extra}"
        answer = gan("train", "-m", *QUICK, "loss=ns,hinge", word)
        assert answer.code == 2
        assert answer.err == f"gan: {module} is not installed: pip install 'gancli[{extra}]'\n"
    assert list(Path().iterdir()) == []
