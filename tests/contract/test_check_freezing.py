"""The slow part of frozen blocks: two ranks move every model as one does."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tests.contract.cast import MODELS, engine_of
from tests.contract.ranks import on_two_ranks
from tests.contract.test_contract import everything, steps
from tests.contract.test_freezing import frozen

pytestmark = pytest.mark.slow


def played(model: str) -> Tensor:
    """All weights and averages after three steps in float64."""
    return everything(steps(engine_of([*frozen(model), "optimizer=sgd"], double=True), 3))


def all_played() -> dict[str, Tensor]:
    return {model: played(model) for model in MODELS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Tensor]]:
    """What each of two ranks came to, by model."""
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), all_played)


@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_are_one(ranks: list[dict[str, Tensor]], model: str) -> None:
    first, second = (each[model] for each in ranks)
    assert torch.equal(first, second)
    torch.testing.assert_close(first, played(model), rtol=1e-6, atol=1e-6)
