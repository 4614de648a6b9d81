"""Rows of metrics.jsonl; stops a run whose losses are not finite."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator

import torch

from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, RunView, Values, diverged


class Metrics(Observer):
    """A row every `every` steps: step, images seen, seconds, images per second, losses and statistics, and each
    player's gradient norm, weight norm and learning rate.
    """

    def __init__(self, every: int = 10):
        if every < 1:
            raise ConfigError(f"observers.metrics.every={every}: type at least 1")
        self.every = every
        self._last = (0, 0.0)

    def open(self, view: RunView) -> None:
        """Start the clock."""
        self._last = (view.seen, time.perf_counter())

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a row when it is due; Stop if a loss is not finite."""
        if not view.logs or not view.due(self.every):
            return
        values, now = view.values(), time.perf_counter()
        seen, before = self._last
        self._last = (view.seen, now)
        speed = (view.seen - seen) / max(now - before, 1e-9)
        times = {"seconds": round(view.seconds, 3), "images_per_second": round(speed, 1)}
        finite = {name: value if math.isfinite(value) else None for name, value in values.items()}
        yield Values({"step": view.step, "seen": view.seen, **times, **finite, **state(view)})
        # A gradient that overflows half precision is expected: the scaler skips the step and lowers its scale.
        broken = [name for name, value in finite.items() if value is None and not name.startswith("grad_norm_")]
        if broken:
            yield diverged(broken[0], view.engine)


@torch.no_grad()
def state(view: RunView) -> dict[str, float | None]:
    """Return each player's learning rate and weight norm; None if the norm is not finite."""
    found: dict[str, float | None] = {}
    for name, player in view.engine.players.items():
        norm = float(torch.nn.utils.get_total_norm(player.params))
        found[f"lr_{name}"] = player.optimizer.param_groups[0]["lr"]
        found[f"weight_norm_{name}"] = norm if math.isfinite(norm) else None
    return found
