"""Places to try an engine's moves in: afterwards the run stands where it stood, with the buffers that it had."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gancli.games.stages import Moment
    from gancli.train.engine import Engine


@contextmanager
def untouched(engine: Engine) -> Iterator[None]:
    """Afterwards buffers and gradients are as before, whatever happened."""
    before = [buffer.clone() for buffer in engine.game.buffers()]
    try:
        yield
    finally:
        for player in engine.players.values():
            player.optimizer.zero_grad(set_to_none=True)
        for buffer, value in zip(engine.game.buffers(), before, strict=True):
            buffer.copy_(value)


@contextmanager
def elsewhere(engine: Engine, at: Moment) -> Iterator[None]:
    """Inside, the run stands at another moment, to try moves of its stage; afterwards all is as before."""
    here = engine.at
    with untouched(engine):
        try:
            engine.step_number, engine.seen = at.step, at.seen
            engine.game.enter(at)
            yield
        finally:
            engine.step_number, engine.seen = here.step, here.seen
            engine.game.enter(here)
