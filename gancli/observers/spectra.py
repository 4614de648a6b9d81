"""The largest singular values of every weight during training, which indicate collapse (as in the BigGAN paper)."""

from __future__ import annotations

from collections.abc import Collection, Iterator

import torch
from torch import Tensor, nn

from gancli.draw.charts import Panel, chart
from gancli.errors import ConfigError
from gancli.observers.observer import Event, Observer, Picture, RunView, Values


class Spectra(Observer):
    """Every `every` steps, the first `count` singular values of every weight as a matrix [outputs, rest].

    Of raw weights, not divided by their spectral norm (Brock et al. 2019, section 4 and figure 3). Written to
    metrics.jsonl under `spectra`; samples/spectra.png shows the first of every layer at the end of the process.
    """

    def __init__(self, every: int = 100, count: int = 3):
        if every < 1 or count < 1:
            raise ConfigError(f"observers.spectra: every and count must be at least 1, got every={every} count={count}")
        self.every, self.count = every, count
        self._curves: dict[str, dict[str, list[tuple[float, float]]]] = {}

    def on_step(self, view: RunView) -> Iterator[Event]:
        """Yield a row when it is due; a chart at the end."""
        if not view.due(self.every) or view.steps == 0:
            return
        trained = {id(p) for player in view.engine.players.values() for p in player.params}
        found = {name: spectra(net, self.count, trained) for name, net in view.engine.game.nets.items()}
        for name, layers in found.items():
            curves = self._curves.setdefault(name, {})
            for layer, values in layers.items():
                curves.setdefault(layer, []).append((float(view.step), values[0]))
        yield Values({"step": view.step, "seen": view.seen, "spectra": found})
        grown = {name: each for name, each in self._curves.items() if any(len(line) > 1 for line in each.values())}
        panels = [
            Panel(f"first singular values of {name}", each, "step", log=True, legend=False)
            for name, each in grown.items()
        ]
        if view.final and panels:
            yield Picture("spectra", chart(panels))


@torch.no_grad()
def spectra(net: nn.Module, count: int, trained: Collection[int] | None = None) -> dict[str, list[float]]:
    """Return the first `count` singular values of each weight of two or more dimensions, largest first, by layer.

    trained: ids of the parameters to include, those that an optimizer updates; None: all.
    """
    found = {}
    for name, weight in net.named_parameters():
        if weight.dim() > 1 and (trained is None or id(weight) in trained):
            found[name.removesuffix(".weight")] = singular_values(weight.flatten(1))[:count].tolist()
    return found


def singular_values(matrix: Tensor) -> Tensor:
    """Return all singular values, largest first: roots of the smaller Gram matrix's eigenvalues, float64 on the CPU."""
    wide = matrix.detach().double().cpu()
    wide = wide if wide.shape[0] <= wide.shape[1] else wide.t()
    values: Tensor = torch.linalg.eigvalsh(wide @ wide.t())
    return values.clamp_min(0).sqrt().flip(0)
