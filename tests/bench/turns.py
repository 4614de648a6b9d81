"""Steps timed in turns in one process, so that other programs on the machine slow all of them alike."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping


def timed(steps: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[float]]:
    """Run each step `rounds` times, one after another, after a first turn that does not count; the seconds of each."""
    taken: dict[str, list[float]] = {name: [] for name in steps}
    for turn in range(rounds + 1):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            if turn:
                taken[name].append(time.perf_counter() - began)
    return taken
