"""What games of images from images share: who translates what, and how samples are made of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

from torch import nn

from gancli.data.fields import Field
from gancli.errors import CombinationError
from gancli.games.game import Batch, Game
from gancli.losses.terms import Terms


class Route(NamedTuple):
    """A way of translation: the network, the column that it takes, and the one whose like it makes."""

    net: str
    taken: str
    made: str


class Translation(Game):
    """Base: samples are made of rows of data, by a network for each direction. routes: by direction.

    Networks may be told `out_channels`, of the images that they make.
    """

    TOLD: ClassVar[tuple[str, ...]] = (*Game.TOLD, "out_channels")
    routes: Mapping[str, Route] = {}

    def route(self, direction: str) -> Route:
        """The way of a direction; the first one's where none is said."""
        return self.routes[direction or next(iter(self.routes))]

    def back(self, direction: str) -> Route | None:
        """The way that undoes a direction, where there is one."""
        way = self.route(direction)
        return next((r for r in self.routes.values() if (r.taken, r.made) == (way.made, way.taken)), None)

    def generators(self) -> tuple[str, ...]:
        """Those that translate."""
        return tuple(dict.fromkeys(route.net for route in self.routes.values()))

    def drawing(self, direction: str = "") -> tuple[str, ...]:
        """The one that goes this way."""
        return (self.route(direction).net,)

    def directions(self) -> tuple[str, ...]:
        """Such as A2B and B2A."""
        return tuple(self.routes)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """What is translated."""
        taken = self.route(direction).taken
        return {taken: self.fields[taken]}

    def input_multiple(self, direction: str = "") -> int | None:
        """That of the direction's network."""
        return getattr(self.nets[self.route(direction).net], "multiple", None)

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The translation; `back`, what the other direction makes of it."""
        way = self.route(direction)
        cycled = {} if self.back(direction) is None else {"back": self.fields[way.taken]}
        return {way.made: self.fields[way.made], **cycled}

    def targets(self, direction: str = "") -> str | None:
        """The true partner, where the data have one."""
        return self.route(direction).made

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> Batch:
        """G of the input, and `back` where that network is there."""
        way, back = self.route(direction), self.back(direction)
        made = {way.made: nets[way.net](inputs[way.taken])}
        return made if back is None or back.net not in nets else made | {"back": nets[back.net](made[way.made])}


def refuse_sizes(who: str, fields: Iterable[Field]) -> None:
    """Raise CombinationError for images of several heights or widths. who: takes them."""
    shapes = [field.shape for field in fields]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes)
        raise CombinationError(f"{who} of one size, not {sizes}: set dataset.size=SIDE")


def refuse_unlike(terms: Terms, a: Field, b: Field) -> None:
    """Raise CombinationError for identity terms (columns same_A, same_B) where A and B are images of other kinds."""
    same = [n for n, t in terms.terms.items() if t.weight and any(c.startswith("same_") for c in t.columns)]
    if same and a != b:
        way = " ".join(f"terms.{name}.weight=0" for name in same)
        raise CombinationError(
            f"terms.{same[0]} gives images of one domain to the generator of the other, and A are {a.told}, B {b.told}:"
            f" set {way}"
        )
