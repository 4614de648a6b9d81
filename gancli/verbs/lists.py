"""Parsing of seed lists and class lists."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

from gancli.compute.dist import World
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError


def seed_list(seeds: str | list[int] | None, key: str = "seeds") -> list[int]:
    """Return the seeds of a range or list; empty for None. Raises ConfigError.

    >>> seed_list("0-3,7")
    [0, 1, 2, 3, 7]
    """
    if seeds is None:
        return []
    found: list[int] = []
    for part in str(seeds).strip("[]").split(","):
        first, dash, last = part.strip().partition("-")
        ends = re.fullmatch(r"[0-9]{1,18}", first) and (not dash or re.fullmatch(r"[0-9]{1,18}", last))
        if not ends or int(last or first) < int(first):
            raise ConfigError(f"{key}={seeds}: write a range such as 0-15, or a list such as 3,7,11")
        if len(found) + int(last or first) - int(first) >= 1_000_000:
            raise ConfigError(f"{key}={seeds}: at most a million seeds at a time")
        found += range(int(first), int(last or first) + 1)
    return found


def class_list(classes: str | list[int | str] | None, sampler: Sampler) -> list[int]:
    """Return the class numbers of names, numbers or `all`; empty for None. Prints a note about names that are numbers.

    Raises ConfigError with the known names, or if the generator is not conditional.
    """
    if classes is None:
        return []
    names = sampler.classes
    if classes == "all" and "all" not in names and sampler.labelled:
        return list(range(len(names)))
    wanted = [str(c).strip() for c in (classes if isinstance(classes, list) else [classes])]
    if isinstance(classes, str) and classes not in names:
        wanted = [c.strip() for c in _commas(classes.strip("[]"), names)]
    found = [sampler.class_number(word) for word in wanted]
    other = [(word, number) for word, number in zip(wanted, found, strict=True) if _is_other(word, number)]
    if other and World.of_group().first:
        named = ", ".join(f"{word} (class number {number})" for word, number in other)
        print(f"classes={','.join(wanted)}: these are names: {named}", file=sys.stderr, flush=True)
    return found


def _is_other(word: str, number: int) -> bool:
    return re.fullmatch("[0-9]+", word) is not None and word != str(number)


def _commas(text: str, names: Sequence[str]) -> list[str]:
    """Split a text at its commas, but not inside a class name that contains commas."""
    for name in sorted((n for n in names if "," in n), key=len, reverse=True):
        text = text.replace(name, name.replace(",", "\0"))
    return [part.replace("\0", ",") for part in text.split(",")]
