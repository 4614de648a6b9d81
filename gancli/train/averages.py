"""The exponential moving average of weights that samples are drawn with."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import nn

from gancli.errors import ConfigError


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
