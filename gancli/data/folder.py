"""Any folder of images as a data set."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data import decode
from gancli.data.gather import gather
from gancli.data.layout import (
    DESCRIPTION,
    LARGEST_DESCRIPTION,
    by_description,
    by_folders,
    printable,
)
from gancli.data.listing import Listing, Names, open_plain, stamp
from gancli.data.pixels import Size
from gancli.data.source import Source, StreamOptions, check_split
from gancli.data.walk import Walk, given_folder, listing_of, unlistable
from gancli.errors import DataError


def folder(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """The images below `root`: each sub-folder is a class, with everything below it; a flat folder has no classes.

    A dataset.json as written by StyleGAN's dataset_tool gives the labels instead. size: null keeps images that all have
    one size, and otherwise takes the square of the smallest side among them; one side, or [C, H, W], crops centrally to
    that aspect and resizes. Channels are 1 if all files are grey, else 3. Transparent pixels are composited on white,
    16 bits become 8, the EXIF or XMP orientation is applied, and of an animation the first frame is used. Hidden files
    and other file types are ignored and counted in the notes. The only split is `train`. store: see `gather`; check:
    see `index.look`. Raises ConfigError for a missing `root` or a wrong size, DataError for a folder without images
    and, naming the file, for one that is broken, truncated, too large or not a regular file.
    """
    check_split("folder", split, ["train"])
    found = place(root)
    try:
        return gather(
            found,
            size=size,
            limit=limit,
            store=store,
            check=check,
            **dealt,
        )
    except OSError as error:
        raise unlistable(root, error) from error


def place(root: str | None) -> Folder:
    """Return the folder that `dataset.root` names. Raises ConfigError or DataError if it is missing."""
    others = {".npz": "dataset=npz", ".zip": "dataset=zip", ".tar": "dataset=webdataset"}
    return Folder(given_folder("folder", root, "with a folder of images", others))


def from_files(
    name: str,
    top: Path,
    files: Sequence[str],
    labels: NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """Build a Source of image files named relative to `top`, decoded in memory or through the cache.

    Raises ConfigError for a wrong size, DataError naming a file that cannot be read.
    """
    return gather(
        Named(name, top, files, labels, classes),
        size=size,
        limit=limit,
        **dealt,
    )


@dataclass(frozen=True)
class Folder:
    """A folder of images (a `Place`): `top` and everything below it."""

    top: Path
    kind = "folder"
    stamps_prove = False  # overwriting a file in place does not change its folder's time

    @property
    def root(self) -> str:
        """The folder, links resolved."""
        return str(self.top.resolve())

    def listing(self) -> Listing:
        """List the images, sorted, with labels if dataset.json or sub-folders give them.

        Raises DataError if there are none, or if some are loose and others in sub-folders.
        """
        walk = Walk(str(self.top))
        walk.run()
        place, names = f"dataset.root={self.top}", [name for name, _, _ in walk.images]
        notes = walk.left_out.note()
        if not names:
            kinds = ", ".join(sorted(decode.SUFFIXES))
            remedy = f"put images there ({kinds})"
            raise DataError("; ".join([f"{place} has no images in it or in its sub-folders: {remedy}", *notes]))
        if walk.described:
            path = str(self.top / DESCRIPTION)
            walk.watched[os.path.realpath(path)] = stamp(path)
            found = by_description(printable(path), _description(path), names)
        else:
            found = by_folders(place, names, walk.folders, root=str(self.top))
        chosen = [walk.images[i] for i in found.order]
        return listing_of(chosen, found.labels, found.classes, walk.watched, [*notes, *found.notes])

    def files(self, listing: Listing) -> Loose:
        """Return an object that opens the files."""
        return Loose(self.top, listing.names)


@dataclass(frozen=True)
class Named:
    """Files under `top` that another index lists, such as torchvision's (a `Place`)."""

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
        """List the files as given. Raises DataError for a missing one."""
        try:
            facts = [stamp(f"{self.top}/{name}") for name in self.given]
        except OSError as error:
            message = f"{error.filename} cannot be read ({error.strerror}): type dataset.root=PATH with complete data"
            raise DataError(message) from error
        found = [(name, size, changed) for name, (changed, size, _) in zip(self.given, facts, strict=True)]
        return listing_of(found, self.labels, list(self.classes), {})

    def files(self, listing: Listing) -> Loose:
        """Return an object that opens the files."""
        return Loose(self.top, listing.names)


class Loose:
    """Files of a file system, by index."""

    def __init__(self, top: Path, names: Names):
        self._top, self._names = str(top), names

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """Return the file's path."""
        return os.path.join(self._top, self._names[i])  # noqa: PTH118 - a Path a file is slow

    def open(self, i: int) -> BinaryIO:
        """Open the file. Raises OSError, or ValueError if it is not a regular file."""
        return open_plain(self.name(i))


def _description(path: str) -> bytes:
    """Read a dataset.json. Raises DataError."""
    try:
        with open_plain(path) as file:
            content = file.read(LARGEST_DESCRIPTION + 1)
        if len(content) > LARGEST_DESCRIPTION:
            raise ValueError(f"over {LARGEST_DESCRIPTION >> 20} MiB")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{printable(path)} cannot be read ({reason}): fix or remove it") from None
    return content
