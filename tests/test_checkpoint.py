"""Checkpoints are whole or absent, and reading one runs no code."""

from __future__ import annotations

import json
import os
import pickle
import resource
import signal
from pathlib import Path

import pytest
import torch

from gancli.errors import RunError
from gancli.store import checkpoint
from gancli.store.files import read_json, whole_file, write_json
from gancli.store.rundir import RunDir

STATE = {"step": 7, "weights": torch.arange(5.0), "nested": {"list": [1, 2.5, "x", None]}}


def test_round_trip(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, STATE, {"seen": 3})
    assert path.name == "00000007.pt"
    state = checkpoint.read(path)
    assert torch.equal(state["weights"], STATE["weights"])
    assert state["nested"] == STATE["nested"]
    about = read_json(path.with_suffix(".json"))
    assert (about["step"], about["seen"], about["sha256"]) == (7, 3, checkpoint.sha256(path))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000007.json", "00000007.pt"]


@pytest.mark.parametrize("beside", [True, False])
@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_file_cut_short_is_refused(tmp_path: Path, keep: int, beside: bool) -> None:
    path = checkpoint.save(tmp_path, STATE, {})
    path.write_bytes(path.read_bytes()[:keep])
    if not beside:
        path.with_suffix(".json").unlink()
    with pytest.raises(RunError, match=r"damaged|not a checkpoint"):
        checkpoint.read(path)


class Bomb:
    """Runs code when unpickled."""

    def __init__(self, target: Path):
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("how", ["torch", "pickle"])
def test_a_strangers_file_runs_no_code(tmp_path: Path, how: str) -> None:
    path, proof = tmp_path / "1.pt", tmp_path / "it-ran"
    if how == "torch":
        torch.save({"format": 1, "step": 1, "x": Bomb(proof)}, path)
    else:
        path.write_bytes(pickle.dumps(Bomb(proof)))
    with pytest.raises(RunError):
        checkpoint.read(path)
    assert not proof.exists()


@pytest.mark.parametrize("content", [{"step": 1}, {"format": 99, "step": 1}, [1, 2]])
def test_other_files_are_not_checkpoints(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "1.pt")
    with pytest.raises(RunError, match="not a checkpoint"):
        checkpoint.read(tmp_path / "1.pt")


def test_the_newest_whole_one_is_taken(tmp_path: Path) -> None:
    run = RunDir(tmp_path)
    for step in (0, 5, 10):
        checkpoint.save(run.checkpoints, STATE | {"step": step}, {})
    newest = run.checkpoints / "00000010.pt"
    newest.write_bytes(newest.read_bytes()[:50])
    state, wrong = checkpoint.newest(run)
    assert state["step"] == 5
    assert len(wrong) == 1
    assert "00000010.pt" in wrong[0]
    (run.checkpoints / "00000005.pt").write_bytes(b"")
    (run.checkpoints / "00000000.pt").write_bytes(b"")
    with pytest.raises(RunError, match="no intact checkpoint"):
        checkpoint.newest(run)


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "file"
    target.write_text("old")

    def fail() -> None:
        with whole_file(target) as file:
            file.write(b"half")
            raise OSError(28, "No space left on device")

    with pytest.raises(RunError, match="No space left"):
        fail()
    assert target.read_text(encoding="utf-8") == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["file"]


def test_a_full_disk_is_an_error_in_words(tmp_path: Path) -> None:
    path = checkpoint.save(tmp_path, STATE, {})
    before = path.read_bytes()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limit[1]))
    try:
        with pytest.raises(RunError, match="free some space"):
            checkpoint.save(tmp_path, STATE | {"weights": torch.zeros(100_000)}, {})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
        signal.signal(signal.SIGXFSZ, handler)
    assert path.read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000007.json", "00000007.pt"]


def test_json_files_are_replaced_whole(tmp_path: Path) -> None:
    write_json(tmp_path / "a.json", {"ψ": 1})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"ψ": 1}
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RunError, match="cannot read"):
        read_json(tmp_path / "a.json")
