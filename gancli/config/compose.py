"""Composition of conf/ with the command line. gancli.config.corrections makes the error messages."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from gancli.config import corrections, generators, untrusted
from gancli.config.choices import refuse_many
from gancli.config.composition import hydra_compose, refuse_plugins
from gancli.config.files import conf_dir, default_choices, defaults_lines, groups, leaves, names, overridden
from gancli.config.texts import quote
from gancli.errors import ConfigError

__all__ = ["Composed", "compose", "composed", "conf_dir", "defaults_lines", "expand", "groups", "quote"]


@dataclass
class Composed:
    """One job's configuration as plain values, the choice of each group, and notes for the log."""

    config: dict[str, Any]
    choices: dict[str, Any]
    notes: list[str] = field(default_factory=list)


def compose(
    verb: str, overrides: Sequence[str], folders: Sequence[Path] = (), *, typed: bool = False
) -> dict[str, Any]:
    """Return the configuration of one job as plain Python values.

    overrides: `key=value`, already quoted. folders: further folders of group files (--config-dir). typed: whether all
    overrides come from the current command line; others are untrusted (config/untrusted.py): resolvers are disabled.
    Raises ConfigError: one line that suggests the nearest valid key or choice.
    """
    return composed(verb, overrides, folders, typed=typed).config


def composed(verb: str, overrides: Sequence[str], folders: Sequence[Path] = (), *, typed: bool = False) -> Composed:
    """As `compose`, with the choice of each group. Raises ConfigError."""
    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
        if not any(folder.glob("*/*.yaml")):
            raise ConfigError(f"--config-dir {folder}: no group files in it, such as model/mine.yaml")
    overrides = generators.as_choices(verb, overrides, folders)
    if not folders and not any("$" in o for o in overrides):  # the result cannot change between two calls
        return copy.deepcopy(_composed_once(verb, tuple(overrides)))
    return _composed(verb, overrides, folders, typed)


@lru_cache(maxsize=64)
def _composed_once(verb: str, overrides: tuple[str, ...]) -> Composed:
    return _composed(verb, overrides, (), False)


def _composed(verb: str, overrides: Sequence[str], folders: Sequence[Path], typed: bool) -> Composed:
    from omegaconf import OmegaConf

    if not typed:
        untrusted.refuse_files(folders)
    corrections.refuse(verb, overrides, folders)
    generators.refuse(verb, overrides, folders)
    try:
        config, choices = hydra_compose(verb, overrides, folders, typed)
        with nullcontext() if typed else untrusted.no_resolvers():
            plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except Exception as error:  # Hydra, OmegaConf and YAML raise many types, and Python's own
        asking = None if typed else untrusted.asks(error)
        raise asking or ConfigError(corrections.why(verb, overrides, folders, error, typed)) from None
    assert isinstance(plain, dict)
    if not typed:
        refuse_plugins(overrides, folders)
    corrections.refuse_additions(verb, overrides, folders)
    made = Composed(
        {str(name): value for name, value in plain.items()}, _all_choices(verb, choices, overrides, folders)
    )
    _let_go(verb, made, overrides, folders)
    return made


