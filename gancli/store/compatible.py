"""Validation of a checkpoint's state against this engine: it may be damaged or untrusted."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Optimizer

from gancli.train.engine import Engine
from gancli.train.players import Player


def refuse_other(state: Mapping[str, Any], engine: Engine) -> None:
    """Raise ValueError, naming the part, if a state's tensors, numbers or names differ from the engine's own.

    An optimizer's state is compared with that of one of its kind after a step.
    """
    own = engine.state()
    for part in ("game", "ema", "copies", "positions"):
        _compare(state[part], own[part], part)
    for name, rows in state["kept"].items():
        row = engine.kept.first.get(name)
        if row is None or rows.shape[1:] != row.shape or rows.dtype != row.dtype or not len(rows):
            raise ValueError(f"kept.{name} is not state that this game keeps between steps")
    for name in own["scalers"].keys() & state["scalers"].keys():  # a run may be resumed in another precision
        _compare(state["scalers"][name], own["scalers"][name], f"scalers.{name}")
    for name, player in engine.players.items():
        if name not in state["optimizers"]:
            raise ValueError(f"optimizers.{name} is missing")
        _optimizer(state["optimizers"][name], player, f"optimizers.{name}")


def _compare(there: Any, own: Any, path: str) -> None:
    """Raise ValueError if a value differs from another in type, shape or names."""
    if isinstance(own, Mapping):
        if not isinstance(there, Mapping) or there.keys() != own.keys():
            raise ValueError(f"{path} has other names than this model's")
        for name, value in own.items():
            _compare(there[name], value, f"{path}.{name}")
    elif isinstance(own, Tensor):
        if not isinstance(there, Tensor) or (there.shape, there.dtype) != (own.shape, own.dtype):
            raise ValueError(f"{path} is not of shape {list(own.shape)} and {own.dtype}")
    elif isinstance(own, (list, tuple)):
        if not isinstance(there, (list, tuple)) or len(there) != len(own):
            raise ValueError(f"{path} is not a list of {len(own)}")
        for k, value in enumerate(own):
            _compare(there[k], value, f"{path}.{k}")
    elif _number(own):
        if not _number(there) or not math.isfinite(there):
            raise ValueError(f"{path} is not a finite number")
    elif type(there) is not type(own):
        raise ValueError(f"{path} is not of type {type(own).__name__}")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _optimizer(there: Any, player: Player, path: str) -> None:
    """Raise ValueError if an optimizer cannot continue from this state."""
    own = player.optimizer.state_dict()
    if not isinstance(there, Mapping) or not {"state", "param_groups"} <= there.keys():
        raise ValueError(f"{path} has no state or param_groups")
    groups, memories = there["param_groups"], there["state"]
    if not isinstance(groups, list) or len(groups) != len(own["param_groups"]) or not isinstance(memories, Mapping):
        raise ValueError(f"{path} has other groups than this model's")
    for k, (group, known) in enumerate(zip(groups, own["param_groups"], strict=True)):
        if not isinstance(group, Mapping) or group.get("params") != known["params"]:
            raise ValueError(f"{path}.param_groups.{k} has other parameters than this model's")
        for name, value in known.items():
            if name in group:  # an older torch may have fewer
                _compare(group[name], value, f"{path}.param_groups.{k}.{name}")
        if not {"lr", "betas"} & known.keys() <= group.keys():
            raise ValueError(f"{path}.param_groups.{k} has no learning rate")
    kinds = remembered(player.optimizer)
    for number, memory in memories.items():
        if type(number) is not int or not 0 <= number < len(player.params) or not isinstance(memory, Mapping):
            raise ValueError(f"{path}.state.{number} belongs to no parameter")
        if memory and memory.keys() != kinds.keys():
            raise ValueError(f"{path}.state.{number} has {', '.join(map(str, memory))}, not {', '.join(kinds)}")
        for name, value in memory.items():
            like = player.params[number] if kinds[name] == "parameter" else torch.zeros(())
            if kinds[name] != "other" and (not isinstance(value, Tensor) or value.shape != like.shape):
                raise ValueError(f"{path}.state.{number}.{name} is not of shape {list(like.shape)}")
            if kinds[name] == "other" and isinstance(value, Tensor):
                raise ValueError(f"{path}.state.{number}.{name} is a tensor")


def remembered(optimizer: Optimizer) -> dict[str, str]:
    """Return an optimizer's state per parameter by name, as the kind of each value: parameter, scalar or other.

    Determined by one step of a small one: `parameter` has the parameter's shape.

    >>> remembered(torch.optim.Adam([torch.zeros(2)]))
    {'step': 'scalar', 'exp_avg': 'parameter', 'exp_avg_sq': 'parameter'}
    """
    weights = torch.nn.Parameter(torch.zeros(2, 3))
    weights.grad = torch.zeros_like(weights)
    taken = inspect.signature(type(optimizer)).parameters
    small = type(optimizer)([weights], **{k: v for k, v in optimizer.defaults.items() if k in taken})
    small.param_groups[0].update({k: v for k, v in optimizer.param_groups[0].items() if k != "params"})
    small.step()
    shapes = {name: value.shape if isinstance(value, Tensor) else None for name, value in small.state[weights].items()}
    kinds = {weights.shape: "parameter", torch.Size([]): "scalar", None: "other"}
    return {name: kinds[shape] for name, shape in shapes.items()}
