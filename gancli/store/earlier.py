"""Detection of files and runs that earlier versions wrote: they are refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gancli.errors import RunError


def refuse_earlier(data: object, path: Path) -> None:
    """Raise RunError for a file or run that describes its data set in the format from before columns."""
    if isinstance(data, Mapping) and "shape" in data and "fields" not in data:
        raise RunError(f"{path} was made by an earlier version of gan, which this one cannot read: train it again")
