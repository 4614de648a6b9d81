"""Stopping a command by a signal: the immediate message, and the folders to remove if nothing was trained."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable
from pathlib import Path

TERMINAL = 2  # file descriptor of the terminal (stderr)
STEP = "stopping after this step ... (a second Ctrl-C stops at once and does not save it)"
BEGINNING = "stopping before the first step ..."


class Messenger:
    """Prints what a signal does as soon as it arrives, from a thread: torch may block the main thread for a minute.

    say: returns the line for a signal's number, None for no line. Only the main thread may start it.
    """

    def __init__(self, say: Callable[[int], str | None]):
        self._say = say

    def start(self) -> None:
        """Start to read what Python's C code writes when a signal arrives."""
        self._read, self._write = os.pipe()
        os.set_blocking(self._write, False)
        self._before = signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        self._thread = threading.Thread(target=self._listen, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Stop reading."""
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
    """Return a line for the terminal that overwrites the current line, such as ^C or a progress bar."""
    return f"{chr(13) + chr(27) + '[K' if os.isatty(TERMINAL) else ''}{line}\n".encode()


def missing(path: Path) -> list[Path]:
    """Return the parent folders of a path that do not exist, the nearest first."""
    return [folder for folder in path.absolute().parents if not folder.exists()]
