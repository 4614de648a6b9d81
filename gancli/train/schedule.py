"""Learning rates over a run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A player's learning rate over a run: constant, or from `start` in a straight line to 0 at `end`.

    unit: what start and end count, steps or images. end: None is the end of the run. Raises ConfigError.
    """

    kind: Literal["constant", "linear"] = "constant"
    start: int = 0
    unit: Literal["steps", "images"] = "steps"
    end: int | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise ConfigError(f"optimizer.schedule has end above start, or null, not start={self.start} end={self.end}")

    def factor(self, step: int, steps: int, seen: int = 0, images: int = 0) -> float:
        """What the learning rate is multiplied by at `step` of `steps`, after `seen` images of `images` in all.

        >>> Schedule(kind="linear").factor(25, 100), Schedule(kind="linear", unit="images").factor(0, 9, 50, 200)
        (0.75, 0.75)
        """
        at, last = (step, steps) if self.unit == "steps" else (seen, images)
        if self.kind == "constant" or at < self.start:
            return 1.0
        return max(0.0, 1 - (at - self.start) / max(1, (self.end or last) - self.start))
