"""One contract for every game and every model: a new one is in it by having a file in conf/."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.train.engine import Engine
from gancli.verbs.train import split_notes
from tests.contract.cast import GAMES, MODELS, TINY, engine_of, has_batch_norm, tried
from tests.test_engine import same
from tests.tiny import weights


def steps(engine: Engine, count: int) -> Engine:
    for _ in range(count):
        engine.step()
    return engine


def everything(engine: Engine) -> Tensor:
    """All weights that a run moves or averages, as one vector."""
    nets: list[nn.Module] = [engine.game, *engine.averages.values()]
    return torch.cat([weights(net).double() for net in nets])


def sample(engine: Engine, seed: int = 0) -> Tensor:
    """Four samples, as the averaged networks draw them."""
    game, noise = engine.game, Rng(seed, "contract", total=4)
    nets = {name: copy.deepcopy(net).eval() for name, net in engine.networks().items()}
    with torch.no_grad():
        return next(iter(game.generate(nets, game.inputs(noise, {})).values()))


def test_every_model_has_tiny_widths() -> None:
    assert sorted(TINY) == sorted(MODELS), "add the model to TINY in tests/contract/cast.py, with tiny widths"


@pytest.mark.parametrize("model", MODELS)
def test_three_steps_move_every_network(model: str) -> None:
    engine = engine_of(TINY[model])
    before = {name: weights(net) for name, net in engine.game.nets.items()}
    for _ in range(3):
        logs = engine.step()
    assert all(value.isfinite() for value in logs.values())
    assert all(not before[name].equal(weights(net)) for name, net in engine.game.nets.items())


@pytest.mark.parametrize("model", MODELS)
def test_it_stops_and_goes_on_to_the_same_bits(model: str) -> None:
    straight, first = steps(engine_of(TINY[model]), 3), steps(engine_of(TINY[model]), 1)
    second = engine_of(TINY[model])
    second.load(copy.deepcopy(first.state()))
    torch.rand(7)  # the random state of the process is nobody's business
    same(straight.state(), steps(second, 2).state())


@pytest.mark.parametrize("model", MODELS)
def test_micro_batches_are_the_batch_or_it_is_said(model: str) -> None:
    """Equal to 1e-6 in float64; or refused; or, where batch statistics differ, said, and equal without them."""
    keys = [*TINY[model], "optimizer=sgd"]
    whole = engine_of(keys, double=True, still_norms=True)
    split, said = tried([*keys, "micro_batch=2"], double=True, still_norms=True)
    if split is None:
        assert "micro_batch" in said
        return
    if has_batch_norm(split):
        assert any("batch norm" in note for note in split_notes(split))
    before = weights(whole.game)
    torch.testing.assert_close(everything(steps(split, 2)), everything(steps(whole, 2)), rtol=1e-6, atol=1e-6)
    assert (weights(whole.game) - before).abs().max() > 1e-5


@pytest.mark.parametrize("model", MODELS)
def test_the_same_seed_draws_the_same_sample(model: str) -> None:
    engine = steps(engine_of(TINY[model]), 1)
    first, again, other = sample(engine), sample(engine), sample(engine, seed=1)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# A part of the configuration, changed: what comes of it is another run, or a refusal.
PROBES = {
    "loss": ["loss=lsgan"],
    "penalty": ["penalty=r1"],
    "augment": ["augment=diffaugment"],
    "ramp": ["ramp=r3gan", "ramp.images=8", "ramp.augment=null"],
    "latent": ["model.latent.dim=12"],
    "averages": ["model.ema.decay=0.5", "model.ema.warmup=false"],
}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("probe", PROBES)
def test_a_part_changes_something_or_is_refused(model: str, probe: str) -> None:
    plain = everything(steps(engine_of(TINY[model]), 2))
    other, said = tried([*TINY[model], *PROBES[probe]])
    if other is None:
        assert said
        assert "\n" not in said
        return
    changed = everything(steps(other, 2))
    assert len(changed) != len(plain) or not torch.equal(changed, plain)


@pytest.mark.parametrize("game", GAMES)
def test_every_game_trains_some_model_and_refuses_the_others_in_a_line(game: str) -> None:
    played = 0
    for model in MODELS:
        keys = [key for key in TINY[model] if not key.startswith("game.")]
        own = ["game.labels=4"] if game == "semisup" else []
        engine, said = tried([*keys, f"game={game}", "dataset.classes=2", *own])
        if engine is None:
            assert said
            assert "\n" not in said
            continue
        logs = engine.step()
        assert all(value.isfinite() for value in logs.values())
        played += 1
    assert played >= 1
