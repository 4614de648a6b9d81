"""Reading of the files in conf/ without Hydra: their choices, keys and comments."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

Package = tuple[str, ...]  # target of a group file's content, as parts of a dotted path; () is the top level


def conf_dir() -> Path:
    """Return the conf/ directory: inside an installed package, or beside it in a checkout."""
    package = Path(__file__).resolve().parent.parent
    inside = package / "conf"
    return inside if inside.is_dir() else package.parent / "conf"


def defaults_lines(verb: str) -> list[str]:
    """Return the lines of the defaults list in conf/VERB.yaml that choose from a group."""
    lines = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8").splitlines()
    start = lines.index("defaults:") + 1
    return [line for line in lines[start:] if line.startswith("  - ") and ": " in line and "override" not in line]


def default_choices(verb: str) -> dict[str, str]:
    """Return the default choice of each group in conf/VERB.yaml; several as `[a, b]`."""
    return dict(line.strip()[2:].split(": ", 1) for line in defaults_lines(verb))


def groups(verb: str, folders: Iterable[Path] = ()) -> dict[str, list[str]]:
    """Return the config groups of a verb with their choices; files named _… are included by others."""
    places = [conf_dir(), *folders]
    files = {group: [f.stem for p in places for f in (p / group).glob("*.yaml")] for group in default_choices(verb)}
    return {group: sorted({name for name in names if name[0] != "_"}) for group, names in files.items()}


def names(choice: object) -> list[str]:
    """Return the single choices of `a`, `[a, b]`, or a list.

    >>> names("[fid, kid]"), names("ns"), names(["r1"])
    (['fid', 'kid'], ['ns'], ['r1'])
    """
    listed = choice if isinstance(choice, (list, tuple)) else re.split(r",\s*", str(choice).strip("[]"))
    return [str(name) for name in listed if name]


def file_of(group: str, choice: str, folders: Iterable[Path] = ()) -> Path | None:
    """Return the file of a choice; conf/ comes before further folders, as in Hydra."""
    files = (place / group / f"{choice}.yaml" for place in (conf_dir(), *folders))
    return next((file for file in files if file.is_file()), None)


def read(file: Path) -> tuple[Package, dict[str, Any], str]:
    """Return a group file's package, content and text. Raises OSError, ValueError or YAMLError."""
    stamp = file.stat()
    return _read(file, stamp.st_mtime_ns, stamp.st_size)


@lru_cache(maxsize=512)
def _read(file: Path, changed: int, size: int) -> tuple[Package, dict[str, Any], str]:
    text = file.read_text(encoding="utf-8")
    named = re.search(r"^# @package (\S+)", text, re.MULTILINE)
    package = named[1] if named else file.parent.name
    try:
        content = yaml.safe_load(text)
    except RecursionError:
        raise ValueError(f"{file}: sections are nested too deeply") from None
    return (
        () if package == "_global_" else tuple(package.split(".")),
        content if isinstance(content, dict) else {},
        text,
    )


def chain(group: str, choice: object, folders: Sequence[Path] = ()) -> list[Path]:
    """Return the files of a choice: those in its defaults list, of the same group, come first."""
    found: list[Path] = []
    for name in names(choice):
        file = file_of(group, name, folders)
        if file is None or file in found:
            continue
        listed = read(file)[1].get("defaults") or []
        others = [d for d in listed if isinstance(d, str) and d not in ("_self_", name)]
        found += [f for f in chain(group, others, folders) if f not in found] + [file]
    return found


def leaves(group: str, choice: object, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the dotted keys that a choice sets, with their values.

    >>> leaves("penalty", "r1")["penalty.r1.every"], leaves("augment", "none")
    (1, {})
    """
    found: dict[str, Any] = {}
    for file in chain(group, choice, folders):
        package, content, _ = read(file)
        found |= dotted({k: v for k, v in content.items() if k != "defaults"}, ".".join(package))
    return found


def overridden(group: str, choice: object, folders: Sequence[Path] = ()) -> dict[str, Any]:
    """Return the choices that a choice makes in other groups.

    >>> overridden("model", "biggan")["dataset"]
    'emoji'
    """
    found = {}
    for file in chain(group, choice, folders):
        for each in read(file)[1].get("defaults") or []:
            for key, value in each.items() if isinstance(each, Mapping) else ():
                found[str(key).replace("override ", "").strip().lstrip("/")] = value
    return found


def dotted(content: Mapping[Any, Any], prefix: str = "") -> dict[str, Any]:
    """Return the plain values inside a section by their dotted keys."""
    found: dict[str, Any] = {}
    for name, value in content.items():
        path = f"{prefix}.{name}" if prefix else str(name)
        found |= dotted(value, path) if isinstance(value, Mapping) else {path: value}
    return found


def comments(group: str, choice: object, folders: Sequence[Path] = ()) -> dict[str, str]:
    """Return the comments of a choice's keys, by dotted key.

    >>> comments("optimizer", "sngan")["optimizer.G.lr"]
    'learning rate'
    """
    found: dict[str, str] = {}
    for file in chain(group, choice, folders):
        package, _, text = read(file)
        above: list[tuple[int, str]] = []
        for line in re.finditer(r"^( *)([A-Za-z_]\w*):[ ]*([^#\n]*?) *(?:# (.*))?$", text, re.MULTILINE):
            indent, key, value, words = len(line[1]), line[2], line[3], line[4]
            above = [(i, k) for i, k in above if i < indent]
            if value and words:
                found[".".join([*package, *(k for _, k in above), key])] = words
            above.append((indent, key))
    return found


def headline(file: Path) -> str:
    """Return the first sentence of a group file's first comment; empty if it has none.

    >>> headline(file_of("ramp", "none"))
    "No ramp: only the optimizer's schedule changes during training"
    """
    said: list[str] = []
    for line in file.read_text(encoding="utf-8").splitlines():
        if line.startswith("# @"):
            continue
        if not line.startswith("# "):
            break
        said.append(line[2:])
    return re.split(r"(?<!et al)\.(?= |$)", " ".join(said))[0].rstrip(":;,")


def keys(verb: str) -> list[tuple[str, str, str]]:
    """Return (key, default, comment) of a verb's top-level keys and of nested ones, from conf/VERB.yaml."""
    found, above = [], ""
    text = (conf_dir() / f"{verb}.yaml").read_text(encoding="utf-8")
    for inside, name, default, words in re.findall(
        r"^(  )?([a-z_]+):(?: +(\S[^#\n]*?))?(?: +# (.*))?$", text, re.MULTILINE
    ):
        above = above if inside else name
        if default and words:
            found.append((f"{above}.{name}" if inside else name, default, words))
    return found
