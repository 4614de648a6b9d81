"""Composes conf/ with the command line, and answers a wrong word with the nearest right one."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError, nearest, suggestion

# Paths and texts: quoted before Hydra parses them, so that brackets, commas, spaces and ampersands need no care.
TEXTS = frozenset(
    (
        *("run", "run_dir", "resume", "sweep_dir", "resume_sweep", "init", "note", "input", "reference", "seeds"),
        "export_reference",
        *("classes", "arithmetic", "dataset.root", "extractor.weights", "metrics.ppl.lpips", "metrics.ppl.vgg16"),
        "observers.scores.weights",
    )
)


def conf_dir() -> Path:
    """Where the configuration lives: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def groups(verb: str, folders: Iterable[Path] = ()) -> dict[str, list[str]]:
    """The config groups that a verb chooses from, each with its choices; files named _… are parts of others."""
    wanted = [line.strip()[2:].split(":")[0] for line in defaults_lines(verb)]
    places = [conf_dir(), *folders]
    files = {group: [f.stem for place in places for f in (place / group).glob("*.yaml")] for group in wanted}
    return {group: sorted({name for name in names if name[0] != "_"}) for group, names in files.items()}


def defaults_lines(verb: str) -> list[str]:
    """The lines of the defaults list in conf/VERB.yaml that choose from a group."""
    lines = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    start = lines.index("defaults:") + 1
    return [line for line in lines[start:] if line.startswith("  - ") and ": " in line and "override" not in line]


def quote(overrides: Sequence[str], sweep: bool = False) -> list[str]:
    """Put quotes around paths and texts, where Hydra would read something else into them.

    >>> quote(["note=Food & Drink", "steps=3"])
    ["note='Food & Drink'", 'steps=3']
    """
    quoted = []
    for override in overrides:
        name, equals, value = override.partition("=")
        plain = value not in ("", "null") and not value.startswith(("'", '"', "${"))
        if equals and plain and name.lstrip("+") in TEXTS:
            listed = value.startswith("[") or (sweep and "," in value)
            if not (listed and parses(override)):
                override = f"{name}={in_quotes(value)}"
        quoted.append(override)
    return quoted


def in_quotes(text: str) -> str:
    """A text as Hydra's grammar reads it back, whatever it holds."""
    return "'" + text.replace("\\'", "\\\\'").replace("'", "\\'") + ("\\'" if text.endswith("\\") else "'")


@lru_cache(maxsize=4096)  # Hydra's parser takes milliseconds, and each word is asked about several times
def parses(override: str) -> bool:
    """Whether Hydra can read this override."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    try:
        OverridesParser.create().parse_override(override)
    except Exception:  # besides Hydra's own, whatever int(...) and the grammar's other functions raise
        return False
    return True


def compose(verb: str, overrides: Sequence[str], folders: Sequence[Path] = ()) -> dict[str, Any]:
    """The whole configuration of one job as plain Python values.

    overrides: `key=value`, already quoted. folders: further places for group files (--config-dir).
    Raises ConfigError: one line that names the nearest right key or choice.
    """
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    for folder in folders:
        if not folder.is_dir():
            raise ConfigError(f"--config-dir {folder}: no such folder")
    _refuse_lists(verb, overrides, folders)
    try:
        config = _hydra_compose(verb, overrides, folders)
        plain = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise ConfigError(_diagnose(verb, overrides, folders, error)) from None
    assert isinstance(plain, dict)
    _refuse_additions(verb, overrides, folders)
    _drop_weights_of_absent_penalties(plain, overrides)
    return {str(name): value for name, value in plain.items()}


def _drop_weights_of_absent_penalties(config: dict[Any, Any], overrides: Sequence[str]) -> None:
    """A model or an experiment may set a penalty's weight; where another was chosen, that says nothing.

    What a person typed stays, so that it is answered.
    """
    penalties = config.get("penalty")
    if not isinstance(penalties, dict):
        return
    typed = {o.lstrip("+").partition("=")[0].split(".")[1] for o in overrides if o.lstrip("+").startswith("penalty.")}
    for name, node in list(penalties.items()):
        if isinstance(node, dict) and "_target_" not in node and name not in typed:
            del penalties[name]


def expand(overrides: Sequence[str]) -> list[list[str]]:
    """A sweep's jobs, one list of overrides each, as Hydra's own sweeper makes them. Raises ConfigError."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        jobs = BasicSweeper.split_arguments(parsed, max_batch_size=None)[0]
    except HydraException as error:
        raise ConfigError(_diagnose_syntax(overrides) or first_line(error)) from None
    return [list(job) for job in jobs]


