"""A sheet of samples from latents that stay the same over the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gancli.draw import pictures, sheets
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.game import label_of, sample_of
from gancli.observers.drawn import parts_of, shown
from gancli.observers.observer import Event, Lines, Observer, Picture, RunView
from gancli.observers.plane import in_a_plane


class Grid(Observer):
    """A picture every `every` steps: `n` samples of the averaged networks, or lines of text where they have no picture.

    What is made of data stands beside what it was made from and, where the game has one, the right answer.

    Points on a line or in the plane are left to the observer of these.
    """

    def __init__(self, every: int = 500, n: int = 64):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.grid: every and n are at least 1, not every={every} n={n}")
        self.every, self.n = every, n

    def refuse(self, view: RunView) -> None:
        """Refuse a sheet that no memory holds. Raises ConfigError."""
        if not in_a_plane(sample_of(view.engine.game)[1]):
            view.refuse_many("grid.n", self.n)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """A picture or lines, when they are due."""
        # Of a run without steps only the networks are wanted, which may be too large for a sheet on this machine.
        if not in_a_plane(sample_of(view.engine.game)[1]) and view.due(self.every) and view.steps > 0:
            yield self.draw(view)

    def draw(self, view: RunView) -> Picture | Lines:
        """The sheet, from copies: drawing leaves no trace in the run."""
        game, compute = view.engine.game, view.engine.compute
        direction, n = game.directions()[0], self.n
        nets = with_standing_statistics(game, view.engine.networks(), compute, passes=8)
        label = label_of(game, direction)
        labels = None
        if label is not None:
            labels = torch.arange(n, device=compute.device) // pictures.columns_for(n) % len(label[1].names)
        made = {name: rows.cpu() for name, rows in shown(view, "grid", n, nets, labels).items()}
        parts, name = parts_of(view, "grid", n, made), f"{view.step:08d}"
        page = sheets.page(parts)
        return Lines(name, sheets.lines(parts)) if page is None else Picture(name, page)
