"""Keys whose values are paths: a run records them as absolute ones, so that it goes on from any folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

# What a run reads beside its own directory. The names are whole keys; observers.scores.options lists further ones.
KEYS = ("dataset.root", "observers.scores.weights", "init")
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


def settled(config: Mapping[str, Any], folder: Path | None = None) -> dict[str, Any]:
    """A configuration whose paths do not depend on the folder that the command was typed in; None: this one.

    A name on the Hugging Face hub stays one where there is no such folder. `init=last` becomes the run that is the
    last one now. Raises RunError where there is none.
    """
    found = dict(config)
    for key in KEYS:
        value = value_of(found, key)
        if isinstance(value, str) and value:
            _set(found, key, _settled(found, key, value, folder))
    options = value_of(found, OPTIONS)
    if isinstance(options, list):
        _set(found, OPTIONS, [_option(word, folder) if isinstance(word, str) else word for word in options])
    return found


def _settled(config: Mapping[str, Any], key: str, value: str, folder: Path | None) -> str:
    if key == "init" and value == "last":
        from gancli import rundir

        return str(rundir.find("last", key="init")[0].path.absolute())
    target = str(value_of(config, "dataset._target_")) if key == "dataset.root" else ""
    whole = absolute(value, folder)
    return value if target.endswith(".hub") and not Path(whole).exists() else whole


def _option(word: str, folder: Path | None) -> str:
    """`metrics.x.weights=FILE` with the file's whole path; anything else as it is."""
    key, equals, value = word.partition("=")
    return f"{key}={absolute(value, folder)}" if equals and value and Path(absolute(value, folder)).is_file() else word


def typed(overrides: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """A command line whose paths are those of the configuration that it made."""
    from gancli.config import in_quotes

    kept = []
    for override in overrides:
        sign = override[: len(override) - len(override.lstrip("+"))]
        key, equals, _ = override.lstrip("+").partition("=")
        value = value_of(config, key) if equals and key in KEYS else None
        kept.append(f"{sign}{key}={in_quotes(value)}" if isinstance(value, str) and value else override)
    return kept


def whole(overrides: Sequence[str], config: Mapping[str, Any], folder: Path | None = None) -> list[str]:
    """Overrides of a configuration that make the same one, its paths `settled`, from any folder. Raises RunError."""
    from gancli.config import in_quotes

    found = settled(config, folder)
    words = typed(overrides, found)
    named = {word.lstrip("+").partition("=")[0] for word in words}
    for key in KEYS:  # of a file of settings, or inside of a value that was typed
        value = value_of(found, key)
        if key not in named and value != value_of(config, key):
            words.append(f"++{key}={in_quotes(value)}")
    return words


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
