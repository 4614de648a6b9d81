"""Validated reading of a run's run.json and config.yaml, which may be damaged or untrusted."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gancli.errors import RunError, plain
from gancli.store.files import read_bytes, read_json

LARGEST_YAML, DEEPEST_YAML = 1 << 20, 50  # bytes, and levels of nesting
# What PyYAML and OmegaConf raise for an invalid configuration.
_RAISED = (
    *(OSError, ValueError, TypeError, LookupError, ArithmeticError, AttributeError, AssertionError, RecursionError),
    *(OmegaConfBaseException, yaml.YAMLError),
)


def config(path: Path) -> dict[str, Any]:
    """Return a run's whole configuration, with nothing in it resolved. Raises RunError."""
    try:
        found = OmegaConf.to_container(OmegaConf.create(_checked_yaml(path)))
    except _RAISED as error:
        raise RunError(f"{path.parent}: cannot read config.yaml ({plain(error)[:200]})") from None
    if not isinstance(found, dict):
        raise RunError(f"{path.parent}: config.yaml holds no configuration")
    return {str(name): value for name, value in found.items()}


def _checked_yaml(path: Path) -> str:
    """Return a YAML file's text, which has plain values only. Raises OSError, ValueError or YAMLError.

    Aliases, which our files never have, can expand a few lines to more values than memory holds.
    """
    text, depth = read_bytes(path, LARGEST_YAML).decode(), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        tagged = isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None
        if isinstance(event, yaml.AliasEvent) or tagged or depth > DEEPEST_YAML:
            raise ValueError("aliases, tags, or too many levels of nesting")
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
    """Whether a value is the source of a run's weights: another run, or one for each network."""
    return _text(value) or (isinstance(value, dict) and all(map(_text, value.values())))


def _node(value: object) -> bool:
    return isinstance(value, dict)


# The types of run.json's values, if present and not null; other keys are not used.
ABOUT: dict[str, Callable[[object], bool]] = {
    "status": _text, "reason": _text, "step": _count, "seed": _number, "note": _text, "parameters": _counts,
    "frozen": _counts, "steps": _count, "memory": _node, "device": _text, "world": _count, "backend": _text,
    "job": _text, "notes": _texts, "init": _source, "data": _node, "overrides": _texts, "versions": _node, "git": _text,
    "host": _text, "platform": _text, "processor": _text, "time": _text,
}  # fmt: skip


def about(path: Path) -> dict[str, Any]:
    """Return run.json's content. Raises RunError naming the first value of a wrong type."""
    found = read_json(path)
    if not isinstance(found, dict):
        raise RunError(f"{path} is damaged: it has no values by name")
    for name, fits in ABOUT.items():
        if found.get(name) is not None and not fits(found[name]):
            raise RunError(f"{path} is damaged: its {name} has a wrong type")
    return found
