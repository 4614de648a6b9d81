"""The memory a step takes: counted, measured, compared, and what is said when there is not enough."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from gancli.compute import memory
from gancli.compute.memory import Footprint, Line
from gancli.errors import ConfigError, DeviceError, RunError
from gancli.store.rundir import RunDir
from gancli.train.rehearsal import Rehearsal, footprint
from tests import tiny
from tests.test_engine import same

NEED = Footprint(100, 20, ((64, (Line(10, 10),)), (64, (Line(100, 1),))), 400, 4, 64, None)


def test_the_largest_micro_batch_that_fits() -> None:
    assert NEED.new(None) == 20 + 10 + 640
    assert NEED.new(4) == 20 + 104
    assert NEED.total == 770
    assert not NEED.fits
    assert NEED.largest() == 36  # 20 + 10 + 360 <= 400, and a multiple of 4
    assert NEED.largest(below=36) == 32
    assert NEED.largest(free=100) is None
    with pytest.raises(DeviceError, match=r"set micro_batch=36, which fits"):
        memory.refuse(NEED)
    memory.refuse(replace(NEED, micro_batch=36))
    memory.refuse(replace(NEED, free=None))


def test_samples_that_belong_together_are_answered_with_a_batch_size() -> None:
    with pytest.raises(DeviceError, match="batch_size below 64"):
        memory.refuse(replace(NEED, multiple="all"))
    with pytest.raises(DeviceError, match=r"not even .* model\.ch"):
        memory.refuse(replace(NEED, free=10))


def test_weights_and_state_are_counted_and_nothing_is_left_behind() -> None:
    engine = tiny.engine(tiny.game(g_norm=True, dropout=0.5))
    before = copy.deepcopy(engine.state())
    need = footprint(engine)
    same(before, engine.state())
    params = sum(p.numel() for p in engine.game.parameters())
    everything = [engine.game, *engine.averages.values()]
    held = sum(t.nbytes for m in everything for t in [*m.parameters(), *m.buffers()])
    assert need.held == held
    assert need.optimizers == 2 * 4 * params  # Adam keeps two numbers a weight
    assert footprint(tiny.engine(sgd=True)).optimizers == 0
    engine.step()
    assert footprint(engine).optimizers == 0  # they are there by now


@pytest.mark.parametrize("rows", [5, 32, 100])
def test_few_rows_tell_what_many_take(rows: int) -> None:
    engine = tiny.engine(batch_size=rows)
    need = footprint(engine)
    for (_, lines), move in zip(need.moves, engine.moves(), strict=True):
        measured = max(Rehearsal(engine)._try(engine, move, rows, None).history)
        assert max(line.fixed + line.per_row * rows for line in lines) == pytest.approx(measured, rel=0.02)


def test_memory_that_runs_out_names_what_to_type(tmp_path: Path) -> None:
    run, engine = RunDir(tmp_path), tiny.engine(batch_size=64)
    run.checkpoints.mkdir()
    (run.checkpoints / "00000002.pt").touch()
    fits = replace(NEED, free=10**6)
    for error in (
        torch.OutOfMemoryError("CUDA out of memory"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory"),
    ):
        said = r"step 0: set micro_batch=32, which fits.*resume=.*00000002\.pt$"
        with pytest.raises(RunError, match=said), memory.explained(fits, run, engine):
            raise error
    with pytest.raises(ValueError, match="else"), memory.explained(fits, run, engine):
        raise ValueError("something else")


def test_weights_beyond_the_memory_are_refused_untouched(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "available", lambda device: 1000)
    said = r"model\.G has weights of over .* model\.ch"
    with pytest.raises(ConfigError, match=said), memory.weights_that_fit("model.G"):
        torch.nn.Linear(100, 100)
    with memory.weights_that_fit("model.G"):
        torch.nn.Linear(10, 10)


def test_what_the_system_and_its_groups_leave(tmp_path: Path) -> None:
    (tmp_path / "meminfo").write_text("MemTotal: 9 kB\nMemAvailable:    7 kB\n")
    assert memory._meminfo(tmp_path / "meminfo") == 7 * 1024
    assert memory._meminfo(tmp_path / "nothing") is None
    (tmp_path / "own").write_text("0::/job\n")
    (tmp_path / "job").mkdir()
    for name, text in {
        "memory.max": "1000",
        "memory.current": "700",
        "memory.stat": "anon 1\ninactive_file 50",
    }.items():
        (tmp_path / "job" / name).write_text(text)
    assert memory._cgroup(tmp_path, tmp_path / "own") == 350
    (tmp_path / "job" / "memory.max").write_text("max")
    assert memory._cgroup(tmp_path, tmp_path / "own") is None
