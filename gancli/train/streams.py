"""A run's data set and its data streams, one per feed of the game."""

from __future__ import annotations

import inspect
from collections.abc import Mapping

from gancli.compute.device import Compute
from gancli.config.build import find, make
from gancli.config.settings import Node, TrainSettings
from gancli.data.loader import Stream
from gancli.data.source import DataSet, Source, feeds_of
from gancli.errors import CombinationError, SplitError
from gancli.games.game import Batch, Game


def data(settings: TrainSettings) -> DataSet:
    """Return the data set of the settings. Raises DataError or ConfigError."""
    return data_set(settings.dataset, settings.game)


def data_set(node: Node, game: Node) -> DataSet:
    """Return the data set of a section; `dataset=random` receives the columns that the game needs.

    Raises DataError or ConfigError.
    """
    supplied = {}
    if "columns" in inspect.signature(find(node.get("_target_"), "dataset")).parameters:
        kind: type[Game] = find(game.get("_target_"), "game")  # type: ignore[assignment]
        supplied["columns"] = kind.columns(game)
    found: DataSet = make(node, "dataset", **supplied)
    return found


def split_of(node: Node, game: Node, split: str) -> DataSet:
    """Return all rows of a split of a data set. Raises SplitError if there is no such split.

    node: the dataset section, with the split and limit of the training.
    """
    if "split" not in node:
        raise SplitError(f"this data set has no split {split}")
    return data_set({**node, "split": split} | ({"limit": None} if "limit" in node else {}), game)


def streams(settings: TrainSettings, source: DataSet, built: Game, compute: Compute) -> dict[str, Stream]:
    """Return the streams that yield the game's batches: for each feed, the columns that the game reads."""
    feeds = built.feeds(source)
    read = _read(built, feeds)
    return {name: Stream(each, settings.seed, name, compute.device, read[name]) for name, each in feeds.items()}


def first_rows(settings: TrainSettings, source: DataSet, built: Game, compute: Compute, rows: int) -> Batch:
    """Return the rows for the game's setup: columns by name if there is one feed, else as FEED.COLUMN."""
    asked, found = built.reads(), Batch()
    for feed, each in feeds_of(source).items():
        wanted = [c for c in each.columns if asked is None or c in asked or f"{feed}.{c}" in asked]
        if not feed and asked is not None:  # the game splits one table into feeds
            wanted = [c for c in each.columns if c in {name.rpartition(".")[2] for name in asked}]
        stream = Stream(each, settings.seed, f"setup.{feed}" if feed else "setup", compute.device, wanted)
        found |= {f"{feed}.{name}" if feed else name: x for name, x in stream.batch(0, rows).items()}
    return found


def _read(built: Game, feeds: Mapping[str, Source]) -> dict[str, tuple[str, ...]]:
    """Return the columns of each feed that the game reads. Raises CombinationError for a missing one."""
    asked = built.reads()
    if asked is None:
        return {feed: tuple(source.columns) for feed, source in feeds.items()}
    found = {
        feed: tuple(name for name in source.columns if name in asked or f"{feed}.{name}" in asked)
        for feed, source in feeds.items()
    }
    there = {name for feed, names in found.items() for name in (*names, *(f"{feed}.{name}" for name in names))}
    if missing := [name for name in asked if name not in there]:
        has = ", ".join(dict.fromkeys(name for source in feeds.values() for name in source.columns))
        named = next(iter(feeds.values())).name
        raise CombinationError(
            f"this game reads the column {missing[0]}, but dataset={named} has {has}: choose another data set"
        )
    return found


def unread(built: Game, source: DataSet) -> list[str]:
    """Return a note about columns of the data set that the game does not read, if there are any."""
    feeds = built.feeds(source)
    read = _read(built, feeds)
    known = {name for names in read.values() for name in names}
    left = list(dict.fromkeys(n for each in feeds.values() for n in each.columns if n not in known))
    if not left:
        return []
    if len(left) == 1:
        return [f"column {left[0]} of {source.name} is not read by this game"]
    return [f"columns {', '.join(left[:-1])} and {left[-1]} of {source.name} are not read by this game"]
