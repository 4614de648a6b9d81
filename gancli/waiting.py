"""A line on the terminal about an operation that takes longer than a second."""

from __future__ import annotations

import contextlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gancli.errors import GanError

MOMENT = 1.0  # seconds


def aloud(text: str) -> None:
    """Print a line on stderr, if stderr is still open."""
    with contextlib.suppress(OSError):
        print(text, file=sys.stderr, flush=True)


@contextmanager
def told(text: str, say: Callable[[str], None] = aloud, after: float = 0.0) -> Iterator[None]:
    """Print `text` if the block takes longer than `after` seconds (MOMENT at least).

    A thread prints it, since a single call of torch may block the main thread for a minute.
    """

    def speak() -> None:
        try:
            say(f"{text} ...")
        except GanError:  # a log that cannot be written: its owner reports the error
            aloud(f"{text} ...")

    timer = threading.Timer(max(after, MOMENT), speak)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
