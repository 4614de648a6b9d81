"""Splitting a command line into flags, overrides and folders of group files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from gancli.errors import ConfigError


def split(words: Sequence[str], verb: str = "") -> tuple[list[str], list[str], list[Path]]:
    """Return Hydra's flags, the overrides, and the folders of --config-dir. Raises ConfigError for an unknown flag."""
    with_value = {
        "--cfg": "cfg",
        "-c": "cfg",
        "--package": "package",
        "-p": "package",
        "--config-dir": "dir",
        "-cd": "dir",
    }
    alone = ("-m", "--multirun", "--resolve", "--hydra-help")
    flags, overrides, folders = [], [], []
    queue = list(words)
    while queue:
        word = queue.pop(0)
        if "\0" in word:
            raise ConfigError(f"{word[:40]!r} contains a NUL character: leave it out")
        word = _utf8(word)
        name, equals, value = word.partition("=")
        if name in with_value and word.startswith("-"):
            if not equals:
                value = queue.pop(0) if queue and not queue[0].startswith("-") and "=" not in queue[0] else ""
            if with_value[name] == "dir":
                if not value.strip():
                    raise ConfigError(f"{name}: name a folder of group files, as in {name} my_conf")
                folders.append(Path(value).expanduser())
            elif with_value[name] == "cfg" and value not in ("job", "hydra", "all"):
                raise ConfigError(f"{name} {value}: write --cfg job, --cfg hydra or --cfg all")
            else:
                flags += [name, value] if value else [name]
        elif word in alone:
            flags.append(word)
        elif word.startswith("-"):
            from gancli.config import corrections

            known = [*with_value, *alone, "--help"]
            following = queue[0] if queue else ""
            raise ConfigError(corrections.flag(verb or "train", word, following, known))
        else:
            overrides.append(word)
    return flags, overrides, folders


def _utf8(word: str) -> str:
    """Return an argument decoded as UTF-8 in any locale. Raises ConfigError if its bytes are not UTF-8."""
    try:
        return os.fsencode(word).decode() if not word.isascii() else word
    except UnicodeEncodeError:  # from a caller in this process, in a locale that cannot encode it
        return word
    except UnicodeDecodeError:
        raise ConfigError(f"{word!r} is not UTF-8: rename the file or folder, or write the text in UTF-8") from None
