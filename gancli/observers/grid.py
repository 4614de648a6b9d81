"""A sheet of samples from latents that stay the same over the whole run."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from gancli import pictures
from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, Picture, RunView
from gancli.rng import Rng
from gancli.sampling import settle, to_uint8

POINTS = 2000  # in a scatter of 2D samples


class Grid(Observer):
    """A picture every `every` steps: `n` images of the averaged generator, or a scatter where the data are points."""

    def __init__(self, every: int = 500, n: int = 64):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.grid: every and n are at least 1, not every={every} n={n}")
        self.every, self.n = every, n
        self._data: Tensor | None = None

    def open(self, view: RunView) -> None:
        """Points are drawn over the data's, so take some of these once."""
        stream = view.engine.streams["real"]
        if len(stream.source.shape) == 1:
            self._data = stream.batch(0, min(POINTS, len(stream.source)))["x"].cpu()

    def on_step(self, view: RunView) -> Iterator[Event]:
        """A picture, when it is due."""
        # Of a run without steps only the networks are wanted, which may be too large for a sheet on this machine.
        if view.due(self.every) and view.steps > 0:
            yield Picture(f"{view.step:08d}", self.draw(view))

    @torch.no_grad()
    def draw(self, view: RunView) -> pictures.Pixels:
        """The sheet as pixels, from copies: drawing leaves no trace in the run."""
        game, compute = view.engine.game, view.engine.compute
        nets = view.engine.networks()
        nets["G"] = settle(nets["G"], game, compute, passes=8)
        n = POINTS if self._data is not None else self.n
        noise = Rng(view.engine.seed, "grid", total=n, device=compute.device, dtype=view.engine.dtype)
        columns = pictures.columns_for(n)
        y = torch.arange(n, device=compute.device) // columns % game.classes if game.labelled else None
        samples = game.render(nets, game.latents(noise), y).cpu()
        if self._data is not None:
            return pictures.scatter(samples.float(), self._data)
        return pictures.sheet(to_uint8(samples), columns)
