"""Frozen blocks in every model: they never change, all else is trained, however a batch is split."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor, nn

from gancli.nets.freezing import Freezable, freeze, names_of
from gancli.train import assemble
from gancli.train.engine import Engine
from tests.contract.cast import MODELS, TINY, config_of, engine_of, has_batch_norm, tried
from tests.contract.test_contract import everything, steps
from tests.tiny import weights


def networks(model: str) -> list[str]:
    """The names of a model's networks."""
    return list(assemble.network_nodes(config_of(TINY[model])["model"], {}))


def frozen(model: str, count: int = 1) -> list[str]:
    """The keys of a tiny model with so many blocks of each network frozen."""
    return [*TINY[model], *(f"model.{name}.freeze={count}" for name in networks(model))]


def blocks(net: nn.Module) -> int:
    """How many blocks of a network can be frozen."""
    assert isinstance(net, Freezable)
    return len(net.freezable())


def held(net: nn.Module, count: int = 1) -> dict[str, Tensor]:
    """A copy of the state of a network's first blocks."""
    assert isinstance(net, Freezable)
    names = [name for block in net.freezable()[:count] for name in names_of(net, block)]
    state = net.state_dict()
    found = {key: state[key].clone() for key in state if any(f"{key}.".startswith(f"{name}.") for name in names)}
    assert found
    return found


def unchanged(engine: Engine, before: Mapping[str, Mapping[str, Tensor]]) -> None:
    """Assert that these tensors are as they were, in the networks and in their averages."""
    for name, tensors in before.items():
        nets = [engine.game.nets[name], *([engine.networks()[name]] if name in engine.averages else [])]
        assert all(torch.equal(net.state_dict()[key], value) for net in nets for key, value in tensors.items()), name


@pytest.mark.parametrize("model", MODELS)
def test_a_frozen_block_never_changes_and_the_others_do(model: str) -> None:
    engine = engine_of(frozen(model))
    before = {name: held(net) for name, net in engine.game.nets.items()}
    rest = {name: weights(net) for name, net in engine.game.nets.items()}
    logs = [engine.step() for _ in range(3)]
    assert all(value.isfinite() for each in logs for value in each.values())
    unchanged(engine, before)
    assert all(not rest[name].equal(weights(net)) for name, net in engine.game.nets.items())
    trained = {id(p) for player in engine.players.values() for p in player.optimizer.param_groups[0]["params"]}
    for name, net in engine.game.nets.items():
        still = [p for key, p in net.named_parameters() if key in before[name]]
        assert still
        assert all(id(p) not in trained and p.grad is None and not p.requires_grad for p in still)
        assert id(list(net.parameters())[-1]) in trained


@pytest.mark.parametrize("model", MODELS)
def test_all_blocks_may_be_frozen_and_no_more(model: str) -> None:
    most = {name: blocks(net) for name, net in engine_of(TINY[model]).game.nets.items()}
    engine = engine_of([*TINY[model], *(f"model.{name}.freeze={count}" for name, count in most.items())])
    before = {name: held(net, most[name]) for name, net in engine.game.nets.items()}
    for _ in range(8):  # through the stages of networks that grow
        logs = engine.step()
    assert all(value.isfinite() for value in logs.values())
    unchanged(engine, before)
    name, count = next(iter(most.items()))
    _, said = tried([*TINY[model], f"model.{name}.freeze={count + 1}"])
    assert f"model.{name}.freeze={count + 1}: this network has {count} blocks (" in said
    assert said.endswith(f"set 0 to {count}")
    assert "\n" not in said


@pytest.mark.parametrize("model", MODELS)
def test_micro_batches_are_the_batch(model: str) -> None:
    """Equal to 1e-6 in float64, as without frozen blocks."""
    keys = [*frozen(model), "optimizer=sgd"]
    split, said = tried([*keys, "micro_batch=2"], double=True, still_norms=True)
    if split is None:
        assert "micro_batch" in said
        return
    whole = engine_of(keys, double=True, still_norms=True)
    torch.testing.assert_close(everything(steps(split, 2)), everything(steps(whole, 2)), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_a_network_is_the_same_function_with_frozen_blocks(model: str) -> None:
    """Freezing changes what is trained, not what is computed: in evaluation all is equal to the bit."""
    plain, still = engine_of(TINY[model]), engine_of(frozen(model))
    for name, net in plain.game.nets.items():
        other = still.game.nets[name]
        assert net.state_dict().keys() == other.state_dict().keys()
        assert all(torch.equal(value, other.state_dict()[key]) for key, value in net.state_dict().items())
    if not has_batch_norm(plain):  # frozen batch norms use their running statistics, the others those of the batch
        first, second = plain.step(), still.step()
        move = plain.moves()[0]
        key = f"loss_{move.player}" if f"loss_{move.player}" in first else next(iter(first))
        torch.testing.assert_close(first[key], second[key], rtol=1e-5, atol=1e-6)


def test_a_network_without_blocks_is_refused_if_some_are_to_be_frozen() -> None:
    from tests.tiny import TinyD

    with pytest.raises(Exception, match=r"model\.D\.freeze=1: this network does not list its blocks"):
        freeze(TinyD(), 1, "model.D.freeze")
