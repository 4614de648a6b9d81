"""Pictures of a GAN on 1D or 2D points: samples over the data's density and over D's output, and an animation."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from torch import Tensor

from gancli.data.fields import Field, Points
from gancli.draw.pictures import INK, PAPER, Pixels
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.game import sample_of
from gancli.observers.drawn import data_of, shown
from gancli.observers.observer import Event, Film, Observer, Picture, RunView

SIDE = 384  # pixels of a panel
DENSE, REAL, FAKE = (52, 60, 78), (31, 90, 166), (240, 190, 60)  # colours: dense data; D's output real; fake
BINS = 96


class Plane(Observer):
    """A picture every `every` steps of a run on 1D or 2D points; nothing for other samples.

    Two panels on one scale: `n` samples of the averaged generator over the density of the data, and over D's output
    from fake (yellow) to real (blue), scaled to its extremes. In 1D: both densities as curves, and D's output. film:
    whether to write an animation of all pictures at the end.
    """

    def __init__(self, every: int = 500, n: int = 2000, film: bool = True):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.plane: every and n must be at least 1, got every={every} n={n}")
        self.every, self.n, self.film = every, n, film
        self._data: Tensor | None = None

    def refuse(self, view: RunView) -> None:
        """Raises ConfigError if n points do not fit in memory."""
        if in_a_plane(sample_of(view.engine.game)[1]):
            view.refuse_many("plane.n", self.n)

    def open(self, view: RunView) -> None:
        """Read the data for the density, once."""
        name, field = sample_of(view.engine.game)
        if in_a_plane(field):
            rows = data_of(view, name, 20 * self.n)
            self._data = None if rows is None else rows.cpu().float()

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a picture when it is due; the animation after the last."""
        if self._data is None or view.steps == 0 or not view.due(self.every):
            return
        yield Picture(f"{view.step:08d}", self.draw(view, self._data))
        if view.final and self.film:
            yield Film("training")

    def draw(self, view: RunView, data: Tensor) -> Pixels:
        """Draw the panels from copies of the networks, so that the run does not change."""
        nets = with_standing_statistics(view.engine.game, view.engine.networks(), view.engine.compute, passes=8)
        samples = next(iter(shown(view, "plane", self.n, nets).values())).cpu().float()
        low, high = frame(data)
        places = torch.linspace(0, 1, BINS)
        if data.shape[1] == 1:
            along = output(view, low + places[:, None] * (high - low))
            return curves(samples, data, along, float(low), float(high))
        rows, columns = torch.meshgrid(places.flip(0), places, indexing="ij")
        at = torch.stack([columns.flatten(), rows.flatten()], 1)
        panels = [shade(density(data, low, high), PAPER, DENSE)]
        surface = output(view, low + at * (high - low))
        if surface is not None:
            panels.append(shade(stretched(surface).view(BINS, BINS), FAKE, REAL))
        for panel in panels:
            dots(panel, (samples - low) / (high - low))
        gap = np.full((SIDE, 6, 3), 255, np.uint8)
        return np.concatenate([panels[0], gap, panels[1]] if panels[1:] else panels, 1)


def in_a_plane(field: Field) -> bool:
    """Whether samples are points that this observer draws."""
    return isinstance(field, Points) and field.size <= 2


def frame(data: Tensor) -> tuple[Tensor, Tensor]:
    """Return the corners of a square (or interval) around the data, with a margin of a fifth."""
    middle = (data.amax(0) + data.amin(0)) / 2
    reach = (data.amax(0) - data.amin(0)).max().clamp_min(1e-6) * 0.6
    return middle - reach, middle + reach


def output(view: RunView, points: Tensor) -> Tensor | None:
    """Return D's output for points [n, D], 0 (fake) to 1 (real): probabilities, else its scores scaled to [0, 1]."""
    engine = view.engine
    found = engine.game.discriminate(points.to(engine.compute.device, engine.dtype))
    if found is None:
        return None
    values = found.scores.float().cpu()
    if found.probabilities:
        return values
    return (values - values.min()) / (values.max() - values.min()).clamp_min(1e-9)


def stretched(values: Tensor) -> Tensor:
    """Scale values around 0.5 so that the farthest is 0 or 1: near convergence D's output is close to 0.5 everywhere.

    >>> stretched(torch.tensor([0.5, 0.6, 0.45])).tolist()
    [0.5, 1.0, 0.25]
    """
    reach = (values - 0.5).abs().max().clamp_min(1e-9)
    return ((values - 0.5) / reach / 2 + 0.5).mul(1e6).round().div(1e6)


def density(points: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Return the density of points [n, 2], [BINS, BINS] in [0, 1]: square roots of counts; the first row is the top."""
    cell = ((points - low) / (high - low) * BINS).long().clamp_(0, BINS - 1)
    counts = torch.bincount((BINS - 1 - cell[:, 1]) * BINS + cell[:, 0], minlength=BINS * BINS).view(BINS, BINS)
    return (counts / counts.max()).sqrt()


def shade(values: Tensor, low: tuple[int, int, int], high: tuple[int, int, int]) -> Pixels:
    """Map values [BINS, BINS] in [0, 1] to colours between two, enlarged to a panel."""
    share = values.nan_to_num(0.0).clamp(0, 1).numpy()[..., None]
    pixels = np.asarray(low) * (1 - share) + np.asarray(high) * share
    large: Pixels = pixels.round().astype(np.uint8).repeat(SIDE // BINS, 0).repeat(SIDE // BINS, 1)
    return large


def dots(panel: Pixels, places: Tensor) -> None:
    """Mark points [n, 2] in the unit square, y upwards, in red; those outside are left out."""
    xy = (places.double().nan_to_num(-9, -9, -9).clamp(-9, 9) * (SIDE - 1)).round().long().numpy()
    for dx in (0, 1):
        for dy in (0, 1):
            x, y = xy[:, 0] + dx, SIDE - 1 - xy[:, 1] + dy
            inside = (x >= 0) & (x < SIDE) & (y >= 0) & (y < SIDE)
            panel[y[inside], x[inside]] = INK


def curves(samples: Tensor, data: Tensor, surface: Tensor | None, low: float, high: float) -> Pixels:
    """Draw densities of 1D data and samples, and D's output, as line charts."""
    from gancli.draw.charts import Panel, chart

    width = (high - low) / BINS
    middles = [low + (k + 0.5) * width for k in range(BINS)]

    def histogram(points: Tensor) -> list[tuple[float, float]]:
        counts = torch.histc(points.nan_to_num(low - 1), BINS, low, high) / (len(points) * width)
        return list(zip(middles, counts.tolist(), strict=True))

    places = [low + k / (BINS - 1) * (high - low) for k in range(BINS)]
    panels = [Panel("density", {"data": histogram(data), "samples": histogram(samples)})]
    if surface is not None:
        panels.append(Panel("discriminator", {"discriminator": list(zip(places, surface.tolist(), strict=True))}))
    return chart(panels, width=SIDE)
