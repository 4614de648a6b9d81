"""Progress lines with the remaining time, for `gan eval` and `gan sample input=`."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Mapping, Sequence

from gancli.metrics.extractor import Extractor
from gancli.metrics.images import ImageSet
from gancli.metrics.metric import ImageMetric, LabelMetric, Metric
from gancli.metrics.reference import Reference
from gancli.observers.progress import clock

REAL, SAMPLES = "real images", "samples"  # the evaluator's names of the image sets


def ahead(
    metrics: Sequence[Metric],
    evaluated: Sequence[ImageSet],
    real: ImageSet | Reference | None,
    extractor: Extractor | None,
) -> dict[str, int]:
    """Return the number of images of each kind that the extractor will process, in order."""
    if extractor is None:
        return {}
    by_features = [m for m in metrics if not isinstance(m, (LabelMetric, ImageMetric))]
    compared = isinstance(real, ImageSet) and any(m.compares for m in by_features)
    first = {REAL: real.n} if compared and isinstance(real, ImageSet) else {}
    return first | {SAMPLES: sum(one.n for one in evaluated)}


class Remaining:
    """A progress callback: prints a line at once, a second after `soon` seconds, then one every `every` seconds.

    ahead: images of each kind that will be processed; the remaining time covers all of them. For other work it covers
    the current part only. now: a clock.
    """

    def __init__(
        self,
        ahead: Mapping[str, int] | None = None,
        every: float = 5.0,
        soon: float = 1.0,
        now: Callable[[], float] = time.monotonic,
    ):
        self.ahead, self.every, self.soon, self.now = dict(ahead or {}), every, soon, now
        self._next = -1.0
        self._part, self._done, self._seen, self._at = "", 0, 0, 0.0
        self._rows, self._time = 0, 0.0  # for the measured speed

    def __call__(self, what: str, done: int, total: int, /) -> None:
        """Record the progress; print a line if one is due."""
        now = self.now()
        self._measure(what, done, now)
        if now < self._next:
            return
        left = self._left(what, done, total)
        print(f"{what} {done}/{total}{left}", file=sys.stderr, flush=True)
        self._next = now + (self.soon if self._next < 0 else self.every)

    def _measure(self, what: str, done: int, now: float) -> None:
        """Count the rows since the last call; the first call of a set does not count towards the speed."""
        step = done
        if what == self._part and done >= self._done:
            step -= self._done
            self._rows, self._time = self._rows + step, self._time + now - self._at
        elif not (what in self.ahead and self._part in self.ahead):  # the same network: keep its speed
            self._rows, self._time = 0, 0.0
        self._seen = step + (self._seen if what == self._part else 0)
        self._part, self._done, self._at = what, done, now

    def _left(self, what: str, done: int, total: int) -> str:
        """Return the text of the remaining time; empty while the speed is unknown."""
        if not self._rows:
            return ""
        if what not in self.ahead:
            return f" · about {clock((total - done) * self._time / self._rows)} left of this part"
        kinds = list(self.ahead)
        rest = sum(self.ahead[kind] for kind in kinds[kinds.index(what) :]) - self._seen
        return f" · about {clock(max(0, rest) * self._time / self._rows)} left"
