"""Base class of observers, their view of a run, and the events they yield. Observers never change the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from torch import Tensor

from gancli.compute.memory import refuse_many
from gancli.games.game import sample_of
from gancli.games.stages import Stage
from gancli.train.engine import Engine


@dataclass(frozen=True)
class Values:
    """A row for metrics.jsonl."""

    values: dict[str, Any]


@dataclass(frozen=True)
class Picture:
    """An image [H, W, 3] or [H, W] uint8 for samples/NAME.png."""

    name: str
    image: np.ndarray[Any, np.dtype[np.uint8]]


@dataclass(frozen=True)
class Lines:
    """Lines of text for samples/NAME.txt."""

    name: str
    lines: list[str]


@dataclass(frozen=True)
class Film:
    """An animation samples/NAME.gif, `seconds` long, of all pictures in samples/, also of earlier processes."""

    name: str
    seconds: float = 10.0


@dataclass(frozen=True)
class Keep:
    """Save a checkpoint after all observers ran; then keep only the newest `keep` (None: all), the first and the best.

    best: the `gan eval` result that selects the best.
    """

    keep: int | None = None
    best: str = "fid"


@dataclass(frozen=True)
class Scored:
    """A result of metrics with its protocol, for the run's eval/; its numbers are printed, too."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Stop:
    """Ends the run, as failed or as stopped, with a reason."""

    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Alarm:
    """A warning that training fails: printed, and written to metrics.jsonl under its name."""

    name: str
    text: str


@dataclass(frozen=True)
class Say:
    """A line to print and to write to log.txt, by rank 0. For problems use Alarm."""

    text: str


def diverged(what: str, engine: Engine) -> Stop:
    """Return the Stop of a run with a value that is not finite."""
    return ended(f"{what} is not finite at step {engine.step_number}", engine)


def ended(words: str, engine: Engine) -> Stop:
    """Return the Stop of a run that diverged, with remedies. words: the reason."""
    *others, last = [f"optimizer.{player}.lr" for player in engine.players]
    rates = " and ".join(filter(None, (", ".join(others), last)))
    penalty = ", add a penalty," if engine.game.judging() else ""
    return Stop(f"{words}: the run diverged; lower {rates}{penalty} or set optimizer.clip", failed=True)


Event = Values | Picture | Lines | Film | Keep | Alarm | Say | Scored | Stop


@dataclass
class RunView:
    """A run as observers see it after each step (and once before the first, without logs).

    seconds: of training so far, over all resumes. estimates: seconds per step of each stage, from a rehearsal.
    final: no step follows. folder: the run directory. events: the events of this step so far; a logger therefore comes
    after the observers whose events it logs. config: the run's whole configuration. say: prints a line from an
    observer's `open`, before a long operation; on_step yields Say instead.
    """

    engine: Engine
    steps: int
    logs: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0
    estimates: Mapping[str, float] = field(default_factory=dict)
    final: bool = False
    began_at: int = 0
    folder: Path = field(default_factory=Path)
    events: list[Event] = field(default_factory=list)
    config: Mapping[str, Any] = field(default_factory=dict)
    say: Callable[[str], None] = lambda text: None
    _opened: float = field(default_factory=time.perf_counter)
    _began: float = field(default_factory=time.perf_counter)
    _values: tuple[int, dict[str, float]] = (-1, {})
    _guess: float | None = None  # seconds per step of this stage, extrapolated from the stage before

    def begin(self) -> None:
        """Start the clock of the first step; the time of observers before it does not count."""
        self._began = time.perf_counter()

    def next_stage(self, before: Stage) -> None:
        """Start measuring the steps of a new stage; before: the previous stage."""
        ratio = self._weight(self.engine.at.stage) / self._weight(before)
        self._guess = self._pace(before) * ratio
        self.began_at = self.step
        self.begin()

    @property
    def step(self) -> int:
        """Steps done."""
        return self.engine.step_number

    @property
    def seen(self) -> int:
        """Real images consumed by the first player."""
        return self.engine.seen

    def refuse_many(self, key: str, n: int) -> None:
        """Raise ConfigError if the `n` samples of observers.`key` do not fit in memory."""
        _, field = sample_of(self.engine.game)
        refuse_many(f"observers.{key}={n}", n, 12 * math.prod(field.shape) + 1000, f"observers.{key}")

    def due(self, every: int) -> bool:
        """Whether an observer with this interval runs now: at multiples, before the first and after the last step."""
        return self.step % every == 0 or self.final

    def values(self) -> dict[str, float]:
        """Return this step's losses and statistics as numbers; only this call synchronises with the device."""
        if self._values[0] != self.step:
            self._values = (self.step, {name: float(value) for name, value in self.logs.items()})
        return self._values[1]

    def most_left(self) -> float:
        """Return the seconds until max_time ends this process; infinite without it."""
        most = self.config.get("max_time")
        if not isinstance(most, (int, float)):
            return math.inf
        return max(0.0, most * 60 - (time.perf_counter() - self._opened))

    def seconds_a_step(self) -> float:
        """Return seconds per step: measured over this stage's steps; before there are any, an estimate."""
        return self._pace(self.engine.at.stage)

    def left(self) -> float:
        """Return the estimated seconds left, with the steps of each stage weighted by their estimated time."""
        now, course = self.engine.at.stage, self.engine.course
        spans = course.spans(self.step, self.seen, self.steps)
        many = sum((span.steps or 0) * (self._weight(span.at.stage) / self._weight(now)) for span in spans)
        return many * self.seconds_a_step()

    def _pace(self, stage: Stage) -> float:
        done = self.step - self.began_at
        if done > 2:
            return (time.perf_counter() - self._began) / done
        return self.estimates.get(stage.name, 0.0) if self._guess is None else self._guess

    def _weight(self, stage: Stage) -> float:
        """Return the relative time of a step of a stage: the estimate, else its number of images."""
        return self.estimates[stage.name] if self.estimates else self.engine.rows[stage.name]


class Observer:
    """Base class of observers, each with its own interval.

    everywhere: whether all ranks call it, at the same steps and before the observers that run on rank 0 only, so that
    it may distribute work with `view.engine.world`. A Stop of any rank ends the run; other events count on rank 0 only.
    name: its key in the configuration.
    """

    name: str = ""
    everywhere: ClassVar[bool] = False

    def meet(self, others: Sequence[Observer]) -> None:
        """Called once with all observers of the run, before `refuse`. Raises GanError if one is missing."""

    def refuse(self, view: RunView) -> None:
        """Called once before anything is measured or written. Raises ConfigError if it does not fit in memory."""

    def open(self, view: RunView) -> None:
        """Called once before the first step."""

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Called before the first step and after each."""
        return iter(())

    def results(self) -> tuple[str, ...]:
        """Return the names of its Scored results, the most important first."""
        return ()

    def state(self) -> dict[str, Any]:
        """Return the state to save in checkpoints, as plain values, so that a resumed run yields the same events."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Restore the state from a checkpoint; called after `open`, only with what `state` returned."""

    def close(self) -> None:
        """Called once at the end, also after an error."""

    def ended(self, folder: Path) -> None:
        """Called once after the final status is written to the run directory."""
