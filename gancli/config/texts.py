"""Quoting of string values, based on the types in the signatures that the configuration builds."""

from __future__ import annotations

import re
import types
import typing
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Annotated, Any, Union

import yaml  # type: ignore[import-untyped]

from gancli.config.files import conf_dir, read
from gancli.config.grammar import in_quotes, parses
from gancli.errors import GanError

PLAIN = re.compile(r"[A-Z_a-z./][\w./-]*", re.ASCII)  # values that Hydra reads as plain strings, except for these:
WORDS = ("null", "true", "false", "nan", "inf")
NUMBER = re.compile(r"[+-]?\d+(\.\d*)?(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
SWEEP = re.compile(r"(choice|range|interval|glob|shuffle|sort|tag)\(")

Forms = frozenset[str]  # which of text, number, list and section a key accepts


def plain(value: str) -> bool:
    """Whether Hydra reads this value as a string without quotes.

    >>> plain("my/run.pt"), plain("my run"), plain("007"), plain("Null")
    (True, False, False, False)
    """
    return PLAIN.fullmatch(value) is not None and value.lower() not in WORDS


def forms(key: str, folders: Iterable[Path] = ()) -> Forms:
    """Return what a key accepts in any verb, with any choice of its group; empty for an unknown key.

    >>> sorted(forms("run")), sorted(forms("steps"))
    (['list', 'text'], ['number'])
    """
    hints = _nested(key, folders) if "." in key else _top(key)
    return frozenset(form for hint in hints for form in _forms(hint))


def _forms(hint: Any) -> Iterator[str]:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (Union, types.UnionType):
        for each in args:
            yield from _forms(each)
    elif origin is Annotated:
        yield from _forms(args[0])
    elif hint in (str, Path):
        yield "text"
    elif hint in (int, float):
        yield "number"
    elif origin in (list, tuple) or (isinstance(origin, type) and issubclass(origin, Sequence)):
        yield "list"
    elif hint is dict or origin is dict:
        yield "section"


def _top(key: str) -> Iterator[Any]:
    """Yield the types of a top-level key, in each verb that has it."""
    from gancli.config import settings

    kinds: list[Any] = [settings.TrainSettings, settings.SampleSettings, settings.InterpolateSettings]
    kinds.append(settings.EvalSettings)
    if re.search(rf"^{re.escape(key)}: ", (conf_dir() / "sweep.yaml").read_text(encoding="utf-8"), re.MULTILINE):
        kinds.append(settings.SweepSettings)
    for kind in kinds:
        hints = typing.get_type_hints(kind)
        if key in hints:
            yield hints[key]


def _nested(key: str, folders: Iterable[Path]) -> Iterator[Any]:
    """Yield the types of a key inside a group, for each choice with a `_target_`."""
    from gancli.config.build import find, hints_of

    path, _, name = key.rpartition(".")
    for place in (conf_dir(), *folders):
        for file in sorted(place.glob("*/*.yaml")):
            node = _section(file, path)
            target, default = node.get("_target_"), node.get(name)
            if isinstance(default, list):
                yield list[Any]
            if target is None or isinstance(default, (bool, int, float, list, dict)):
                continue
            try:
                hint = hints_of(find(target, path)).get(name)
            except (GanError, KeyError):  # a user's file: its error is reported when it is used
                continue
            if hint is not None:
                yield hint


def _section(file: Path, path: str) -> dict[str, Any]:
    """Return the section at a dotted path in a group's file; empty if it has none."""
    try:
        package, node, _ = read(file)
    except (OSError, ValueError, yaml.YAMLError):
        return {}
    parts: list[str] = path.split(".")
    if parts[: len(package)] != list(package):
        return {}
    for part in parts[len(package) :]:
        node = node[part] if isinstance(node.get(part), dict) else {}
    return node


def quote(overrides: Sequence[str], sweep: bool = False, folders: Iterable[Path] = ()) -> list[str]:
    """Quote the values of keys that accept a string if Hydra would parse them differently.

    sweep: whether several values of a key are several jobs. folders: further folders of group files.

    >>> quote(["note=Food & Drink", "steps=3", "dataset.root=a,b"])
    ["note='Food & Drink'", 'steps=3', "dataset.root='a,b'"]
    """
    return [_quoted(override, sweep, folders) for override in overrides]


def _quoted(override: str, sweep: bool, folders: Iterable[Path]) -> str:
    name, equals, value = override.partition("=")
    if not equals or not value or value == "null" or plain(value) or value.startswith(("'", '"', "${")):
        return override
    taken = forms(name.lstrip("+"), folders)
    if "text" not in taken or ("number" in taken and NUMBER.fullmatch(value)):
        return override
    listed = "list" in taken and value.startswith("[")
    several = sweep and ("," in value or SWEEP.match(value))
    listed = listed or ("section" in taken and value.startswith("{") and parses(override))
    return override if (listed or several) and parses(override) else f"{name}={in_quotes(value)}"
