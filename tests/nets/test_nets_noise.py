"""Noise inside networks: a function of the seed, the step, the layer and the row, however a batch is split."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import CombinationError
from gancli.nets.layers.minibatch import REFERENCE, Referenced
from gancli.nets.layers.noise import Dropout, GaussianNoise, Noisy, keyed, layers
from tests import tiny
from tests.contract.cast import TINY, engine_of
from tests.contract.test_contract import everything, steps

DENSE = [*TINY["mlp"], "model.D.hidden=[8,8]", "model.D.dropout=0.5", "model.D.input_dropout=0.2", "optimizer=sgd"]


@pytest.mark.parametrize(
    "keys",
    [
        DENSE,
        [*DENSE, "game.pack=2", "penalty=r1", "game.d_steps=2"],
        [*DENSE, "game.pack=2", "model.D.norm=virtual", "dataset.n=140"],
        [*TINY["gan"], "optimizer=sgd", "penalty=lecam", "penalty.lecam.after=0", "game.g_size=2"],
        [*TINY["improved"], "optimizer=sgd", "penalty=historical_d"],
    ],
)
def test_a_step_does_not_depend_on_how_it_is_split(keys: list[str]) -> None:
    keys = [*keys, "optimizer.D.lr=1e-3", "optimizer.G.lr=1e-3"]
    whole, split = (steps(engine_of([*keys, *m], double=True, still_norms=True), 3) for m in ([], ["micro_batch=2"]))
    assert layers(dict(whole.game.nets.items()))
    assert everything(whole).isfinite().all()
    torch.testing.assert_close(everything(split), everything(whole), rtol=0, atol=1e-9)


class Recorder(Dropout):
    """Keeps what it let through."""

    seen: list[Tensor]

    def forward(self, x: Tensor) -> Tensor:
        out = super().forward(torch.ones_like(x))
        self.seen.append(out)
        return x * out


@pytest.mark.parametrize("separate", [False, True])
def test_both_players_moves_see_the_same_numbers_and_the_next_step_others(separate: bool) -> None:
    game = tiny.game()
    game.critic.separate = separate
    layer = game.nets["D"].dropout = Recorder(0.5)
    layer.seen = []
    engine = tiny.engine(game)
    engine.step()
    first = torch.cat(layer.seen)
    layer.seen.clear()
    engine.step()
    real, fake, again = first.split(8)  # D's move shows real and fake, G's move has one source alone
    assert torch.equal(again, real)
    assert not torch.equal(fake, real)
    assert 0.3 < (first == 0).float().mean() < 0.7
    assert not torch.equal(torch.cat(layer.seen), first)


def test_a_joint_pass_draws_what_separate_passes_draw() -> None:
    net, x = {"D": nn.Sequential(Dropout(0.5), GaussianNoise(1.0))}, torch.rand(12, 5)
    rng = Rng(0, total=8).cut(2, 6)
    with keyed(net, rng):
        joint = net["D"](x)
    with keyed(net, rng):
        apart = torch.cat([net["D"](x[k : k + 4]) for k in (0, 4, 8)])
    assert torch.equal(joint, apart)
    with keyed(net, Rng(1, total=8).cut(2, 6)):
        assert not torch.equal(net["D"](x), joint)


def test_a_sample_does_not_depend_on_what_is_drawn_with_it() -> None:
    net, x = {"G": GaussianNoise(1.0)}, torch.zeros(3, 4)
    numbered = [Rng(7, "sample", k, total=1) for k in (5, 2, 9)]
    with keyed(net, numbered):
        together = net["G"](x)
    with keyed(net, numbered[1:2]):
        assert torch.equal(net["G"](x[:1]), together[1:2])
    assert not torch.equal(together[0], together[1])


def test_a_reference_batch_has_numbers_of_its_own() -> None:
    net = {"D": Referenced(Dropout(0.5), (3,))}
    ones = torch.ones(4, 3)
    with keyed(net, Rng(0, total=4)):
        whole = net["D"].body(torch.cat([torch.ones(REFERENCE, 3), ones]))
    with keyed(net, Rng(0, total=4).cut(1, 3)):
        part = net["D"].body(torch.cat([torch.ones(REFERENCE, 3), ones[1:3]]))
    assert torch.equal(part[:REFERENCE], whole[:REFERENCE])
    assert torch.equal(part[REFERENCE:], whole[REFERENCE + 1 : REFERENCE + 3])


def test_a_layer_that_is_torn_or_shared_or_left_alone() -> None:
    shared = Dropout(0.5)
    nets: dict[str, nn.Module] = {"A": nn.Sequential(shared), "B": nn.Sequential(nn.ReLU(), shared)}
    assert layers(nets) == {"A.0": shared}
    with (
        keyed(nets, Rng(0, total=4)),
        pytest.raises(CombinationError, match=r"A\.0 draws random numbers for 4 rows, but its input has 6"),
    ):
        nets["B"](torch.ones(6, 2))
    assert shared._source is None
    torch.manual_seed(0)
    first = shared(torch.ones(4, 9))
    torch.manual_seed(0)
    assert torch.equal(shared(torch.ones(4, 9)), first)
    assert isinstance(shared, Noisy)
    with keyed(nets, Rng(0, total=2)):
        assert torch.equal(shared.eval()(torch.ones(3, 2)), torch.ones(3, 2))