def _all_choices(
    verb: str, found: Mapping[str, Any], overrides: Sequence[str], folders: Sequence[Path]
) -> dict[str, Any]:
    """Return Hydra's choices, and those of groups with several choices, which Hydra does not report."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    typed = {p.key_or_group: p.value() for p in OverridesParser.create().parse_overrides(list(overrides))}
    places: list[Mapping[str, Any]] = [typed]
    places += [overridden(g, found[g], folders) for g in ("experiment", "model") if g in found]
    places.append(default_choices(verb))
    return {g: found[g] if g in found else next(p[g] for p in places if g in p) for g in default_choices(verb)}


def _let_go(verb: str, made: Composed, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Drop values that a model or experiment sets inside a group if another choice of that group was made.

    Keys that the other choice has, too, keep the value, with a note. Values from the command line stay.
    """
    typed = {override.partition("=")[0].lstrip("+~") for override in overrides}
    started = default_choices(verb)
    for source in ("model", "experiment"):
        if source not in made.choices:
            continue
        own_choices = overridden(source, made.choices[source], folders)
        model = {} if source == "model" else overridden("model", own_choices.get("model", started["model"]), folders)
        chosen = {**started, **model, **own_choices}
        replaced = {g for g, c in made.choices.items() if g != source and names(c) != names(chosen.get(g, ""))}
        gone, kept = [], []
        for key, value in leaves(source, made.choices[source], folders).items():
            section, _, last = key.partition(".")[0], None, key.rpartition(".")[2]
            if (
                "." not in key
                or section == source
                or any(t == key or key.startswith(f"{t}.") for t in typed - replaced)
            ):
                continue
            own = leaves(section, made.choices[section], folders) if section in made.choices else {}
            if section in replaced and key not in own:
                _drop(made.config, key)
                gone.append(key)
            elif section in replaced and value != own[key]:
                kept.append(key)
            elif last in replaced and section in made.choices:  # about another group's component, as ramp.augment
                _put(made.config, key, own.get(key))
                gone.append(key)
        where = f"{source}={made.choices[source]}"
        if gone:
            made.notes.append(f"{where} sets {', '.join(gone)}: ignored because of {_those(made, gone, replaced)}")
        if kept:
            made.notes.append(f"{where} sets {', '.join(kept)}: also applied to {_those(made, kept, replaced)}")


def _those(made: Composed, keys: Sequence[str], replaced: set[str]) -> str:
    """Return the choices that replace those for which the keys were set, as GROUP=CHOICE."""
    roots = {part for key in keys for part in (key.partition(".")[0], key.rpartition(".")[2])} & replaced
    return " ".join(
        f"{g}={c if isinstance(c, str) else '[' + ','.join(c) + ']'}" for g, c in made.choices.items() if g in roots
    )


def _drop(config: dict[str, Any], key: str) -> None:
    """Remove a dotted key, and nested sections that become empty."""
    first, dot, rest = key.partition(".")
    node = config.get(first)
    if not dot:
        config.pop(first, None)
    elif isinstance(node, dict):
        _drop(node, rest)
        inner = rest.partition(".")[0]
        if node.get(inner) == {}:
            del node[inner]


def _put(config: dict[str, Any], key: str, value: Any) -> None:
    first, dot, rest = key.partition(".")
    if not dot:
        config[first] = value
    elif isinstance(config.get(first), dict):
        _put(config[first], rest, value)


def left_out(recorded: Sequence[str]) -> list[str]:
    """Return notes about values of a model or experiment that were dropped or kept with other choices.

    recorded: the run's overrides, and its folders as --config-dir=PATH.
    """
    folders = [Path(o.partition("=")[2]) for o in recorded if o.startswith("--config-dir=")]
    try:
        return composed("train", [o for o in recorded if not o.startswith("--")], folders).notes
    except ConfigError:  # called from Python, with a configuration that these overrides did not make
        return []


def of_choices(verb: str, earlier: Sequence[str], overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return the earlier overrides that still apply: without keys that newly chosen groups do not have."""
    made = {g: c for g, _, c in (o.partition("=") for o in overrides) if g in groups(verb, folders)}
    kept = []
    for override in earlier:
        key = override.partition("=")[0].lstrip("+~")
        group = key.partition(".")[0]
        if "." in key and group in made and key not in leaves(group, made[group], folders):
            continue
        kept.append(override)
    return kept


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """Return a sweep's jobs, one list of overrides each, as Hydra's sweeper makes them.

    Raises ConfigError, before any list is made, if there are none or too many.
    """
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser

    problem = corrections.syntax(overrides)
    if problem:
        raise ConfigError(problem)
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    refuse_many(parsed)
    try:
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except Exception as error:  # Hydra's errors, and those of its grammar's functions
        raise ConfigError(corrections.bad_sweep(overrides, error)) from None
    return [list(job) for job in jobs]


def value_of(key: str, overrides: Sequence[str]) -> str | None:
    """Return the value of a key on the command line, unquoted; None if it is not set. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    problem = corrections.syntax(overrides)
    if problem:
        raise ConfigError(problem)
    for parsed in reversed(OverridesParser.create().parse_overrides(list(overrides))):
        if parsed.key_or_group == key and not parsed.is_sweep_override() and not parsed.is_delete():
            value = parsed.value()
            return None if value is None else str(value)
    return None
