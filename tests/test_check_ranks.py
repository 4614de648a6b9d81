"""Two ranks move as one: the same weights as one rank with the same global batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from gancli.dist import World
from gancli.losses.penalties import R1, WganGp
from tests import tiny

PENALTIES = {"wgan_gp": WganGp(), "r1": R1(every=2)}


def rank(number: int, folder: str) -> None:
    """One of two ranks: three steps, then its weights into a file."""
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    engine = tiny.engine(
        tiny.game(penalties=PENALTIES), dtype=torch.float64, sgd=True, micro_batch=3, world=World.of_group()
    )
    logs = [engine.step() for _ in range(3)]
    torch.save({"weights": tiny.weights(engine.game), "logs": logs}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one(tmp_path: Path) -> None:
    mp.spawn(rank, args=(str(tmp_path),), nprocs=2)
    first, second = (torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (0, 1))
    engine = tiny.engine(tiny.game(penalties=PENALTIES), dtype=torch.float64, sgd=True)
    logs = [engine.step() for _ in range(3)]
    assert torch.equal(first["weights"], second["weights"])
    torch.testing.assert_close(first["weights"], tiny.weights(engine.game), rtol=0, atol=1e-12)
    for ours, theirs in zip(logs, first["logs"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(theirs[name].double(), ours[name].double(), rtol=1e-5, atol=1e-6)
