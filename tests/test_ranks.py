"""Ranks in one process: places, shares, what a rank says of others, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

from gancli.compute import device, ranks
from gancli.compute.dist import World, gathered
from gancli.compute.ranks import Place, Watch
from gancli.errors import CombinationError, DeviceError
from gancli.store.files import write_json
from gancli.train.splitting import refuse_uneven
from tests import tiny
from tests.conftest import TINY, Gan

Patch = pytest.MonkeyPatch
NAMES = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT", "TORCHELASTIC_RUN_ID")


@pytest.fixture(autouse=True)
def alone(monkeypatch: Patch) -> None:
    for name in NAMES:
        monkeypatch.delenv(name, raising=False)


def started(monkeypatch: Patch, **values: str) -> None:
    told = {"RANK": "1", "WORLD_SIZE": "4", "MASTER_ADDR": "localhost", "MASTER_PORT": "1"} | values
    for name, value in told.items():
        monkeypatch.setenv(name, value)


def test_places(monkeypatch: Patch) -> None:
    assert ranks.place() == Place()
    started(monkeypatch)
    assert ranks.place() == Place(1, 4, 1, 4)
    started(monkeypatch, LOCAL_RANK="0", LOCAL_WORLD_SIZE="2")
    assert ranks.place() == Place(1, 4, 0, 2)


@pytest.mark.parametrize("values", [{"RANK": ""}, {"RANK": "4"}, {"WORLD_SIZE": "many"}, {"MASTER_PORT": ""}])
def test_half_a_launch_is_refused(monkeypatch: Patch, values: dict[str, str], capsys: Any) -> None:
    from gancli.cli import main

    started(monkeypatch, **values)
    assert main(["train", "steps=1"]) == 2
    assert "torchrun --nproc-per-node=N" in capsys.readouterr().err


def test_a_sweep_under_torchrun_is_refused(gan: Gan, monkeypatch: Patch) -> None:
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    answer = gan("train", "-m", *TINY, "seed=1,2")
    assert answer.code == 2
    assert "leave one of them out" in answer.err


@pytest.mark.parametrize(("total", "unit"), [(10, 1), (10, 2), (7, 1), (70, 32), (12, 4)])
def test_shares_are_whole_and_in_order(total: int, unit: int) -> None:
    for size in (1, 2, 3):
        spans = [World(rank, size).rows(total, unit) for rank in range(size)]
        assert [row for start, stop in spans for row in range(start, stop)] == list(range(total))
        assert all(start % unit == 0 or start == total for start, _ in spans)


def test_batches_that_cannot_be_shared_are_refused() -> None:
    with pytest.raises(CombinationError, match="cannot be split over 4 ranks: use at least 4"):
        refuse_uneven(3, None, tiny.game(), World(0, 4))
    refuse_uneven(7, 3, tiny.game(), World(0, 2))
    from tests.test_check_ranks import normed

    with pytest.raises(CombinationError, match="a multiple of 2"):
        refuse_uneven(7, 3, normed(), World(0, 2))


def test_alone_nothing_happens() -> None:
    world, x = World.of_group(), torch.ones(3)
    assert (world.size, world.highest(0, 1), world.from_first(lambda: 5), world.everyone(7)) == (1, [0, 1], 5, [7])
    assert gathered(x) is x
    assert world.joined(x, 3) is x
    world.sum([])


def test_sums_reach_tensors_in_any_order_of_memory() -> None:
    from gancli.compute.dist import _spread

    images = torch.zeros(2, 3, 4, 4).to(memory_format=torch.channels_last)
    values = torch.arange(96.0)
    _spread(values, [images])
    assert torch.equal(images.reshape(-1), values)


# -- who failed --------------------------------------------------------------------------------------------------------


def pair(monkeypatch: Patch) -> tuple[Watch, Watch, list[str], dist.Store]:
    monkeypatch.setattr(ranks, "PATIENCE", 0.6)
    monkeypatch.setattr(ranks, "BEAT", 0.1)
    store, said = dist.HashStore(), list[str]()
    first, second = (Watch(Place(rank, 2, rank, 2), said.append, store) for rank in (0, 1))
    return first, second, said, store


def test_the_first_to_fail_is_named_once(monkeypatch: Patch) -> None:
    first, second, said, _ = pair(monkeypatch)
    second.report("the disk is full")
    error = first.explain(RuntimeError("Connection closed by peer"))
    assert str(error) == "rank 1 failed: the disk is full"
    first.report(str(error))
    assert said == ["rank 1: the disk is full"]
    for watch in (first, second):
        watch.leave(whole=False)


def test_an_error_of_all_ranks_is_said_by_the_first(monkeypatch: Patch) -> None:
    first, second, said, _ = pair(monkeypatch)
    first.report("unknown key stpes")
    second.report("unknown key stpes")
    assert said == ["unknown key stpes"]
    for watch in (first, second):
        watch.leave(whole=False)


@pytest.mark.parametrize(("words", "told"), [("Timed out", "has not responded for"), ("closed", "is gone")])
def test_a_silent_rank_is_named(monkeypatch: Patch, words: str, told: str) -> None:
    first, second, _, _ = pair(monkeypatch)
    second.leave(whole=False)
    second._thread.join()
    assert told in str(first.explain(RuntimeError(words)))
    assert str(first.explain(RuntimeError(words))).startswith("rank 1 ")
    first.leave(whole=False)
    assert not first._thread.is_alive()  # or it would be inside the store's code when the process ends


def test_cuda_ranks_meet_over_nccl_each_on_its_device(monkeypatch: Patch) -> None:
    calls: dict[str, Any] = {}
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", lambda d: calls.update(device=str(d)))
    monkeypatch.setattr(dist, "init_process_group", lambda *a, **k: calls.update(k, backend=a[0]))
    started(monkeypatch, RANK="0", WORLD_SIZE="2", LOCAL_RANK="1", LOCAL_WORLD_SIZE="2")
    watch = Watch(ranks.place(), print, dist.HashStore())
    monkeypatch.setattr(ranks, "_watch", watch)
    monkeypatch.setenv("GLOO_SOCKET_IFNAME", "lo")
    ranks.join({"kind": "cuda", "timeout": 30})
    watch.leave(whole=False)
    assert (calls["device"], calls["backend"], calls["rank"]) == ("cuda:1", "cpu:gloo,cuda:nccl", 0)
    assert calls["timeout"].total_seconds() == 30
    monkeypatch.setenv("LOCAL_RANK", "2")
    with pytest.raises(DeviceError, match="--nproc-per-node=2"):
        device.chosen("cuda")


def test_a_restarted_job_finds_its_own_run_and_no_other(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert ranks.own_run(None, World()) is None
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "none")
    for name, job in (("foreign", "none elsewhere 1 1"), ("ours", ranks.job())):
        write_json(tmp_path / "outputs" / "train" / name / "run.json", {"job": job, "status": "running"})
    assert ranks.own_run(None, World()) == (Path("outputs/train/ours"), "running")
    assert ranks.own_run("outputs/train/foreign", World()) is None
