"""The course of a run, known before it begins: which stage each step belongs to, its batches, and where it ends.

Everything here follows from a game's stages and the run's settings alone, so that resuming needs nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gancli.errors import ConfigError
from gancli.games.game import Game, Move
from gancli.games.stages import Moment, Stage


@dataclass(frozen=True)
class Span:
    """The steps of a run that belong to one stage, from the moment `at` on.

    images: rows of the first feed that each of them consumes. steps: how many they are; None: without end.
    """

    at: Moment
    images: int
    steps: int | None


class Course:
    """A game's stages with the run's batches. batch_size, micro_batch: the run's, for all stages; None: each its own.

    Raises ConfigError for stages that make no course, and where a stage has no batch size.
    """

    def __init__(self, game: Game, batch_size: int | None, micro_batch: int | None = None):
        self.game, self.stages = game, tuple(game.stages())
        self._batch_size, self.whole_micro_batch = batch_size, micro_batch  # of the whole run
        refuse_stages(self.stages, list(game.parameters_by_player()))
        for stage in self.stages:
            self.batch_size(stage)
        self.by_steps = self.stages[0].unit == "steps"

    def at(self, step: int, seen: int) -> Moment:
        """The moment after `step` steps and `seen` images."""
        stage, here = self.stages[0], step if self.by_steps else seen
        for later in self.stages[1:]:
            if here >= later.start:
                stage = later
        return Moment(step, seen, stage)

    def batch_size(self, stage: Stage) -> int:
        """Rows of each feed in a move of size 1, over all ranks."""
        size = self._batch_size or stage.batch_size
        if size is None:
            of = f"the stage {stage.name} of this game" if stage.name else "this game"
            raise ConfigError(f"batch_size=null: {of} has no batch size of its own: type batch_size=N, such as 64")
        return size

    def micro_batch(self, stage: Stage) -> int | None:
        """Rows that go through the networks at once; None: all of a move."""
        return self.whole_micro_batch or stage.micro_batch

    def total(self, move: Move, stage: Stage) -> int:
        """Rows of a move, over all ranks."""
        return round(self.batch_size(stage) * move.size)

    def images(self, moves: Sequence[Move], stage: Stage) -> int:
        """Rows of the first feed that a step of these moves consumes."""
        return self.total(moves[0], stage) * moves[0].repeat

    def spans(self, step: int = 0, seen: int = 0, until: int | None = None) -> list[Span]:
        """The stages from a moment on, up to step `until`; None: all of them, the last one without end."""
        found: list[Span] = []
        while True:
            at = self.at(step, seen)
            images, here = self.images(self.game.moves(at), at.stage), step if self.by_steps else seen
            later = [stage.start - here for stage in self.stages if stage.start > here]
            steps = None if not later else -(-min(later) // (1 if self.by_steps else images))
            if until is not None and (steps is None or step + steps >= until):
                return [*found, Span(at, images, max(0, until - step))]
            found.append(Span(at, images, steps))
            if steps is None:
                return found
            step, seen = step + steps, seen + steps * images

    def steps(self, steps: int | None, images: int | None = None) -> int:
        """How many steps a run has that is told of `steps`, of `images`, or of neither. Raises ConfigError."""
        if images is not None:
            return self._reached(images)
        if steps is not None:
            return steps
        end = self.stages[-1].end
        if end is None:
            raise ConfigError("steps=null: this game has no end of its own: type steps=N or images=N")
        return end if self.by_steps else self._reached(end)

    def seen(self, steps: int) -> int:
        """Images that a run of so many steps sees."""
        return sum(span.images * (span.steps or 0) for span in self.spans(until=steps))

    def _reached(self, images: int) -> int:
        """The first step before which so many images are seen."""
        for span in self.spans():
            steps = -(-max(0, images - span.at.seen) // span.images)
            if span.steps is None or steps <= span.steps:
                return span.at.step + steps
        raise AssertionError("the last stage has no end")


def refuse_stages(stages: Sequence[Stage], players: Sequence[str]) -> None:
    """Raise ConfigError for stages that make no course, or name others than the players."""
    starts, names = [stage.start for stage in stages], [stage.name for stage in stages]
    wrong = None
    if not starts or starts[0] != 0 or starts != sorted(starts):
        wrong = f"they start at {starts}: the first at 0, and each at or after the one before"
    elif len(set(names)) < len(names):
        wrong = f"they are called {', '.join(names)}: each by a name of its own"
    elif len({stage.unit for stage in stages}) > 1:
        wrong = "some start after steps and some after images: all in one unit"
    elif any(stage.end is not None for stage in stages[:-1]) or (stages[-1].end or starts[-1]) < starts[-1]:
        wrong = "one that is not the last has an end, or the last ends before it starts"
    for stage in stages:
        named = [*stage.reset, *(stage.rates if not isinstance(stage.rates, (int, float)) else ())]
        strange = [name for name in named if name not in players]
        if strange:
            wrong = f"{stage.name} names {strange[0]}, and the players are {', '.join(players)}"
    if wrong is not None:
        raise ConfigError(f"the stages of this game make no course: {wrong}")
