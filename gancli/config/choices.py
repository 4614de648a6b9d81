"""Several values of a key, `loss=ns,hinge` or `seed=range(1,5)`: how many there are, before any list is made."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import ceil
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError

MOST_JOBS, MANY = 10_000, 10**15  # of a sweep; of values, more than are counted


def refuse_many(parsed: Iterable[Any]) -> None:
    """Raise ConfigError for parsed overrides that make more than MOST_JOBS jobs together, or none."""
    count = 1
    for each in parsed:
        count = min(MANY, count * values_of(each))
        if count > MOST_JOBS:
            many = f"{'over ' if count == MANY else ''}{count:,}"
            raise ConfigError(f"{each.input_line}: {many} jobs; a sweep has at most {MOST_JOBS:,}")


def values_of(parsed: Any) -> int:
    """How many values a parsed override has, without making them. Raises ConfigError for none, and for no number."""
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
        except OverflowError:  # of whole numbers that no float holds
            count = MANY if (stop > start) == (step > 0) else 0
    else:
        raise ConfigError(f"{line}: glob chooses among the choices of a group, such as 'loss=glob(*)'; list the values")
    if not count:
        raise ConfigError(f"{line}: has no value at all")
    return count


def listed(verb: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> list[str]:
    """The overrides with each `GROUP=glob(...)` as the list of the group's choices. Raises ConfigError."""
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
                f"{override}: glob chooses among the choices of a group, such as 'loss=glob(*)'; list the values,"
                f" such as {parsed.key_or_group}=1,2,3"
            )
        fitting = held.filter(choices)
        if not fitting:
            raise ConfigError(f"{override}: no choice fits; choices: {', '.join(choices)}")
        found[k] = f"{parsed.get_key_element()}={','.join(fitting)}"
    return found
