"""Whether D looks at the condition, told by exchanging it; and a D that is shown mismatched pairs."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.data.facts import DataFacts
from gancli.draw.sampling import Sampler
from gancli.errors import MetricError
from gancli.metrics.condition import Condition
from gancli.nets.verdict import Verdict
from tests.contract.cast import config_of, engine_of
from tests.tiny import weights

KEYS = ["model=pix2pix", "model.ch=2", "dataset=random", "dataset.size=[1,32,32]", "dataset.n=6", "batch_size=2"]


class Near(nn.Module):
    """Judges by how near both images are."""

    def forward(self, a: Tensor, b: Tensor) -> Verdict:
        return Verdict(-(a - b).abs().mean((2, 3)))


def sampler_of(keys: list[str]) -> Sampler:
    engine = engine_of(keys)
    nets = {name: copy.deepcopy(net).eval() for name, net in engine.networks().items()}
    sampler = Sampler(engine.game, nets, DataFacts.of(engine.main.source), Compute())
    sampler.config = config_of(keys)
    return sampler


@pytest.mark.parametrize("split", ["held_out", "train"])
def test_the_fall_of_the_logit_is_that_of_exchanged_conditions(split: str) -> None:
    sampler = sampler_of(KEYS)
    sampler.game.nets["D"] = Near()
    said = Condition(split=split).measure(sampler, 100, 0, lambda *_: None)  # type: ignore[arg-type]
    pairs = [(0, k) for k in range(6)]
    rows = sampler.rows if split == "held_out" else type(sampler.rows)(engine_of(KEYS).main.source)
    a, b = (rows.take(name, pairs) for name in "AB")
    true, other = (-(x - b).abs().mean((1, 2, 3)) for x in (a, a.roll(-1, 0)))
    fall = (true - other).double()
    wanted = {"condition": fall.mean(), "condition_error": fall.std() / 6**0.5}
    wanted |= {"condition_true": true.mean(), "condition_exchanged": other.mean()}
    assert said.values == pytest.approx({name: float(x) for name, x in wanted.items()}, rel=1e-5, abs=1e-6)
    assert said.details == {"condition_pairs": 6}


def test_a_d_of_single_images_is_refused() -> None:
    keys = ["model=cyclegan", "model.ch=2", "model.blocks=1", "dataset=random", "dataset.size=[1,24,24]"]
    with pytest.raises(MetricError, match="judges single images"):
        Condition().refuse(sampler_of(keys))


def test_mismatched_pairs_are_fakes_to_d() -> None:
    """Their share of D's loss is theirs; the pairs of G's move stay as they are."""
    plain, other = engine_of([*KEYS, "steps=4"]), engine_of([*KEYS, "steps=4", "game.mismatched=0.25"])
    logs = [engine.step() for engine in (plain, other)]
    assert "loss_D_mismatched" not in logs[0]
    assert logs[1]["loss_D_mismatched"] > 0
    assert not torch.equal(weights(plain.game.nets["D"]), weights(other.game.nets["D"]))
    assert other.positions == {"pairs": 2, "others": 2}
