"""Another split of a configured data set."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from gancli.config.build import make
from gancli.data.source import DataSet
from gancli.errors import SplitError


def split_of(node: Mapping[str, Any], split: str) -> DataSet:
    """All rows of a split of the data set that a section describes. Raises SplitError where it has none of that name.

    node: as configured, with the split and limit of the training.
    """
    if "split" not in node:
        raise SplitError(f"this data set has no split {split}")
    made: DataSet = make({**node, "split": split} | ({"limit": None} if "limit" in node else {}), "dataset")
    return made
