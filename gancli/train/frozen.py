"""`model.NETWORK.freeze`: how many blocks of a network keep the weights that they start with."""

from __future__ import annotations

import inspect
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from torch import nn

from gancli.config.build import convert, find
from gancli.config.settings import Node
from gancli.draw.standing import frozen_statistics
from gancli.nets.freezing import blocks_of, freeze, names_of

if TYPE_CHECKING:
    from gancli.train.engine import Engine

KEY = "freeze"


def is_ours(node: Node, path: str) -> bool:
    """Whether `freeze` in a network's section is not an argument of its constructor, but counts blocks."""
    return KEY not in inspect.signature(find(node["_target_"], path)).parameters


def counts(model: Node) -> dict[str, int]:
    """Return the number of frozen blocks of each network that has some. Raises ConfigError for no whole number."""
    found = {}
    for name, node in model.items():
        if isinstance(node, dict) and "_target_" in node and KEY in node and is_ours(node, f"model.{name}"):
            found[name] = convert(node[KEY], int, f"model.{name}.{KEY}")
    return {name: count for name, count in found.items() if count}


def freeze_blocks(model: Node, nets: Mapping[str, nn.Module]) -> None:
    """Freeze the networks' first blocks as configured. Raises ConfigError and CombinationError."""
    for name, count in counts(model).items():
        freeze(nets[name], count, f"model.{name}.{KEY}")


def notes(model: Node, nets: Mapping[str, nn.Module], started: Iterable[str]) -> list[str]:
    """Return one line per network with frozen blocks. started: the networks that do not start from random weights."""
    lines, begun = [], set(started)
    for name, count in counts(model).items():
        blocks = blocks_of(nets[name], count, f"model.{name}.{KEY}")
        names = ", ".join(part for block in blocks[:count] for part in names_of(nets[name], block))
        line = f"{name} has {count} of {len(blocks)} blocks frozen: {names}"
        lines.append(line + ("" if name in begun else "; their weights stay random, since it has no init="))
    return lines


def start_from_averages(model: Node, engine: Engine) -> None:
    """Load the EMA's weights into the frozen blocks of its network, if they differ: then neither changes.

    Batch norms there get the statistics of these weights, since they never collect any.
    """
    names = counts(model).keys() & engine.averages.keys()
    for name in names:
        trained = {id(p) for player in engine.players.values() for p in player.params}
        for own, average in zip(engine.game.nets[name].parameters(), engine.averages[name].parameters(), strict=True):
            if id(own) not in trained:
                own.data.copy_(average)
    for name, statistics in frozen_statistics(engine.game, engine.compute).items() if names else ():
        for net in (engine.game.nets[name], engine.averages.get(name)):
            for key, buffer in net.named_buffers() if net is not None else ():
                if key in statistics:
                    buffer.copy_(statistics[key])
