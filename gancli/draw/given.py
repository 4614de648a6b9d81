"""The rows of data that samples are made from, and their right answers: held out where the data set has such rows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import numpy as np
import torch
from torch import Tensor

from gancli.config.settings import Node
from gancli.data.columns import Index
from gancli.data.fields import Field
from gancli.data.source import DataSet, Source, feeds_of, order
from gancli.errors import ConfigError, RunError, SplitError
from gancli.train.dealing import data_set, split_of

HELD_OUT = "test"  # the split that no run is trained on, unless it says so


def _trained_on(node: Node, game: Node, held: DataSet) -> bool:
    """Whether rows are those of the split that a run was trained on, as val is where there is no test."""
    if node.get("split") in (None, "train"):
        return False
    whole = {**node, "disjoint": False} if "disjoint" in node else node  # as held-out rows are
    return split_of(whole, game, node["split"]).fingerprint == held.fingerprint


class Rows:
    """Rows of a data set by seed and number, in an order of each seed's own.

    note: what they are, where they are no held-out rows. split: whose rows they are. aligned: whether rows of one
    number in its feeds are partners.
    """

    def __init__(self, data: DataSet, note: str = "", split: str | None = None):
        self.feeds, self.note, self.name, self.split = feeds_of(data), note, data.name, split
        self.aligned = isinstance(data, Source) or data.aligned

    @staticmethod
    def of_run(node: Node, game: Node, fields: Mapping[str, Field]) -> Rows:
        """Held-out rows of the data that a run was trained on; its own where there are none.

        node, game: as the run has them configured. fields: columns that are asked for. Raises GanError for data that
        are not there, or have other columns by now.
        """
        try:
            if node.get("split") in (HELD_OUT, "all"):  # which the run has seen
                raise SplitError(f"{HELD_OUT} rows are among those of the training")
            held = split_of(node, game, HELD_OUT)
            if _trained_on(node, game, held):
                raise SplitError(f"{HELD_OUT} rows are those of the training")
            rows = Rows(held, split=HELD_OUT)
        except SplitError:
            rows = Rows(
                data_set(node, game),
                "there are no held-out rows of this run's data: samples are made from training rows",
                node.get("split"),
            )
        for name, field in fields.items():
            source, column = rows.source(name)
            if source.fields.get(column) != field:
                raise RunError(f"the data set {source.name} has another column {name} than when the run was trained")
        return rows

    def source(self, name: str) -> tuple[Source, str]:
        """The table and the column that a batch calls by this name."""
        feed, _, column = name.rpartition(".")
        return self.feeds[feed] if feed in self.feeds else next(iter(self.feeds.values())), column

    def partner(self, name: str, inputs: Iterable[str]) -> bool:
        """Whether a column holds, row by row, what belongs to these: in their table, or in a feed that is aligned."""
        source, column = self.source(name)
        there = self.aligned or any(self.source(each)[0] is source for each in inputs)
        return there and column in source.fields

    def numbers(self, name: str, pairs: Sequence[tuple[int, int]]) -> Index:
        """The rows of a column's table for each (seed, number). Raises ConfigError for more than there are."""
        source, _ = self.source(name)
        most = max(number for _, number in pairs)
        if most >= len(source):
            raise ConfigError(
                f"{most + 1:,} samples are asked for, and there are {len(source):,} rows of {source.name} to make them"
                f" from: type n={len(source)} or less"
            )
        orders = {seed: order(len(source), seed, "sample") for seed in dict.fromkeys(seed for seed, _ in pairs)}
        return np.array([orders[seed][number] for seed, number in pairs], np.int64)

    def take(self, name: str, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """A column's rows, ready, for each (seed, number). Raises ConfigError for more than there are."""
        source, column = self.source(name)
        index = self.numbers(name, pairs)
        return torch.as_tensor(source.fields[column].ready(source.rows(index, columns=[column])[column]))
