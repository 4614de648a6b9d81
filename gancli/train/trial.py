"""Contexts for trial moves of an engine; afterwards its state is restored."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from gancli.games.stages import Moment
    from gancli.train.engine import Engine


@contextmanager
def untouched(engine: Engine) -> Iterator[None]:
    """Restore buffers and gradients at the end, also after an exception."""
    before = {name: buffer.clone() for name, buffer in engine.game.named_buffers()}
    try:
        yield
    finally:
        for player in engine.players.values():
            player.optimizer.zero_grad(set_to_none=True)
        engine.game.load_state_dict(before, strict=False)  # layers that follow their buffers notice


@contextmanager
def elsewhere(engine: Engine, at: Moment) -> Iterator[None]:
    """Set the run to another moment, to try moves of its stage; restore the state at the end."""
    here = engine.at
    with untouched(engine):
        try:
            engine.step_number, engine.seen = at.step, at.seen
            engine.game.enter(at)
            yield
        finally:
            engine.step_number, engine.seen = here.step, here.seen
            engine.game.enter(here)
