"""Exponential moving averages (EMA) of weights, and a game's delayed copies of networks."""

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
    """The rule of the EMA of G's weights: `decay` per step, a plain copy until step `start`; decay 0: no EMA.

    warmup: limit the decay at step n after `start` to (1 + n) / (10 + n), a horizon of about a tenth of the steps, so
    that an early EMA is not dominated by the first, random weights. half_life: in images, with `decay` None: the EMA
    then does not depend on the batch size. ramp: with half_life, which is at most this share of the images seen (Karras
    et al. 2020, limited data). Raises ConfigError.
    """

    decay: float | None = 0.999
    start: int = 0
    warmup: bool = True
    half_life: int | None = None
    ramp: float | None = None

    def __post_init__(self) -> None:
        if self.ramp is not None and (self.half_life is None or not 0 < self.ramp < float("inf")):
            raise ConfigError(f"model.ema.ramp={self.ramp:g}: a number above 0, with model.ema.half_life; or null")
        if self.half_life is not None and self.half_life < 1:
            raise ConfigError(f"model.ema.half_life={self.half_life}: a number of images from 1, or null")
        if (self.decay or None) is not None and self.half_life is not None:
            raise ConfigError(
                f"model.ema has decay={self.decay:g} and half_life={self.half_life}: set one of them to null"
            )
        if self.decay is None and self.half_life is None:
            raise ConfigError("model.ema has neither decay nor half_life: set model.ema.decay=0 for no EMA")
        if not 0 <= (self.decay or 0) < 1 or self.start < 0:
            raise ConfigError(
                f"model.ema has decay in [0, 1) and start >= 0, not decay={self.decay} start={self.start}"
            )

    @property
    def kept(self) -> bool:
        """Whether there is an EMA."""
        return self.decay != 0

    def at(self, step: int, images: int = 1, seen: int = 0) -> float:
        """Return the decay after `step` steps. images: of the last one; seen: of those before.

        >>> Average(decay=0.999).at(80), Average(decay=0.999).at(100_000), Average(decay=0.999, start=9).at(9)
        (0.9, 0.999, 0.0)
        >>> Average(decay=None, half_life=10_000, warmup=False).at(1, images=5_000) == 0.5 ** 0.5
        True
        >>> ramped = Average(decay=None, half_life=10_000, ramp=0.5, warmup=False)
        >>> [ramped.at(1 + k, 100, 100 * k) for k in (0, 2)]
        [0.0, 0.5]
        """
        age = step - self.start
        if age <= 0:
            return 0.0
        decay = self.decay or 0.0
        if self.half_life is not None:
            span = self.half_life if self.ramp is None else min(self.half_life, self.ramp * seen)
            decay = 0.5 ** (images / span) if span else 0.0
        return min(decay, (1 + age) / (10 + age)) if self.warmup else decay


def frozen_copy(net: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode without gradients."""
    return copy.deepcopy(net).requires_grad_(False).eval()


def copies_of(game: Game) -> dict[str, nn.Module]:
    """Return the initial delayed copies of a game. Raises ConfigError for a copy of an unknown network."""
    rules, nets = game.copies(), dict(game.nets.items())
    for name, rule in rules.items():
        if rule.of not in nets:
            raise ConfigError(f"the copy {name} is of {rule.of}, but this game has the networks {', '.join(nets)}")
    return {name: frozen_copy(nets[rule.of]) for name, rule in rules.items()}


@torch.no_grad()
def follow(copies: Mapping[str, nn.Module], rules: Mapping[str, Copy], nets: nn.ModuleDict, step: int) -> None:
    """Update each delayed copy from its network, after `step` steps."""
    for name, rule in rules.items():
        kept = rule.kept(step)
        if kept is not None:
            net = nets[rule.of]
            torch._foreach_lerp_(list(copies[name].parameters()), list(net.parameters()), 1 - kept)
            for old, now in zip(copies[name].buffers(), net.buffers(), strict=True):
                old.copy_(now)
