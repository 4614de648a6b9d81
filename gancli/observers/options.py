"""Options of `gan eval` that an observer passes on: keys of metrics and of the extractor only."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence

from gancli.errors import ConfigError


def refuse_options(observer: str, options: Sequence[str], own: Collection[str]) -> None:
    """Raise ConfigError for an option that is not a key of a metric or of the extractor.

    observer: its key in the configuration. own: keys that it shares with `gan eval`.
    """
    for option in options:
        key, equals, value = option.lstrip("+").partition("=")
        if equals and re.match(r"(metrics\.\w+|extractor)\.\w", key):
            continue
        remedy = f"{observer}.{key}={value} instead" if key in own else "other keys to gan eval, after the training"
        raise ConfigError(
            f"{observer}.options={option}: only keys of metrics and of the extractor are allowed, such as"
            f" '{observer}.options=[\"metrics.kid.subset_size=500\"]'; give {remedy}"
        )
