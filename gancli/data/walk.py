"""The image files below a folder of a file system, and what lies beside them."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancli.data.layout import DESCRIPTION, LeftOut, printable
from gancli.data.listing import Listing, Names, is_image, kind_of, stamp
from gancli.errors import ConfigError, DataError


def given_folder(
    kind: str, root: str | None, holding: str, others: Mapping[str, str] | None = None, key: str = "root"
) -> Path:
    """The folder that `dataset.root`, or another key, names.

    kind: of the data set. holding: what is in the folder. others: what to type for a file, by its suffix. Raises
    ConfigError where none is named, DataError for no such folder.
    """
    if root is None or not root.strip():
        said = "needs to know which folder" if root is None else f"was given an empty dataset.{key}"
        raise ConfigError(f"dataset={kind} {said}: type dataset.{key}=PATH")
    top = Path(root).expanduser()
    if top.is_file():
        other = (others or {}).get(top.suffix.lower(), f"dataset.{key}=PATH {holding}")
        raise DataError(f"dataset.{key}={root} is a file, not a folder: type {other}")
    if not top.is_dir():
        what = f"is a {kind_of(top.stat().st_mode)}" if top.exists() else "does not exist"
        raise DataError(f"dataset.{key}={root} {what}: type dataset.{key}=PATH {holding}")
    return top


def unlistable(root: str | None, error: OSError) -> DataError:
    """What to tell the person about a folder in `dataset.root` that cannot be looked into."""
    where = "" if error.filename in (None, root) else f": {printable(os.fsdecode(error.filename))}"
    return DataError(f"dataset.root={root} cannot be listed ({error.strerror}{where}): make it readable")


def listing_of(
    found: Sequence[Any],
    labels: NDArray[Any] | None,
    classes: list[str],
    watched: dict[str, list[int]],
    notes: Sequence[str] = (),
) -> Listing:
    """Files by their names. found: (name, size, time of change) of each."""
    sizes = np.fromiter((size for _, size, _ in found), np.int64, len(found))
    times = np.fromiter((changed for _, _, changed in found), np.int64, len(found))
    numbers = None if labels is None else labels.astype(np.int64)
    names = Names.of(name for name, _, _ in found)
    return Listing(names, sizes, times[:, None], numbers, classes, watched, tuple(notes))


@dataclass
class Walk:
    """Everything below a folder, links followed, each folder once; nothing is opened.

    takes: whether a file is an image, by its name. images: (name, size, time of change), names relative to the top.
    folders: the top's own, with a slash. described: whether there is a dataset.json. watched: each folder's stamp
    before it was listed.
    """

    top: str
    takes: Callable[[str], bool] = is_image
    images: list[tuple[str, int, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    described: bool = False
    watched: dict[str, list[int]] = field(default_factory=dict)
    left_out: LeftOut = field(default_factory=LeftOut)

    def run(self) -> None:
        """Look at all of it. Raises OSError, and DataError for an image that is no file."""
        seen: set[tuple[int, int]] = set()
        # Lists instead of a function that calls itself, which cannot go a thousand deep: (name, absolute path).
        waiting, linked = [("", os.path.realpath(self.top))], list[tuple[str, str]]()
        while waiting or linked:
            inner, real = waiting.pop() if waiting else linked.pop(0)  # a folder counts where it lies, before its links
            place = f"{self.top}/{inner}"
            facts = os.stat(place)  # noqa: PTH116 - a Path a file is slow
            if (facts.st_dev, facts.st_ino) in seen:  # links may go round in circles
                self.left_out.named(f"{inner} (a link to a folder that is read already)")
                continue
            seen.add((facts.st_dev, facts.st_ino))
            self.watched[real] = stamp(place)
            folders, links = self._scan(place, f"{inner}/" if inner else "")
            if not inner:
                self.folders = [f"{name}/" for name in (*folders, *links)]
            waiting += [(name, f"{real}/{os.path.basename(name)}") for name in sorted(folders, reverse=True)]  # noqa: PTH119
            linked = sorted([*linked, *((name, os.path.realpath(f"{self.top}/{name}")) for name in links)])

    def _scan(self, place: str, prefix: str) -> tuple[list[str], list[str]]:
        """Take note of a folder's files; its own folders, and its links to folders, are returned."""
        folders, links = list[str](), list[str]()
        with os.scandir(place) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith("."):
                    self.left_out.add(f"hidden {'folder' if entry.is_dir(follow_symlinks=False) else 'file'}")
                elif entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
                    self._dangling(name, entry.path)
                elif entry.is_dir():
                    (links if entry.is_symlink() else folders).append(name)
                elif name == DESCRIPTION:
                    self.described = True
                elif self.takes(entry.name):
                    facts = entry.stat()
                    if not stat.S_ISREG(facts.st_mode):
                        told = f"{printable(entry.path)} is a {kind_of(facts.st_mode)}, no image"
                        raise DataError(f"{told}: take it away")
                    self.images.append((name, facts.st_size, facts.st_mtime_ns))
                elif entry.is_file():
                    self.left_out.file(entry.name)
                else:
                    self.left_out.named(f"{name} (a {kind_of(entry.stat().st_mode)})")
        return folders, links

    def _dangling(self, name: str, path: str) -> None:
        if self.takes(name) or name == DESCRIPTION:
            target = printable(os.readlink(path))  # noqa: PTH115
            raise DataError(f"{printable(path)} is a link to {target}, which is not there: mend it or take it away")
        self.left_out.named(f"{name} (a link to nothing)")
