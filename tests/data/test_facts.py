"""What a checkpoint says of its data: written and read back as it was, and nothing else is believed."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest

from gancli.data.facts import DataFacts
from gancli.data.fields import Image, Label, Tokens
from gancli.data.noise import KINDS, noise
from gancli.data.source import Sources, lone

ONE = DataFacts("d", {"x": Image(1, 8, 8), "y": Label(("p", "q"))}, {"": 24}, "f")


def test_every_kind_is_read_back() -> None:
    alone = noise(size=[1, 8, 8], n=3, columns={kind: kind for kind in KINDS})
    several = noise(size=[1, 8, 8], n=3, columns={f"{kind}.{name}": kind for kind in KINDS for name in ("x", "other")})
    assert isinstance(several, Sources)
    for data in (lone(alone), several):
        facts = DataFacts.of(data)
        assert DataFacts.read(json.loads(json.dumps(facts.plain()))) == facts
        assert len(facts.fields) == (12 if data is alone else 24)
    assert (ONE.shape, ONE.classes, ONE.images) == ((1, 8, 8), ("p", "q"), 24)
    assert DataFacts("d", {"text": Tokens(3, ("", "a"))}, {"": 1}, "f").classes == ()


def test_differences_name_columns() -> None:
    now = DataFacts("d", {"x": Image(1, 8, 8), "y": Label(("p", "r"))}, {"": 24}, "g")
    assert ONE.differences(now) == "y has other names"
    assert ONE.differences(ONE) == "same number of rows (24), different contents"
    fed = DataFacts("e", {"u.x": Image(1, 8, 8)}, {"u": 5}, "g")
    assert ONE.differences(fed) == (
        "name d -> e; rows 24 -> none; u.rows none -> 5; x images of 1×8×8 -> none; y labels of 2 classes -> none;"
        " u.x none -> images of 1×8×8"
    )


HOSTILE: dict[str, dict[str, Any]] = {
    "no fields": {"fields": {}},
    "fields that are none": {"fields": None},
    "a field that is a number": {"fields": {"x": 3}},
    "an unknown kind": {"fields": {"x": {"kind": "code", "names": []}}},
    "a size that is a text": {"fields": {"x": {"kind": "points", "size": "2"}}},
    "a row too large": {"fields": {"x": {"kind": "image", "channels": 3, "height": 1 << 20, "width": 1 << 20}}},
    "a row of nothing": {"fields": {"x": {"kind": "points", "size": 0}}},
    "a codebook without end": {"fields": {"x": {"kind": "codes", "height": 2, "width": 2, "size": 1 << 40}}},
    "a feed that is not there": {"fields": {"u.x": {"kind": "points", "size": 2}}},
    "a name in three parts": {"fields": {".x.y": {"kind": "points", "size": 2}}},
    "too many columns": {"fields": {f"c{k}": {"kind": "points", "size": 2} for k in range(1001)}},
    "no rows": {"rows": {}},
    "rows that are none": {"rows": {"": 0}},
    "rows that are true": {"rows": {"": True}},
    "rows that are a list": {"rows": [1]},
    "a name that is a number": {"name": 3},
    "a fingerprint that is a list": {"fingerprint": ["f"]},
    "a name without end": {"name": "x" * 1001},
}


@pytest.mark.parametrize("change", HOSTILE.values(), ids=HOSTILE)
def test_what_no_data_set_says_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"data set|field"):
        DataFacts.read(copy.deepcopy(ONE.plain()) | change)
    for key in ONE.plain():
        with pytest.raises(ValueError, match="does not describe its data set"):
            DataFacts.read({name: value for name, value in ONE.plain().items() if name != key})
