"""Sheets of samples from latents that are fixed over the whole run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from gancli.data.fields import Image
from gancli.draw import frequencies, pictures, sheets
from gancli.draw.pictures import Pixels
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.game import label_of, sample_of
from gancli.observers.drawn import data_of, parts_of, shown
from gancli.observers.observer import Event, Lines, Observer, Picture, RunView
from gancli.observers.plane import in_a_plane


class Grid(Observer):
    """A sheet every `every` steps: `n` samples of the averaged networks, as a picture or as lines of text.

    Outputs made from data stand beside their inputs and, if the game has them, their targets. Points of one or two
    dimensions are drawn by the observer Plane instead. frequencies: whether samples/frequencies.png shows the spectrum
    of the last sheet's images beside that of as many real ones.
    """

    def __init__(self, every: int = 500, n: int = 64, frequencies: bool = True):
        if every < 1 or n < 1:
            raise ConfigError(f"observers.grid: every and n must be at least 1, got every={every} n={n}")
        self.every, self.n, self.frequencies = every, n, frequencies

    def refuse(self, view: RunView) -> None:
        """Raises ConfigError if the sheet does not fit in memory."""
        if not in_a_plane(sample_of(view.engine.game)[1]):
            view.refuse_many("grid.n", self.n)

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a picture or lines when they are due, then the spectrum."""
        # A run with steps=0 only builds the networks, which may be too large for sampling on this machine.
        if not in_a_plane(sample_of(view.engine.game)[1]) and view.due(self.every) and view.steps > 0:
            made = self.made(view)
            yield self.draw(view, made)
            spectrum = spectrum_of(view, made) if self.frequencies else None
            if spectrum is not None:
                yield Picture("frequencies", spectrum)

    def made(self, view: RunView) -> dict[str, Tensor]:
        """Samples and further outputs of copies of the networks, so that the run does not change."""
        game, compute = view.engine.game, view.engine.compute
        direction, n = game.directions()[0], self.n
        nets = with_standing_statistics(game, view.engine.networks(), compute, passes=8)
        label = label_of(game, direction)
        labels = None
        if label is not None:
            labels = torch.arange(n, device=compute.device) // pictures.columns_for(n) % len(label[1].names)
        return {name: rows.cpu() for name, rows in shown(view, "grid", n, nets, labels).items()}

    def draw(self, view: RunView, made: Mapping[str, Tensor]) -> Picture | Lines:
        """Draw the sheet."""
        parts, name = parts_of(view, "grid", self.n, made), f"{view.step:08d}"
        page = sheets.page(parts)
        return Lines(name, sheets.lines(parts)) if page is None else Picture(name, page)


def spectrum_of(view: RunView, made: Mapping[str, Tensor]) -> Pixels | None:
    """Draw the power spectra of samples and of as many real images, all of 8 or 16 bits.

    None if they are no images, too small, or if the data have none of their size.
    """
    name, field = sample_of(view.engine.game)
    if not isinstance(field, Image) or min(made[name].shape[2:]) < frequencies.LEAST:
        return None
    samples = made[name][: max(1, frequencies.MOST // made[name][0].numel())]
    real = data_of(view, name, len(samples))
    if real is None or real.shape[1:] != samples.shape[1:]:
        return None
    n = min(len(real), len(samples))
    data, own = (frequencies.power(field.ready(field.stored(rows[:n].cpu()))) for rows in (real, samples))
    return frequencies.page(data, own, view.step, n)
