"""Pairs of images A and B: as one table, or as two feeds for games that learn without pairs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gancli.data.source import DataSet, Source, Sources
from gancli.errors import CombinationError, ConfigError

DOMAINS = ("A", "B")
KEPT = "dataset.disjoint=true: rows of the split test keep their partners"  # outputs are compared with them


def asks_feeds(columns: Mapping[str, str] | None) -> bool:
    """Whether a game with these columns takes A and B as separate feeds.

    >>> asks_feeds({"A": "image", "B": "image"}), asks_feeds({"A.x": "image", "B.x": "image"})
    (False, True)
    """
    return any("." in name for name in columns or ())


def both_feeds(data: DataSet, who: str) -> dict[str, Source]:
    """Return the feeds A and B of a data set. who: the caller. Raises CombinationError if it has other feeds."""
    if isinstance(data, Sources) and tuple(data.feeds) == DOMAINS:
        return dict(data.feeds)
    has = f"the feeds {', '.join(data.feeds)}" if isinstance(data, Sources) else "one table"
    raise CombinationError(
        f"{who} takes images of two domains, but dataset={data.name} has {has}: type dataset=unpaired,"
        " dataset=pairs or dataset=emoji_pairs"
    )


def as_feeds(table: Source, *, disjoint: bool) -> Sources:
    """Split a table with columns A and B into feeds A and B, as their column x; other columns go to both.

    disjoint: A has the first half of the rows and B the second, so that no pair is left; else rows of one number are
    partners. Raises ConfigError if a single pair would be halved.
    """
    count = len(table)
    if disjoint and count < 2:
        raise ConfigError(f"dataset={table.name} has one pair, which leaves nothing for B: type dataset.disjoint=false")
    halves = np.array_split(np.arange(count), 2) if disjoint else [np.arange(count)] * 2
    feeds = {}
    for domain, rows in zip(DOMAINS, halves, strict=True):
        other = {name: column for name, column in table.columns.items() if name not in DOMAINS}
        found = {"x": table.columns[domain], **other}
        kept = found if len(rows) == count else {name: column.only(rows) for name, column in found.items()}
        feeds[domain] = Source(
            table.name,
            kept,
            flip=table.flip,
            crop=table.crop,
            jitter=table.jitter,
            dequantize=table.dequantize,
        )
    return Sources(table.name, feeds, table.notes, aligned=not disjoint)
