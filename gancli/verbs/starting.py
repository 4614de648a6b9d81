"""Another run's weights to start from: the whole of them, or single networks by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gancli.config.paths import network_source
from gancli.errors import ConfigError, RunError
from gancli.store import rundir

if TYPE_CHECKING:
    from gancli.games.game import Game
    from gancli.train.engine import Engine


@dataclass(frozen=True)
class Weights:
    """A network's weights out of another run. asked: how they were asked for. told: what they are, in words."""

    asked: str
    weights: Mapping[str, Tensor]
    told: str


def check(init: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Raise ConfigError for a network that this model does not have, and for what names no network of a run."""
    if not init:
        raise ConfigError(f"init={{}} names no network: type init='{{{next(iter(networks))}: run:PATH}}', or init=null")
    for name, value in init.items():
        if name not in networks:
            raise ConfigError(f"init.{name}: this model has no such network; it has {', '.join(networks)}")
        network_source(name, value)


def read(init: Mapping[str, Any]) -> dict[str, Weights]:
    """The networks that runs are asked for: averaged ones where a run has them. Raises RunError."""
    from gancli.store import checkpoint

    files: dict[str, dict[str, Any]] = {}
    found = {}
    for name, value in init.items():
        asked, (path, other) = f"init.{name}={value}", network_source(name, value)
        if path not in files:
            run, file = rundir.find(path, key=f"init.{name}")
            files[path] = checkpoint.read_run(file or run.checkpoint("last"))
        state, there = files[path], other or name
        prefix = f"nets.{there}."
        raw = {key.removeprefix(prefix): t for key, t in state["game"].items() if key.startswith(prefix)}
        if not raw:
            names = dict.fromkeys(key.split(".")[1] for key in state["game"] if key.startswith("nets."))
            raise RunError(f"{asked}: that run has no network {there}; it has {', '.join(names)}")
        averaged = state["ema"].get(there)
        kind = "raw weights" if averaged is None else "averaged weights"
        told = f"{name} starts from {there} of {path} at step {state['step']}, {kind}"
        found[name] = Weights(asked, raw if averaged is None else averaged, told)
    return found


def refuse_other(found: Mapping[str, Weights], game: Game) -> None:
    """Raise RunError for weights of other names or shapes than the game's networks, which may be shapes alone."""
    for name, given in found.items():
        own = game.nets[name].state_dict()
        strange = [*sorted(given.weights.keys() - own.keys()), *sorted(own.keys() - given.weights.keys())]
        if strange:
            raise RunError(f"{given.asked}: it has other layers than this model's {name}: {strange[0]} is in one alone")
        for key, weight in own.items():
            there: Any = given.weights[key]
            shape = list(there.shape) if isinstance(there, Tensor) else None
            if shape != list(weight.shape):
                words = f"{key} is of shape {shape} there and {list(weight.shape)} in this model's {name}"
                raise RunError(f"{given.asked}: it does not fit: {words}")


def networks(init: Mapping[str, Any], shapes: Callable[[], Game]) -> dict[str, Weights]:
    """The networks that runs are asked for, compared with a game of shapes alone. Raises RunError."""
    found = read(init)
    refuse_other(found, shapes())
    return found


def take(found: Mapping[str, Weights], engine: Engine) -> None:
    """Let networks begin with other runs' weights, and with them their averages and copies."""
    for name, given in found.items():
        engine.game.nets[name].load_state_dict(given.weights)
    for name, net in engine.averages.items():
        net.load_state_dict(engine.game.nets[name].state_dict())
    _restart_copies(engine)


def start_from(which: str, engine: Engine) -> None:
    """Take another run's weights, and nothing else of it. Raises RunError where they do not fit."""
    from gancli.store import checkpoint

    def found() -> dict[str, Any]:
        run, file = rundir.find(which, key="init")
        return checkpoint.read_run(file or run.checkpoint("last"))

    state = engine.world.from_first(found)
    try:
        engine.game.load_state_dict(state["game"])
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
