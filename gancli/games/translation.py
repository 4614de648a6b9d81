"""Base of the image-to-image games: directions of translation, and samples from rows of data."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import ClassVar, NamedTuple

from torch import nn

from gancli.data.fields import Field
from gancli.errors import CombinationError
from gancli.games.game import Batch, Game
from gancli.losses.terms import Terms


class Route(NamedTuple):
    """A direction of translation: the network, its input column, and the column that its output imitates."""

    net: str
    taken: str
    made: str


class Translation(Game):
    """Base: a network for each direction makes samples from rows of data. routes: by direction.

    Networks may also have the argument `out_channels`, the channels of their output.
    """

    TOLD: ClassVar[tuple[str, ...]] = (*Game.TOLD, "out_channels")
    routes: Mapping[str, Route] = {}

    def route(self, direction: str) -> Route:
        """The route of a direction; "": the first."""
        return self.routes[direction or next(iter(self.routes))]

    def back(self, direction: str) -> Route | None:
        """The inverse route of a direction, or None."""
        route = self.route(direction)
        return next((r for r in self.routes.values() if (r.taken, r.made) == (route.made, route.taken)), None)

    def generators(self) -> tuple[str, ...]:
        """The translating networks."""
        return tuple(dict.fromkeys(route.net for route in self.routes.values()))

    def drawing(self, direction: str = "") -> tuple[str, ...]:
        """The network of this direction."""
        return (self.route(direction).net,)

    def directions(self) -> tuple[str, ...]:
        """The names of the routes, such as A2B and B2A."""
        return tuple(self.routes)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The column that is translated."""
        taken = self.route(direction).taken
        return {taken: self.fields[taken]}

    def input_multiple(self, direction: str = "") -> int | None:
        """The multiple that the direction's network needs."""
        return getattr(self.nets[self.route(direction).net], "multiple", None)

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        """The translation, and `back`: its translation by the inverse route, if there is one."""
        route = self.route(direction)
        cycled = {} if self.back(direction) is None else {"back": self.fields[route.taken]}
        return {route.made: self.fields[route.made], **cycled}

    def targets(self, direction: str = "") -> str | None:
        """The column of the true output, which paired data have."""
        return self.route(direction).made

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> Batch:
        """The translation of the input, and `back` if `nets` has that network."""
        route, back = self.route(direction), self.back(direction)
        made = {route.made: nets[route.net](inputs[route.taken])}
        return made if back is None or back.net not in nets else made | {"back": nets[back.net](made[route.made])}


def refuse_sizes(who: str, fields: Iterable[Field]) -> None:
    """Raise CombinationError for images of several heights or widths. who: start of the message."""
    shapes = [field.shape for field in fields]
    if len({shape[1:] for shape in shapes}) > 1:
        sizes = " and ".join("×".join(map(str, shape[1:])) for shape in shapes)
        raise CombinationError(f"{who} of one size, not {sizes}: set dataset.size=SIDE")


def refuse_unlike(terms: Terms, a: Field, b: Field) -> None:
    """Raise CombinationError for identity terms (columns same_A, same_B) if images of A and B differ in kind."""
    same = [n for n, t in terms.terms.items() if t.weight and any(c.startswith("same_") for c in t.columns)]
    if same and a != b:
        remedy = " ".join(f"terms.{name}.weight=0" for name in same)
        raise CombinationError(
            f"terms.{same[0]} needs images of one kind in both domains, but A are {a.told} and B are {b.told}:"
            f" set {remedy}"
        )
