"""report.html: the run as a page for the browser, refreshed while it trains."""

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
    """Writes the page anew every `every` seconds, and at the end, when the run's status is known."""

    def __init__(self, every: float = 60.0):
        if not 0 < every < float("inf"):
            raise ConfigError(f"observers.report.every={every:g}: seconds above 0")
        self.every = every
        self._next = 0.0
        self._sheets: object = None
        self._said = False

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Write it when it is due, the first time with what stands before the first step."""
        now = time.monotonic()
        if now >= self._next:
            self._write(view.folder)
            self._next = time.monotonic() + self.every
        return iter(())

    def ended(self, folder: Path) -> None:
        """The page of a run that is over."""
        self._write(folder)

    def _write(self, folder: Path) -> None:
        """Whatever is wrong with the page is said once, and the training goes on."""
        try:
            from gancli.report import page, sheets  # plotly is not loaded by a run without a page

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
        line = f"note: no {folder / 'report.html'}: {words} (the training is not affected)"
        with contextlib.suppress(GanError, OSError):  # a full disk, a closed terminal
            print(line, file=sys.stderr, flush=True)
            RunDir(folder).say(line)
