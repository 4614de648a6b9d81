"""Runs that are killed again and again, at any moment, or lose their disk, end with the bits of a run left alone."""

from __future__ import annotations

import ctypes
import json
import multiprocessing
import os
import random
import re
import resource
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gancli.store import checkpoint
from gancli.store.files import read_json
from gancli.store.rundir import RunDir
from tests.conftest import TINY
from tests.test_train import rows, same_run

# Rows at every step and a checkpoint at nearly every one: kills fall into writes, too.
OFTEN = ["observers.checkpoints.every=2", "observers.grid.every=50", "observers.metrics.every=1",
         "observers.alarms.every=3", "observers.progress=null", "observers.grid.n=4", "device=cpu",
         "model.ema.decay=0.5", "device.threads=1"]  # fmt: skip
IMAGES = ["dataset=random", "dataset.size=[1,8,8]", "dataset.n=24", "batch_size=4"]
KINDS = {
    "dcgan": (["model=dcgan", "model.ch=8", *IMAGES], 400),
    "memories": (["model=dcgan", "model.ch=4", *IMAGES, "penalty=[lecam,historical_d,r1]", "loss=hinge"], 300),
    "spectral": (["model=sngan", "model.ch=2", "game.d_steps=1", "dataset=random", "dataset.size=[1,28,28]",
                  "dataset.n=24", "batch_size=4", "augment=ada"], 100),
    "semisup": (["model=improved", "game=semisup", "game.labels=20", "dataset=fashion", "dataset.limit=200",
                 "batch_size=8"], 40),
    "stylegan": (["model=stylegan", "model.ch_base=64", "model.ch_max=8", "model.latent.dim=8",
                  "model.G.w_dim=8", "model.G.mapping_layers=2", "model.ema.half_life=null", "augment=ada",
                  "game.first_side=4", "game.first=40", "game.fade=80", "game.hold=40", "dataset=random",
                  "dataset.size=[1,16,16]", "dataset.n=24", "batch_size=4"], 70),
    "stylegan2": (["model=stylegan2", "model.ch_base=64", "model.ch_max=8", "model.latent.dim=8", "model.G.w_dim=8",
                   "model.mapping_layers=2", "model.ema.half_life=null", "model.D.group=4", "augment=ada",
                   "augment.interval=1", "augment.images=400", "dataset=random", "dataset.size=[1,16,16]",
                   "dataset.n=24", "batch_size=4"], 70),
    "stylegan3": (["model=stylegan3", "model.variant=R", "model.ch_base=32", "model.ch_max=4", "model.latent.dim=8",
                   "model.G.w_dim=8", "model.ema.half_life=null", "model.ema.ramp=null", "game.blur_sigma=2",
                   "game.blur_images=150", "game.magnitude_images=200", "dataset=random", "dataset.size=[1,16,16]",
                   "dataset.n=24", "batch_size=4"], 40),
}  # fmt: skip
KILLS = 5
# What decides on its own how a run ends, and which of its checkpoints stay: p of the augmentation, scores, and alarms
# that compare with the start. G's weights shrink until it draws the same for every latent, about step 70.
WATCHED = ["model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,16,16]", "dataset.n=24", "batch_size=4",
           "augment=ada", "augment.interval=1", "augment.images=400", "model.ema.decay=0.5", "optimizer=sgd",
           "optimizer.G.lr=1e-3", "+optimizer.G.weight_decay=8", "optimizer.D.lr=1e-3", "device=cpu",
           "device.threads=1", "observers.scores.every=7", "observers.scores.metrics=[swd]", "observers.scores.n=4",
           "observers.scores.standing_stats=1", "observers.checkpoints.every=5", "observers.checkpoints.keep=2",
           "observers.alarms.every=4", "observers.alarms.n=8", "observers.metrics.every=1", "observers.grid.n=4",
           "observers.grid.every=10", "observers.progress=null", "observers.report=null"]  # fmt: skip
# The first moments of a run by what is there, then by its rows.
FIRST = ("", ".lock", "config.yaml", "checkpoints", "checkpoints/00000000.pt", "run.json", "log.txt", "eval")
SPELLINGS = ("killed", "./killed/", "{here}/killed", "link", "killed/../killed", "link/../killed/")


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


