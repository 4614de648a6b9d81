"""Any folder of images as a data set."""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data import decode
from gancli.data.gather import gather
from gancli.data.layout import (
    DESCRIPTION,
    LARGEST_DESCRIPTION,
    LeftOut,
    by_description,
    by_folders,
    printable,
)
from gancli.data.listing import Listing, Names, is_image, kind_of, open_plain, stamp
from gancli.data.pixels import Size
from gancli.data.source import Dealt, Source, check_split
from gancli.errors import ConfigError, DataError


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
    if root is None or not root.strip():
        said = "needs to know which folder" if root is None else "was given an empty dataset.root"
        raise ConfigError(f"dataset=folder {said}: type dataset.root=PATH")
    top = Path(root).expanduser()
    if top.is_file():
        others = {".npz": "dataset=npz", ".zip": "dataset=zip", ".tar": "dataset=webdataset"}
        other = others.get(top.suffix.lower(), "dataset.root=PATH with a folder of images")
        raise DataError(f"dataset.root={root} is a file, not a folder: type {other}")
    if not top.is_dir():
        what = f"is a {kind_of(top.stat().st_mode)}" if top.exists() else "does not exist"
        raise DataError(f"dataset.root={root} {what}: type dataset.root=PATH with a folder of images")
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
        where = "" if error.filename in (None, root) else f": {printable(os.fsdecode(error.filename))}"
        raise DataError(f"dataset.root={root} cannot be listed ({error.strerror}{where}): make it readable") from error


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
        return _listing(chosen, found.labels, found.classes, walk.watched, [*notes, *found.notes])

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
        """The file, opened. Raises OSError, or ValueError for what is no plain file."""
        return open_plain(self.name(i))


def _listing(
    found: Sequence[Any],
    labels: NDArray[Any] | None,
    classes: list[str],
    watched: dict[str, list[int]],
    notes: Sequence[str] = (),
) -> Listing:
    """found: (name, size, time of change) of each file."""
    sizes = np.fromiter((size for _, size, _ in found), np.int64, len(found))
    times = np.fromiter((changed for _, _, changed in found), np.int64, len(found))
    numbers = None if labels is None else labels.astype(np.int64)
    names = Names.of(name for name, _, _ in found)
    return Listing(names, sizes, times[:, None], numbers, classes, watched, tuple(notes))


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


@dataclass
class Walk:
    """Everything below a folder, links followed, each folder once; nothing is opened.

    suffixes: of images. images: (name, size, time of change), names relative to the top. folders: the top's own, with a
    slash. described: whether there is a dataset.json. watched: each folder's stamp before it was listed.
    """

    top: str
    suffixes: Set[str] = decode.SUFFIXES
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
                elif is_image(entry.name, self.suffixes):
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
        if is_image(name, self.suffixes) or name == DESCRIPTION:
            target = printable(os.readlink(path))  # noqa: PTH115
            raise DataError(f"{printable(path)} is a link to {target}, which is not there: mend it or take it away")
        self.left_out.named(f"{name} (a link to nothing)")
