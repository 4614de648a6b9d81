"""Hydra's override grammar: parsing and quoting."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any


def in_quotes(text: str) -> str:
    """Quote any text for Hydra's grammar."""
    return "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + ("\\'" if text.endswith("\\") else "'")


@lru_cache(maxsize=4096)  # Hydra's parser takes milliseconds, and overrides are parsed several times
def parses(override: str) -> bool:
    """Whether Hydra can parse this override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        OverridesParser.create().parse_override(override)
    except Exception:  # Hydra's exceptions, and those of int(...) and the grammar's other functions
        return False
    return True


def as_word(value: Any) -> str:
    """Write a plain value in Hydra's grammar.

    >>> as_word(["it's", 2, None, {"a": True}])
    "['it\\\\'s',2,null,{a:true}]"
    """
    if isinstance(value, str):
        return in_quotes(value)
    if isinstance(value, list):
        return f"[{','.join(map(as_word, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{as_word(v)}" for k, v in value.items()) + "}"  # Hydra does not parse quoted keys
    return json.dumps(value)
