"""One contract for every game and every model: a new one is in it by having a file in conf/."""

from __future__ import annotations

import copy
from functools import cache

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.data.facts import DataFacts
from gancli.draw.sampling import CHUNK, Sampler
from gancli.train.engine import Engine
from gancli.verbs.train import split_notes
from tests.contract.cast import BESIDE, GAMES, MODELS, TINY, config_of, engine_of, game_of, has_batch_norm, tried
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


@cache
def plain(model: str) -> Tensor:
    """All weights of a model after two steps."""
    return everything(steps(engine_of(TINY[model]), 2))


def sampler_of(engine: Engine, model: str) -> Sampler:
    """Whoever draws samples of this game, by its averaged networks, as commands do."""
    nets = {name: copy.deepcopy(net).eval() for name, net in engine.networks().items()}
    sampler = Sampler(engine.game, nets, DataFacts.of(engine.main.source), Compute())
    sampler.config = config_of(TINY[model])
    return sampler


def drawn(sampler: Sampler, n: int, seed: int = 0) -> Tensor:
    """n samples of a seed, ready."""
    return sampler.sample([(seed, k) for k in range(n)])


def test_every_model_has_tiny_widths() -> None:
    assert sorted(TINY) == sorted(MODELS), "add the model to TINY in tests/contract/cast.py, with tiny widths"


def test_every_game_has_a_cast() -> None:
    assert sorted({*map(game_of, TINY), *BESIDE}) == sorted(GAMES)


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
def test_the_same_seed_draws_the_same_sample(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """To the bit, however many are drawn; and the same but for rounding, however many are drawn at once."""
    sampler = sampler_of(steps(engine_of(TINY[model]), 1), model)
    first = drawn(sampler, 5)
    assert torch.equal(first, drawn(sampler, 5))
    assert torch.equal(first[:3], drawn(sampler, 3))
    more = CHUNK + 1 if sampler.most is None else sampler.most
    assert torch.equal(first, drawn(sampler, more)[:5])
    assert not torch.equal(first, drawn(sampler, 5, seed=1))
    monkeypatch.setattr("gancli.draw.sampling.CHUNK", 4)
    torch.testing.assert_close(drawn(sampler, 5), first, rtol=1e-5, atol=1e-5)


# A part of the configuration, changed: what comes of it is another run, or a refusal.
PROBES = {
    "loss": ["loss=lsgan", "loss.smooth=0.25"],
    "no loss": ["loss=none"],
    "penalty": ["penalty=r1", "penalty.r1.weight=3"],
    "augment": ["augment=diffaugment", "augment.hole=0.3"],
    "ramp": ["ramp=r3gan", "ramp.images=8", "ramp.augment=null"],
    "latent": ["model.latent.dim=12"],
    "averages": ["model.ema.decay=0.5", "model.ema.warmup=false"],
    "terms": ["+terms.near.columns=[x,x]", "+terms.near.distance=l1"],
}
AUGMENTED = ("fastgan",)  # models with augment=diffaugment by themselves


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("probe", PROBES)
def test_a_part_changes_something_or_is_refused(model: str, probe: str) -> None:
    changes = ["augment=none"] if probe == "augment" and model in AUGMENTED else PROBES[probe]
    other, said = tried([*TINY[model], *changes])
    if other is None:
        assert said
        assert "\n" not in said
        return
    changed = everything(steps(other, 2))
    assert len(changed) != len(plain(model)) or not torch.equal(changed, plain(model))


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
