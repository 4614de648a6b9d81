"""The parts of a sweep, each on its own: rankings, places, what is asked of SLURM, what a search suggests."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gancli.errors import ConfigError
from gancli.sweeps import launchers, ranking, record, slurm
from gancli.sweeps.record import Sweep
from gancli.sweeps.results import chosen, findings, scores
from gancli.sweeps.search import Grid, Optuna


def sweep_of(path: Path, choices: list[dict[str, Any]]) -> Sweep:
    path.mkdir()
    sweep = Sweep(path, [], [], [])
    for choice in choices:
        job = sweep.add([f"{k}={v}" for k, v in choice.items()], choice)
        job.status, job.seconds = "finished", 2.0
        (path / job.run).mkdir()
    return sweep


def evaluate(sweep: Sweep, number: int, step: int, *, seed: int = 0, **values: float) -> None:
    run = sweep.run_of(sweep.jobs[number - 1])
    run.results.mkdir(exist_ok=True)
    protocol = {"n_fake": 10, "fake": {"run": str(run.path), "step": step, "seed": seed}, "host": f"h{number}"}
    text = json.dumps({**values, "step": step, "protocol": protocol, "warnings": []})
    (run.results / f"{step:08d}-{seed}.json").write_text(text)


def test_the_ranking_exactly(tmp_path: Path) -> None:
    losses = [{"loss": loss, "seed": str(seed)} for loss in ("ns", "hinge") for seed in (1, 2)]
    sweep = sweep_of(tmp_path / "s", [*losses, {"loss": "lsgan", "seed": "1"}])
    for number, fid in ((1, 30.0), (2, 34.0), (3, 20.0), (4, 21.0)):
        evaluate(sweep, number, 5, fid=fid + 50)  # of an earlier step
        evaluate(sweep, number, 9, fid=fid, precision=0.5)
    sweep.jobs[4].status, sweep.jobs[4].reason = "failed", "it, diverged"
    made = ranking.rank(sweep, None, "auto")
    assert made.how == "ranked by fid, lower is better"
    assert made.caveats() == []
    assert [(g.place, g.choices, g.mean) for g in made.groups] == [
        (1, {"loss": "hinge"}, 20.5),
        (2, {"loss": "ns"}, 32.0),
        (None, {"loss": "lsgan"}, None),
    ]
    ranking.write_csv(sweep, made)
    runs = [sweep.path / job.run for job in sweep.jobs]
    assert (sweep.path / "ranking.csv").read_text(encoding="utf-8").splitlines() == [
        "place,job,loss,seed,status,fid,precision,mean fid,standard deviation over seeds,seconds,run,reason",
        f"1,3,hinge,1,finished,20,0.5,20.5,0.70710678,2.0,{runs[2]},",
        f"1,4,hinge,2,finished,21,0.5,20.5,0.70710678,2.0,{runs[3]},",
        f"2,1,ns,1,finished,30,0.5,32,2.8284271,2.0,{runs[0]},",
        f"2,2,ns,2,finished,34,0.5,32,2.8284271,2.0,{runs[1]},",
        f',5,lsgan,1,failed,,,,,2.0,{runs[4]},"it, diverged"',
    ]
    assert ranking.write_plot(sweep, made)
    assert (sweep.path / "ranking.png").read_bytes().startswith(b"\x89PNG")
    high = ranking.rank(sweep, "fid", "high")
    assert [g.choices["loss"] for g in high.groups] == ["ns", "hinge", "lsgan"]
    assert ranking.rank(sweep, "precision", "auto").low is False
    with pytest.raises(ConfigError, match=r"rank=fdi: no finished run .* did you mean fid\?"):
        ranking.rank(sweep, "fdi", "auto")


def test_runs_are_compared_under_the_protocol_that_most_have(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s", [{"seed": "1"}, {"seed": "2"}, {"seed": "3"}])
    for number in (1, 2, 3):
        evaluate(sweep, number, 9, seed=0, fid=float(number))
    evaluate(sweep, 1, 9, seed=7, fid=100.0)
    found = {job.number: findings(sweep.run_of(job)) for job in sweep.jobs}
    assert {k: s.value for k, s in scores(found, "fid").items()} == {1: 1.0, 2: 2.0, 3: 3.0}
    assert ranking.rank(sweep, "fid", "auto").caveats() == []
    (sweep.run_of(sweep.jobs[2]).results / "00000009-0.json").unlink()
    evaluate(sweep, 3, 9, seed=5, fid=50.0)
    assert ranking.rank(sweep, "fid", "auto").caveats() == [
        "fid was measured under different protocols: compare with care"
    ]


def test_columns_of_training_are_means_of_the_last_tenth(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s", [{"seed": "1"}])
    rows = [{"step": k, "seconds": 1.0, "loss_G": float(k)} for k in range(1, 31)]
    text = "".join(json.dumps(row) + "\n" for row in [*rows, {"step": 30, "alarm": "x", "text": "y"}]) + "cut sho"
    sweep.run_of(sweep.jobs[0]).metrics.write_text(text)
    found = {1: findings(sweep.run_of(sweep.jobs[0]))}
    assert found[1].trained == {"loss_G": 29.0}
    assert chosen(found, None) == "loss_G"
    assert "does not measure sample quality" in ranking.rank(sweep, None, "auto").caveats()[0]


def test_a_hostile_sweep_names_no_run_outside(tmp_path: Path) -> None:
    sweep = sweep_of(tmp_path / "s", [{"seed": "1"}])
    sweep.jobs[0].run = "../elsewhere"
    sweep.save()
    with pytest.raises(Exception, match="its run is not a plain name"):
        record.load(sweep.path)


def test_one_gpu_a_job_in_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,5,7")
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setattr(launchers, "cores", lambda: 9)
    assert launchers.at_once(None) == 3
    told = [launchers.environment(slot, 4) for slot in range(4)]
    assert [t["CUDA_VISIBLE_DEVICES"] for t in told] == ["2", "5", "7", "2"]
    assert {t["OMP_NUM_THREADS"] for t in told} == {"2"}
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert launchers.environment(0, 4) == {}
    assert launchers.at_once(None) == 1


def test_what_is_asked_of_slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No cluster here: sbatch is a script that keeps what it is given."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, does in (("srun", "exit 0"), ("sbatch", f'cp "$1" {tmp_path}/asked; echo Submitted batch job 77')):
        (tools / name).write_text(f"#!/bin/sh\n{does}\n")
        (tools / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{tools}:{os.environ['PATH']}")
    sweep = sweep_of(tmp_path / "s", [{"seed": str(k)} for k in (1, 2, 3)])
    launcher = slurm.Slurm(partition="gpu", minutes=90, gpus=1, cpus=6, memory=20, setup=["module load cuda"], look=0.0)
    cancelled: list[str] = []

    class EndedError(Exception):
        """What ends the wait."""

    def ended(self: Any) -> bool:
        raise EndedError

    import submitit

    monkeypatch.setattr(submitit.SlurmJob, "done", ended)
    monkeypatch.setattr(submitit.SlurmJob, "cancel", lambda self, check: cancelled.append(self.job_id))
    with pytest.raises(EndedError):
        list(launcher.run(sweep.path, iter([1, 2, 3])))
    asked = (tmp_path / "asked").read_text(encoding="utf-8")
    for line in (
        "--partition=gpu",
        "--time=90",
        "--gpus-per-node=1",
        "--cpus-per-task=6",
        "--mem=20GB",
        "--array=0-2%3",
    ):
        assert f"#SBATCH {line}" in asked
    assert "\nmodule load cuda\n" in asked
    assert cancelled == ["77_0", "77_1", "77_2"]


def test_a_search_suggests_the_same_after_an_interruption() -> None:
    typed = ["model=dcgan", "loss=ns,hinge", "optimizer.G.lr=interval(1e-5,1e-3)", "batch_size=interval(4,64)"]
    search = Optuna(trials=12, startup=4)
    space = search.space(typed)
    assert (space["optimizer.G.lr"].log, space["batch_size"].log) == (True, False)
    past: list[Any] = []
    for number in range(12):
        job, choices = search.further(typed, past, low=True) or ([], {})
        assert search.further(typed, past, low=True) == (job, choices)
        assert job[0] == "model=dcgan"
        assert 1e-5 <= choices["optimizer.G.lr"] <= 1e-3
        past.append((choices, None if number == 2 else abs(choices["optimizer.G.lr"] - 1e-4)))
    assert search.further(typed, past, low=True) is None
    assert ["model=dcgan", "loss=hinge", "optimizer.G.lr=1e-05", "batch_size=4"] in [
        [o.replace("=4.0", "=4") for o in job] for job in search.probes(typed)
    ]


def test_a_grid_knows_its_choices() -> None:
    jobs = Grid().first(["model=dcgan", "loss=ns,hinge", "seed=range(1,3)"])
    assert [choices for _, choices in jobs] == [
        {"loss": loss, "seed": seed} for loss in ("ns", "hinge") for seed in ("1", "2")
    ]
    assert jobs[3][0] == ["model=dcgan", "loss=hinge", "seed=2"]
