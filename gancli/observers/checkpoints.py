"""When to write a checkpoint, and by what result the best is known."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gancli.errors import CombinationError, ConfigError
from gancli.metrics.directions import directed, higher_is_better
from gancli.observers.observer import Event, Keep, Observer, RunView

AUTO = "auto"


class Checkpoints(Observer):
    """A checkpoint every `every` steps; the newest `keep` stay (None: all), beside the first and the best.

    best: the result of `gan eval` that says which is best; auto: the first that observers.scores gives, or fid where it
    gives none. Raises ConfigError for a name that no result has.
    """

    def __init__(self, every: int = 1000, keep: int | None = 3, best: str = AUTO):
        if every < 1 or (keep is not None and keep < 1):
            raise ConfigError(f"observers.checkpoints: every and keep are at least 1, not every={every} keep={keep}")
        self.every, self.keep, self.auto = every, keep, best == AUTO
        self.best = "fid" if self.auto else best
        higher_is_better(self.best)  # a name that no result has is said now, not when a checkpoint is to be kept

    def choose_best(self, offered: Sequence[str]) -> None:
        """Choose `best` among the results that scores will give. Raises CombinationError where it is none of them.

        Without scores any name will do: results are then gan eval's.
        """
        able = [name for name in offered if directed(name)]
        if self.auto:
            self.best = next(iter(able), self.best)
        elif offered and re.sub(r"^swd_\d+$", "swd", self.best) not in able:
            way = f"choose {' or '.join(able)} (auto: the first), or" if able else "set best=auto, or"
            raise CombinationError(
                f"observers.checkpoints.best={self.best}: observers.scores gives {', '.join(offered)}, so that the best"
                f" would never be known: {way} add its metric to observers.scores.metrics"
            )

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Keep, when it is due."""
        if view.due(self.every):
            yield Keep(self.keep, self.best)


def with_best(config: Mapping[str, Any], observers: Mapping[str, Observer]) -> dict[str, Any]:
    """The configuration with the result that chooses the best by its name, as whoever asks for the best reads it.

    observers: by their keys. Raises CombinationError as Checkpoints.choose_best.
    """
    offered = [name for each in observers.values() for name in each.results()]
    sections = dict(config["observers"])
    for key, each in observers.items():
        if isinstance(each, Checkpoints):
            each.choose_best(offered)
            sections[key] = {**sections[key], "best": each.best}
    return {**config, "observers": sections}
