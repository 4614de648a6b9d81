"""The image files that a path names: one file, those of a folder, or those that match a pattern."""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath

from gancli.data import imagefile
from gancli.data.domains import taken
from gancli.data.layout import IgnoredFiles, printable
from gancli.data.listing import kind_of
from gancli.data.walk import Walk
from gancli.errors import DataError

WHAT = "name an image, a folder of images, or a pattern in quotes such as 'photos/*.png'"
ARCHIVES = (".zip", ".npz", ".tar", ".tgz", ".gz")


@dataclass(frozen=True)
class Inputs:
    """Image files. names: relative to the given path. outputs: names of the results, without a suffix.

    notes: what was ignored, a line each.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    outputs: Sequence[str]
    notes: Sequence[str] = ()


def find(text: str, key: str = "input") -> Inputs:
    """Find the images that `key=text` names, sorted by name; no file is opened.

    A folder gives all images below it, as in `dataset=folder`. Raises DataError, naming the key, if there are none,
    and for a broken link or a pipe with an image's name.
    """
    said, place = f"{key}={printable(text)}", Path(text).expanduser()
    left = IgnoredFiles()
    try:
        if place.is_dir():
            found = {name: place / name for name in _below(place, left)}
        elif os.path.lexists(place):
            if place.suffix.lower() in ARCHIVES:
                raise DataError(f"{said} is an archive: unpack it and name the folder")
            found = {place.name: place}
        elif glob.has_magic(text):
            found = _matching(said, str(place), left)
        else:
            raise DataError(f"{said} does not exist: {WHAT}")
    except OSError as error:
        raise DataError(f"{said} cannot be listed ({error.strerror}): make it readable") from None
    if not found:
        kinds = ", ".join(sorted(imagefile.SUFFIXES))
        raise DataError("; ".join([f"{said} has no images: {WHAT} ({kinds})", *left.note()]))
    names = sorted(found)
    return Inputs([found[name] for name in names], names, outputs(names), left.note())


def outputs(names: Sequence[str]) -> list[str]:
    """Return the output names of input files, without suffix: each input's stem, or its full name if stems collide.

    The full name is also used if the output would replace a folder of other outputs. Names that differ only in case
    collide, since some file systems ignore case.

    >>> outputs(["a.jpg", "a.png", "b/a.png", "c.tar.png"])
    ['a.jpg', 'a.png', 'b/a', 'c.tar']
    >>> outputs(["a.jpg", "a.jpg.gif", "a.png"])
    ['a.jpg', 'a.jpg.gif', 'a.png']
    >>> outputs(["a.jpg", "a.png/b.jpg", "c.gif", "c.NPY/d/e.png"])
    ['a.jpg', 'a.png/b', 'c.gif', 'c.NPY/d/e']
    """
    folders = {str(parent).casefold() for name in names for parent in PurePath(name).parents}
    found = [str(PurePath(name).with_suffix("")) for name in names]
    while True:
        counts = Counter(name.casefold() for name in found)
        clash = {short for short in found if counts[short.casefold()] > 1}
        clash |= {short for short in found if {f"{short}{end}".casefold() for end in imagefile.WRITTEN} & folders}
        again = [own if short in clash else short for own, short in zip(names, found, strict=True)]
        if again == found:
            return found
        found = again


def _below(top: Path, left: IgnoredFiles) -> list[str]:
    """Return the names of the images below a folder, relative to it."""
    walk = Walk(str(top), taken, left_out=left)
    walk.run()
    if walk.described:
        left.add(".json")
    return [name for name, _, _ in walk.images]


def _matching(said: str, pattern: str, left: IgnoredFiles) -> dict[str, Path]:
    """Return a pattern's matches by name, relative to the part without wildcards. Raises DataError."""
    parts = PurePath(pattern).parts
    plain = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    if ".." in parts[plain:]:
        raise DataError(f"{said} has .. after a wildcard: write the pattern without it")
    top = Path(*parts[:plain])
    found: dict[str, Path] = {}
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207 - takes no absolute ones
        name = str(match.relative_to(top))
        found |= {each: top / each for each in _of_match(match, name, left, "**" in parts)}
    return found


def _of_match(match: Path, name: str, left: IgnoredFiles, deep: bool) -> Iterator[str]:
    """Yield the images of one match: itself, or those of a folder unless a `deep` pattern matches them itself."""
    if match.is_dir():
        if not deep:
            yield from (f"{name}/{inner}" for inner in _below(match, left))
        return
    image = taken(match.name)
    if not match.exists():
        if image:
            target = printable(os.readlink(match))  # noqa: PTH115
            raise DataError(f"{printable(str(match))} is a link to {target}, which does not exist: fix or remove it")
        left.named(f"{name} (a broken link)")
        return
    mode = match.stat().st_mode
    if stat.S_ISREG(mode) and image:
        yield name
    elif stat.S_ISREG(mode):
        left.file(match.name)
    elif image:
        raise DataError(f"{printable(str(match))} is a {kind_of(mode)}, not an image: remove it")
    else:
        left.named(f"{name} (a {kind_of(mode)})")
