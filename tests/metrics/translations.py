"""Games that make images of images by arithmetic, over data that are a few numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.data.columns import Column
from gancli.data.facts import DataFacts
from gancli.data.fields import Field, Image, Label
from gancli.data.paired import as_feeds
from gancli.data.source import DataSet, Source, Sources
from gancli.draw.given import Rows
from gancli.draw.sampling import Sampler
from gancli.games.game import Batch, Game


class Translation(Game):
    """A to B of pairs by `way`, or of two feeds there and back: x, way(x), back(way(x))."""

    def __init__(self, way: Callable[[Tensor], Tensor], back: Callable[[Tensor], Tensor] | None = None):
        super().__init__()
        self.nets = nn.ModuleDict({"G": nn.Identity()})
        self.way, self.back = way, back

    def generators(self) -> tuple[str, ...]:
        return ("G",)

    def directions(self) -> tuple[str, ...]:
        return ("A2B", "B2A")

    def named(self, direction: str) -> tuple[str, str]:
        A, B = ("A.x", "B.x") if "A.x" in self.fields else ("A", "B")
        return (A, B) if direction == "A2B" else (B, A)

    def input_fields(self, direction: str = "") -> Mapping[str, Field]:
        name = self.named(direction)[0]
        return {name: self.fields[name]}

    def output_fields(self, direction: str = "") -> Mapping[str, Field]:
        given, made = self.named(direction)
        return {made: self.fields[made]} | ({"back": self.fields[given]} if self.back else {})

    def targets(self, direction: str = "") -> str | None:
        return self.named(direction)[1]

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        given, made = self.named(direction)
        found = {made: self.way(inputs[given])}
        return found | ({"back": self.back(found[made])} if self.back else {})


def pairs(
    A: Tensor, B: Tensor, labels: list[int] | None = None, feeds: bool = False, bits: int = 8, **options: Any
) -> DataSet:
    """A table of images [N, C, H, W] of so many bits and their partners; as feeds, A.x and B.x."""
    columns = {name: Column(Image(*x.shape[1:], bits), x.numpy()) for name, x in (("A", A), ("B", B))}
    if labels is not None:
        columns["y"] = Column(Label(("one", "two")), np.array(labels, np.int64))
    table = Source("pairs", columns)
    return as_feeds(table, **{"disjoint": False} | options) if feeds else table


def unpaired(A: Tensor, B: Tensor) -> Sources:
    """Two feeds that have nothing to do with each other."""
    made = {name: Source(name, {"x": Column(Image(*x.shape[1:]), x.numpy())}) for name, x in (("A", A), ("B", B))}
    return Sources("unpaired", made)


def translating(game: Translation, data: DataSet, direction: str | None = None) -> Sampler:
    """A sampler of it that makes outputs of this data, as if it were held out."""
    facts = DataFacts.of(data)
    game.fields = facts.fields
    return Sampler(game, dict(game.nets.items()), facts, Compute(), direction=direction, rows=Rows(data, split="test"))


def noise(n: int, *shape: int, seed: int = 0) -> Tensor:
    """Images uint8 [n, *shape]."""
    return torch.randint(256, (n, *shape), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
