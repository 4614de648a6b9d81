"""How a command is stopped: what the person is told at once, and what is taken away where nothing was trained."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

TERMINAL = 2  # the file number that is written to
STEP = "stopping after this step ... (a second Ctrl-C stops at once and does not save it)"
BEGINNING = "stopping before the first step ..."


class Messenger:
    """Says what a signal does at the moment it comes, from a thread: the main one may be inside torch for a minute.

    say: the line for a signal's number, None for no line. Only the main thread may start it.
    """

    def __init__(self, say: Callable[[int], str | None]):
        self._say = say

    def start(self) -> None:
        """Listen to what Python's C code writes when a signal arrives."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Listen no more."""
        signal.set_wakeup_fd(self._before, warn_on_full_buffer=False)
        os.close(self._write)
        self._thread.join()
        os.close(self._read)

    def _listen(self) -> None:
        while numbers := os.read(self._read, 64):
            for number in numbers:
                line = self._say(number)
                if line is not None:
                    with contextlib.suppress(OSError):  # the terminal is gone
                        os.write(TERMINAL, _terminal(line))


def _terminal(line: str) -> bytes:
    """A line for the terminal, in place of what stands in the line of the cursor, such as ^C or a bar."""
    return f"{chr(13) + chr(27) + '[K' if os.isatty(TERMINAL) else ''}{line}\n".encode()


def missing(path: Path) -> list[Path]:
    """The folders above a path that are not there yet, the nearest first."""
    return [folder for folder in path.absolute().parents if not folder.exists()]