def child(words: list[str], place: str) -> None:
    """A command in a process that has torch loaded already."""
    from gancli.cli import main

    os.chdir(place)
    for number in (1, 2):
        os.dup2(os.open("errors", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    sys.stdout.flush()
    os._exit(main(words))


def warm() -> Any:
    """A context whose processes begin as copies of one that has imported what a training needs."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(
        ["gancli.verbs.train", "gancli.cli", "gancli.metrics.pixels", "tests.test_check_kill"]
    )
    return context


def outcome(run: Path) -> tuple[Any, ...]:
    """How a run ended, without where it lies."""
    about = RunDir(run).about()
    return about["status"], re.sub(r"\S*/checkpoints/", "", str(about["reason"])), about["step"]


def judged(run: Path) -> dict[str, tuple[float, str]]:
    """The results of a run by file, without how long they took."""
    found = {path.name: read_json(path) for path in sorted((run / "eval").iterdir())}
    return {name: (result["swd"], result["protocol_id"]) for name, result in found.items()}


@pytest.mark.slow
def test_a_watched_run_ends_as_if_it_had_not_been_killed(tmp_path: Path) -> None:
    """Twenty kills, eight of them before the first step: the same bits, rows, results, and the same end by an alarm."""
    context = warm()

    def started(*words: str) -> Any:
        process = context.Process(target=child, args=(["train", *words], str(tmp_path)))
        process.start()
        return process

    alone = started(*WATCHED, "steps=200", "run_dir=alone")
    alone.join(600)
    last = max(row["step"] for row in rows(tmp_path / "alone"))
    assert (alone.exitcode, outcome(tmp_path / "alone")[0]) == (2, "failed"), (tmp_path / "errors").read_text("utf-8")
    assert "G has generated the same sample for every latent" in outcome(tmp_path / "alone")[1]
    assert 40 < last < 120
    killed, kills, chance = tmp_path / "killed", 0, random.Random(20)
    (tmp_path / "link").symlink_to("killed")

    def another(k: int) -> Any:
        if not (killed / "run.json").exists():
            return started(*WATCHED, "steps=200", "run_dir=killed")
        return started("resume=" + SPELLINGS[k % len(SPELLINGS)].format(here=tmp_path))

    for k in range(20):
        job = another(k)
        target = (k - len(FIRST) + chance.random()) * last / (20 - len(FIRST))
        while job.is_alive() and not (
            (killed / FIRST[k]).exists() if k < len(FIRST) else reached(killed / "metrics.jsonl") >= target
        ):
            time.sleep(0.0005)
        time.sleep(chance.random() * (0.03 if k >= len(FIRST) else 0.002))
        job.kill()
        job.join(60)
        kills += job.exitcode == -9
    assert kills == 20
    job = another(20)
    job.join(600)
    assert job.exitcode == 2, (tmp_path / "errors").read_text(encoding="utf-8")
    assert outcome(killed) == outcome(tmp_path / "alone")
    assert rows(killed) == rows(tmp_path / "alone")
    assert judged(killed) == judged(tmp_path / "alone")
    steps = list(RunDir(tmp_path / "alone").listing())
    assert list(RunDir(killed).listing()) == steps
    for step in steps:
        same_run(tmp_path / "alone", killed, step)
        states = [checkpoint.read(RunDir(run).checkpoint(step)) for run in (tmp_path / "alone", killed)]
        assert states[0]["observers"] == states[1]["observers"]
    assert sorted(p.name for p in killed.rglob("*")) == sorted(p.name for p in (tmp_path / "alone").rglob("*"))


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
    assert "step 0 is saved; resume with: gan train resume=full" in words
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
        line = second.stderr.splitlines()[-1]
        assert line == "gan: run: another process is training here; wait for it or stop it"
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
            *waits, line = (tmp_path / "errors").read_text(encoding="utf-8").splitlines()
            assert all(wait.endswith(" ...") for wait in waits)  # on a slow machine
            assert "Permission denied; choose another place with run_dir=PATH" in line
    finally:
        run.chmod(0o755)
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before
