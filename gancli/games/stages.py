"""Stages of a run, a run's current position, and delayed copies of networks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A part of a run with its own settings: a phase of training, or a resolution of a growing network.

    start: in `unit`, from the beginning of the run; the first step that begins at or after it enters the stage.
    batch_size, micro_batch: used if the run does not set them. reset: players whose optimizers are reset. level: mip
    level of its images. rates: factor on the learning rate of all players, or of those named. end: of the last stage:
    where a run without steps= ends. as_before: its steps cost no more than those of the stage before it, so that they
    are not measured separately.
    """

    name: str = ""
    start: int = 0
    unit: Literal["steps", "images"] = "images"
    batch_size: int | None = None
    micro_batch: int | None = None
    reset: tuple[str, ...] = ()
    level: int = 0
    rates: float | Mapping[str, float] = 1.0
    end: int | None = None
    as_before: bool = False

    def rate(self, player: str) -> float:
        """The factor on a player's learning rate."""
        return self.rates.get(player, 1.0) if isinstance(self.rates, Mapping) else self.rates


@dataclass(frozen=True)
class Moment:
    """A position in a run: steps done, rows of the first feed seen, and the stage of the next step."""

    step: int = 0
    seen: int = 0
    stage: Stage = field(default_factory=Stage)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A frozen network that follows the network `of`: a target network, a roll-out policy.

    decay: weight of its old parameters in the update every `every` steps; 0: a plain copy. Until `start` steps are
    done it is copied after each step. Buffers are copied at every update. Raises ConfigError.
    """

    of: str
    decay: float = 0.0
    every: int = 1
    start: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.decay < 1 or self.every < 1 or self.start < 0:
            raise ConfigError(
                f"a copy of {self.of} has decay in [0, 1), every >= 1 and start >= 0, not decay={self.decay:g}"
                f" every={self.every} start={self.start}"
            )

    def kept(self, step: int) -> float | None:
        """The weight of the old parameters in the update after `step` steps; None: no update.

        >>> [Copy(of="G", decay=0.9, every=2, start=3).kept(step) for step in (1, 3, 4, 5)]
        [0.0, 0.0, None, 0.9]
        """
        if step <= self.start:
            return 0.0
        return None if (step - self.start) % self.every else self.decay
