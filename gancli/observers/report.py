"""report.html: an HTML page of the run, rewritten while it trains."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gancli.errors import ConfigError, GanError
from gancli.observers.observer import Event, Observer, RunView
from gancli.store.rundir import RunDir


class Report(Observer):
    """Writes the page every `every` seconds, and at the end, after the run's final status is known."""

    def __init__(self, every: float = 60.0):
        if not 0 < every < float("inf"):
            raise ConfigError(f"observers.report.every={every:g}: type seconds above 0")
        self.every = every
        self._next = 0.0
        self._sheets: object = None
        self._said = False

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Write the page when it is due, for the first time before the first step."""
        now = time.monotonic()
        if now >= self._next:
            self._write(view.folder)
            self._next = time.monotonic() + self.every
        return iter(())

    def ended(self, folder: Path) -> None:
        """Write the page of a finished run."""
        self._write(folder)

    def _write(self, folder: Path) -> None:
        """Write the page; an error is reported once, and training continues."""
        try:
            from gancli.report import page, sheets  # imported here, so that a run without a page does not load plotly

            if not isinstance(self._sheets, sheets.Sheets):
                self._sheets = sheets.Sheets()
            page.write(folder, self._sheets)
        except Exception as error:
            self._say(folder, error)

    def _say(self, folder: Path, error: Exception) -> None:
        if self._said:
            return
        self._said = True
        words = " ".join(str(error).split())[:300] or type(error).__name__
        line = f"note: {folder / 'report.html'} was not written: {words} (training is not affected)"
        with contextlib.suppress(GanError, OSError):  # a full disk, a closed terminal
            print(line, file=sys.stderr, flush=True)
            RunDir(folder).say(line)
