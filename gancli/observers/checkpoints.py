"""When to write a checkpoint, and which result selects the best one."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gancli.errors import CombinationError, ConfigError
from gancli.metrics.directions import directed, higher_is_better
from gancli.observers.observer import Event, Keep, Observer, RunView

AUTO = "auto"


class Checkpoints(Observer):
    """A checkpoint every `every` steps; the newest `keep` (None: all), the first and the best are kept.

    best: the `gan eval` result that selects the best; auto: the first of observers.scores, or fid if it is off. Raises
    ConfigError for a name that no result has.
    """

    def __init__(self, every: int = 1000, keep: int | None = 3, best: str = AUTO):
        if every < 1 or (keep is not None and keep < 1):
            raise ConfigError(
                f"observers.checkpoints: every and keep must be at least 1, got every={every} keep={keep}"
            )
        self.every, self.keep, self.auto = every, keep, best == AUTO
        self.best = "fid" if self.auto else best
        higher_is_better(self.best)  # raises for an unknown name now, not at the first checkpoint

    def choose_best(self, offered: Sequence[str]) -> None:
        """Set `best` to one of the results of scores. Raises CombinationError if it is not among them.

        Without scores every name is valid: results then come from gan eval.
        """
        able = [name for name in offered if directed(name)]
        if self.auto:
            self.best = next(iter(able), self.best)
        elif offered and re.sub(r"^swd_\d+$", "swd", self.best) not in able:
            remedy = f"choose {' or '.join(able)} (auto: the first), or" if able else "set best=auto, or"
            raise CombinationError(
                f"observers.checkpoints.best={self.best}: observers.scores computes only {', '.join(offered)}:"
                f" {remedy} add its metric to observers.scores.metrics"
            )

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield Keep when it is due."""
        if view.due(self.every):
            yield Keep(self.keep, self.best)


def with_best(config: Mapping[str, Any], observers: Mapping[str, Observer]) -> dict[str, Any]:
    """Return the configuration with observers.checkpoints.best resolved (auto replaced by a result's name).

    observers: by their keys. Raises CombinationError as Checkpoints.choose_best.
    """
    offered = [name for each in observers.values() for name in each.results()]
    sections = dict(config["observers"])
    for key, each in observers.items():
        if isinstance(each, Checkpoints):
            each.choose_best(offered)
            sections[key] = {**sections[key], "best": each.best}
    return {**config, "observers": sections}
