"""Hydra's grammar of a word of the command line."""

from __future__ import annotations

import json
from functools import lru_cache
from typing import Any


def in_quotes(text: str) -> str:
    """A text as Hydra's grammar reads it back, whatever it holds."""
    return "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + ("\\'" if text.endswith("\\") else "'")


@lru_cache(maxsize=4096)  # Hydra's parser takes milliseconds, and each word is asked about several times
def parses(override: str) -> bool:
    """Whether Hydra can read this override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        OverridesParser.create().parse_override(override)
    except Exception:  # besides Hydra's own, whatever int(...) and the grammar's other functions raise
        return False
    return True


def as_word(value: Any) -> str:
    """A plain value as Hydra's grammar reads it back.

    >>> as_word(["it's", 2, None, {"a": True}])
    "['it\\\\'s',2,null,{a:true}]"
    """
    if isinstance(value, str):
        return in_quotes(value)
    if isinstance(value, list):
        return f"[{','.join(map(as_word, value))}]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{k}:{as_word(v)}" for k, v in value.items()) + "}"  # Hydra reads no quoted keys
    return json.dumps(value)
