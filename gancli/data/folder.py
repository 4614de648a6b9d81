"""Any folder of images as a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.data.gather import gather
from gancli.data.listing import Listing, Names, is_image, stamp
from gancli.data.pixels import Size
from gancli.data.source import Source, check_split
from gancli.errors import ConfigError, DataError


def folder(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
) -> Source:
    """The images under `root`; one level of sub-folders are classes, a flat folder has none.

    size: null keeps images that are all of one size as they are, and else takes the square of the smallest side among
    them; one side, or [C, H, W], crops centrally to that aspect and resizes. Channels are 1 where all files are grey,
    else 3. Transparent pixels go on white, 16 bits become 8, EXIF says what is up, of an animation the first frame is
    taken; hidden and other files are skipped. All images are `train`. store: `gather`; check: `index.look`.
    Raises ConfigError for a missing `root` or a wrong size, DataError for a folder without images and for a file that
    is broken, cut short or too large, by its name.
    """
    check_split("folder", split, ["train"])
    if root is None:
        raise ConfigError("dataset=folder needs to know which folder: type dataset.root=PATH")
    top = Path(root).expanduser()
    if top.is_file():
        others = {".npz": "dataset=npz", ".zip": "dataset=zip", ".tar": "dataset=webdataset"}
        other = others.get(top.suffix.lower(), "dataset.root=PATH with a folder of images")
        raise DataError(f"dataset.root={root} is a file, not a folder: type {other}")
    if not top.is_dir():
        raise DataError(f"dataset.root={root} does not exist: type dataset.root=PATH with a folder of images")
    try:
        return gather(Folder(top), size=size, limit=limit, flip=flip, dequantize=dequantize, store=store, check=check)
    except OSError as error:
        raise DataError(f"dataset.root={root} cannot be listed ({error.strerror}): make it readable") from error


def from_files(
    name: str,
    top: Path,
    files: Sequence[str],
    labels: NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    flip: bool,
    dequantize: bool = False,
) -> Source:
    """A Source of image files by their names relative to `top`, decoded in memory or through the cache.

    Raises ConfigError for a wrong size, DataError naming a file that cannot be read.
    """
    return gather(Named(name, top, files, labels, classes), size=size, limit=limit, flip=flip, dequantize=dequantize)


@dataclass(frozen=True)
class Folder:
    """A folder of images as a place: `top` and one level of sub-folders."""

    top: Path
    kind = "folder"
    stamps_prove = False  # a file that is overwritten in place leaves its folder's time as it was

    @property
    def root(self) -> str:
        """The folder, links resolved."""
        return str(self.top.resolve())

    def listing(self) -> Listing:
        """The images, sorted, with labels where sub-folders give them.

        Raises DataError where there are none, or both loose ones and some in sub-folders.
        """
        watched: dict[str, list[int]] = {}
        loose, children = _scan(self.top, watched)
        groups = {child: _scan(self.top / child, watched)[0] for child in children}
        classes = [child for child in children if groups[child]]
        if loose and classes:
            raise DataError(
                f"dataset.root={self.top} has images ({loose[0][0]}, ...) and sub-folders of images ({classes[0]}, "
                "...): move the loose ones into a sub-folder, or type dataset.root with one sub-folder"
            )
        if not loose and not classes:
            deeper = next((name for name in children if _has_classes(self.top / name)), None)
            kinds = ", ".join(sorted(decode.SUFFIXES))
            remedy = f"type dataset.root={self.top / deeper}" if deeper else f"put images there ({kinds})"
            raise DataError(f"dataset.root={self.top} has no images in it or in its sub-folders: {remedy}")
        found = loose or [(f"{name}/{file}", size, time) for name in classes for file, size, time in groups[name]]
        labels = None if loose else np.repeat(np.arange(len(classes)), [len(groups[name]) for name in classes])
        return _listing(found, labels, classes, watched)

    def files(self, listing: Listing) -> Loose:
        """What opens them."""
        return Loose(self.top, listing.names)


@dataclass(frozen=True)
class Named:
    """Files under `top` that another index names, such as torchvision's."""

    kind: str
    top: Path
    given: Sequence[str]
    labels: NDArray[np.int64] | None
    classes: Sequence[str]
    stamps_prove = False

    @property
    def root(self) -> str:
        """The folder, links resolved."""
        return str(self.top.resolve())

    def listing(self) -> Listing:
        """The files as given. Raises DataError for a missing one."""
        try:
            facts = [stamp(f"{self.top}/{name}") for name in self.given]
        except OSError as error:
            message = f"{error.filename} cannot be read ({error.strerror}): type dataset.root=PATH with complete data"
            raise DataError(message) from error
        found = [(name, size, changed) for name, (changed, size, _) in zip(self.given, facts, strict=True)]
        return _listing(found, self.labels, list(self.classes), {})

    def files(self, listing: Listing) -> Loose:
        """What opens them."""
        return Loose(self.top, listing.names)


class Loose:
    """Files of a file system, by number."""

    def __init__(self, top: Path, names: Names):
        self._top, self._names = str(top), names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """The file's path."""
        return os.path.join(self._top, self._names[i])  # noqa: PTH118 - a Path a file is slow

    def open(self, i: int) -> BinaryIO:
        """The file, opened. Raises OSError."""
        return open(self.name(i), "rb")  # noqa: PTH123


def _listing(
    found: Sequence[Any], labels: NDArray[Any] | None, classes: list[str], watched: dict[str, list[int]]
) -> Listing:
    """found: (name, size, time of change) of each file."""
    sizes = np.fromiter((size for _, size, _ in found), np.int64, len(found))
    times = np.fromiter((changed for _, _, changed in found), np.int64, len(found))
    numbers = None if labels is None else labels.astype(np.int64)
    return Listing(Names.of(name for name, _, _ in found), sizes, times[:, None], numbers, classes, watched)


def _has_classes(folder: Path) -> bool:
    return any(_scan(folder / child, {})[0] for child in _scan(folder, {})[1])


def _scan(folder: Path, watched: dict[str, list[int]]) -> tuple[list[tuple[str, int, int]], list[str]]:
    """Image files (name, size, time of change) and sub-folders of a folder, sorted, hidden ones left out."""
    watched[str(folder.resolve())] = stamp(folder)
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif is_image(entry.name):
                stat = entry.stat()
                files.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return sorted(files), sorted(folders)
