"""What a game knows of its own course: the stages that it goes through, and networks that follow others."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Stage:
    """A stretch of a run in which a game plays otherwise: a phase of training, or a resolution of a growing network.

    start: in `unit`, from the beginning of the run; a stage is entered by the first step that begins at or after it.
    batch_size, micro_batch: where the run leaves them open. reset: players whose optimizers start anew. level: the mip
    level that its rows are dealt at. rates: what the learning rate of all players, or of those named, is multiplied by.
    end: of the last stage, where a run without steps= ends.
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

    def rate(self, player: str) -> float:
        """What a player's learning rate is multiplied by."""
        return self.rates.get(player, 1.0) if isinstance(self.rates, Mapping) else self.rates


@dataclass(frozen=True)
class Moment:
    """Where a run is: steps done, rows of the first feed seen, and the stage that the next step belongs to."""

    step: int = 0
    seen: int = 0
    stage: Stage = field(default_factory=Stage)


@dataclass(frozen=True, kw_only=True)
class Copy:
    """A frozen network that follows the network `of`: a target network, a roll-out policy.

    decay: the share of its old weights that it keeps, every `every` steps; 0: it becomes a plain copy then. Until
    `start` steps are done it is one after each step. Buffers are copied whenever it moves. Raises ConfigError.
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
        """The share of the old weights that is kept when `step` steps are done; None: it does not move.

        >>> [Copy(of="G", decay=0.9, every=2, start=3).kept(step) for step in (1, 3, 4, 5)]
        [0.0, 0.0, None, 0.9]
        """
        if step <= self.start:
            return 0.0
        return None if (step - self.start) % self.every else self.decay
