"""Frozen networks that follow others: the moving average that samples are drawn with, and a game's delayed copies."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from gancli.errors import ConfigError
from gancli.games.game import Game
from gancli.games.stages import Copy


@dataclass(frozen=True, kw_only=True)
class Average:
    """Exponential moving average of G's weights: `decay` a step, a copy until step `start`; decay 0 keeps none.

    warmup: never remember more than about a tenth of the steps since then, so that a young average is not made of the
    first, random weights: the decay at step n is at most (1 + n) / (10 + n).
    """

    decay: float = 0.999
    start: int = 0
    warmup: bool = True

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.start < 0:
            raise ConfigError(
                f"model.ema has decay in [0, 1) and start >= 0, not decay={self.decay:g} start={self.start}"
            )

    def at(self, step: int) -> float:
        """The decay when `step` steps are done.

        >>> Average(decay=0.999).at(80), Average(decay=0.999).at(100_000), Average(decay=0.999, start=9).at(9)
        (0.9, 0.999, 0.0)
        """
        age = step - self.start
        if age <= 0:
            return 0.0
        return min(self.decay, (1 + age) / (10 + age)) if self.warmup else self.decay


def frozen_copy(net: nn.Module) -> nn.Module:
    """A copy in evaluation mode that collects no gradients."""
    return copy.deepcopy(net).requires_grad_(False).eval()


def copies_of(game: Game) -> dict[str, nn.Module]:
    """The delayed copies that a game asks for, as they are at its beginning. Raises ConfigError."""
    rules, nets = game.copies(), dict(game.nets.items())
    for name, rule in rules.items():
        if rule.of not in nets:
            raise ConfigError(f"the copy {name} is of {rule.of}, and this game has the networks {', '.join(nets)}")
    return {name: frozen_copy(nets[rule.of]) for name, rule in rules.items()}


@torch.no_grad()
def follow(copies: Mapping[str, nn.Module], rules: Mapping[str, Copy], nets: nn.ModuleDict, step: int) -> None:
    """Let each copy follow its network when `step` steps are done."""
    for name, rule in rules.items():
        kept = rule.kept(step)
        if kept is not None:
            net = nets[rule.of]
            torch._foreach_lerp_(list(copies[name].parameters()), list(net.parameters()), 1 - kept)
            for old, now in zip(copies[name].buffers(), net.buffers(), strict=True):
                old.copy_(now)
