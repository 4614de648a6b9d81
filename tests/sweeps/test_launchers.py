"""Sweeps in processes of their own, in joblib's workers, in submitit's, and one that a search leads."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import Gan
from tests.sweeps.test_sweep import QUICK, jobs, table
from tests.test_train import same_run


@pytest.mark.slow
@pytest.mark.parametrize(
    "words",
    [
        ["launcher=process", "launcher.jobs=2"],
        ["launcher=joblib", "launcher.jobs=2"],
        ["launcher=slurm", "launcher.cluster=local", "launcher.gpus=0"],
    ],
    ids=["process", "joblib", "slurm"],
)
def test_launchers_train_the_same(gan: Gan, words: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    keys = [*QUICK, "loss=lsgan", "optimizer=sgd", "optimizer.D.lr=0.01,1e30", "steps=2", *words]
    answer = gan("train", "-m", *keys, "sweep_dir=s")
    path = Path("s")
    assert answer.code == 2, answer.err
    assert "1 of 2 jobs failed: [optimizer.D.lr=1e+30] " in answer.err
    assert [job["status"] for job in jobs(path)] == ["finished", "failed"]
    alone = ["loss=lsgan", "optimizer=sgd", "optimizer.D.lr=0.01", "steps=2", "run_dir=alone"]
    assert gan("train", *QUICK, *alone).code == 0
    same_run(path / jobs(path)[0]["run"], Path("alone"), 2)


def test_a_search_goes_by_the_results(gan: Gan) -> None:
    keys = [*QUICK, "steps=1", "optimizer.G.lr=interval(1e-5,1e-3)", "search=optuna", "rank=loss_D"]
    assert gan("train", "-m", *keys, "search.trials=3", "search.startup=2", "sweep_dir=s").code == 0
    path = Path("s")
    rates = [job["choices"]["optimizer.G.lr"] for job in jobs(path)]
    assert len(set(rates)) == 3
    assert all(1e-5 <= rate <= 1e-3 for rate in rates)
    losses = [float(row["loss_D"]) for row in table(path)]
    assert losses == sorted(losses)
    # More trials of the same search: those that are there stay.
    assert gan("train", "-m", "resume_sweep=s", "search.trials=4").code == 0
    assert [job["choices"]["optimizer.G.lr"] for job in jobs(path)][:3] == rates
    assert len(jobs(path)) == 4
