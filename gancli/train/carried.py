"""Columns carried from one step to the next, such as a recurrent game's last frames."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.games.game import Batch


class Carried:
    """The rows carried from the last step. Every rank holds the whole batch, so that a checkpoint is complete.

    first: by column, the initial value [...] of every row. unit: rows that stay together on a rank.
    """

    def __init__(self, first: Mapping[str, Tensor], world: World, unit: int, device: torch.device, dtype: torch.dtype):
        self.first = {
            name: row.to(device, dtype if row.is_floating_point() else row.dtype) for name, row in first.items()
        }
        self.world, self.unit, self.device = world, unit, device
        self.rows: Batch = {}
        self.totals: dict[str, int] = {}  # rows of this step's columns, over all ranks

    def begin(self) -> Batch:
        """Return this rank's rows at the beginning of a step."""
        self.totals = {name: len(rows) for name, rows in self.rows.items()}
        spans = {name: self.world.rows(total, self.unit) for name, total in self.totals.items()}
        return {name: self.rows[name][start:stop] for name, (start, stop) in spans.items()}

    def beginning(self, name: str, count: int) -> Tensor:
        """Return the initial rows."""
        return self.first[name].expand(count, *self.first[name].shape)

    def end(self, carry: Batch) -> None:
        """Store the rows that the step's moves carry. All ranks must call it."""
        for name in self.first:
            if name in carry:
                self.rows[name] = self.world.joined(carry[name], self.totals[name], self.unit)

    def load(self, rows: Mapping[str, Tensor]) -> None:
        """Restore the rows of a checkpoint."""
        self.rows = {name: kept.to(self.device) for name, kept in rows.items()}

    def nbytes(self, rows: int) -> int:
        """Return the bytes of this many rows of all columns."""
        return rows * sum(row.nbytes for row in self.first.values())
