"""Safe composition of untrusted run and sweep directories: no resolvers, limited files, no recorded servers.

Of the command lines that a directory records, and of the YAML files in its --config-dir, values and references to other
keys (`${model.ch}`) are used. `${oc.env:HOME}` and all other resolvers are disabled: they would read this machine's
environment, and their values would be written to files. The user's command line may use them; config/resolved.py
records their values, so that a run resumes without resolvers.
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
    """A recorded value uses a resolver."""

    def __init__(self, key: str | None):
        remedy = f": give {key}= on the command line" if key else ""
        super().__init__(
            f"{f'{key}: its recorded value' if key else 'a recorded choice of a group'} uses a resolver"
            f" (${{NAME:...}}), which is disabled for recorded values{remedy}"
        )


@contextmanager
def no_resolvers() -> Iterator[None]:
    """A context in which OmegaConf resolves references to other keys, but no `${NAME:...}`."""
    from omegaconf.basecontainer import BaseContainer

    known = BaseContainer._resolvers
    BaseContainer._resolvers = {}
    try:
        yield
    finally:
        BaseContainer._resolvers = known


def asks(error: BaseException) -> Asks | None:
    """Return the error if composing failed because of a resolver; None for other errors."""
    from omegaconf.errors import UnsupportedInterpolationType

    found: BaseException | None = error
    while found is not None and not isinstance(found, UnsupportedInterpolationType):
        found = found.__cause__ or found.__context__
    if found is None:
        return None
    key = str(getattr(found, "full_key", "") or "")
    return Asks(key if key and key != "_dummy_" else None)  # Hydra's dummy key for a line of a defaults list


def refuse_files(folders: Sequence[Path]) -> None:
    """Raise ConfigError for a folder that Hydra could read without end: pipes, huge files, too many files."""
    for folder in folders:
        try:
            _refuse_files(folder)
        except OSError as error:  # for example a process in /proc that has just ended
            where = f"{error.filename}: " if error.filename else ""
            raise ConfigError(f"--config-dir {folder} was not followed ({where}{plain(error)})") from None


def _refuse_files(folder: Path) -> None:
    for count, path in enumerate(folder.rglob("*.y*ml")):
        if count >= MOST_FILES:
            raise ConfigError(f"--config-dir {folder} holds over {MOST_FILES:,} YAML files: it was not followed")
        about = path.stat() if path.exists() else None
        if about is None or not stat.S_ISREG(about.st_mode) or about.st_size > LARGEST:
            raise ConfigError(
                f"{path}: not a regular file under {LARGEST >> 20} MiB; the --config-dir was not followed"
            )


def refuse_addresses(config: Mapping[str, Any], typed: Sequence[str]) -> None:
    """Raise ConfigError for a recorded server URI that the command line does not give: data would be sent there.

    typed: the overrides of the current command line.
    """
    said = {(o.lstrip("+").partition("=")[0], o.partition("=")[2].strip("'\"")) for o in typed}
    observers = config.get("observers")
    for name, node in observers.items() if isinstance(observers, dict) else ():
        key, where = f"observers.{name}", node.get("uri") if isinstance(node, dict) else None  # loggers have any name
        if where is not None and (f"{key}.uri", str(where)) not in said:
            raise ConfigError(
                f"{key}.uri={where} comes from the recorded run, and data would be sent there: type {key}.uri= again,"
                f" or {key}=null"
            )
