"""Progress display while a data set is prepared: a bar on a terminal, else a line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

EVERY = 10.0  # seconds between lines


@contextmanager
def shown(told: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress; call the yielded function with the number of further items done."""
    console = Console(file=sys.stderr)
    if console.is_terminal and not console.is_dumb_terminal:
        columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task(told, total=total)
            yield lambda more: bar.advance(task, more)
        return
    began = time.monotonic()
    done, due = 0, began + EVERY

    def advance(more: int) -> None:
        nonlocal done, due
        done += more
        now = time.monotonic()
        if now >= due:
            due = now + EVERY
            pace = done / (now - began)
            left = f"{(total - done) / pace:.0f} s left"
            print(f"{told}: {done:,}/{total:,} · {pace:.0f} images/s · {left}", file=sys.stderr, flush=True)

    print(f"{told}: {total:,} images", file=sys.stderr, flush=True)
    yield advance