def search_path(folders: Sequence[Path]) -> list[str]:
    """The override that lets Hydra look for group files in further folders too."""
    return [f"hydra.searchpath=[{','.join(in_quotes(f'file://{f.resolve()}') for f in folders)}]"] if folders else []


def refuse_plugins(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ConfigError where a recorded command line, or its folders, would change Hydra itself.

    Hydra's callbacks, launchers and loggers name code to run; a run directory from a stranger must not choose them.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not folders:
        return  # without files of its own, a command line cannot reach Hydra but by keys that were refused before
    own = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "help", "run", "sweep", "env")
    try:
        found = [_hydra_node("train", each, places) for each, places in (([], []), (overrides, folders))]
    except (HydraException, OmegaConfBaseException, ValueError):
        return  # said in better words when it is composed for good
    for name in own:
        if found[0].get(name) != found[1].get(name):
            raise ConfigError(f"the run's --config-dir changes hydra.{name}: it was not followed")
    if any(found[1]["job"].get(name) for name in ("env_set", "env_copy")) or found[1]["job"].get("chdir"):
        raise ConfigError("the run's --config-dir changes hydra.job: it was not followed")


def _hydra_node(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """Hydra's own part of a composed configuration, unresolved."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = hydra_compose(verb, overrides=[*search_path(folders), *overrides], return_hydra_config=True)
    plain = OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def value_of(key: str, overrides: Sequence[str]) -> str | None:
    """What the command line says of a key, unquoted; None when it says nothing. Raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    problem = _diagnose_syntax(overrides)
    if problem:
        raise ConfigError(problem)
    for parsed in reversed(OverridesParser.create().parse_overrides(list(overrides))):
        if parsed.key_or_group == key and not parsed.is_sweep_override() and not parsed.is_delete():
            value = parsed.value()
            return None if value is None else str(value)
    return None


def _refuse_lists(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Only penalties and metrics add up; of two models Hydra would make a mixture."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if _diagnose_syntax(overrides):
        return
    known = groups(verb, folders)
    several = {"penalty", "metrics"}
    single = set(known) - several
    for parsed in OverridesParser.create().parse_overrides(list(overrides)):
        key = parsed.key_or_group
        if key.split(".")[0].split("/")[0] == "hydra":
            raise ConfigError(
                f"{parsed.input_line}: Hydra composes here and runs nothing: run_dir= says where to write,"
                " launcher= and search= how a sweep of gan train runs"
            )
        if key in several & set(known) and not parsed.is_sweep_override() and not parsed.is_delete():
            _check_names(str(parsed.input_line), key, parsed.value(), known[key])
        if parsed.key_or_group in single and not parsed.is_sweep_override() and isinstance(parsed.value(), list):
            raise ConfigError(
                f"{parsed.input_line}: one {parsed.key_or_group} at a time; -m runs several, one job each"
            )


def _check_names(line: str, key: str, value: Any, known: Sequence[str]) -> None:
    """Raise ConfigError unless a list of a group's choices names each of them once."""
    names = value if isinstance(value, list) else [value]
    odd = [name for name in names if not isinstance(name, str)]
    if odd:
        raise ConfigError(f"{line}: expected names, such as {key}=[{','.join(known[:2])}]")
    for name in names:
        if name not in known:
            raise ConfigError(f"{key}={name}: no such choice; {suggestion(name, known)}")
        if names.count(name) > 1:
            raise ConfigError(f"{line}: names {name} {names.count(name)} times; once is enough")


def _hydra_compose(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> Any:
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra

    # Inside a job of Hydra's there is one already, which is set aside.
    one = GlobalHydra.instance()
    running, one.hydra = one.hydra, None
    try:
        with initialize_config_dir(str(conf_dir()), version_base="1.3"):
            return hydra_compose(verb, overrides=[*search_path(folders), *overrides])
    finally:
        one.hydra = running


def _diagnose(verb: str, overrides: Sequence[str], folders: Sequence[Path], error: Exception) -> str:
    """Find the override that is at fault and say what was probably meant."""
    problem = _diagnose_syntax(overrides)
    if problem:
        return problem
    from hydra.core.override_parser.overrides_parser import OverridesParser

    known = groups(verb, folders)
    choices, values = [], []
    for parsed in OverridesParser.create().parse_overrides(list(overrides)):
        name = parsed.key_or_group
        if parsed.is_sweep_override():
            return f"{parsed.input_line}: several values at once; add -m to run each of them, or quote the value"
        if name not in known:
            values.append(parsed)
            continue
        line = str(parsed.input_line)
        if parsed.is_add():
            return f"{line}: {name} is always there; write {line.lstrip('+')}"
        if parsed.is_delete():
            return f"{line}: {name} cannot be left out; choose one of {', '.join(known[name])}"
        chosen = parsed.value()
        for choice in chosen if isinstance(chosen, list) else [chosen]:
            if str(choice) not in known[name]:
                word = "null" if choice is None else str(choice)
                return f"{name}={word}: no such choice; {suggestion(word, known[name])}"
        choices.append(line)
    try:
        base = _hydra_compose(verb, choices, folders)
    except Exception:
        return first_line(error)
    for parsed in values:
        problem = _missing_key(verb, base, parsed.key_or_group, set(known))
        if problem:
            return problem
    return first_line(error)


def _diagnose_syntax(overrides: Sequence[str]) -> str | None:
    for override in overrides:
        if not parses(override):
            hint = "write key=value" if "=" not in override else "put the value in quotes: key='value'"
            return f"cannot read {override!r}: {hint}"
    return None


def _missing_key(verb: str, config: Any, path: str, extra: set[str]) -> str | None:
    """What is wrong with a dotted key, or None when the configuration has it."""
    node, walked = config, ""
    for part in path.split("."):
        names = {str(k) for k in node} if hasattr(node, "keys") else set()
        if part not in names:
            here = f"{walked}." if walked else ""
            # The very word, wherever it stands, before one that is like it.
            near = _leaf(config, part) or nearest(part, names | (extra if not walked else set()))
            meant = f"did you mean {here if near in names else ''}{near}?" if near else f"{verb} has no such key"
            place = (
                f"{walked} has {', '.join(sorted(names)) or 'no keys'}"
                if walked
                else f"gan {verb} --help lists the keys"
            )
            return f"unknown key {path}: {meant} ({place})"
        node, walked = node[part], f"{walked}.{part}" if walked else part
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


def _refuse_additions(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """`+key=value` may add only a parameter of what its section builds; elsewhere Hydra would let anything through."""
    from hydra.core.override_parser.overrides_parser import OverridesParser

    if not any(o.startswith("+") for o in overrides):
        return
    parsed = OverridesParser.create().parse_overrides(list(overrides))
    added = [p for p in parsed if p.is_add() or p.is_force_add()]
    base = _hydra_compose(verb, [str(p.input_line) for p in parsed if p not in added], folders)
    for p in added:
        parent: Any = base
        for part in p.key_or_group.split(".")[:-1]:
            parent = parent[part] if hasattr(parent, "keys") and part in parent else {}
        if "_target_" not in parent:
            problem = _missing_key(verb, base, p.key_or_group, set(groups(verb, folders)))
            if problem:
                raise ConfigError(problem)


def first_line(error: BaseException) -> str:
    """An exception's text on one line."""
    return " ".join(str(error).split()) or type(error).__name__
