"""The progress display: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TaskID, TextColumn
from rich.progress import Progress as Bar

from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, RunView

REFRESH = 0.25  # seconds between updates of the bar
MOST = 4  # numbers shown for a game without values named loss_*


class Progress(Observer):
    """Step, losses, images per second, time left: a bar on a terminal, or a line every `every` seconds elsewhere."""

    def __init__(self, every: float = 10.0):
        if every <= 0:
            raise ConfigError(f"observers.progress.every={every:g}: type seconds above 0")
        self.every = every
        self._bar: Bar | None = None
        self._task = TaskID(0)
        self._next = 0.0
        self._losses = ""

    def open(self, view: RunView) -> None:
        """Show the estimate before the first step."""
        console = Console(file=sys.stderr)
        if console.is_terminal and not console.is_dumb_terminal:
            columns = (
                TextColumn("{task.description}"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[words]}"),
            )
            self._bar = Bar(*columns, console=console, refresh_per_second=8)
            self._task = self._bar.add_task("training", total=view.steps, completed=view.step, words=self._words(view))
            self._bar.start()
        else:
            self._line(view)
            self._next = time.monotonic() + self.every

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Refresh the bar a few times per second, or print a line when it is due."""
        now = time.monotonic()
        if not view.logs or (now < self._next and not view.final):
            return iter(())
        if self._bar is not None:
            self._bar.update(self._task, completed=view.step, words=self._words(view))
        else:
            self._line(view)
        self._next = now + (self.every if self._bar is None else REFRESH)
        return iter(())

    def close(self) -> None:
        """Restore the terminal."""
        if self._bar is not None:
            self._bar.stop()
            self._bar = None

    def _line(self, view: RunView) -> None:
        with contextlib.suppress(OSError):  # a closed pipe or a full disk
            words = [f"step {view.step}/{view.steps}", self._words(view)]
            print(" · ".join(filter(None, words)), file=sys.stderr, flush=True)

    def _words(self, view: RunView) -> str:
        values = view.values()
        named = view.engine.game.diagnostics().shown or tuple(name for name in values if name.startswith("loss_"))
        named = named or tuple(name for name in values if not name.startswith("grad_norm_"))[:MOST]
        parts = [f"{name.removeprefix('loss_')} {values[name]:.3f}" for name in named if name in values]
        pace = view.seconds_a_step()
        if pace > 0:
            images = view.engine.rows[view.engine.at.stage.name]
            parts.append(f"{images / pace:.0f} {_rows(view)}/s")
            left, most = view.left(), view.most_left()
            parts.append(f"{'about ' if not view.logs else ''}{clock(min(left, most))} left")
            parts += ["then max_time ends it"] if most < left else []
        return " · ".join(parts)


def _rows(view: RunView) -> str:
    """Return the unit of the first feed's rows, by which a run is counted: images, points, ..."""
    return next((field.words for field in view.engine.game.fields.values()), "rows")


def clock(seconds: float) -> str:
    """Format a duration.

    >>> clock(75), clock(7500), clock(600_000), clock(1e300)
    ('1:15', '2:05:00', '6 days 22:40:00', 'over 1000 years')
    """
    if not seconds < 1000 * 365 * 86400:
        return "over 1000 years"
    hours, rest = divmod(round(seconds), 3600)
    if hours >= 48:
        return f"{hours // 24:,} days {hours % 24}:{rest // 60:02d}:{rest % 60:02d}"
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
