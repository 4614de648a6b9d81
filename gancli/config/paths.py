"""Keys whose values are paths: a run records them as absolute ones, so that it goes on from any folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gancli.config.grammar import as_word, in_quotes, parses
from gancli.errors import ConfigError

# What a run reads beside its own directory. The names are whole keys; observers.scores.options lists further ones.
KEYS = ("dataset.root", "dataset.root_B", "observers.scores.weights", "init", "pretrained.weights", "pretrained.source")
SOURCE = "run:"  # how the name of a network of a run begins: run:PATH#NAME
OPTIONS = "observers.scores.options"


def absolute(text: str, folder: Path | None = None) -> str:
    """A path from the root of the disk, links and `..` as they are; what is an address and no path stays.

    folder: where it was typed; None: here.

    >>> absolute("/data/./cats"), absolute("https://example.org/cats"), absolute("cats", Path("/data"))
    ('/data/cats', 'https://example.org/cats', '/data/cats')
    """
    path, folder = Path(text).expanduser(), folder or Path.cwd()
    braced = "{" in text and "{" in str(folder)  # a pattern of shards, which would take the folder for one, too
    address = "://" in text or text.startswith("pipe:")
    return text if address or braced or (path.is_absolute() and text == str(path)) else str(folder / path)


def with_whole(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """A configuration whose paths do not depend on the folder that the command was typed in; None: this one.

    A name on the Hugging Face hub stays one where there is no such folder. `init=last`, and run:last#NAME, become the
    run that is the last one now. Raises RunError where there is none.
    """
    found = dict(config)
    for key in KEYS:
        value = value_of(found, key)
        if isinstance(value, str) and value:
            _set(found, key, _whole_path(found, key, value, folder))
        elif isinstance(value, dict):
            _set(found, key, {name: _whole_source(each, f"{key}.{name}", folder) for name, each in value.items()})
    options = value_of(found, OPTIONS)
    if isinstance(options, list):
        _set(found, OPTIONS, [_option(word, folder) if isinstance(word, str) else word for word in options])
    return found


def _whole_path(config: Mapping[str, Any], key: str, value: str, folder: Path | None) -> str:
    if key == "pretrained.source":
        return str(_whole_source(value, key, folder))
    if key == "init":
        return _of_run(value, key, folder)
    target = str(value_of(config, "dataset._target_")) if key == "dataset.root" else ""
    whole = absolute(value, folder)
    return value if target.endswith(".hub") and not Path(whole).exists() else whole


def _of_run(value: str, key: str, folder: Path | None) -> str:
    """A run's path, or that of the last one."""
    if value != "last":
        return absolute(value, folder)
    from gancli.store import rundir

    return str(rundir.find("last", key=key)[0].path.absolute())


def split_source(source: str, key: str, name: str | None = None) -> tuple[str, str]:
    """The path and the network of `run:PATH#NAME`. key: where it was typed. name: the network where none is named.

    Raises ConfigError for any other form.

    >>> split_source("run:outputs/a#G", "init.G"), split_source("run:last", "init.G", "G")
    (('outputs/a', 'G'), ('last', 'G'))
    >>> split_source("run:a#b/c", "init.G", "G")
    ('a#b/c', 'G')
    """
    path, _, last = source.removeprefix(SOURCE).rpartition("#")
    if not path or not last.isidentifier():
        path, last = source.removeprefix(SOURCE), name or ""
    if not source.startswith(SOURCE) or not path.strip() or path.startswith("#") or not last:
        form = "run:PATH" if name else "run:PATH#NAME"
        raise ConfigError(
            f"{key}={source}: expected {form}, PATH being a run directory, a checkpoint file or last"
            + ("" if name else ", and NAME one of its networks, such as run:last#G")
        )
    return path, last


def _whole_source(value: object, key: str, folder: Path | None) -> object:
    """`run:PATH#NAME`, or `run:PATH`, with the whole path; what has no such form is refused later, with its key."""
    try:
        path, name = split_source(str(value), key, "same")
    except ConfigError:
        return value
    named = str(value).endswith(f"#{name}")
    return f"{SOURCE}{_of_run(path, key, folder)}{f'#{name}' if named else ''}"


def _option(word: str, folder: Path | None) -> str:
    """`metrics.x.weights=FILE` with the file's whole path; anything else as it is."""
    from gancli.config.compose import value_of as said

    key, equals, value = word.partition("=")
    within = said(key.lstrip("+"), [word]) if equals and parses(word) else None  # without quotes
    for text in (value, within):
        if text and Path(absolute(text, folder)).is_file():
            return f"{key}={in_quotes(absolute(text, folder))}"
    return word


def typed(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """A command line whose paths are those of the configuration that it made."""
    known, kept = recorded(config), []
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        sign = override[: len(override) - len(override.lstrip("+"))]
        kept.append(f"{sign}{known[key]}" if equals and key in known else override)
    return kept


def recorded(config: Mapping[str, Any]) -> dict[str, str]:
    """The overrides that say a configuration's paths, by key; none for those that it does not have."""
    found = {key: value_of(config, key) for key in (*KEYS, OPTIONS)}
    said = {key: value for key, value in found.items() if value and isinstance(value, (str, list, dict))}
    return {key: f"{key}={as_word(value)}" for key, value in said.items()}


def whole(overrides: Sequence[str], config: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Overrides of a configuration that make the same one, its paths `with_whole`, from any folder. Raises RunError."""
    found = with_whole(config, folder)
    words, before = typed(overrides, found), recorded(config)
    named = {word.lstrip("+").partition("=")[0] for word in words}
    # Of a file of settings, or inside of a value that was typed.
    more = [f"++{word}" for key, word in recorded(found).items() if key not in named and word != before[key]]
    return [*words, *more]


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """The value of a dotted key, None where there is none.

    >>> value_of({"dataset": {"root": "/data"}}, "dataset.root"), value_of({}, "dataset.root")
    ('/data', None)
    """
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def _set(config: dict[str, Any], key: str, value: Any) -> None:
    """Change a value that is there, in copies of the sections that lead to it."""
    *sections, last = key.split(".")
    node = config
    for part in sections:
        node[part] = dict(node[part])
        node = node[part]
    node[last] = value
