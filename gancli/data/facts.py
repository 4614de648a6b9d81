"""Metadata of a data set: stored in every checkpoint, so that sampling needs no data."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gancli.data import fields
from gancli.data.fields import Field
from gancli.data.source import DataSet, class_names, feeds_of, first_shape

MOST_FIELDS, MOST_NAMES, LONGEST = 1000, 1 << 20, 1000  # columns; classes or words; characters of a name
LARGEST_ROW = 1 << 32  # numbers in a row


@dataclass(frozen=True)
class DataFacts:
    """The metadata of a data set.

    fields: of all columns, as batches name them: COLUMN for a single feed, FEED.COLUMN for several. rows: their number
    by feed; a single feed's name is empty. fingerprint: of the data set.
    """

    name: str
    fields: dict[str, Field]
    rows: dict[str, int]
    fingerprint: str

    @staticmethod
    def of(data: DataSet) -> DataFacts:
        """Return the facts of a loaded data set."""
        feeds = feeds_of(data)
        named = {_joined(feed, c): field for feed, source in feeds.items() for c, field in source.fields.items()}
        rows = {feed: len(source) for feed, source in feeds.items()}
        return DataFacts(data.name, named, rows, data.fingerprint)

    @staticmethod
    def read(plain: Mapping[str, Any]) -> DataFacts:
        """Parse what `plain` returned. Raises ValueError for anything else: the file is untrusted."""
        try:
            name, found, rows, fingerprint = (plain[key] for key in ("name", "fields", "rows", "fingerprint"))
            told = {str(column): fields.read(each) for column, each in found.items()}
            counts = {str(feed): n for feed, n in rows.items()}
        except (KeyError, TypeError, AttributeError):
            raise ValueError("it does not describe its data set") from None
        texts = (name, fingerprint, *told, *counts)
        if not all(isinstance(text, str) and len(text) <= LONGEST for text in texts):
            raise ValueError("its data set has no valid name")
        if not told or not counts or max(len(told), len(counts)) > MOST_FIELDS:
            raise ValueError(f"its data set has {len(told)} columns in {len(counts)} feeds")
        for column, field in told.items():
            if 0 in field.shape or math.prod(field.shape) > LARGEST_ROW or (field.largest or 0) >= MOST_NAMES:
                raise ValueError(f"column {column} of its data set is out of range: {field.told}")
            if (column.rpartition(".")[0] if column.count(".") <= 1 else None) not in counts:
                raise ValueError(f"column {column} of its data set belongs to no feed")
        if any(type(n) is not int or not 0 < n < 1 << 60 for n in counts.values()):
            raise ValueError("its data set has no rows")
        return DataFacts(name, told, counts, fingerprint)

    def plain(self) -> dict[str, Any]:
        """Return plain values for a file."""
        told = {column: field.plain() for column, field in self.fields.items()}
        return {"name": self.name, "fields": told, "rows": dict(self.rows), "fingerprint": self.fingerprint}

    @property
    def shape(self) -> tuple[int, ...]:
        """Return the shape of a row of the first column."""
        return first_shape(self.fields)

    @property
    def classes(self) -> tuple[str, ...]:
        """Return the class names of the first label column; empty without one."""
        return class_names(self.fields)

    @property
    def images(self) -> int:
        """Return the number of rows of the first feed."""
        return next(iter(self.rows.values()))

    @property
    def told(self) -> str:
        """Describe the number and kind of rows: of each of several feeds, or of each of several images."""
        images = {name: field for name, field in self.fields.items() if field.spatial}
        if len(self.rows) == 1 and len(images) > 1:
            return f"{self.images:,} rows: {' · '.join(f'{name} {field.told}' for name, field in images.items())}"
        if len(self.rows) == 1:
            return f"{self.images:,} items of {'×'.join(map(str, self.shape))}"
        first: dict[str, Field] = {}
        for column, field in self.fields.items():
            first.setdefault(column.partition(".")[0], field)
        return " · ".join(f"{feed} {count:,} {first[feed].told}" for feed, count in self.rows.items())

    def differences(self, now: DataFacts) -> str:
        """Describe how another data set differs.

        >>> from gancli.data.fields import Image, Label
        >>> old = DataFacts("a", {"x": Image(1, 8, 8)}, {"": 24}, "x")
        >>> old.differences(DataFacts("a", {"x": Image(3, 8, 8), "y": Label(("cat",))}, {"": 48}, "y"))
        'rows 24 -> 48; x images of 1×8×8 -> images of 3×8×8; y none -> labels of 1 classes'
        """
        pairs = {"name": (self.name, now.name)}
        for feed in {**self.rows, **now.rows}:
            counts = (f"{facts.rows[feed]:,}" if feed in facts.rows else "none" for facts in (self, now))
            pairs[_joined(feed, "rows")] = (next(counts), next(counts))
        for column in {**self.fields, **now.fields}:
            told = (facts.fields[column].told if column in facts.fields else "none" for facts in (self, now))
            pairs[column] = (next(told), next(told))
        changed = [f"{what} {old} -> {new}" for what, (old, new) in pairs.items() if old != new]
        for column, field in self.fields.items():
            if pairs[column][0] == pairs[column][1] and field != now.fields[column]:
                changed.append(f"{column} has other names")
        return "; ".join(changed) or f"same number of rows ({self.images:,}), different contents"


def _joined(feed: str, name: str) -> str:
    return f"{feed}.{name}" if feed else name
