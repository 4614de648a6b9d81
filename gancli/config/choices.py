"""Several values of a key, `loss=ns,hinge` or `seed=range(1,5)`: counted before any list is built."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError

MOST_JOBS, MANY = 10_000, 10**15  # most jobs of a sweep; counts of values are capped at MANY


def refuse_many(parsed: Iterable[Any]) -> None:
    """Raise ConfigError for parsed overrides that make no job or more than MOST_JOBS."""
    count = 1
    for each in parsed:
        count = min(MANY, count * values_of(each))
        if count > MOST_JOBS:
            many = f"{'over ' if count == MANY else ''}{count:,}"
            raise ConfigError(f"{each.input_line}: {many} jobs; a sweep has at most {MOST_JOBS:,}")


def values_of(parsed: Any) -> int:
    """Count the values of a parsed override without listing them. Raises ConfigError if there are none or no count."""
    held, line = parsed.value(), str(parsed.input_line)
    if parsed.is_interval_sweep():
        raise ConfigError(f"{line}: an interval is searched by gan train -m search=optuna; otherwise list the values")
    if not parsed.is_sweep_override():
        return 1
    if hasattr(held, "list"):
        count = len(held.list)
    elif hasattr(held, "stop"):
        start, stop, step = held.start, held.stop, held.step
        if step == 0 or not all(abs(x) < float("inf") for x in (start, stop, step)):
            raise ConfigError(f"{line}: a range has a finite start, stop and step, and the step is not 0")
        try:
            count = max(0, ceil(min((stop - start) / step, MANY)))
        except OverflowError:  # integers beyond the range of floats
            count = MANY if (stop > start) == (step > 0) else 0
    else:
        raise ConfigError(f"{line}: glob matches the choices of a group, as in 'loss=glob(*)'; list the values")
    if not count:
        raise ConfigError(f"{line}: has no values")
    return count


def listed(verb: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """Replace each `GROUP=glob(...)` by the list of the group's choices that match. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    from gancli.config.files import groups
    from gancli.config.grammar import parses

    found = list(overrides)
    for k, override in enumerate(overrides):
        if "glob(" not in override or not parses(override):
            continue
        parsed = OverridesParser.create().parse_override(override)
        held: Any = parsed.value()
        choices = groups(verb, folders).get(parsed.key_or_group)
        if not hasattr(held, "include"):
            continue
        if choices is None:
            raise ConfigError(
                f"{override}: glob matches the choices of a group, as in 'loss=glob(*)'; list the values,"
                f" such as {parsed.key_or_group}=1,2,3"
            )
        fitting = held.filter(choices)
        if not fitting:
            raise ConfigError(f"{override}: no choice matches; choices: {', '.join(choices)}")
        found[k] = f"{parsed.get_key_element()}={','.join(fitting)}"
    return found
