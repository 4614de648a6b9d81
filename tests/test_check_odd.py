"""The odd game on two ranks, and killed: players P, Q, R, a pool that all ranks share, three phases."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from tests.conftest import Gan
from tests.oddgame import TRAIN, move_in
from tests.test_check_kill import reached
from tests.test_check_ranks import gone_or_ended, lines, until, worker
from tests.test_engine import same
from tests.test_odd_game import QUIET, engine_of, everything, whole
from tests.test_train import rows

# Phases of some length, and a checkpoint at nearly every step: kills fall into writes, too.
LONG = ["game.alone=20", "game.pair=20", "steps=60", "observers.checkpoints.every=2", "observers.grid.every=10"]
LONG += ["observers.metrics.every=1", "observers.alarms.every=3", "observers.progress=null", "observers.report=null"]


def start(*words: str, cwd: Path, launch: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
    """`python -m tests.oddgame WORDS`; launch: by torchrun with these flags. What is said goes into cwd/said."""
    command = [sys.executable, *(("-m", "torch.distributed.run", "--standalone", *launch) if launch else ())]
    paths = os.pathsep.join([str(Path(__file__).parent.parent), os.environ.get("PYTHONPATH", "")])
    env = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": paths, "GLOO_SOCKET_IFNAME": "lo"}
    with (cwd / "said").open("w") as said:
        return subprocess.Popen([*command, "-m", "tests.oddgame", *words], cwd=cwd, env=env, stdout=said, stderr=said)


def ended(job: subprocess.Popen[bytes], cwd: Path, code: int = 0) -> str:
    """What a job said, once it has ended with this code."""
    assert job.wait(timeout=600) == code, (cwd / "said").read_text(encoding="utf-8")
    return (cwd / "said").read_text(encoding="utf-8")


# -- two ranks ---------------------------------------------------------------------------------------------------------

BATCHES = (8, 6)  # R plays half of them: four rows, and three, which two ranks share unevenly


def played(batch_size: int) -> dict[str, Any]:
    """All eight steps, in float64: what is moved, averaged, copied, pooled and logged."""
    move_in()
    engine = engine_of(f"batch_size={batch_size}")
    logs = [engine.step() for _ in range(8)]
    return {"state": everything(engine), "logs": logs}


def rank(number: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save({size: played(size) for size in BATCHES}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    mp.spawn(rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (0, 1))
    for size in BATCHES:
        same(first[size]["state"], second[size]["state"])
        alone = played(size)
        torch.testing.assert_close(first[size]["state"], alone["state"], rtol=0, atol=1e-10)
        assert int(alone["state"]["filled"]) == 6
        for ours, theirs in zip(alone["logs"], first[size]["logs"], strict=True):
            assert ours.keys() == theirs.keys()
            for name in ours:
                torch.testing.assert_close(theirs[name], ours[name], rtol=1e-9, atol=1e-9)


@pytest.mark.slow
def test_the_command_on_two_ranks_is_the_command_on_one(gan: Gan, tmp_path: Path) -> None:
    move_in()
    launch = ("--nproc-per-node=2",)
    said = ended(start(*TRAIN, *QUIET, "run_dir=two", cwd=tmp_path, launch=launch), tmp_path)
    assert said.count("finished at step 8") == 1
    assert gan(*TRAIN, *QUIET, "run_dir=one").code == 0
    for ours, theirs in zip(rows(tmp_path / "one"), rows(tmp_path / "two"), strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4, abs=1e-5)  # float32, summed in another order
    about = json.loads((tmp_path / "two" / "run.json").read_text(encoding="utf-8"))
    assert (about["world"], about["status"], about["step"]) == (2, "finished", 8)
    # What is drawn, and what is refused, on two ranks.
    for direction in ("forth", "back"):
        words = ["sample", "run=one", "format=npz", f"direction={direction}"]
        ended(start(*words, f"run_dir=two-{direction}", cwd=tmp_path, launch=launch), tmp_path)
        assert gan(*words, f"run_dir=one-{direction}").code == 0
        one, two = (tmp_path / f"{count}-{direction}" / "samples.npz" for count in ("one", "two"))
        assert one.read_bytes() == two.read_bytes()
    said = ended(start("eval", "run=one", "metrics=[swd]", cwd=tmp_path, launch=launch), tmp_path, 1)
    assert "gan: gan eval draws images and this run draws table rows of 2: its samples/ show them" in said
    assert not (tmp_path / "outputs").exists()


# -- killed ------------------------------------------------------------------------------------------------------------


def alike(alone: Path, killed: Path) -> None:
    """Assert that two runs of sixty steps ended with the same bits, rows and sheets, and left nothing half-written."""
    same(whole(alone, 60), whole(killed, 60))
    assert rows(alone) == rows(killed)
    names = [sorted(path.name for path in (run / "samples").iterdir()) for run in (alone, killed)]
    assert names[0] == names[1]
    assert all((alone / "samples" / n).read_bytes() == (killed / "samples" / n).read_bytes() for n in names[0])
    assert not list(killed.rglob(".*"))


@pytest.mark.slow
def test_killed_in_every_phase_it_ends_with_the_same_bits(tmp_path: Path) -> None:
    ended(start(*TRAIN, *LONG, "run_dir=alone", cwd=tmp_path), tmp_path)
    chance = random.Random(13)
    job = start(*TRAIN, *LONG, "run_dir=killed", cwd=tmp_path)
    for phase in range(3):
        target = 20 * phase + chance.randrange(2, 18)
        while reached(tmp_path / "killed" / "metrics.jsonl") < target:
            assert job.poll() is None, (tmp_path / "said").read_text(encoding="utf-8")
            time.sleep(0.002)
        job.kill()
        assert job.wait() == -signal.SIGKILL
        job = start("train", "resume=killed", cwd=tmp_path)
    assert "resumed at step" in ended(job, tmp_path)
    alike(tmp_path / "alone", tmp_path / "killed")


@pytest.mark.slow
def test_a_killed_rank_changes_nothing(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    ended(start(*TRAIN, *LONG, cwd=tmp_path / "a", launch=("--nproc-per-node=2",)), tmp_path / "a")
    launch = ("--nproc-per-node=2", "--max-restarts=1")
    job = start(*TRAIN, *LONG, cwd=tmp_path / "b", launch=launch)
    said, runs = tmp_path / "b" / "said", tmp_path / "b" / "outputs" / "train"
    until(lambda: any(lines(path) > 30 for path in runs.glob("*/metrics.jsonl")), job, said)
    os.kill(worker(job, 1), signal.SIGKILL)
    gone_or_ended(ended(job, tmp_path / "b"))
    (killed,), (undisturbed,) = runs.iterdir(), (tmp_path / "a" / "outputs" / "train").iterdir()
    assert "resumed at step" in (killed / "log.txt").read_text(encoding="utf-8")
    alike(undisturbed, killed)
