"""A cosine ramp of learning rates, penalties, β2, the EMA and augmentation over a run."""

from __future__ import annotations

import math
from dataclasses import dataclass

from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Ramp:
    """Half a cosine over the first `images` real images, with final values (Huang et al. 2024, as released).

    lr, penalty: final factors of the learning rates and the penalties' weights. beta2: Adam's final β2. half_life:
    final half-life of G's EMA in images, from 0 at the start. augment: final p of the augmentation. None: unchanged.
    Raises ConfigError for values out of range.

    >>> ramp = Ramp(images=100, lr=0.25, beta2=0.99, half_life=1000)
    >>> [round(ramp.share(seen), 3) for seen in (0, 25, 50, 100, 200)]
    [0.0, 0.146, 0.5, 1.0, 1.0]
    >>> ramp.rate(50), ramp.second_beta(0.9, 100), ramp.decay(0, batch=10), ramp.decay(100, batch=1000)
    (0.625, 0.99, 0.0, 0.5)
    """

    images: int
    lr: float = 1.0
    penalty: float = 1.0
    beta2: float | None = None
    half_life: int | None = None
    augment: float | None = None

    def __post_init__(self) -> None:
        if self.images < 1 or not 0 <= self.lr < math.inf or not 0 <= self.penalty < math.inf:
            raise ConfigError(
                f"ramp needs images >= 1, lr >= 0 and penalty >= 0, not images={self.images} lr={self.lr:g}"
                f" penalty={self.penalty:g}"
            )
        if not 0 <= (self.beta2 or 0) < 1 or not 0 <= (self.augment or 0) <= 1 or (self.half_life or 1) < 1:
            raise ConfigError(
                f"ramp needs beta2 in [0, 1), augment in [0, 1] and half_life >= 1, or null, not beta2={self.beta2}"
                f" augment={self.augment} half_life={self.half_life}"
            )

    def share(self, seen: int) -> float:
        """Return the progress of the ramp after `seen` real images, from 0 to 1."""
        return (1 - math.cos(math.pi * min(1.0, seen / self.images))) / 2

    def between(self, start: float, end: float, seen: int) -> float:
        """Interpolate between start and end."""
        return start + (end - start) * self.share(seen)

    def rate(self, seen: int) -> float:
        """Return the factor of the learning rates."""
        return self.between(1.0, self.lr, seen)

    def weight(self, seen: int) -> float:
        """Return the factor of the penalties' weights."""
        return self.between(1.0, self.penalty, seen)

    def second_beta(self, start: float, seen: int) -> float:
        """Return Adam's β2."""
        return start if self.beta2 is None else self.between(start, self.beta2, seen)

    def decay(self, seen: int, batch: int) -> float:
        """Return the EMA's decay for a step of `batch` images."""
        assert self.half_life is not None
        images = self.half_life * self.share(seen)
        return 0.5 ** (batch / images) if images else 0.0
