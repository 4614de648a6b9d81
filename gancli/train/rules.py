"""Rules for keys that are `auto`, and the printed table of what they chose."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, NamedTuple, TypeVar

AUTO = "auto"
Case = TypeVar("Case")


@dataclass(frozen=True)
class Rule(Generic[Case]):
    """A key's value for a case, and the reason in words."""

    value: Callable[[Case], Any]
    why: Callable[[Case], str]


class Row(NamedTuple):
    """A row of the table."""

    key: str
    value: str
    why: str


@dataclass(frozen=True)
class Chosen:
    """What was chosen, and for what: a title, and rows if each choice has a reason."""

    title: str = ""
    rows: tuple[Row, ...] = ()

    def lines(self, *more: Row) -> list[str]:
        """Return the lines of an aligned table with `more` rows at its end; the title alone, without rows.

        >>> Chosen("for 3 images:", (Row("size", "64", "small"),)).lines(Row("steps", "1,000", "few"))
        ['for 3 images:', '  size  = 64     small', '  steps = 1,000  few']
        """
        if not self.title:
            return []
        rows = [*self.rows, *more] if self.rows else []
        wide = [max((len(row[part]) for row in rows), default=0) for part in (0, 1)]
        return [self.title, *(f"  {key:{wide[0]}} = {value:{wide[1]}}  {why}" for key, value, why in rows)]


def holds(config: Mapping[str, Any], key: str) -> bool:
    """Whether a configuration has a dotted key, also with the value None.

    >>> holds({"a": {"b": None}}, "a.b"), holds({"a": {}}, "a.b")
    (True, False)
    """
    node: Any = config
    for part in key.split("."):
        if not isinstance(node, Mapping) or part not in node:
            return False
        node = node[part]
    return True
