"""Rows of metrics.jsonl, and the end of a run whose losses are no longer numbers."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, Row, RunView, diverged


class Metrics(Observer):
    """A row every `every` steps: step, images seen, seconds, each loss and statistic, images a second."""

    def __init__(self, every: int = 10):
        if every < 1:
            raise ConfigError(f"observers.metrics.every={every}: at least 1")
        self.every = every
        self._last = (0, 0.0)

    def open(self, view: RunView) -> None:
        """Start the clock."""
        self._last = (view.seen, time.perf_counter())

    def on_step(self, view: RunView) -> Iterator[Event]:
        """A row when it is due; the end when a loss is no longer finite."""
        if not view.logs or not view.due(self.every):
            return
        values, now = view.values(), time.perf_counter()
        seen, before = self._last
        self._last = (view.seen, now)
        speed = (view.seen - seen) / max(now - before, 1e-9)
        times = {"seconds": round(view.seconds, 3), "images_per_second": round(speed, 1)}
        broken = [name for name, value in values.items() if not math.isfinite(value)]
        yield Row(
            {"step": view.step, "seen": view.seen, **times} | {k: None if k in broken else v for k, v in values.items()}
        )
        if broken:
            yield diverged(broken[0], view.step)
