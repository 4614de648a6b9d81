"""Learning-rate schedules."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """A player's learning-rate schedule: constant, or linear from `start` to 0 at `end`.

    start: below 1 a share of the whole run, else a number of `unit`, as is end: steps or images. end: None is the end
    of the run; if start is a share after end, the rate is 0 from end on. Raises ConfigError.
    """

    kind: Literal["constant", "linear"] = "constant"
    start: float = 0
    unit: Literal["steps", "images"] = "steps"
    end: int | None = None

    def __post_init__(self) -> None:
        if self.end is not None and self.end <= self.start:
            raise ConfigError(
                f"optimizer.schedule needs end above start, or null, not start={self.start:g} end={self.end}"
            )
        if self.start < 0 or (self.start > 1 and self.start % 1):
            raise ConfigError(
                f"optimizer.schedule.start={self.start:g}: a whole number of {self.unit}, or a share of the run"
                " below 1, such as 0.5"
            )

    def factor(self, step: int, steps: int, seen: int = 0, images: int = 0) -> float:
        """Return the factor of the learning rate at `step` of `steps`, after `seen` of `images` images.

        >>> Schedule(kind="linear").factor(25, 100), Schedule(kind="linear", unit="images").factor(0, 9, 50, 200)
        (0.75, 0.75)
        >>> [Schedule(kind="linear", start=0.5).factor(step, 100) for step in (49, 50, 75)]
        [1.0, 1.0, 0.5]
        >>> [Schedule(kind="linear", start=0.5, end=60).factor(step, 100) for step in (30, 50, 55, 60)]
        [1.0, 1.0, 0.5, 0.0]
        >>> [Schedule(kind="linear", start=0.5, end=40).factor(step, 100) for step in (39, 40)]
        [1.0, 0.0]
        """
        at, whole = (step, steps) if self.unit == "steps" else (seen, images)
        last = self.end or whole
        start = self.start * whole if self.start < 1 else self.start
        if self.kind == "constant" or at < min(start, last):  # if end precedes a share of the run: 0 from end on
            return 1.0
        if at >= last:
            return 0.0
        return max(0.0, 1 - (at - start) / max(1, last - start))
