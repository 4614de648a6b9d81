"""Messages for wrong command lines: which override is wrong, and what to type instead."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gancli.config import elsewhere
from gancli.config.commands import shell
from gancli.config.composition import hydra_compose, unresolved
from gancli.config.files import default_choices, file_of, groups, keys, leaves, read
from gancli.config.grammar import in_quotes, parses
from gancli.config.texts import forms
from gancli.config.untrusted import no_resolvers
from gancli.errors import ConfigError, nearest, suggestion

LISTS = ("penalty", "terms", "metrics")  # groups of which several choices can be taken


def refuse(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ConfigError for the first override that is wrong, as far as can be told before composing."""
    problem = syntax(overrides, verb, folders)
    if problem:
        raise ConfigError(problem)
    known = groups(verb, folders)
    for parsed in _parsed(overrides):
        problem = _other_name(verb, parsed, overrides) or _group_key(parsed, known) or _several(parsed)
        if problem is None and parsed.key_or_group in known:
            problem = _choice(parsed, known)
        if problem:
            raise ConfigError(problem)


def _parsed(overrides: Iterable[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    return list(OverridesParser.create().parse_overrides(list(overrides)))


def single(overrides: Sequence[str]) -> list[str]:
    """Return a sweep's overrides that have a single value."""
    return [o for o, parsed in zip(overrides, _parsed(overrides), strict=True) if not parsed.is_sweep_override()]


def refuse_lone_sweep(verb: str, overrides: Sequence[str]) -> None:
    """Raise ConfigError for -m if no key has several values and no key of the sweep itself is given."""
    own = {key for key, _, _ in keys("sweep")} | set(default_choices("sweep")) if verb == "train" else set()
    if len(single(overrides)) == len(overrides) and not any(
        p.key_or_group.split(".")[0] in own for p in _parsed(overrides)
    ):
        several = "loss=hinge,ns seed=1,2,3" if verb == "train" else "seed=1,2,3"
        raise ConfigError(
            f"-m runs one job for each value of a key, and no key has several: type gan {verb} -m {several},"
            " or leave -m out"
        )


def syntax(overrides: Sequence[str], verb: str = "", folders: Sequence[Path] = ()) -> str | None:
    """Return what is wrong with the first override that is not `key=value`; None if all are."""
    for k, override in enumerate(overrides):
        if parses(override) and not override.startswith("="):
            continue
        shown = override if len(override) <= 100 else f"{override[:97]}..."
        name, equals, value = override.partition("=")
        if not equals:
            following = overrides[k + 1] if k + 1 < len(overrides) else ""
            return f"cannot read {shown!r}: write key=value{_meant(verb, override, following, folders)}"
        if not name.strip("+~") or not parses(f"{name}=0"):
            return f"cannot read {shown!r}: keys are names joined by dots, as in optimizer.G.lr=1e-4"
        hint = f"put the value in quotes: {shell(f'{name}={in_quotes(value)}')}"
        if len(override) > 100:
            hint = "put the value in quotes: key='value'"
        opened = any(value.count(a) != value.count(b) for a, b in ("[]", "{}", "()"))
        if opened or value.count("'") % 2 or value.count('"') % 2:
            hint = f"a quote or bracket is not closed; if it belongs to the text, {hint}"
        return f"cannot read {shown!r}: {hint}"
    return None


def _meant(verb: str, word: str, following: str, folders: Sequence[Path]) -> str:
    """Return the end of the message about a word without `=`: the key that it is, or that it is a choice of."""
    if not verb or verb == "sweep":
        return ""
    known = groups(verb, folders)
    found = elsewhere.groups_of(word, known)
    own = verb == "train" and Path(word).expanduser().exists()
    if found and not (own and found == ["experiment"]):
        others = [f"{g}={word}" for g in found[1:] if found[0] not in elsewhere.FIRST]
        return f", as in {found[0]}={word}" + (f" (or {', '.join(others)})" if others else "")
    names = {name for name, _, _ in keys(verb)} | set(known)
    value = following if "=" not in following else ""
    meant = None if word in names else elsewhere.key(verb, word, value)
    if meant:
        return f", as in {meant}"
    if own or Path(word).expanduser().exists():
        if own:
            return f", as in {elsewhere.recipe(word)}"
        a_run = (Path(word).expanduser() / "run.json").exists()
        images = verb in ("sample", "eval") and not a_run and _holds_images(word)
        return f", as in {shell(f'input={word}' if images else f'run={word}')}"
    near = nearest(word.replace("-", "_"), names)
    if near:
        return f", as in {near}={shell(value or 'VALUE')}"
    if verb == "train" and elsewhere.system(word):
        return f", as in {elsewhere.system(word)}"
    return f"; gan {verb} --help lists the keys"


def _holds_images(word: str) -> bool:
    """Whether a path is an image, or a folder with an image in it."""
    from gancli.data.listing import is_image

    path = Path(word).expanduser()
    names = sorted(child.name for child in path.iterdir())[:1000] if path.is_dir() else [path.name]
    return any(is_image(name) for name in names)


def flag(verb: str, word: str, following: str, flags: Iterable[str]) -> str:
    """Return the message about an unknown flag: the key that was probably meant."""
    dashed, equals, value = word.partition("=")
    name = dashed.lstrip("-").replace("-", "_")
    if not equals and following and not following.startswith("-") and "=" not in following:
        value = following
    names = {key for key, _, _ in keys(verb)} | set(default_choices(verb))
    if verb == "train":
        names |= {key for key, _, _ in keys("sweep")} | set(default_choices("sweep"))
    near = name if name in names else None
    meant = None if near else elsewhere.key(verb, name, value)
    if meant:
        return f"unknown flag {dashed}: keys have no dashes, type {meant}"
    if near is None and name:
        near = _leaf(unresolved(verb, [], []), name)
        near = near or (None if nearest(dashed, flags) else nearest(name, names))
    if near is None:
        return f"unknown flag {dashed}: {suggestion(dashed, flags)}"
    return f"unknown flag {dashed}: keys have no dashes, type {near}={shell(value) if value else 'VALUE'}"


def _other_name(verb: str, parsed: Any, overrides: Sequence[str]) -> str | None:
    """Return the message about a key that has another name here; None for other keys."""
    name, line = str(parsed.key_or_group), str(parsed.input_line)
    if "." in name or name in {key for key, _, _ in keys(verb)} or name in default_choices(verb):
        return None
    meant = elsewhere.key(verb, name, line.partition("=")[2].strip("'\""), overrides)
    return f"unknown key {name}: type {meant} (gan {verb} --help lists the keys)" if meant else None


def _group_key(parsed: Any, known: dict[str, list[str]]) -> str | None:
    """Return what is wrong with the key of an override, as far as it concerns groups; None if nothing is."""
    line, key = str(parsed.input_line), parsed.key_or_group
    if key.split(".")[0].split("/")[0] == "hydra":
        return (
            f"{line}: Hydra only composes the configuration here: type run_dir= for the place to write to,"
            " launcher= and search= for the way a sweep runs"
        )
    if parsed.package is not None:
        return f"{line}: the place of a choice is fixed: write {line.partition('=')[0].partition('@')[0]}=CHOICE"
    # Deleting an optional part removes it; deleting any other key would silently leave a default.
    part = key.count(".") == 1 and key.startswith(("observers.", "metrics.", "penalty.", "terms."))
    if parsed.is_delete() and not part and key not in known:
        return f"{line}: {key} cannot be left out; write {key}=VALUE"
    if "/" in key:
        return f"{line}: {key} is not a key; {suggestion(key.split('/')[0], known)}"
    return None


def _several(parsed: Any) -> str | None:
    """Return the message about several values without -m; None for a single value."""
    if not parsed.is_sweep_override():
        return None
    line, key = str(parsed.input_line), parsed.key_or_group
    value = line.partition("=")[2]
    if key in LISTS or "list" in forms(key):
        return f"{line}: several choices are a list, {shell(f'{key}=[{value}]')}; add -m to run each of them"
    return f"{line}: several values; add -m to run each of them, or quote the value"


def _choice(parsed: Any, known: dict[str, list[str]]) -> str | None:
    """Return what is wrong with the choice of a group; None if nothing is."""
    line, group = str(parsed.input_line), parsed.key_or_group
    if parsed.is_add() or parsed.is_force_add():
        return f"{line}: {group} needs no +; write {line.lstrip('+')}"
    if parsed.is_delete():
        return f"{line}: {group} cannot be left out; choose one of {', '.join(known[group])}"
    chosen = parsed.value()
    if isinstance(chosen, dict):
        return f"{line}: {group} takes the name of a choice; to set a key inside it write {group}.KEY=VALUE"
    if isinstance(chosen, list) and group not in LISTS:
        return f"{line}: one {group} at a time; -m runs several, one job each"
    for choice in chosen if isinstance(chosen, list) else [chosen]:
        if isinstance(choice, (list, dict)) or str(choice) not in known[group]:
            word = "null" if choice is None else str(choice)
            if not word.strip():
                return f"{group}= is empty (an unset shell variable?): {suggestion('', known[group])}"
            return f"{group}={word}: {_no_choice(group, word, known)}"
        if isinstance(chosen, list) and chosen.count(choice) > 1:
            return f"{line}: {choice} stands {chosen.count(choice)} times in the list; once is enough"
    return None


def _no_choice(group: str, word: str, groups_: dict[str, list[str]]) -> str:
    """Return what to type instead of a choice that a group does not have."""
    known = groups_[group]
    near = None if word.lower() in elsewhere.ABSENT else nearest(word, known)
    if group == "dataset" and elsewhere.is_path(word):
        return f"no such choice; for images of your own type {elsewhere.own_images(word)}"
    others = elsewhere.groups_of(word, groups_)
    if others:
        return f"no such choice; it is one of {others[0]}: type {others[0]}={word}"
    if group == "dataset" and near is None:
        return f"no such choice; {suggestion(word, known)}; for images of your own: {elsewhere.own_images('FOLDER')}"
    if group == "model" and near is None:
        meant = elsewhere.system(word)
        if meant:
            return f"this system is a combination of other parts here: type {meant}"
        return f"this system is not here; gan --systems lists those that are (choices: {', '.join(known)})"
    return f"no such choice; {suggestion(word, known)}"


def bad_sweep(overrides: Sequence[str], error: Exception) -> str:
    """Return the message about a sweep whose values cannot be listed."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    for parsed in _parsed(overrides):
        try:
            BasicSweeper.split_arguments([parsed], max_batch_size=None)
        except Exception:
            return f"{parsed.input_line}: these values cannot be read: list them, as in {parsed.key_or_group}=A,B"
    return f"the values of this sweep cannot be read: list them, as in key=A,B ({type(error).__name__})"


def why(verb: str, overrides: Sequence[str], folders: Sequence[Path], error: Exception, typed: bool = False) -> str:
    """Return which override, or file under --config-dir, does not compose, and what was probably meant."""
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
    return f"{where} refers to a key that does not exist; gan {verb} --cfg job shows all keys"


def _composes(verb: str, overrides: Sequence[str], folders: Sequence[Path], typed: bool) -> bool:
    from omegaconf import OmegaConf

    try:
        with nullcontext() if typed else no_resolvers():
            OmegaConf.to_container(hydra_compose(verb, overrides, folders, typed)[0], resolve=True)
    except Exception:
        return False
    return True


def _cannot(base: Any, parsed: Any) -> str:
    """Return why an existing key does not take this value."""
    line, node = str(parsed.input_line), base
    shown = line if len(line) <= 200 else f"{line[:197]}..."
    for part in parsed.key_or_group.split("."):
        node = node.get(part) if hasattr(node, "keys") else None
    if "${" in line:
        return f"{shown}: the name in ${{...}} is not a key of the configuration: write the value itself"
    if hasattr(node, "keys"):
        return f"{shown}: expected a section of keys: {parsed.key_or_group} has {_listed(node)}"
    if "." in parsed.key_or_group:
        return f"{shown}: {parsed.key_or_group.rpartition('.')[0]} has no keys inside it"
    return f"{shown}: this key does not take such a value"


def _bad_file(chosen: Sequence[str], folders: Sequence[Path], error: Exception) -> str:
    """Return which of the chosen files cannot be composed, and why if that is known."""
    import yaml  # type: ignore[import-untyped]

    missing = getattr(error, "missing_cfg_file", None)
    if missing:
        return f"the defaults list of a file under --config-dir names {missing}, which does not exist"
    for word in chosen:
        group, _, choice = word.partition("=")
        for name in choice.strip("[]").split(","):
            file = file_of(group, name.strip(), folders)
            try:
                if file is not None:
                    read(file)
            except yaml.MarkedYAMLError as problem:
                line = f" in line {problem.problem_mark.line + 1}" if problem.problem_mark else ""
                return f"{file} is not valid YAML{line}: {problem.problem}"
            except (OSError, ValueError, yaml.YAMLError):
                return f"{file} is not valid YAML: it needs keys and values in UTF-8 text"
    which = f" ({' '.join(chosen)})" if chosen else ""
    return f"the chosen files cannot be composed{which}: check the defaults and values of those under --config-dir"


def _listed(node: Any) -> str:
    return ", ".join(sorted(str(k) for k in node if k != "_target_")) or "no keys"


def missing_key(verb: str, config: Any, path: str, folders: Sequence[Path] = ()) -> str | None:
    """Return what is wrong with a dotted key; None if the configuration has it."""
    if path.startswith("init."):
        return f"unknown key {path}: to start a network from a run type 'init={{{path[5:]}: run:PATH}}'"
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
            return f"unknown key {path}: it belongs to {group}={', '.join(elsewhere)} ({has})"
        # The same name anywhere in the configuration, before a similar one.
        near = _leaf(config, part) or nearest(part, names | (set() if walked else set(known)))
        meant = f"did you mean {here if near in names else ''}{near}?" if near else f"{verb} has no such key"
        return f"unknown key {path}: {meant} ({has})"
    return None


def _leaf(config: Any, name: str, prefix: str = "") -> str | None:
    """Return the full path of the first key called `name`: `betas` gives optimizer.G.betas."""
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
    """Raise ConfigError for `+key=value` unless it adds an argument of what its section builds; Hydra accepts any."""
    if not any(o.startswith("+") for o in overrides):
        return
    parsed = _parsed(overrides)
    added = [p for p in parsed if p.is_add() or p.is_force_add()]
    base = unresolved(verb, [str(p.input_line) for p in parsed if p not in added], folders)
    for p in added:
        parent: Any = base
        for part in p.key_or_group.split(".")[:-1]:
            parent = parent[part] if hasattr(parent, "keys") and part in parent else {}
        own_schedule = re.match(r"optimizer\.\w+\.schedule\b", p.key_or_group)  # validated later
        if not own_schedule and (not hasattr(parent, "keys") or "_target_" not in parent):
            problem = missing_key(verb, base, p.key_or_group, folders)
            if problem:
                raise ConfigError(problem)
