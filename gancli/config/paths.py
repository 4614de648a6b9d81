"""Keys whose values are paths. A run records absolute paths, so that it can be resumed from any folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gancli.config.grammar import as_word, in_quotes, parses
from gancli.errors import ConfigError

# Keys of paths outside the run directory; OPTIONS may contain further ones.
KEYS = (
    *("dataset.root", "dataset.root_B", "init", "pretrained.weights", "pretrained.source"),
    *(f"observers.{name}.weights" for name in ("scores", "copies", "final")),
)
SOURCE = "run:"  # prefix of a network of a run: run:PATH#NAME
OPTIONS = ("observers.scores.options", "observers.final.options")


def absolute(text: str, folder: Path | None = None) -> str:
    """Return the absolute path, without resolving links and `..`; URLs are returned unchanged.

    folder: base of relative paths; None: the current folder.

    >>> absolute("/data/./cats"), absolute("https://example.org/cats"), absolute("cats", Path("/data"))
    ('/data/cats', 'https://example.org/cats', '/data/cats')
    """
    path, folder = Path(text).expanduser(), folder or Path.cwd()
    braced = "{" in text and "{" in str(folder)  # braces of the folder would become part of a pattern of shards
    address = "://" in text or text.startswith("pipe:")
    return text if address or braced or (path.is_absolute() and text == str(path)) else str(folder / path)


def with_whole(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """Return a configuration with absolute paths. folder: base of relative paths; None: the current folder.

    A name on the Hugging Face hub is kept if there is no such folder. `init=last` and run:last#NAME become the path of
    the last run. Raises RunError if there is none.
    """
    found = dict(config)
    for key in KEYS:
        value = value_of(found, key)
        if isinstance(value, str) and value:
            set_value(found, key, _whole_path(found, key, value, folder))
        elif isinstance(value, dict):
            set_value(found, key, {name: _whole_source(each, f"{key}.{name}", folder) for name, each in value.items()})
    for key in OPTIONS:
        options = value_of(found, key)
        if isinstance(options, list):
            set_value(found, key, [_option(word, folder) if isinstance(word, str) else word for word in options])
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
    """Return a run's absolute path; `last` is the last run."""
    if value != "last":
        return absolute(value, folder)
    from gancli.store import finding

    return str(finding.find("last", key=key)[0].path.absolute())


def split_source(source: str, key: str, name: str | None = None) -> tuple[str, str]:
    """Return the path and the network of `run:PATH#NAME`. key: for the message. name: the default network.

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
            f"{key}={source}: expected {form}, where PATH is a run directory, a checkpoint file or last"
            + ("" if name else " and NAME is one of its networks, such as run:last#G")
        )
    return path, last


def _whole_source(value: object, key: str, folder: Path | None) -> object:
    """Return `run:PATH#NAME` or `run:PATH` with the absolute path; other forms are refused later, with their key."""
    try:
        path, name = split_source(str(value), key, "same")
    except ConfigError:
        return value
    named = str(value).endswith(f"#{name}")
    return f"{SOURCE}{_of_run(path, key, folder)}{f'#{name}' if named else ''}"


def _option(word: str, folder: Path | None) -> str:
    """Return `metrics.x.weights=FILE` with the file's absolute path; other options unchanged."""
    from gancli.config.compose import value_of as said

    key, equals, value = word.partition("=")
    within = said(key.lstrip("+"), [word]) if equals and parses(word) else None  # without quotes
    for text in (value, within):
        if text and Path(absolute(text, folder)).is_file():
            return f"{key}={in_quotes(absolute(text, folder))}"
    return word


def typed(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """Return the overrides with their paths replaced by those of the composed configuration."""
    known, kept = recorded(config), []
    for override in overrides:
        key, equals, _ = override.lstrip("+").partition("=")
        sign = override[: len(override) - len(override.lstrip("+"))]
        kept.append(f"{sign}{known[key]}" if equals and key in known else override)
    return kept


def recorded(config: Mapping[str, Any]) -> dict[str, str]:
    """Return the overrides that set a configuration's paths, by key; only for keys that it has."""
    found = {key: value_of(config, key) for key in (*KEYS, *OPTIONS)}
    said = {key: value for key, value in found.items() if value and isinstance(value, (str, list, dict))}
    return {key: f"{key}={as_word(value)}" for key, value in said.items()}


def whole(overrides: Sequence[str], config: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Return overrides that make the same configuration from any folder, with absolute paths. Raises RunError."""
    found = with_whole(config, folder)
    words, before = typed(overrides, found), recorded(config)
    named = {word.lstrip("+").partition("=")[0] for word in words}
    # Paths from a configuration file, or inside a typed section.
    more = [f"++{word}" for key, word in recorded(found).items() if key not in named and word != before[key]]
    return [*words, *more]


def value_of(config: Mapping[str, Any], key: str) -> Any:
    """Return the value of a dotted key, or None.

    >>> value_of({"dataset": {"root": "/data"}}, "dataset.root"), value_of({}, "dataset.root")
    ('/data', None)
    """
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return node


def set_value(config: dict[str, Any], key: str, value: Any) -> None:
    """Change an existing value; the sections on its path are copied."""
    *sections, last = key.split(".")
    node = config
    for part in sections:
        node[part] = dict(node[part])
        node = node[part]
    node[last] = value
