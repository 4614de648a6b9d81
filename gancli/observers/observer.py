"""What an observer sees and what it may ask for. It reads, and never touches the run."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
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
    """All pictures in samples/ so far, those of earlier sittings too, as samples/NAME.gif; `seconds` in all."""

    name: str
    seconds: float = 10.0


@dataclass(frozen=True)
class Keep:
    """Save a checkpoint when all have looked; then keep only the newest `keep` (None: all), the first and the best.

    best: the result of `gan eval` that says which is best.
    """

    keep: int | None = None
    best: str = "fid"


@dataclass(frozen=True)
class Scored:
    """A result of metrics with its protocol, for the run's eval/; its numbers are said to the person, too."""

    result: dict[str, Any]


@dataclass(frozen=True)
class Stop:
    """End the run, as failed or merely stopped, for a reason in words."""

    reason: str
    failed: bool = False


@dataclass(frozen=True)
class Alarm:
    """Something goes wrong: said to the person, and kept in metrics.jsonl under its name."""

    name: str
    text: str


@dataclass(frozen=True)
class Say:
    """A line for the person, and for log.txt; of several ranks, rank 0 says it. Nothing goes wrong (that is Alarm)."""

    text: str


def diverged(what: str, engine: Engine) -> Stop:
    """The end of a run whose numbers are numbers no more, with the remedies."""
    return ended(f"{what} is no longer a finite number at step {engine.step_number}", engine)


def ended(words: str, engine: Engine) -> Stop:
    """The end of a run that diverged, with what its game would take against it. words: how that is known."""
    *others, last = [f"optimizer.{player}.lr" for player in engine.players]
    rates = " and ".join(filter(None, (", ".join(others), last)))
    penalty = ", add a penalty," if engine.game.judging() else ""
    return Stop(f"{words}: the run diverged; lower {rates}{penalty} or set optimizer.clip", failed=True)


Event = Values | Picture | Lines | Film | Keep | Alarm | Say | Scored | Stop


@dataclass
class RunView:
    """A run as an observer sees it after a step (and once before the first, with no logs).

    seconds: of training so far, over all resumes. estimates: seconds of a step of each stage, from a rehearsal.
    final: no step follows. folder: the run directory. events: what observers asked for at this step so far, so that
    whoever passes things on (a page, a logger) stands after those who find them. config: the run's, whole.
    say: what an observer's `open` says lines with, before something that takes long; elsewhere it yields Say.
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
    _guess: float | None = None  # seconds of a step of this stage, by the stages before it

    def begin(self) -> None:
        """The first step begins: what was looked at before it does not count as a step's time."""
        self._began = time.perf_counter()

    def next_stage(self, before: Stage) -> None:
        """Another stage begins than `before`: its steps are measured by themselves."""
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
        """Raise ConfigError where `n` samples, as observers.`key` asks for, do not fit into memory."""
        _, field = sample_of(self.engine.game)
        refuse_many(f"observers.{key}={n}", n, 12 * math.prod(field.shape) + 1000, f"observers.{key}")

    def due(self, every: int) -> bool:
        """Whether an observer of this cadence looks now: at its multiples, before the first and after the last step."""
        return self.step % every == 0 or self.final

    def values(self) -> dict[str, float]:
        """This step's losses and statistics as numbers; the one place where the loop waits for the device."""
        if self._values[0] != self.step:
            self._values = (self.step, {name: float(value) for name, value in self.logs.items()})
        return self._values[1]

    def most_left(self) -> float:
        """Seconds until max_time ends this sitting; infinite without it."""
        most = self.config.get("max_time")
        if not isinstance(most, (int, float)):
            return math.inf
        return max(0.0, most * 60 - (time.perf_counter() - self._opened))

    def seconds_a_step(self) -> float:
        """Measured over this process's steps of this stage; before there are any, as others and a rehearsal say."""
        return self._pace(self.engine.at.stage)

    def left(self) -> float:
        """Seconds that the rest of the run will take, each stage as long as its steps do beside this one's."""
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
        """How long a step of a stage takes, in any unit: as estimated, or by its images."""
        return self.estimates[stage.name] if self.estimates else self.engine.rows[stage.name]


class Observer:
    """Looks at a run at its own cadence.

    everywhere: of several ranks, all call it, at the same steps and before the observers of rank 0 alone, so that it
    may share work out by `view.engine.world`. Any rank's Stop ends the run; its other events count on rank 0.
    name: the key that it stands under in the configuration.
    """

    name: str = ""
    everywhere: ClassVar[bool] = False

    def refuse(self, view: RunView) -> None:
        """Called once before anything is measured or written. Raises ConfigError for what this machine cannot hold."""

    def open(self, view: RunView) -> None:
        """Called once before the first step."""

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Called before the first step and after each."""
        return iter(())

    def results(self) -> tuple[str, ...]:
        """Names of the results that it will give as Scored, the most telling first."""
        return ()

    def state(self) -> dict[str, Any]:
        """What a checkpoint must remember of this observer, as plain values, so that a resumed run says the same."""
        return {}

    def restore(self, state: dict[str, Any]) -> None:
        """Take up what a checkpoint remembers; called after `open`, never with what `state` did not return."""

    def close(self) -> None:
        """Called once at the end, whatever happened."""

    def ended(self, folder: Path) -> None:
        """Called once when the run directory says how the run ended; nothing is trained or saved after it."""
