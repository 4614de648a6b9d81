"""Words and table rows, which know nothing of each other."""

from __future__ import annotations

import numpy as np

from gancli.compute.rng import key
from gancli.data.fields import Table, Tokens
from gancli.data.source import Column, Source, Sources, check_split

WORDS = ("", "sun", "moon", "rain", "wind", "snow")


def odd(split: str = "train", n: int = 24, seed: int = 0) -> Sources:
    """Feed u: n sequences of three words. Feed v: n + 3 table rows of two columns. `test` is another draw."""
    check_split("odd", split, ["train", "test"])
    numbers = np.random.Generator(np.random.Philox(key=key("odd", split, seed)))
    words = numbers.integers(1, len(WORDS), (n, 3))
    rows = numbers.standard_normal((n + 3, 2)).astype(np.float32)
    return Sources(
        "odd",
        {
            "u": Source("u", {"words": Column(Tokens(3, WORDS), words)}),
            "v": Source("v", {"row": Column(Table(("height", "weight")), rows)}),
        },
    )
