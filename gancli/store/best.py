"""Selection of the best checkpoint by a metric, from the results in a run's eval/ directory."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from gancli.errors import RunError
from gancli.metrics.directions import higher_is_better
from gancli.store.files import files, read_json


def best_step(results: Path, metric: str, steps: Collection[int]) -> int | None:
    """Return the step, among `steps`, with the best value of a metric: the earliest if equal, None if not measured.

    Values of different protocols are not compared: the protocol that measured the most steps is used, and of equals the
    most recent one. results: a folder of JSON files with `step`, `protocol_id` and values by name.
    """
    sign = -1 if higher_is_better(metric) else 1
    scores: dict[str, dict[int, float]] = {}
    for path in sorted(files(results, "*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        try:
            found = read_json(path)
            protocol, step, value = str(found["protocol_id"]), int(found["step"]), float(found[metric])
        except (RunError, KeyError, TypeError, ValueError, OverflowError):
            continue  # another metric's result, or a damaged one
        if step in steps and math.isfinite(value):
            scores[protocol] = {**scores.pop(protocol, {}), step: sign * value}  # the newest protocol comes last
    if not scores:
        return None
    values = max(reversed(scores.values()), key=len)
    return min(values, key=lambda step: (values[step], step))
