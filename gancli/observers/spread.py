"""Diversity of samples, relative to that of the data and, if they are made from inputs, to that of the inputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from torch import nn

from gancli.data.fields import Field, Label
from gancli.draw.standing import with_standing_statistics
from gancli.games.game import Game, sample_of
from gancli.observers.drawn import data_of, given_of, shown
from gancli.observers.observer import RunView

ALIKE = 0.01  # below this share of the data's spread, samples count as all equal


@dataclass(frozen=True)
class Spread:
    """The spread of a direction's samples as a share of the data's. given: that of their inputs; None: no inputs.

    lone: whether the game has no other direction.

    >>> Spread("", 0.2).share, Spread("A2B", 0.2, 0.8).share, Spread("A2B", 0.2, 0.005).share
    (0.2, 0.25, None)
    """

    direction: str
    made: float
    given: float | None = None
    lone: bool = False

    @property
    def share(self) -> float | None:
        """1: as diverse as the data, or as the inputs; None: the inputs are all equal, so samples may be, too."""
        if self.given is None:
            return self.made
        return None if self.given < ALIKE else self.made / self.given

    @property
    def mark(self) -> str:
        """The suffix of its numbers, if there are other directions."""
        return "" if self.lone else f"_{self.direction}"

    def __str__(self) -> str:
        where = f"{self.direction}: " if self.direction else ""
        if self.given is None:
            return f"{where}the spread of samples is {self.made:.0%} of the data's"
        return f"{where}the spread of outputs is {self.made:.0%} of the data's, that of their inputs {self.given:.0%}"


class Spreads:
    """Measures the spread of n samples of the raw networks, from fixed latents and rows."""

    def __init__(self, view: RunView, n: int):
        self.n, game = n, view.engine.game
        fields = dict[str, Field]()
        for direction in game.directions():
            inputs = game.input_fields(direction).items()
            fields |= dict([sample_of(game, direction)]) | {k: f for k, f in inputs if not isinstance(f, Label)}
        self.data = {name: _of_data(view, name, field, n) for name, field in fields.items()}

    def now(self, view: RunView) -> list[Spread]:
        """Measure each direction."""
        engine, game = view.engine, view.engine.game
        rows = min(self.n, engine.micro_batch or engine.batch_size)  # fits in the device's memory, as in training
        raw = dict(game.nets.items())
        nets = with_standing_statistics(game, raw, engine.compute, passes=2, batch=max(2, rows))
        return [self._of(view, nets, direction) for direction in game.directions()]

    def _of(self, view: RunView, nets: Mapping[str, nn.Module], direction: str) -> Spread:
        game = view.engine.game
        name, field = sample_of(game, direction)
        needed = {net: nets[net] for net in game.drawing(direction)}  # so that no further outputs are computed
        made = field.variety(shown(view, "alarms", self.n, needed, direction=direction)[name]) / self.data[name]
        fields = game.input_fields(direction)
        rows = given_of(view, "alarms", self.n, direction)
        shares = [fields[column].variety(x) / self.data[column] for column, x in rows.items()]
        return Spread(direction, made, max(shares, default=None), lone=len(game.directions()) == 1)


def _of_data(view: RunView, name: str, field: Field, n: int) -> float:
    """Return the spread of the data; 1 if there are none, or if they are all equal."""
    rows = data_of(view, name, n)
    return (0.0 if rows is None else field.variety(rows)) or 1.0


def noiseless(game: Game, spread: Spread) -> str:
    """Return a remark on the values of a direction whose networks have no noise, else an empty text."""
    nets = [game.nets[name] for name in game.drawing(spread.direction)]
    if spread.given is None or all(getattr(net, "noisy", True) for net in nets):
        return ""
    return " (it has no noise at this size, so one input has one output)"
