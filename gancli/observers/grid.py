"""Sheets of samples from latents that are fixed over the whole run."""

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
    """A sheet every `every` steps: `n` samples of the averaged networks, as a picture or as lines of text.

    Outputs made from data stand beside their inputs and, if the game has them, their targets. Points of one or two
    dimensions are drawn by the observer Plane instead.
    """

    def __init__(self, every: int = 500, n: int = 64):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.grid: every and n must be at least 1, got every={every} n={n}")
        self.every, self.n = every, n

    def refuse(self, view: RunView) -> None:
        """Raises ConfigError if the sheet does not fit in memory."""
        if not in_a_plane(sample_of(view.engine.game)[1]):
            view.refuse_many("grid.n", self.n)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a picture or lines when they are due."""
        # A run with steps=0 only builds the networks, which may be too large for sampling on this machine.
        if not in_a_plane(sample_of(view.engine.game)[1]) and view.due(self.every) and view.steps > 0:
            yield self.draw(view)

    def draw(self, view: RunView) -> Picture | Lines:
        """Draw the sheet from copies of the networks, so that the run does not change."""
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
