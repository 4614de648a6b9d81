"""The slow part of frozen blocks: two ranks move every model as one does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor

from tests.contract.cast import MODELS, engine_of
from tests.contract.test_contract import everything, steps
from tests.contract.test_freezing import frozen

pytestmark = pytest.mark.slow


def played(model: str) -> Tensor:
    """All weights and averages after three steps in float64."""
    return everything(steps(engine_of([*frozen(model), "optimizer=sgd"], double=True), 3))


def rank(number: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save({model: played(model) for model in MODELS}, Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of two ranks came to, by model."""
    folder = tmp_path_factory.mktemp("ranks")
    mp.spawn(rank, args=(str(folder),), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]


@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_are_one(ranks: list[dict[str, Tensor]], model: str) -> None:
    first, second = (each[model] for each in ranks)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, played(model), rtol=1e-6, atol=1e-6)
