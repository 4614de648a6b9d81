"""The image files that a path names: one, those of a folder, or those that a pattern matches."""

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
from gancli.data.layout import LeftOut, printable
from gancli.data.listing import kind_of
from gancli.data.walk import Walk
from gancli.errors import DataError

WHAT = "name an image, a folder of images, or a pattern in quotes such as 'photos/*.png'"
ARCHIVES = (".zip", ".npz", ".tar", ".tgz", ".gz")


@dataclass(frozen=True)
class Inputs:
    """Image files. names: relative to what was given. outputs: what is made of each is called, without a suffix.

    notes: what was left out, a line each.
    """

    paths: Sequence[Path]
    names: Sequence[str]
    outputs: Sequence[str]
    notes: Sequence[str] = ()


def find(text: str, key: str = "input") -> Inputs:
    """The images that `key=text` names, in the order of their names; nothing of them is opened.

    Of a folder all images below it, as `dataset=folder` finds them. Raises DataError, which names the key, where
    there are none, and for a broken link or a pipe that is called as an image.
    """
    said, place = f"{key}={printable(text)}", Path(text).expanduser()
    left = LeftOut()
    try:
        if place.is_dir():
            found = {name: place / name for name in _below(place, left)}
        elif os.path.lexists(place):
            if place.suffix.lower() in ARCHIVES:
                raise DataError(f"{said} is an archive: unpack it, and name the folder")
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
    """What is made of files is called, without the suffix it gets: as they, less theirs, which two of one stem keep.

    So does one that would be written where a folder of others stands. Names that differ in case alone count as the
    same, since some systems take them so.

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


def _below(top: Path, left: LeftOut) -> list[str]:
    """Names of the images below a folder, relative to it."""
    walk = Walk(str(top), taken, left_out=left)
    walk.run()
    if walk.described:
        left.add(".json")
    return [name for name, _, _ in walk.images]


def _matching(said: str, pattern: str, left: LeftOut) -> dict[str, Path]:
    """What a pattern matches, by names relative to its part without wildcards. Raises DataError."""
    parts = PurePath(pattern).parts
    plain = next(k for k, part in enumerate(parts) if glob.has_magic(part))
    if ".." in parts[plain:]:
        raise DataError(f"{said} has .. behind a wildcard: write the pattern without it")
    top = Path(*parts[:plain])
    found: dict[str, Path] = {}
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):  # noqa: PTH207 - which knows no absolute ones
        name = str(match.relative_to(top))
        found |= {each: top / each for each in _of_match(match, name, left, "**" in parts)}
    return found


def _of_match(match: Path, name: str, left: LeftOut, deep: bool) -> Iterator[str]:
    """The images of one match: itself, or those of a folder, which `deep` patterns go into by themselves."""
    if match.is_dir():
        if not deep:
            yield from (f"{name}/{inner}" for inner in _below(match, left))
        return
    image = taken(match.name)
    if not match.exists():
        if image:
            target = printable(os.readlink(match))  # noqa: PTH115
            raise DataError(f"{printable(str(match))} is a link to {target}, which is not there: mend it")
        left.named(f"{name} (a link to nothing)")
        return
    mode = match.stat().st_mode
    if stat.S_ISREG(mode) and image:
        yield name
    elif stat.S_ISREG(mode):
        left.file(match.name)
    elif image:
        raise DataError(f"{printable(str(match))} is a {kind_of(mode)}, no image: take it away")
    else:
        left.named(f"{name} (a {kind_of(mode)})")
