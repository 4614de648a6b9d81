"""Carried columns that live on to the next step: a recurrent game's last frames, say."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.games.game import Batch


class Kept:
    """The rows of the step before, of the whole batch on every rank, so that a checkpoint has them all.

    first: by column, the row [...] that every row begins with. unit: rows that stay together on a rank.
    """

    def __init__(self, first: Mapping[str, Tensor], world: World, unit: int, device: torch.device, dtype: torch.dtype):
        self.first = {
            name: row.to(device, dtype if row.is_floating_point() else row.dtype) for name, row in first.items()
        }
        self.world, self.unit, self.device = world, unit, device
        self.rows: Batch = {}
        self.totals: dict[str, int] = {}  # rows of this step's columns, over all ranks

    def begin(self) -> Batch:
        """This rank's rows, for the step that begins."""
        self.totals = {name: len(rows) for name, rows in self.rows.items()}
        spans = {name: self.world.rows(total, self.unit) for name, total in self.totals.items()}
        return {name: self.rows[name][start:stop] for name, (start, stop) in spans.items()}

    def beginning(self, name: str, count: int) -> Tensor:
        """Rows before there are any."""
        return self.first[name].expand(count, *self.first[name].shape)

    def end(self, carry: Batch) -> None:
        """Keep what the step's moves carried. Of several ranks all call it."""
        for name in self.first:
            if name in carry:
                self.rows[name] = self.world.joined(carry[name], self.totals[name], self.unit)

    def load(self, rows: Mapping[str, Tensor]) -> None:
        """Take up what a checkpoint kept."""
        self.rows = {name: kept.to(self.device) for name, kept in rows.items()}

    def nbytes(self, rows: int) -> int:
        """Bytes of so many rows of all columns."""
        return rows * sum(row.nbytes for row in self.first.values())
