"""Runs that are killed again and again, at any moment, or lose their disk, end with the bits of a run left alone."""

from __future__ import annotations

import ctypes
import json
import os
import random
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gancli.rundir import RunDir
from tests.conftest import TINY
from tests.test_train import rows, same_run

# Rows at every step and a checkpoint at nearly every one: kills fall into writes, too.
OFTEN = ["observers.checkpoints.every=2", "observers.grid.every=50", "observers.metrics.every=1",
         "observers.alarms.every=3", "observers.progress=null", "observers.grid.n=4", "device=cpu",
         "model.ema.decay=0.5", "device.threads=1"]  # fmt: skip
IMAGES = ["dataset=random", "dataset.size=[1,8,8]", "dataset.n=24", "batch_size=4"]
KINDS = {
    "dcgan": (["model=dcgan", "model.ch=8", *IMAGES], 1300),
    "memories": (["model=dcgan", "model.ch=4", *IMAGES, "penalty=[lecam,historical_d,r1]", "loss=hinge"], 900),
    "spectral": (["model=sngan", "model.ch=2", "game.d_steps=1", "dataset=random", "dataset.size=[1,28,28]",
                  "dataset.n=24", "batch_size=4", "augment=ada"], 300),
    "semisup": (["model=improved", "game=semisup", "game.labels=20", "dataset=fashion", "dataset.limit=200",
                 "batch_size=8"], 100),
}  # fmt: skip
KILLS = 5


def start(*words: str, cwd: Path, first: Callable[[], None] | None = None) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gancli", "train", *words]
    with (cwd / "errors").open("w") as errors:
        return subprocess.Popen(command, cwd=cwd, stderr=errors, stdout=subprocess.DEVNULL, preexec_fn=first)


def reached(log: Path) -> int:
    """The last step that stands whole in metrics.jsonl."""
    lines = log.read_bytes().rpartition(b"\n")[0].splitlines() if log.exists() else []
    return int(json.loads(lines[-1])["step"]) if lines else 0


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_killed_runs_end_with_the_same_bits(tmp_path: Path, kind: str) -> None:
    keys, steps = KINDS[kind]
    alone = start(*keys, *OFTEN, f"steps={steps}", "run_dir=alone", cwd=tmp_path)
    assert alone.wait(timeout=600) == 0, (tmp_path / "errors").read_text(encoding="utf-8")
    chance = random.Random(kind)
    job = start(*keys, *OFTEN, f"steps={steps}", "run_dir=killed", cwd=tmp_path)
    log = tmp_path / "killed" / "metrics.jsonl"
    for k in range(KILLS):
        # By steps rather than by the clock, which runs at another pace beside other programs.
        target = (k + chance.random()) * steps / (KILLS + 1)
        while reached(log) < target:
            assert job.poll() is None, (tmp_path / "errors").read_text(encoding="utf-8")
            time.sleep(0.002)
        time.sleep(chance.random() * 0.03)
        job.kill()
        job.wait()
        job = start("resume=killed", cwd=tmp_path)
    assert job.wait(timeout=600) == 0, (tmp_path / "errors").read_text(encoding="utf-8")
    about = json.loads((tmp_path / "killed" / "run.json").read_text(encoding="utf-8"))
    assert (about["status"], about["step"]) == ("finished", steps)
    same_run(tmp_path / "alone", tmp_path / "killed", steps)
    assert list(RunDir(tmp_path / "alone").listing()) == list(RunDir(tmp_path / "killed").listing())
    assert not list((tmp_path / "killed").rglob(".*"))


@pytest.mark.slow
def test_a_full_disk_costs_no_checkpoint(tmp_path: Path) -> None:
    keys = [*TINY, "model.ch=32", "observers.checkpoints.every=3", "observers.metrics.every=1", "steps=9"]
    assert start(*keys, "run_dir=alone", cwd=tmp_path).wait(timeout=300) == 0
    first = tmp_path / "alone" / "checkpoints" / "00000000.pt"
    # Before the first step the optimizers remember nothing, so that its checkpoint is the smallest.
    largest = (first.stat().st_size + (tmp_path / "alone" / "checkpoints" / "00000009.pt").stat().st_size) // 2

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (largest, largest))

    assert start(*keys, "run_dir=full", cwd=tmp_path, first=limit).wait(timeout=300) == 2
    words = (tmp_path / "errors").read_text(encoding="utf-8").splitlines()[-1]
    assert words.startswith("gan: step 3: cannot write full/checkpoints/00000003.pt: ")
    assert "step 0 is saved: gan train resume=full goes on" in words
    assert "Traceback" not in (tmp_path / "errors").read_text(encoding="utf-8")
    about = json.loads((tmp_path / "full" / "run.json").read_text(encoding="utf-8"))
    assert about["status"] == "failed"
    assert sorted(p.name for p in (tmp_path / "full" / "checkpoints").iterdir()) == ["00000000.json", "00000000.pt"]
    assert start("resume=full", cwd=tmp_path).wait(timeout=300) == 0, (tmp_path / "errors").read_text(encoding="utf-8")
    same_run(tmp_path / "alone", tmp_path / "full", 9)


@pytest.mark.slow
def test_two_processes_cannot_train_in_one_directory(tmp_path: Path) -> None:
    keys = [*TINY, "observers.metrics.every=1", "observers.checkpoints.every=50"]
    job = start(*keys, "steps=100000", "run_dir=run", cwd=tmp_path)
    try:
        while not (tmp_path / "run" / "metrics.jsonl").exists():
            assert job.poll() is None
            time.sleep(0.01)
        command = [sys.executable, "-m", "gancli", "train", "resume=run"]
        second = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        assert second.returncode == 2
        assert second.stderr == "gan: run: another process is training here; wait for it or stop it\n"
        before = len(rows(tmp_path / "run"))
        time.sleep(2)
        assert job.poll() is None
        assert len(rows(tmp_path / "run")) > before
    finally:
        job.terminate()
    assert job.wait(timeout=60) == 0


def obedient() -> None:
    """Take from root the right to write where nobody may."""
    if os.geteuid() == 0:
        drop_from_bounding_set, dac_override = 24, 1
        assert ctypes.CDLL(None).prctl(drop_from_bounding_set, dac_override, 0, 0, 0) == 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets root give up its rights")
def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert start(*TINY, "steps=2", "run_dir=run", cwd=tmp_path).wait(timeout=300) == 0
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    run.chmod(0o555)
    try:
        for words in (["resume=run", "steps=4"], [*TINY, "steps=1", "run_dir=run/new"]):
            assert start(*words, cwd=tmp_path, first=obedient).wait(timeout=300) == 2
            (line,) = (tmp_path / "errors").read_text(encoding="utf-8").splitlines()
            assert "Permission denied; choose another place with run_dir=PATH" in line
    finally:
        run.chmod(0o755)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
