"""Every error that a person can cause, as one tree. The command line prints its text on one line and exits with 2.

    GanError
    ├── ConfigError        a key, value, type or combination in the configuration
    │   └── CombinationError   parts that are each right and make no sense together
    ├── DataError          a data set that is missing, empty or unreadable
    ├── RunError           a run directory or checkpoint that is missing, cut short or does not fit
    │   └── DamagedError       a checkpoint that is not whole: an older one may be
    ├── MetricError        an evaluation that cannot be made as asked
    ├── DeviceError        a device, precision or compiler that this machine lacks
    ├── RankError          another rank of this run failed, is gone or does not come
    └── Interrupted        not an error: a person asked to stop, and what was done is saved

A message says what was given, what is allowed and what to type instead.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class GanError(Exception):
    """Root of the tree: one line for the person at the terminal."""


class ConfigError(GanError):
    """A key, value, type or combination in the configuration."""


class SplitError(ConfigError):
    """A data set does not have the split that was asked for."""


class CombinationError(ConfigError):
    """Parts that are each right and make no sense together."""


class DataError(GanError):
    """A data set that is missing, empty or unreadable."""


class RunError(GanError):
    """A run directory or checkpoint that is missing, cut short or does not fit."""


class DamagedError(RunError):
    """A checkpoint that is not whole: an older one may be."""


class MetricError(GanError):
    """An evaluation that cannot be made as asked."""


class DeviceError(GanError):
    """A device, precision or compiler that this machine lacks."""


class RankError(GanError):
    """Another rank of this run failed, is gone or does not come."""


class Interrupted(GanError):  # noqa: N818
    """Not an error: a person asked to stop, and what was done is saved. A sweep ends with it."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None when none is near.

    >>> nearest("wieght", ["weight", "every"])
    'weight'
    >>> nearest("qqq", ["weight", "every"]) is None
    True
    """
    names = list(choices)
    lowered = {name.lower(): name for name in names}
    if word.lower() in lowered:
        return lowered[word.lower()]
    found = difflib.get_close_matches(word.lower(), list(lowered), n=1, cutoff=0.5)
    return lowered[found[0]] if found else None


def suggestion(word: str, choices: Iterable[str]) -> str:
    """The tail of a message about an unknown name: the nearest right one, and all of them when they are few.

    >>> suggestion("hinje", ["hinge", "ns"])
    'did you mean hinge? (choices: hinge, ns)'
    """
    names = sorted(choices)
    if not names:
        return "there is nothing to choose from"
    near = nearest(word, names)
    listed = f"choices: {', '.join(names)}" if len(names) <= 40 else f"{len(names)} choices"
    return f"did you mean {near}? ({listed})" if near else listed
