"""The engine's state of each player: parameters, optimizer and learning-rate schedule."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torch.optim import Optimizer

from gancli.compute.device import Compute
from gancli.nets.layers.spectral import is_spectral
from gancli.train.schedule import Schedule


def counts(players: Mapping[str, Player], nets: Mapping[str, nn.Module]) -> tuple[dict[str, int], dict[str, int]]:
    """Return the trained parameter count of each player, and the frozen parameter count of each network.

    A parameter that several networks share is counted for the first of them.
    """
    counted = {id(p) for player in players.values() for p in player.params}
    trained, still = {name: sum(p.numel() for p in player.params) for name, player in players.items()}, {}
    for name, net in nets.items():
        found = [p for p in net.parameters() if id(p) not in counted]
        counted |= {id(p) for p in found}
        if found:
            still[name] = sum(p.numel() for p in found)
    return trained, still


@dataclass
class Player:
    """A player's parameters, optimizer, and spectral-norm layers, which advance with its moves.

    groups: the configured learning rate and betas of each parameter group, before the schedule.
    """

    params: list[nn.Parameter]
    optimizer: Optimizer
    groups: list[dict[str, Any]]
    spectral: list[Any]
    scaler: torch.amp.GradScaler | None
    schedule: Schedule = field(default_factory=Schedule)

    @staticmethod
    def of(
        nets: Iterable[nn.Module],
        params: list[nn.Parameter],
        optimizer: Optimizer,
        schedule: Schedule,
        compute: Compute,
    ) -> Player:
        """Return the player that trains `params` of its networks."""
        held = {id(p) for p in params}
        mine = (layer for net in nets for layer in net.modules() if is_spectral(layer))
        spectral = list({id(x): x for x in mine if any(id(p) in held for p in x.parameters())}.values())
        scaler = torch.amp.GradScaler(compute.device.type) if compute.autocast == torch.float16 else None
        first: list[dict[str, Any]] = [
            {key: group[key] for key in ("lr", "betas") if key in group} for group in optimizer.param_groups
        ]
        return Player(params, optimizer, first, spectral, scaler, schedule)

    def reach_all(self) -> None:
        """Give parameters without a gradient one of 0 if others have one, so that the optimizer counts a step of each.

        As in StyleGAN 2's released code, whose lazy terms reach all parameters.
        """
        if any(p.grad is not None for p in self.params):
            for p in self.params:
                p.grad = torch.zeros_like(p) if p.grad is None else p.grad

    def set_rate(self, factor: float, lazy: float, second: Callable[[float], float]) -> None:
        """Multiply the configured learning rate by `factor` and raise betas to `lazy`; `second` then maps β2."""
        for group, first in zip(self.optimizer.param_groups, self.groups, strict=True):
            group["lr"] = first["lr"] * factor
            if "betas" in first:
                beta1, beta2 = (beta**lazy for beta in first["betas"])
                group["betas"] = (beta1, second(beta2))
