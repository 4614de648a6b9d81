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
from gancli.data.source import Dealt, Source, check_split
from gancli.data.walk import Walk, given_folder, listing_of, unlistable
from gancli.errors import DataError


def folder(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    **dealt: Unpack[Dealt],
) -> Source:
    """The images under `root`: each of its sub-folders is a class, with all that lies below it; a flat folder has none.

    A dataset.json as StyleGAN's dataset_tool writes it gives the labels instead. size: null keeps images that are all
    of one size as they are, and else takes the square of the smallest side among them; one side, or [C, H, W], crops
    centrally to that aspect and resizes. Channels are 1 where all files are grey, else 3. Transparent pixels go on
    white, 16 bits become 8, EXIF or XMP says what is up, of an animation the first frame is taken. Hidden files and
    those of other kinds are left out, which the notes count. All images are `train`. store: `gather`; check:
    `index.look`. Raises ConfigError for a missing `root` or a wrong size, DataError for a folder without images and for
    a file that is broken, cut short, too large or no plain file, by its name.
    """
    check_split("folder", split, ["train"])
    others = {".npz": "dataset=npz", ".zip": "dataset=zip", ".tar": "dataset=webdataset"}
    top = given_folder("folder", root, "with a folder of images", others)
    try:
        return gather(
            Folder(top),
            size=size,
            limit=limit,
            store=store,
            check=check,
            **dealt,
        )
    except OSError as error:
        raise unlistable(root, error) from error


def from_files(
    name: str,
    top: Path,
    files: Sequence[str],
    labels: NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    **dealt: Unpack[Dealt],
) -> Source:
    """A Source of image files by their names relative to `top`, decoded in memory or through the cache.

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
    """A folder of images as a place: `top` and all that lies below it."""

    top: Path
    kind = "folder"
    stamps_prove = False  # a file that is overwritten in place leaves its folder's time as it was

    @property
    def root(self) -> str:
        """The folder, links resolved."""
        return str(self.top.resolve())

    def listing(self) -> Listing:
        """The images, sorted, with labels where dataset.json or sub-folders give them.

        Raises DataError where there are none, or both loose ones and some in sub-folders.
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
        return listing_of(found, self.labels, list(self.classes), {})

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
        """The file, opened. Raises OSError, or ValueError for what is no plain file."""
        return open_plain(self.name(i))


def _description(path: str) -> bytes:
    """The contents of a dataset.json. Raises DataError."""
    try:
        with open_plain(path) as file:
            content = file.read(LARGEST_DESCRIPTION + 1)
        if len(content) > LARGEST_DESCRIPTION:
            raise ValueError(f"over {LARGEST_DESCRIPTION >> 20} MiB")
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise DataError(f"{printable(path)} cannot be read ({reason}): mend it or take it away") from None
    return content
