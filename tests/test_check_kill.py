"""A run that is killed again and again, at any moment, ends with the bits of a run that was left alone."""

from __future__ import annotations

import json
import random
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import TINY
from tests.test_train import same_run

KEYS = ["steps=400", "observers.checkpoints.every=7", "observers.grid.every=50", "observers.metrics.every=1"]


def start(*words: str, cwd: Path) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "gancli", "train", *words]
    with (cwd / "errors").open("w") as errors:
        return subprocess.Popen(command, cwd=cwd, stderr=errors, stdout=subprocess.DEVNULL)


@pytest.mark.slow
def test_killed_runs_end_with_the_same_bits(tmp_path: Path) -> None:
    alone = start(*TINY, *KEYS, "run_dir=alone", cwd=tmp_path)
    assert alone.wait(timeout=300) == 0
    chance = random.Random(0)
    kills, job = 0, start(*TINY, *KEYS, "run_dir=killed", cwd=tmp_path)
    rows = tmp_path / "killed" / "metrics.jsonl"
    while kills < 6:
        begun = rows.stat().st_size if rows.exists() else 0
        while job.poll() is None and not (rows.exists() and rows.stat().st_size > begun):
            time.sleep(0.002)
        time.sleep(chance.random() * 0.4)
        if job.poll() is not None:
            break
        job.kill()
        job.wait()
        kills += 1
        job = start("resume=killed", cwd=tmp_path)
    assert job.wait(timeout=300) == 0, (tmp_path / "errors").read_text()
    assert kills >= 3
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["status"] == "finished"
    same_run(tmp_path / "alone", tmp_path / "killed", 400)
