"""Walking a folder: its image files, and what else is in it."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancli.data.layout import DESCRIPTION, IgnoredFiles, printable
from gancli.data.listing import Listing, Names, is_image, kind_of, stamp
from gancli.errors import ConfigError, DataError


def given_folder(
    kind: str, root: str | None, holding: str, others: Mapping[str, str] | None = None, key: str = "root"
) -> Path:
    """Return the folder that `dataset.root`, or another key, names.

    kind: of the data set. holding: what is in the folder. others: what to type for a file, by its suffix. Raises
    ConfigError if none is given, DataError if there is no such folder.
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
    """Return the error for a folder in `dataset.root` that cannot be listed."""
    where = "" if error.filename in (None, root) else f": {printable(os.fsdecode(error.filename))}"
    return DataError(f"dataset.root={root} cannot be listed ({error.strerror}{where}): make it readable")


def listing_of(
    found: Sequence[Any],
    labels: NDArray[Any] | None,
    classes: list[str],
    watched: dict[str, list[int]],
    notes: Sequence[str] = (),
) -> Listing:
    """Build a listing of files. found: (name, size, modification time) of each."""
    sizes = np.fromiter((size for _, size, _ in found), np.int64, len(found))
    times = np.fromiter((changed for _, _, changed in found), np.int64, len(found))
    numbers = None if labels is None else labels.astype(np.int64)
    names = Names.of(name for name, _, _ in found)
    return Listing(names, sizes, times[:, None], numbers, classes, watched, tuple(notes))


@dataclass
class Walk:
    """Everything below a folder: links are followed, each folder is visited once, no file is opened.

    takes: whether a file is an image, by its name. images: (name, size, modification time), names relative to the top.
    folders: the top's own, with a slash. described: whether there is a dataset.json. watched: each folder's stamp
    before it was listed.
    """

    top: str
    takes: Callable[[str], bool] = is_image
    images: list[tuple[str, int, int]] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    described: bool = False
    watched: dict[str, list[int]] = field(default_factory=dict)
    left_out: IgnoredFiles = field(default_factory=IgnoredFiles)

    def run(self) -> None:
        """Walk the folder. Raises OSError, and DataError for an image that is not a regular file."""
        seen: set[tuple[int, int]] = set()
        # A stack instead of recursion, which is limited to about a thousand levels: (name, absolute path).
        waiting, linked = [("", os.path.realpath(self.top))], list[tuple[str, str]]()
        while waiting or linked:
            inner, real = waiting.pop() if waiting else linked.pop(0)  # a folder's own path comes before links to it
            place = f"{self.top}/{inner}"
            facts = os.stat(place)  # noqa: PTH116 - a Path a file is slow
            if (facts.st_dev, facts.st_ino) in seen:  # links may form cycles
                self.left_out.named(f"{inner} (a link to a folder that was already read)")
                continue
            seen.add((facts.st_dev, facts.st_ino))
            self.watched[real] = stamp(place)
            folders, links = self._scan(place, f"{inner}/" if inner else "")
            if not inner:
                self.folders = [f"{name}/" for name in (*folders, *links)]
            waiting += [(name, f"{real}/{os.path.basename(name)}") for name in sorted(folders, reverse=True)]  # noqa: PTH119
            linked = sorted([*linked, *((name, os.path.realpath(f"{self.top}/{name}")) for name in links)])

    def _scan(self, place: str, prefix: str) -> tuple[list[str], list[str]]:
        """Record a folder's files; return its sub-folders, and its links to folders."""
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
                        told = f"{printable(entry.path)} is a {kind_of(facts.st_mode)}, not an image"
                        raise DataError(f"{told}: remove it")
                    self.images.append((name, facts.st_size, facts.st_mtime_ns))
                elif entry.is_file():
                    self.left_out.file(entry.name)
                else:
                    self.left_out.named(f"{name} (a {kind_of(entry.stat().st_mode)})")
        return folders, links

    def _dangling(self, name: str, path: str) -> None:
        if self.takes(name) or name == DESCRIPTION:
            target = printable(os.readlink(path))  # noqa: PTH115
            raise DataError(f"{printable(path)} is a link to {target}, which does not exist: fix or remove it")
        self.left_out.named(f"{name} (a broken link)")
