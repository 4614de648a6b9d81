"""Every error that a person can cause, as one tree. The command line prints its text on one line and exits with 2.

    GanError
    ├── ConfigError        a key, value, type or combination in the configuration
    │   └── CombinationError   parts that are each right and make no sense together
    ├── DataError          a data set that is missing, empty or unreadable
    ├── RunError           a run directory or checkpoint that is missing, cut short or does not fit
    │   └── DamagedError       a checkpoint that is not whole: an older one may be
    ├── MetricError        an evaluation that cannot be made as asked
    ├── WeightsError       a pretrained network whose weights are missing, damaged or of another network
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


class WeightsError(GanError):
    """A pretrained network whose weights are missing, damaged or of another network."""


class DeviceError(GanError):
    """A device, precision or compiler that this machine lacks."""


class RankError(GanError):
    """Another rank of this run failed, is gone or does not come."""


class Interrupted(GanError):  # noqa: N818
    """Not an error: a person asked to stop, and what was done is saved. A sweep ends with it."""


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice that `word` was probably meant to be, or None when none is near.

    Near are the same letters in another order, the beginning of a longer word (of three letters at least), and words
    that share three quarters of their letters.

    >>> nearest("wieght", ["weight", "every"]), nearest("evaluate", ["eval", "train"])
    ('weight', 'eval')
    >>> nearest("cyclegan", ["ebgan", "sagan"]) is None, nearest("translate", ["eval", "train"]) is None
    (True, True)
    """
    names = {name.lower(): name for name in choices}
    low = word.lower()
    if low in names:
        return names[low]
    for name in names:
        if sorted(name) == sorted(low):
            return names[name]
    found = difflib.get_close_matches(low, list(names), n=1, cutoff=0.75)
    begun = [n for n in sorted(names, key=len) for short in (min(n, low, key=len),) if len(short) > 2]
    found += [n for n in begun if n.startswith(low) or low.startswith(n)]
    return names[found[0]] if found else None


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


def plain(error: BaseException) -> str:
    """What an exception of Python's says, on one line, without Python's own words around it.

    >>> plain(NotADirectoryError(20, "Not a directory", "x/run.json"))
    'Not a directory'
    """
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, UnicodeDecodeError):
        return "no text in UTF-8"
    return " ".join(str(error).split()) or type(error).__name__
