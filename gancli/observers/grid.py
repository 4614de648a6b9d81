"""A sheet of samples from latents that stay the same over the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from gancli.compute.rng import Rng
from gancli.draw import pictures
from gancli.draw.sampling import settle, to_uint8
from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, Picture, RunView


class Grid(Observer):
    """A picture every `every` steps: `n` images of the averaged generator; nothing where the data are points."""

    def __init__(self, every: int = 500, n: int = 64):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.grid: every and n are at least 1, not every={every} n={n}")
        self.every, self.n = every, n

    def refuse(self, view: RunView) -> None:
        """Refuse a sheet that no memory holds. Raises ConfigError."""
        if len(view.engine.main.source.shape) == 3:
            view.refuse_many("grid.n", self.n)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """A picture, when it is due."""
        # Of a run without steps only the networks are wanted, which may be too large for a sheet on this machine.
        images = len(view.engine.main.source.shape) == 3
        if images and view.due(self.every) and view.steps > 0:
            yield Picture(f"{view.step:08d}", self.draw(view))

    @torch.no_grad()
    def draw(self, view: RunView) -> pictures.Pixels:
        """The sheet as pixels, from copies: drawing leaves no trace in the run."""
        game, compute = view.engine.game, view.engine.compute
        nets = view.engine.networks()
        nets["G"] = settle(nets["G"], game, compute, passes=8)
        n = self.n
        noise = Rng(view.engine.seed, "grid", total=n, device=compute.device, dtype=view.engine.dtype)
        columns = pictures.columns_for(n)
        y = torch.arange(n, device=compute.device) // columns % game.classes if game.labelled else None
        samples = game.render(nets, game.latents(noise), y).cpu()
        return pictures.sheet(to_uint8(samples), columns)
