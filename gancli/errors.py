"""The exceptions that users can cause. The command line prints the message on one line and exits with 2.

    GanError
    ├── ConfigError        a key, value, type or combination in the configuration
    │   ├── SplitError         a split that the data set does not have
    │   └── CombinationError   valid parts that do not work together
    ├── DataError          a data set that is missing, empty or unreadable
    ├── RunError           a run directory or checkpoint that is missing, truncated or does not fit
    │   └── DamagedError       a damaged checkpoint; an older one may be intact
    ├── MetricError        an evaluation that is not possible as requested
    ├── WeightsError       pretrained weights that are missing, damaged or of another network
    ├── DeviceError        a device, precision or compiler that this machine lacks
    ├── RankError          another process (rank) of this run failed, ended or does not respond
    └── Interrupted        not an error: the user stopped the command, and its work is saved

A message says what was given, what is allowed and what to type instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GanError(Exception):
    """Base class: an error with a message of one line for the terminal."""


class ConfigError(GanError):
    """A key, value, type or combination in the configuration."""


class SplitError(ConfigError):
    """A split that the data set does not have."""


class CombinationError(ConfigError):
    """Valid parts that do not work together."""


class DataError(GanError):
    """A data set that is missing, empty or unreadable."""


class RunError(GanError):
    """A run directory or checkpoint that is missing, truncated or does not fit."""


class DamagedError(RunError):
    """A damaged checkpoint; an older one may be intact."""


class MetricError(GanError):
    """An evaluation that is not possible as requested."""


class WeightsError(GanError):
    """Pretrained weights that are missing, damaged or of another network."""


class DeviceError(GanError):
    """A device, precision or compiler that this machine lacks."""


class RankError(GanError):
    """Another process (rank) of this run failed, ended or does not respond."""


class Interrupted(GanError):  # noqa: N818
    """Not an error: the user stopped the command, and its work is saved. It also ends a sweep."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """Return the choice that is most similar to `word`, or None if none is similar.

    Similar are: the same letters in another order; one word that begins with the other, of at least three letters;
    words that share three quarters of their letters. Two names that end with "gan" are compared without it.

    >>> nearest("wieght", ["weight", "every"]), nearest("evaluate", ["eval", "train"])
    ('weight', 'eval')
    >>> nearest("lsgan", ["gan", "sagan"]) is None, nearest("translate", ["eval", "train"]) is None
    (True, True)
    """
    names = {name.lower(): name for name in choices}
    low = word.lower()
    if low in names:
        return names[low]
    for name in names:
        if sorted(name) == sorted(low):
            return names[name]
    share, best = max(((_shared(low, name), name) for name in names), default=(0.0, ""))
    found = [best] if share >= 0.75 else []
    begun = [n for n in sorted(names, key=len) for short in (min(n, low, key=len),) if len(short) > 2]
    found += [n for n in begun if n.startswith(low) or low.startswith(n)]
    return names[found[0]] if found else None


def _shared(a: str, b: str) -> float:
    """Return the share of letters that two words have in common, in order."""
    if a.endswith("gan") and b.endswith("gan"):
        a, b = a[:-3], b[:-3]
    return difflib.SequenceMatcher(None, b, a).ratio()


def suggestion(word: str, choices: Iterable[str]) -> str:
    """Return the end of a message about an unknown name: the most similar choice, and all of them if they are few.

    >>> suggestion("hinje", ["hinge", "ns"])
    'did you mean hinge? (choices: hinge, ns)'
    """
    names = sorted(choices)
    if not names:
        return "there are no choices"
    near = nearest(word, names)
    listed = f"choices: {', '.join(names)}" if len(names) <= 40 else f"{len(names)} choices"
    return f"did you mean {near}? ({listed})" if near else listed


def plain(error: BaseException) -> str:
    """Return an exception's message on one line, without error numbers and file names.

    >>> plain(NotADirectoryError(20, "Not a directory", "x/run.json"))
    'Not a directory'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "not UTF-8 text"
    return " ".join(str(error).split()) or type(error).__name__
