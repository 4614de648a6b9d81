"""Two generators, A to B and B to A, that learn by the distance to their partner, or to another's mean colour."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.fields import Field
from gancli.data.source import class_names
from gancli.games.game import Batch, Game, Move, Outcome
from gancli.games.stages import Moment


class MapGame(Game):
    """Pairs of one table, or with `feeds` two tables; labels where `labelled`; `any_size` as its networks could."""

    TOLD: ClassVar[tuple[str, ...]] = ("source", "target", "classes")

    def __init__(
        self, nets: Mapping[str, nn.Module], *, feeds: bool = False, labelled: bool = False, any_size: bool = True
    ):
        super().__init__()
        self.nets = nn.ModuleDict(nets)
        self.domains = _names(feeds)
        self.feeds_apart, self.labelled, self.any_size = feeds, labelled, any_size

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        return {"G": ("G_A2B", "G_B2A")}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        A, B = (fields[name].shape for name in _names(bool(options.get("feeds"))))
        classes = len(class_names(fields)) if options.get("labelled") else 0
        return {"source": A, "target": B, "classes": classes} if network == "G_A2B" else {
            "source": B, "target": A, "classes": classes
        }  # fmt: skip

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        return dict.fromkeys(_names(bool(options.get("feeds"))), "image")

    def reads(self) -> tuple[str, ...]:
        return (*self.domains, "y") if self.labelled else self.domains

    def moves(self, at: Moment) -> Sequence[Move]:
        return (Move("G", self.loss, ("A", "B") if self.feeds_apart else ("real",)),)

    def loss(self, batch: Batch, rng: Rng) -> Outcome:
        found = {}
        for direction in self.directions():
            source, target = self._ends(direction)
            given = {source: batch[source]} | ({"y": batch["y"]} if self.labelled else {})
            made = self.generate(dict(self.nets.items()), given, direction)[target]
            real = batch[target].mean((2, 3), keepdim=True) if self.feeds_apart else batch[target]
            found[f"l1_{direction}"] = (made - real).abs().mean()
        return Outcome(found)

    def directions(self) -> tuple[str, ...]:
        return ("A2B", "B2A")

    def input_multiple(self, direction: str = "") -> int | None:
        return self.nets[f"G_{direction}"].multiple if self.any_size else None

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        source, _ = self._ends(direction)
        return {source: self.fields[source]} | ({"y": self.fields["y"]} if self.labelled else {})

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        source, target = self._ends(direction)
        return {target: self.fields[target]} | ({"back": self.fields[source]} if self.feeds_apart else {})

    def targets(self, direction: str = "") -> str | None:
        return self._ends(direction)[1]

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        source, target = self._ends(direction)
        back = "B2A" if direction == "A2B" else "A2B"
        made = {target: nets[f"G_{direction}"](inputs[source], inputs.get("y"))}
        return made | ({"back": nets[f"G_{back}"](made[target], inputs.get("y"))} if self.feeds_apart else {})

    def _ends(self, direction: str) -> tuple[str, str]:
        A, B = self.domains
        return (A, B) if direction == "A2B" else (B, A)


def _names(feeds: bool) -> tuple[str, ...]:
    return ("A.x", "B.x") if feeds else ("A", "B")
