"""The schedule of a run's stages: the stage and batch sizes of each step, and the last step.

It follows from the game's stages and the run's settings, so that checkpoints do not store it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gancli.errors import ConfigError
from gancli.games.game import Game, Move
from gancli.games.stages import Moment, Stage


@dataclass(frozen=True)
class Span:
    """The steps of a run in one stage, beginning at the moment `at`.

    images: rows of the first feed that each step consumes. steps: number of steps; None: unlimited.
    """

    at: Moment
    images: int
    steps: int | None


class Course:
    """The schedule of stages. batch_size, micro_batch: for all stages; None: each stage has its own.

    Raises ConfigError for inconsistent stages, and for a stage without a batch size.
    """

    def __init__(self, game: Game, batch_size: int | None, micro_batch: int | None = None):
        self.game, self.stages = game, tuple(game.stages())
        self._batch_size, self.whole_micro_batch = batch_size, micro_batch  # of the whole run
        refuse_stages(self.stages, list(game.parameters_by_player()))
        for stage in self.stages:
            self.batch_size(stage)
        self.by_steps = self.stages[0].unit == "steps"

    def at(self, step: int, seen: int) -> Moment:
        """Return the moment after `step` steps and `seen` images."""
        stage, here = self.stages[0], step if self.by_steps else seen
        for later in self.stages[1:]:
            if here >= later.start:
                stage = later
        return Moment(step, seen, stage)

    def batch_size(self, stage: Stage) -> int:
        """Return the rows of each feed in a move of size 1, over all ranks."""
        size = self._batch_size or stage.batch_size
        if size is None:
            of = f"the stage {stage.name} of this game" if stage.name else "this game"
            raise ConfigError(f"batch_size=null: {of} has no default batch size: type batch_size=N, such as 64")
        return size

    def micro_batch(self, stage: Stage) -> int | None:
        """Return the rows per forward pass; None: all rows of a move."""
        return self.whole_micro_batch or stage.micro_batch

    def total(self, move: Move, stage: Stage) -> int:
        """Return the rows of a move, over all ranks."""
        return round(move.rows(self.batch_size(stage)))

    def images(self, moves: Sequence[Move], stage: Stage) -> int:
        """Return the rows of the first feed that a step of these moves consumes."""
        return self.total(moves[0], stage) * moves[0].repeat

    def spans(self, step: int = 0, seen: int = 0, until: int | None = None) -> list[Span]:
        """Return the stages from a moment on, up to step `until`; None: all stages, the last one unlimited."""
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
        """Return the number of steps of a run with these `steps`, or `images`, or neither. Raises ConfigError."""
        if images is not None:
            return self._reached(images)
        if steps is not None:
            return steps
        end = self.stages[-1].end
        if end is None:
            raise ConfigError("steps=null: this game has no default length: type steps=N or images=N")
        return end if self.by_steps else self._reached(end)

    def seen(self, steps: int) -> int:
        """Return the images that a run of this many steps sees."""
        return sum(span.images * (span.steps or 0) for span in self.spans(until=steps))

    def _reached(self, images: int) -> int:
        """Return the number of steps after which this many images are seen."""
        for span in self.spans():
            steps = -(-max(0, images - span.at.seen) // span.images)
            if span.steps is None or steps <= span.steps:
                return span.at.step + steps
        raise AssertionError("the last stage has no end")


def refuse_stages(stages: Sequence[Stage], players: Sequence[str]) -> None:
    """Raise ConfigError for inconsistent stages, or stages that name unknown players."""
    starts, names = [stage.start for stage in stages], [stage.name for stage in stages]
    wrong = None
    if not starts or starts[0] != 0 or starts != sorted(starts):
        wrong = f"they start at {starts}: the first must start at 0, and each at or after the one before"
    elif len(set(names)) < len(names):
        wrong = f"their names are {', '.join(names)}: each needs a unique name"
    elif len({stage.unit for stage in stages}) > 1:
        wrong = "some count steps and some images: all need the same unit"
    elif any(stage.end is not None for stage in stages[:-1]) or (stages[-1].end or starts[-1]) < starts[-1]:
        wrong = "a stage before the last has an end, or the last ends before it starts"
    for stage in stages:
        named = [*stage.reset, *(stage.rates if not isinstance(stage.rates, (int, float)) else ())]
        strange = [name for name in named if name not in players]
        if strange:
            wrong = f"{stage.name} names {strange[0]}, but the players are {', '.join(players)}"
    if wrong is not None:
        raise ConfigError(f"the stages of this game are inconsistent: {wrong}")
