"""What an earlier form of this program wrote: it is recognised, and refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from gancli.errors import RunError


def refuse_earlier(data: object, path: Path) -> None:
    """Raise RunError for a file or run that tells of its data set as was done before data sets had columns."""
    if isinstance(data, Mapping) and "shape" in data and "fields" not in data:
        raise RunError(f"{path} was made by an earlier form of gan, which this one does not read: train it again")
