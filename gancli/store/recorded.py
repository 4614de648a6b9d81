"""What run.json and config.yaml of a run say, each value of its kind: they may be damaged, or a stranger's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gancli.errors import RunError, plain
from gancli.store.files import read_bytes, read_json

LARGEST_YAML, DEEPEST_YAML = 1 << 20, 50  # bytes, and sections within sections
# Whatever PyYAML and OmegaConf raise for what is no configuration.
_RAISED = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RecursionError),
    *(OmegaConfBaseException, yaml.YAMLError),
)


def config(path: Path) -> dict[str, Any]:
    """A run's whole configuration, nothing in it resolved. Raises RunError."""
    try:
        found = OmegaConf.to_container(OmegaConf.create(_checked_yaml(path)))
    except _RAISED as error:
        raise RunError(f"{path.parent}: cannot read config.yaml ({plain(error)[:200]})") from None
    if not isinstance(found, dict):
        raise RunError(f"{path.parent}: config.yaml holds no configuration")
    return {str(name): value for name, value in found.items()}


def _checked_yaml(path: Path) -> str:
    """A YAML file's text, of plain values only. Raises OSError, ValueError or YAMLError.

    Aliases, which our files never have, turn a few lines into more values than any memory holds.
    """
    text, depth = read_bytes(path, LARGEST_YAML).decode(), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        tagged = isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None
        if isinstance(event, yaml.AliasEvent) or tagged or depth > DEEPEST_YAML:
            raise ValueError("aliases, tags, or sections too deep in each other")
    return text


def _texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(each, str) for each in value)


def _text(value: object) -> bool:
    return isinstance(value, str)


def _number(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _count(value: object) -> bool:
    return _number(value) and value < 1 << 63  # type: ignore[operator]


def _counts(value: object) -> bool:
    return isinstance(value, dict) and all(map(_count, value.values()))


def _source(value: object) -> bool:
    """Where a run's weights came from: another run, or some for each network."""
    return _text(value) or (isinstance(value, dict) and all(map(_text, value.values())))


def _node(value: object) -> bool:
    return isinstance(value, dict)


# The kinds of run.json's values, wherever they are there and not null; what is not named here nobody relies on.
ABOUT: dict[str, Callable[[object], bool]] = {
    "status": _text, "reason": _text, "step": _count, "seed": _number, "note": _text, "parameters": _counts,
    "frozen": _counts, "steps": _count, "memory": _node, "device": _text, "world": _count, "backend": _text,
    "job": _text, "notes": _texts, "init": _source, "data": _node, "overrides": _texts, "versions": _node, "git": _text,
    "host": _text, "platform": _text, "processor": _text, "time": _text,
}  # fmt: skip


def about(path: Path) -> dict[str, Any]:
    """run.json's content. Raises RunError naming the first value that is of another kind than it should be."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it holds no values by name")
    for name, fits in ABOUT.items():
        if found.get(name) is not None and not fits(found[name]):
            raise RunError(f"{path} is damaged: its {name} is of another kind")
    return found
