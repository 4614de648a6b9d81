"""What is wrong with a command line, in our own words: the word at fault, and what to type instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gancli.config.commands import shell
from gancli.config.composition import hydra_compose, unresolved
from gancli.config.files import default_choices, file_of, groups, leaves, read
from gancli.config.grammar import in_quotes, parses
from gancli.config.sealed import no_resolvers
from gancli.config.texts import forms
from gancli.errors import ConfigError, nearest, suggestion

LISTS = ("penalty", "terms", "metrics")  # groups whose choices add up
FIRST = ("model", "dataset", "experiment", "loss")  # groups that a bare word is looked for in before the others


def refuse(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ConfigError for the first word that can be told to be wrong before anything is composed."""
    problem = syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    known = groups(verb, folders)
    for parsed in _parsed(overrides):
        problem = _group_key(parsed, known) or _several(parsed)
        if problem is None and parsed.key_or_group in known:
            problem = _choice(parsed, known)
        if problem:
            raise ConfigError(problem)


def _parsed(overrides: Iterable[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return list(OverridesParser.create().parse_overrides(list(overrides)))


def single(overrides: Sequence[str]) -> list[str]:
    """The overrides that have one value, out of a sweep's."""
    return [o for o, parsed in zip(overrides, _parsed(overrides), strict=True) if not parsed.is_sweep_override()]


def syntax(overrides: Sequence[str], verb: str = "", folders: Sequence[Path] = ()) -> str | None:
    """What is wrong with the first word that is no `key=value`; None where all are."""
    for k, override in enumerate(overrides):
        if parses(override) and not override.startswith("="):
            continue
        shown = override if len(override) <= 100 else f"{override[:97]}..."
        name, equals, value = override.partition("=")
        if not equals:
            following = overrides[k + 1] if k + 1 < len(overrides) else ""
            return f"cannot read {shown!r}: write key=value{_meant(verb, override, following, folders)}"
        if not name.strip("+~") or not parses(f"{name}=0"):
            return f"cannot read {shown!r}: keys are words with dots between them, as in optimizer.G.lr=1e-4"
        hint = f"put the value in quotes: {shell(f'{name}={in_quotes(value)}')}"
        if len(override) > 100:
            hint = "put the value in quotes: key='value'"
        opened = any(value.count(a) != value.count(b) for a, b in ("[]", "{}", "()"))
        if opened or value.count("'") % 2 or value.count('"') % 2:
            hint = f"a quote or bracket has no partner; for a text that has one, {hint}"
        return f"cannot read {shown!r}: {hint}"
    return None


def _meant(verb: str, word: str, following: str, folders: Sequence[Path]) -> str:
    """For a word without `=`: the key that it is, or is a choice of."""
    from gancli.config.files import keys

    if not verb or verb == "sweep":
        return ""
    known = groups(verb, folders)
    found = sorted((g for g in known if word in known[g]), key=lambda g: (g not in FIRST, g))
    if found:
        others = f" (or {', '.join(f'{g}={word}' for g in found[1:])})" if found[1:] else ""
        return f", as in {found[0]}={word}{others}"
    names = {name for name, _, _ in keys(verb)} | set(known)
    near = nearest(word.replace("-", "_"), names)
    if near:
        value = following if following and "=" not in following else "VALUE"
        return f", as in {near}={shell(value)}"
    if verb != "train" and Path(word).expanduser().exists():
        return f", as in {shell(f'run={word}')}"
    return f"; gan {verb} --help lists the keys"


def flag(verb: str, word: str, following: str, flags: Iterable[str]) -> str:
    """The answer to a word that begins with a dash and is no flag: the key that it is elsewhere."""
    from gancli.config.files import keys

    dashed, equals, value = word.partition("=")
    name = dashed.lstrip("-").replace("-", "_")
    if not equals and following and not following.startswith("-") and "=" not in following:
        value = following
    names = {key for key, _, _ in keys(verb)} | set(default_choices(verb))
    if verb == "train":
        names |= {key for key, _, _ in keys("sweep")} | set(default_choices("sweep"))
    near = name if name in names else None
    if near is None and name:
        near = _leaf(unresolved(verb, [], []), name)
        near = near or (None if nearest(dashed, flags) else nearest(name, names))
    if near is None:
        return f"unknown flag {dashed}: {suggestion(dashed, flags)}"
    return f"unknown flag {dashed}: keys have no dashes, write {near}={shell(value) if value else 'VALUE'}"


def _group_key(parsed: Any, known: dict[str, list[str]]) -> str | None:
    """What is wrong with the word that a value is given to, as far as it names a group."""
    line, key = str(parsed.input_line), parsed.key_or_group
    if key.split(".")[0].split("/")[0] == "hydra":
        return (
            f"{line}: Hydra composes here and runs nothing: run_dir= says where to write,"
            " launcher= and search= how a sweep of gan train runs"
        )
    if parsed.package is not None:
        return f"{line}: each choice has its place: write {line.partition('=')[0].partition('@')[0]}=CHOICE"
    # Of a part that may be there or not nothing is left; any other key would get a value that nobody sees.
    part = key.count(".") == 1 and key.startswith(("observers.", "metrics.", "penalty.", "terms."))
    if parsed.is_delete() and not part and key not in known:
        return f"{line}: {key} cannot be left out; write {key}=VALUE"
    if "/" in key:
        return f"{line}: {key} is no key; {suggestion(key.split('/')[0], known)}"
    return None


def _several(parsed: Any) -> str | None:
    """What to write instead of several values, which only -m takes."""
    if not parsed.is_sweep_override():
        return None
    line, key = str(parsed.input_line), parsed.key_or_group
    value = line.partition("=")[2]
    if key in LISTS or "list" in forms(key):
        return f"{line}: several at once are a list, {shell(f'{key}=[{value}]')}; add -m to run each of them"
    return f"{line}: several values at once; add -m to run each of them, or quote the value"


def _choice(parsed: Any, known: dict[str, list[str]]) -> str | None:
    """What is wrong with the choice of a group."""
    line, group = str(parsed.input_line), parsed.key_or_group
    if parsed.is_add() or parsed.is_force_add():
        return f"{line}: {group} is always there; write {line.lstrip('+')}"
    if parsed.is_delete():
        return f"{line}: {group} cannot be left out; choose one of {', '.join(known[group])}"
    chosen = parsed.value()
    if isinstance(chosen, dict):
        return f"{line}: {group} is chosen by a name; inside it, {group}.KEY=VALUE"
    if isinstance(chosen, list) and group not in LISTS:
        return f"{line}: one {group} at a time; -m runs several, one job each"
    for choice in chosen if isinstance(chosen, list) else [chosen]:
        if isinstance(choice, (list, dict)) or str(choice) not in known[group]:
            word = "null" if choice is None else str(choice)
            if not word.strip():
                return f"{group}= is empty, as a shell variable that is not set: {suggestion('', known[group])}"
            return f"{group}={word}: no such choice; {suggestion(word, known[group])}"
        if isinstance(chosen, list) and chosen.count(choice) > 1:
            return f"{line}: names {choice} {chosen.count(choice)} times; once is enough"
    return None


def bad_sweep(overrides: Sequence[str], error: Exception) -> str:
    """The answer where a sweep's values cannot be told."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    for parsed in _parsed(overrides):
        try:
            BasicSweeper.split_arguments([parsed], max_batch_size=None)
        except Exception:
            return f"{parsed.input_line}: these values cannot be told: list them, as in {parsed.key_or_group}=A,B"
    return f"the values of this sweep cannot be told: list them, as in key=A,B ({type(error).__name__})"


def why(verb: str, overrides: Sequence[str], folders: Sequence[Path], error: Exception, typed: bool = False) -> str:
    """Find the word, or the file under --config-dir, that is at fault, and say what was probably meant."""
    known, parsed = groups(verb, folders), _parsed(overrides)
    chosen = [str(p.input_line) for p in parsed if p.key_or_group in known]
    try:
        base = unresolved(verb, chosen, folders)
    except Exception as problem:
        return _bad_file(chosen, folders, problem)
    values = [p for p in parsed if p.key_or_group not in known]
    for each in values:
        if not (each.is_add() or each.is_force_add()):
            problem_of = missing_key(verb, base, each.key_or_group, folders)
            if problem_of:
                return problem_of
    for each in values:
        if not _composes(verb, [*chosen, str(each.input_line)], folders, typed):
            return _cannot(base, each)
    key = getattr(error, "full_key", None)
    if type(error).__name__ == "MissingMandatoryValue":
        return f"{key} has no value: type {key}=VALUE"
    where = f"{key}: its value" if key else "a value of the configuration"
    return f"{where} refers to another that is not there; gan {verb} --cfg job shows them all, each as it is written"


def _composes(verb: str, overrides: Sequence[str], folders: Sequence[Path], typed: bool) -> bool:
    from omegaconf import OmegaConf

    try:
        with nullcontext() if typed else no_resolvers():
            OmegaConf.to_container(hydra_compose(verb, overrides, folders, typed)[0], resolve=True)
    except Exception:
        return False
    return True


def _cannot(base: Any, parsed: Any) -> str:
    """Why a key that is there does not take this value."""
    line, node = str(parsed.input_line), base
    shown = line if len(line) <= 200 else f"{line[:197]}..."
    for part in parsed.key_or_group.split("."):
        node = node.get(part) if hasattr(node, "keys") else None
    if "${" in line:
        return f"{shown}: what stands in ${{...}} is no other key of the configuration: write the value itself"
    if hasattr(node, "keys"):
        return f"{shown}: expected a section of keys: {parsed.key_or_group} has {_listed(node)}"
    if "." in parsed.key_or_group:
        return f"{shown}: {parsed.key_or_group.rpartition('.')[0]} is no section of keys that this could be set in"
    return f"{shown}: no key takes such a value"


def _bad_file(chosen: Sequence[str], folders: Sequence[Path], error: Exception) -> str:
    """Which of the chosen files cannot be composed, and why as far as it can be told."""
    import yaml  # type: ignore[import-untyped]

    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        return f"the defaults of a file under --config-dir name {missing}, and there is no such file"
    for word in chosen:
        group, _, choice = word.partition("=")
        for name in choice.strip("[]").split(","):
            file = file_of(group, name.strip(), folders)
            try:
                if file is not None:
                    read(file)
            except yaml.MarkedYAMLError as problem:
                line = f" in line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
                return f"{file} is no YAML that can be read{line}: {problem.problem}"
            except (OSError, ValueError, yaml.YAMLError):
                return f"{file} is no YAML that can be read: keys and values in UTF-8 text"
    which = f" ({' '.join(chosen)})" if chosen else ""
    return f"the chosen files do not go together{which}: look at the defaults and values of those under --config-dir"


def _listed(node: Any) -> str:
    return ", ".join(sorted(str(k) for k in node if k != "_target_")) or "no keys"


def missing_key(verb: str, config: Any, path: str, folders: Sequence[Path] = ()) -> str | None:
    """What is wrong with a dotted key, or None when the configuration has it."""
    if path.startswith("init."):
        return f"unknown key {path}: a network that starts from a run is typed as 'init={{{path[5:]}: run:PATH}}'"
    node, walked, known = config, "", groups(verb, folders)
    for part in path.split("."):
        names = {str(k) for k in node} if hasattr(node, "keys") else set()
        if part in names:
            node, walked = node[part], f"{walked}.{part}" if walked else part
            continue
        here = f"{walked}." if walked else ""
        group = walked.partition(".")[0]
        has = f"{walked} has {_listed(node if names else {})}" if walked else f"gan {verb} --help lists the keys"
        elsewhere = [c for c in known.get(group, ()) if path in leaves(group, c, folders)]
        if elsewhere:
            return f"unknown key {path}: it is of {group}={', '.join(elsewhere)} ({has})"
        # The very word, wherever it stands, before one that is like it.
        near = _leaf(config, part) or nearest(part, names | (set() if walked else set(known)))
        meant = f"did you mean {here if near in names else ''}{near}?" if near else f"{verb} has no such key"
        return f"unknown key {path}: {meant} ({has})"
    return None


def _leaf(config: Any, name: str, prefix: str = "") -> str | None:
    """The full path of the first key called `name`, so that `lr` finds optimizer.G.lr."""
    for part in config:
        path = f"{prefix}{part}"
        if part == name:
            return path
        child = config[part]
        found = _leaf(child, name, f"{path}.") if hasattr(child, "keys") else None
        if found:
            return found
    return None


def refuse_additions(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """`+key=value` may add only a parameter of what its section builds; elsewhere Hydra would let anything through."""
    if not any(o.startswith("+") for o in overrides):
        return
    parsed = _parsed(overrides)
    added = [p for p in parsed if p.is_add() or p.is_force_add()]
    base = unresolved(verb, [str(p.input_line) for p in parsed if p not in added], folders)
    for p in added:
        parent: Any = base
        for part in p.key_or_group.split(".")[:-1]:
            parent = parent[part] if hasattr(parent, "keys") and part in parent else {}
        own_schedule = re.match(r"optimizer\.\w+\.schedule\b", p.key_or_group)  # bound to its type later
        if not own_schedule and (not hasattr(parent, "keys") or "_target_" not in parent):
            problem = missing_key(verb, base, p.key_or_group, folders)
            if problem:
                raise ConfigError(problem)
