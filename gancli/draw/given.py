"""The rows of data that samples are made from, and their targets: held-out rows if the data set has some."""

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
from gancli.train.streams import data_set, split_of

HELD_OUT = "test"  # the split that is held out, unless dataset.split names it


def _trained_on(node: Node, game: Node, held: DataSet) -> bool:
    """Whether the held-out rows are those of the run's training split (val, for example, if there is no test)."""
    if node.get("split") in (None, "train"):
        return False
    whole = {**node, "disjoint": False} if "disjoint" in node else node  # held-out rows are not disjoint
    return split_of(whole, game, node["split"]).fingerprint == held.fingerprint


class Rows:
    """Rows of a data set by seed and number; each seed has its own permutation.

    note: a warning if they are not held-out rows. split: the split they are from. aligned: whether rows of equal number
    in its feeds are pairs.
    """

    def __init__(self, data: DataSet, note: str = "", split: str | None = None):
        self.feeds, self.note, self.name, self.split = feeds_of(data), note, data.name, split
        self.aligned = isinstance(data, Source) or data.aligned

    @staticmethod
    def of_run(node: Node, game: Node, fields: Mapping[str, Field]) -> Rows:
        """Return the held-out rows of a run's data set; its training rows if there are none.

        node, game: the run's sections. fields: the columns needed. Raises GanError for data that are missing, or whose
        columns have changed since training.
        """
        try:
            if node.get("split") in (HELD_OUT, "all"):  # the run was trained on them
                raise SplitError(f"{HELD_OUT} rows are training rows")
            held = split_of(node, game, HELD_OUT)
            if _trained_on(node, game, held):
                raise SplitError(f"{HELD_OUT} rows are training rows")
            rows = Rows(held, split=HELD_OUT)
        except SplitError:
            rows = Rows(
                data_set(node, game),
                "this run's data set has no held-out rows: samples are made from training rows",
                node.get("split"),
            )
        for name, field in fields.items():
            source, column = rows.source(name)
            if source.fields.get(column) != field:
                raise RunError(
                    f"the column {name} of the data set {source.name} has changed since the run was trained: restore"
                    " the data"
                )
        return rows

    def source(self, name: str) -> tuple[Source, str]:
        """Return the table and the column of this name in a batch."""
        feed, _, column = name.rpartition(".")
        return self.feeds[feed] if feed in self.feeds else next(iter(self.feeds.values())), column

    def partner(self, name: str, inputs: Iterable[str]) -> bool:
        """Whether a column's rows are paired with those of `inputs`: in the same table, or in an aligned feed."""
        source, column = self.source(name)
        there = self.aligned or any(self.source(each)[0] is source for each in inputs)
        return there and column in source.fields

    def numbers(self, name: str, pairs: Sequence[tuple[int, int]]) -> Index:
        """Return the row of a column's table for each (seed, number). Raises ConfigError for a number out of range."""
        source, _ = self.source(name)
        most = max(number for _, number in pairs)
        if most >= len(source):
            raise ConfigError(
                f"{most + 1:,} samples are made from one row each, and {source.name} has {len(source):,} rows: type"
                f" n={len(source)} or less"
            )
        orders = {seed: order(len(source), seed, "sample") for seed in dict.fromkeys(seed for seed, _ in pairs)}
        return np.array([orders[seed][number] for seed, number in pairs], np.int64)

    def take(self, name: str, pairs: Sequence[tuple[int, int]]) -> Tensor:
        """Read a column's rows for each (seed, number), as network input. Raises ConfigError as `numbers`."""
        source, column = self.source(name)
        index = self.numbers(name, pairs)
        return torch.as_tensor(source.fields[column].ready(source.rows(index, columns=[column])[column]))
