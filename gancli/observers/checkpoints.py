"""When to write a checkpoint."""

from __future__ import annotations

from collections.abc import Iterator

from gancli.errors import ConfigError
from gancli.observers.observer import Event, Keep, Observer, RunView


class Checkpoints(Observer):
    """A checkpoint every `every` steps; the newest `keep` stay (None: all), beside the first and the best."""

    def __init__(self, every: int = 1000, keep: int | None = 3):
        if every < 1 or (keep is not None and keep < 1):
            raise ConfigError(f"observers.checkpoints: every and keep are at least 1, not every={every} keep={keep}")
        self.every, self.keep = every, keep

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Keep, when it is due."""
        if view.due(self.every):
            yield Keep(self.keep)
