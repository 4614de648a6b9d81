"""Finding runs and checkpoints, and rows that go with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from gancli.errors import RunError
from gancli.store import checkpoint, finding, rundir
from gancli.store.files import write_json
from gancli.store.rundir import RunDir
from tests.conftest import TINY, Gan


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def a_run(name: str, age: float = 0) -> RunDir:
    run = RunDir(rundir.OUTPUTS / "train" / name)
    run.path.mkdir(parents=True)
    run.write_config({"seed": 1, "note": "Food & Drink: ψ"})
    run.update(status="finished")
    os.utime(run.path / "config.yaml", (1e9 - age, 1e9 - age))
    return run


def test_last_is_the_newest_run(here: Path) -> None:
    with pytest.raises(RunError, match="no run under"):
        finding.find("last")
    a_run("b-old", age=100)
    a_run("a-new")
    assert finding.find("last")[0].path.name == "a-new"
    assert finding.find("outputs/train/b-old")[0].path.name == "b-old"


def test_a_wrong_name_gets_the_nearest_one(here: Path) -> None:
    a_run("2026-01-01_00-00-00-dcgan-fashion")
    with pytest.raises(RunError, match="did you mean 2026-01-01_00-00-00-dcgan-fashion"):
        finding.find("outputs/train/2026-01-01_00-00-00-dcgan-fashon")
    (here / "empty").mkdir()
    with pytest.raises(RunError, match=r"no run\.json"):
        finding.find("empty")


def test_config_comes_back(here: Path) -> None:
    assert a_run("x").config() == {"seed": 1, "note": "Food & Drink: ψ"}


def test_directories_never_collide(here: Path) -> None:
    made = {rundir.new_directory("train", "m-d", None) for _ in range(5)}
    assert len(made) == 5
    assert all(p.parent == Path("outputs/train") and "m-d" in p.name for p in made)


def test_a_directory_with_a_run_is_not_taken(here: Path) -> None:
    run = a_run("x")
    with pytest.raises(RunError, match="resume="):
        rundir.new_directory("train", "m", str(run.path))
    assert rundir.new_directory("train", "m", "fresh/place") == Path("fresh/place")


def test_an_impossible_place_is_one_line(here: Path) -> None:
    (here / "file").write_text("")
    with pytest.raises(RunError, match="run_dir=PATH"):
        rundir.new_directory("train", "m", "file/below")


def test_checkpoints_by_name(here: Path) -> None:
    run = a_run("x")
    with pytest.raises(RunError, match="no checkpoint"):
        run.checkpoint("last")
    run.checkpoints.mkdir()
    for step in (0, 500, 1000):
        (run.checkpoints / f"{step:08d}.pt").write_text("")
    assert run.checkpoint("last").name == "00001000.pt"
    assert run.checkpoint(500).name == "00000500.pt"
    with pytest.raises(RunError, match="0, 500, 1000"):
        run.checkpoint(501)
    with pytest.raises(RunError, match="gan eval"):
        run.checkpoint("best")
    write_json(run.results / "pruned.json", {"fid": 1.0, "recall": 0.9, "step": 700, "protocol_id": "a"})
    for step, fid in ((0, 300.0), (500, 12.0), (1000, 40.0)):
        write_json(run.results / f"{step}.json", {"fid": fid, "step": step, "protocol_id": "a"})
    write_json(run.results / "damaged.json", {"fid": 3})
    old = run.results / "other.json"
    write_json(old, {"fid": 1.0, "step": 0, "protocol_id": "another protocol"})
    os.utime(old, (1e9, 1e9))
    assert run.checkpoint("best").name == "00000500.pt"
    for step, recall in ((0, 0.1), (500, 0.2), (1000, 0.3)):
        write_json(run.results / f"recall{step}.json", {"recall": recall, "step": step, "protocol_id": "a"})
    assert (run.best("recall"), run.best("fid"), run.best("kid")) == (1000, 500, None)
    run.write_config({"observers": {"checkpoints": {"best": "recall"}}})
    assert run.checkpoint("best").name == "00001000.pt"


def test_rows_past_the_restored_step_are_dropped(here: Path) -> None:
    run = a_run("x")
    for step in (1, 2, 3):
        run.append({"step": step})
    with run.metrics.open("a") as file:
        file.write('{"step": 4, "lo')
    run.forget_after(2)
    assert [json.loads(line)["step"] for line in run.metrics.read_text(encoding="utf-8").splitlines()] == [1, 2]


def test_two_processes_cannot_train_in_one_directory(here: Path) -> None:
    run, other = a_run("x"), RunDir(Path("outputs/train/x"))
    run.lock()
    with pytest.raises(RunError, match="another process"):
        other.lock()
    run.unlock()
    other.lock()
    other.unlock()


def test_going_back_keeps_what_came_later_until_the_next_checkpoint(here: Path) -> None:
    run = a_run("x")
    for step in (0, 5, 10):
        checkpoint.save(run.checkpoints, {"step": step}, {})
    kept = (run.checkpoints / "00000010.pt").read_bytes()
    run.forget_after(5)
    assert list(run.listing()) == [0, 5]
    assert (run.checkpoints / "00000010.pt.aside").read_bytes() == kept
    run.drop_aside()
    assert sorted(p.name for p in run.checkpoints.glob("*.pt*")) == ["00000000.pt", "00000005.pt"]


def test_what_was_seen_at_step_0_is_seen_again(here: Path) -> None:
    run = a_run("x")
    for step in (0, 1):
        run.append({"step": step})
    checkpoint.save(run.checkpoints, {"step": 0}, {})
    run.forget_after(0)
    assert run.metrics.read_text(encoding="utf-8") == ""
    assert list(run.listing()) == [0]


def test_a_lock_on_a_file_that_is_gone_keeps_nobody_out(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import fcntl

    run, first = a_run("x"), True
    real = fcntl.flock

    def late(file: Any, how: int) -> None:
        nonlocal first
        if first:  # whoever held it left between opening and locking
            first = False
            (run.path / ".lock").unlink()
        real(file, how)

    monkeypatch.setattr(fcntl, "flock", late)
    run.lock()
    with pytest.raises(RunError, match="another process"):
        RunDir(run.path).lock()
    run.unlock()
    assert not (run.path / ".lock").exists()


def test_a_locked_run_touches_no_file_but_its_own(here: Path) -> None:
    run = a_run("x")
    (run.path / ".profile.old").write_text("mine")
    (run.path / ".run.json.abc.half").write_text("{")
    run.lock()
    run.unlock()
    assert (run.path / ".profile.old").exists()
    assert not (run.path / ".run.json.abc.half").exists()


def test_checkpoints_without_a_run_are_not_written_over(here: Path) -> None:
    run = a_run("x")
    checkpoint.save(run.checkpoints, {"step": 7}, {})
    (run.path / "run.json").unlink()
    with pytest.raises(RunError, match=r"without its run\.json"):
        rundir.refuse_taken(str(run.path))


def test_a_full_disk_is_an_error_in_words(here: Path) -> None:
    run = RunDir(Path("nowhere"))
    for write in (lambda: run.say("x"), lambda: run.append({"step": 1})):
        with pytest.raises(RunError, match="cannot write nowhere/"):
            write()


def test_a_link_to_an_empty_folder_may_be_named(gan: Gan) -> None:
    Path("real").mkdir()
    Path("link").symlink_to("real")
    assert gan("train", *TINY, "observers=none", "steps=1", "run_dir=link").code == 0
    assert Path("real/run.json").exists()
    Path("outputs/train").mkdir(parents=True)
    Path("outputs/train/x").symlink_to(Path("real").absolute())
    assert gan("train", "resume=last", "steps=2").code == 0
