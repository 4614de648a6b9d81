"""`init=`: initial weights from another run or code base, for all networks or for single networks by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from itertools import combinations
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gancli.config.paths import split_source
from gancli.errors import CombinationError, ConfigError, RunError
from gancli.store import finding, layouts
from gancli.store.networks import StoredNetwork, read_network, refuse_shapes

if TYPE_CHECKING:
    from gancli.games.game import Game
    from gancli.train.engine import Engine


def check(init: Mapping[str, Any], networks: Mapping[str, Any]) -> None:
    """Raise ConfigError for a network that this model does not have, or a value that names no network of a run."""
    if not init:
        raise ConfigError(f"init={{}} names no network: type init='{{{next(iter(networks))}: run:PATH}}', or init=null")
    for name, value in init.items():
        if name not in networks:
            raise ConfigError(f"init.{name}: this model has no such network; it has {', '.join(networks)}")
        split_source(str(value), f"init.{name}", name)


def networks(init: str | Mapping[str, Any], shapes: Callable[[], Game]) -> dict[str, StoredNetwork]:
    """Read the networks, the EMA weights if a run has them, and compare their shapes with the game's.

    init: a source by network; or a file of another code base for all that it holds, and any other path for none, since
    that is read with the game's state. shapes: builds the game without data, for its shapes only. Raises RunError.
    """
    if isinstance(init, str):
        return _of_file(init, shapes)
    files: dict[Path, layouts.Foreign | None] = {}
    for name, value in init.items():
        path = Path(split_source(str(value), f"init.{name}", name)[0]).expanduser()
        if path.is_file() and path not in files:
            files[path] = layouts.read(path, f"init.{name}")
    foreign = any(files.values())
    own = shapes().nets if foreign else None
    found = {}
    for name, value in init.items():
        place, asked = split_source(str(value), f"init.{name}", name)
        file = files.get(Path(place).expanduser())
        if file is None or own is None:
            found[name] = read_network(str(value), f"init.{name}", name, averaged=None)
        else:
            named = asked if str(value).endswith(f"#{asked}") else None
            found[name] = layouts.network(file, dict(own.items()), name, named, f"init.{name}={value}")
    own = shapes().nets if own is None else own
    for name, stored in found.items():
        refuse_shapes(own[name].state_dict(), stored, f"init.{name}={init[name]}")
    for a, b in combinations(found, 2):
        common = _shared(own[a], own[b])
        if not all(torch.equal(found[a].state[one], found[b].state[other]) for one, other in common):
            raise RunError(
                f"init.{a} and init.{b} have different weights for the layers that these networks share: give one of"
                " them, or both from one run"
            )
    return found


def _of_file(init: str, shapes: Callable[[], Game]) -> dict[str, StoredNetwork]:
    """Read all networks of a file of another code base that the game has; none for any other path."""
    path, what = Path(init).expanduser(), f"init={init}"
    file = layouts.read(path, "init") if path.is_file() else None
    if file is None:
        return {}
    own = {name: net for name, net in shapes().nets.items() if layouts.role_of(net) is not None}
    if not own:
        holds = f"{file.layout.system} weights in {file.layout.title} layout"
        raise CombinationError(f"{what} holds {holds}: add model={file.layout.model} to the command")
    given = [name for name, net in own.items() if layouts.names(file, str(layouts.role_of(net)))]
    found = {name: layouts.network(file, own, name, None, what) for name in given}
    for name, stored in found.items():
        refuse_shapes(own[name].state_dict(), stored, what)
    return found


def _shared(one: nn.Module, other: nn.Module) -> list[tuple[str, str]]:
    """Return the names of the tensors that two networks share, in both."""
    held = {id(t): name for name, t in other.state_dict(keep_vars=True).items()}
    return [(name, held[id(t)]) for name, t in one.state_dict(keep_vars=True).items() if id(t) in held]


def notes(found: Mapping[str, StoredNetwork], game: Game, averages: Collection[str] = ()) -> list[str]:
    """Return one line per initialised network, and one per network that shares layers with it.

    averages: networks with an EMA.
    """
    kinds = {True: "EMA weights", False: "raw weights"}
    lines = []
    for name, stored in found.items():
        origin = f"{stored.name} of {stored.file} at step {stored.step}, {kinds[stored.averaged]}"
        own = ", its EMA from the file's average" if stored.average is not None and name in averages else ""
        lines += [f"{name} starts from {stored.told or origin}{own}", *stored.notes]
        others = [k for k, net in game.nets.items() if k not in found and _shared(game.nets[name], net)]
        lines += [f"the layers that {other} shares with {name} start from there, too" for other in others]
    if any(stored.told for stored in found.values()):
        lines += [f"{name} starts from new weights" for name in game.nets if name not in found]
    return lines


def take(found: Mapping[str, StoredNetwork], engine: Engine) -> None:
    """Load other runs' weights into networks; EMA, unless it has its own, and delayed copies start from them, too.

    Raises ConfigError for an EMA that the first step would discard.
    """
    averaged = [name for name, stored in found.items() if stored.average is not None and name in engine.averages]
    if averaged and engine.average_rule.ramp is not None:
        raise ConfigError(
            f"init= has an EMA of {averaged[0]}, which model.ema.ramp={engine.average_rule.ramp:g} would discard at the"
            " first step: type model.ema.ramp=null"
        )
    for name, stored in found.items():
        engine.game.nets[name].load_state_dict(stored.state)
    for name, net in engine.averages.items():
        average = found[name].average if name in found else None
        net.load_state_dict(average or engine.game.nets[name].state_dict())
    restart_copies(engine)


def start_from(which: str, engine: Engine) -> None:
    """Load another run's weights and the game's state, except for pools of old fakes; nothing else of the run.

    Raises RunError if they do not fit.
    """
    from gancli.games.pool import Pool
    from gancli.store import checkpoint

    def found() -> dict[str, Any]:
        run, file = finding.find(which, key="init")
        return checkpoint.read_run(file or run.checkpoint("last"))

    state = engine.world.from_first(found)
    try:
        pools = tuple(f"{name}." for name, part in engine.game.named_modules() if isinstance(part, Pool))
        own = {name: t for name, t in engine.game.state_dict().items() if name.startswith(pools)}
        engine.game.load_state_dict({k: t for k, t in state["game"].items() if not k.startswith(pools)} | own)
        for name, net in engine.averages.items():
            net.load_state_dict(state["ema"].get(name) or engine.game.nets[name].state_dict())
    except Exception as error:  # any error here is caused by the file's content
        words = " ".join(str(error).split())[:200]
        raise RunError(f"init={which}: its weights do not fit this model: {words}") from None
    restart_copies(engine)


def restart_copies(engine: Engine) -> None:
    """Reset delayed copies to the current weights of their networks."""
    for name, rule in engine.game.copies().items():
        engine.copies[name].load_state_dict(engine.game.nets[rule.of].state_dict())
