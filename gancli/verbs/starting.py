"""Another run's weights to start from: the whole of them, or single networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import combinations
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gancli.config.paths import split_source
from gancli.errors import ConfigError, RunError
from gancli.store import rundir
from gancli.store.networks import StoredNetwork, read_network, refuse_shapes

if TYPE_CHECKING:
    from gancli.games.game import Game
    from gancli.train.engine import Engine


def check(init: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Raise ConfigError for a network that this model does not have, and for what names no network of a run."""
    if not init:
        raise ConfigError(f"init={{}} names no network: type init='{{{next(iter(networks))}: run:PATH}}', or init=null")
    for name, value in init.items():
        if name not in networks:
            raise ConfigError(f"init.{name}: this model has no such network; it has {', '.join(networks)}")
        split_source(str(value), f"init.{name}", name)


def networks(init: Mapping[str, Any], shapes: Callable[[], Game]) -> dict[str, StoredNetwork]:
    """The networks that runs are asked for, averaged ones where a run has them, compared with a game of shapes alone.

    Raises RunError.
    """
    found = {name: read_network(str(value), f"init.{name}", name, averaged=None) for name, value in init.items()}
    own = shapes().nets
    for name, stored in found.items():
        refuse_shapes(own[name].state_dict(), stored, f"init.{name}={init[name]}")
    for a, b in combinations(found, 2):
        common = _shared(own[a], own[b])
        if not all(torch.equal(found[a].state[one], found[b].state[other]) for one, other in common):
            raise RunError(
                f"init.{a} and init.{b} have other weights for the layers that these networks share: type one of them,"
                " or both of one run"
            )
    return found


def _shared(one: nn.Module, other: nn.Module) -> list[tuple[str, str]]:
    """The names of tensors that two networks hold together."""
    held = {id(t): name for name, t in other.state_dict(keep_vars=True).items()}
    return [(name, held[id(t)]) for name, t in one.state_dict(keep_vars=True).items() if id(t) in held]


def notes(found: Mapping[str, StoredNetwork], game: Game) -> list[str]:
    """Where networks start from, a line each; and which others thereby start from there in part."""
    kinds = {True: "averaged weights", False: "raw weights"}
    lines = []
    for name, stored in found.items():
        lines.append(
            f"{name} starts from {stored.name} of {stored.file} at step {stored.step}, {kinds[stored.averaged]}"
        )
        others = [k for k, net in game.nets.items() if k not in found and _shared(game.nets[name], net)]
        lines += [f"the layers that {other} shares with {name} start from there, too" for other in others]
    return lines


def take(found: Mapping[str, StoredNetwork], engine: Engine) -> None:
    """Let networks begin with other runs' weights, and with them their averages and copies."""
    for name, stored in found.items():
        engine.game.nets[name].load_state_dict(stored.state)
    for name, net in engine.averages.items():
        net.load_state_dict(engine.game.nets[name].state_dict())
    _restart_copies(engine)


def start_from(which: str, engine: Engine) -> None:
    """Take another run's weights, and nothing else of it: what the game remembers comes along, but for old fakes.

    Raises RunError where they do not fit.
    """
    from gancli.games.pool import Pool
    from gancli.store import checkpoint

    def found() -> dict[str, Any]:
        run, file = rundir.find(which, key="init")
        return checkpoint.read_run(file or run.checkpoint("last"))

    state = engine.world.from_first(found)
    try:
        pools = tuple(f"{name}." for name, part in engine.game.named_modules() if isinstance(part, Pool))
        own = {name: t for name, t in engine.game.state_dict().items() if name.startswith(pools)}
        engine.game.load_state_dict({k: t for k, t in state["game"].items() if not k.startswith(pools)} | own)
        for name, net in engine.averages.items():
            net.load_state_dict(state["ema"].get(name) or engine.game.nets[name].state_dict())
    except Exception as error:  # all of it comes from the file: whatever goes wrong is the file's doing
        words = " ".join(str(error).split())[:200]
        raise RunError(f"init={which}: its weights do not fit this model: {words}") from None
    _restart_copies(engine)


def _restart_copies(engine: Engine) -> None:
    """Delayed copies begin as their networks are now."""
    for name, rule in engine.game.copies().items():
        engine.copies[name].load_state_dict(engine.game.nets[rule.of].state_dict())
