"""Images of two domains, B being A turned upside down and darker, of any sizes and channels."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from gancli.compute.rng import key
from gancli.data.columns import Column
from gancli.data.fields import Image, Label
from gancli.data.paired import as_feeds, asks_feeds
from gancli.data.source import DataSet, Source, check_split


def maps(
    split: str = "train",
    n: int = 12,
    A: list[int] | None = None,
    B: list[int] | None = None,
    classes: int = 0,
    apart: bool = False,
    *,
    columns: Mapping[str, str] | None = None,
) -> DataSet:
    """n rows of noise [C, H, W], a pair each; as feeds, held-out rows keep their partner unless they are `apart`."""
    check_split("maps", split, ["train", "test"])
    numbers = np.random.Generator(np.random.Philox(key=key("maps", split)))
    found = {}
    for name, shape in (("A", A or [3, 8, 12]), ("B", B or A or [3, 8, 12])):
        images = numbers.integers(0, 256, (n, *shape)).astype(np.uint8)
        found[name] = Column(Image(*shape), images)
    if classes:
        found["y"] = Column(Label(tuple(f"kind {k}" for k in range(classes))), np.arange(n) % classes)
    table = Source("maps", found)
    return as_feeds(table, disjoint=split == "train" or apart) if asks_feeds(columns) else table
