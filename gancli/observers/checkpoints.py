"""When to write a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from gancli.best import higher_is_better
from gancli.errors import ConfigError
from gancli.observers.observer import Event, Keep, Observer, RunView


class Checkpoints(Observer):
    """A checkpoint every `every` steps; the newest `keep` stay (None: all), beside the first and the best.

    best: the result of `gan eval` that says which is best. Raises ConfigError for a name that no result has.
    """

    def __init__(self, every: int = 1000, keep: int | None = 3, best: str = "fid"):
        if every < 1 or (keep is not None and keep < 1):
            raise ConfigError(f"observers.checkpoints: every and keep are at least 1, not every={every} keep={keep}")
        higher_is_better(best)  # a name that no result has is said now, not when a checkpoint is to be kept
        self.every, self.keep, self.best = every, keep, best

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Keep, when it is due."""
        if view.due(self.every):
            yield Keep(self.keep, self.best)
