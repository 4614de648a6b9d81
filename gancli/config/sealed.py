"""Composing what a directory says: it asks this machine for nothing, and Hydra stays as it is.

A run or sweep directory may come from a stranger. Of the command lines that it records, and of the YAML files in the
--config-dir that it names, values and references to other keys (`${model.ch}`) are followed. `${oc.env:HOME}` and all
other resolvers are not: they would read this machine's environment, and what they gave would be written down. What a
person types may use them; config/pinned.py says what they gave, so that a record holds values and resumes without
asking.
"""

from __future__ import annotations

import stat
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gancli.errors import ConfigError, plain

MOST_FILES, LARGEST = 2000, 1 << 20  # YAML files under a recorded --config-dir; bytes of one


class Asks(ConfigError):  # noqa: N818
    """A recorded value would be asked of this machine."""

    def __init__(self, key: str | None):
        way = f": give {key}= on the command line" if key else ""
        super().__init__(
            f"{f'{key}: its recorded value' if key else 'a recorded choice of a group'} asks this machine for"
            f" something by ${{NAME:...}}, and what a directory records is not resolved{way}"
        )


@contextmanager
def no_resolvers() -> Iterator[None]:
    """While inside, OmegaConf follows references to other keys, and knows no `${NAME:...}`."""
    from omegaconf.basecontainer import BaseContainer

    known = BaseContainer._resolvers
    BaseContainer._resolvers = {}
    try:
        yield
    finally:
        BaseContainer._resolvers = known


def asks(error: BaseException) -> Asks | None:
    """What to say where composing came upon a resolver; None where it is another error."""
    from omegaconf.errors import UnsupportedInterpolationType

    found: BaseException | None = error
    while found is not None and not isinstance(found, UnsupportedInterpolationType):
        found = found.__cause__ or found.__context__
    if found is None:
        return None
    key = str(getattr(found, "full_key", "") or "")
    return Asks(key if key and key != "_dummy_" else None)  # Hydra's name for a line of a defaults list


def refuse_files(folders: Sequence[Path]) -> None:
    """Raise ConfigError for a folder of group files that Hydra could not read to its end: pipes, a whole disk."""
    for folder in folders:
        try:
            _refuse_files(folder)
        except OSError as error:  # of a process that has just ended, in /proc
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"--config-dir {folder} was not followed ({where}{plain(error)})") from None


def _refuse_files(folder: Path) -> None:
    for count, path in enumerate(folder.rglob("*.y*ml")):
        if count >= MOST_FILES:
            raise ConfigError(f"--config-dir {folder} holds over {MOST_FILES:,} YAML files: it was not followed")
        about = path.stat() if path.exists() else None
        if about is None or not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise ConfigError(f"{path}: no file of under {LARGEST >> 20} MiB; the --config-dir was not followed")


def refuse_addresses(config: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Raise ConfigError for a server that a record names, and this command's own words do not: it would be written to.

    typed: the words of this command line.
    """
    said = {(o.lstrip("+").partition("=")[0], o.partition("=")[2].strip("'\"")) for o in typed}
    observers = config.get("observers")
    for name, node in observers.items() if isinstance(observers, dict) else ():
        key, where = f"observers.{name}", node.get("uri") if isinstance(node, dict) else None  # loggers have any name
        if where is not None and (f"{key}.uri", str(where)) not in said:
            raise ConfigError(
                f"{key}.uri={where} was recorded, not typed, and the run would be sent there: type {key}.uri= again,"
                f" or {key}=null"
            )
