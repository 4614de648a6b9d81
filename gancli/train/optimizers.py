"""The players' optimizers, and their shared options."""

from __future__ import annotations

import inspect
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.optim import Optimizer

from gancli.config.build import find, make, make_as
from gancli.config.settings import Node
from gancli.errors import ConfigError
from gancli.train.schedule import Schedule


@dataclass(frozen=True, kw_only=True)
class SharedOptimizer:
    """Options of all players' optimizers: gradient-norm clipping and the learning-rate schedule."""

    clip: float | None = None
    schedule: Schedule | None = None

    def __post_init__(self) -> None:
        if self.clip is not None and not self.clip > 0:
            raise ConfigError(
                f"optimizer.clip={self.clip:g}: expected a gradient norm above 0, or null for no clipping"
            )


def optimizer(node: Node, path: str, params: list[nn.Parameter]) -> Optimizer:
    """Build a torch optimizer, fused if torch supports it. Raises ConfigError for invalid options."""
    supplied: dict[str, Any] = {"params": params}
    choice = find(node.get("_target_"), path)
    if (
        "fused" in inspect.signature(choice).parameters
        and "fused" not in node
        and choice.__name__ in ("Adam", "AdamW", "SGD")
    ):
        supplied["fused"] = True
    # torch reports values out of range.
    made: Optimizer = make(without_schedule(node), path, **supplied)
    return made


def schedules(node: Node) -> tuple[SharedOptimizer, dict[str, Schedule]]:
    """Return the shared options of the optimizer section, and the schedules of players that have their own."""
    parts = {name: part for name, part in node.items() if isinstance(part, dict) and "_target_" in part}
    shared = make_as(SharedOptimizer, {name: part for name, part in node.items() if name not in parts}, "optimizer")
    own = {name: part["schedule"] for name, part in parts.items() if part.get("schedule") is not None}
    return shared, {name: make_as(Schedule, part, f"optimizer.{name}.schedule") for name, part in own.items()}


def without_schedule(node: Node) -> Node:
    """Return a player's optimizer section without its schedule."""
    return {key: value for key, value in node.items() if key != "schedule"} if isinstance(node, dict) else node
