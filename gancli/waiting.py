"""What a person is told while they wait: a line about anything that takes longer than a moment, and nothing else."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gancli.errors import GanError

MOMENT = 1.0  # seconds


def aloud(text: str) -> None:
    """A line on the terminal, where there still is one."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def told(text: str, say: Callable[[str], None] = aloud, after: float = 0.0) -> Iterator[None]:
    """Say `text` when what is done inside has not ended after `after` seconds, or after a MOMENT where that is longer.

    A thread says it, since torch may keep the main one for a minute in a single call.
    """

    def speak() -> None:
        try:
            say(f"{text} ...")
        except GanError:  # a log that cannot be written: what it belongs to will say so
            aloud(f"{text} ...")

    timer = threading.Timer(max(after, MOMENT), speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
