"""What a folder or an archive holds, in a few arrays."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.errors import DataError

LARGEST_FILE = 1 << 28  # bytes of one image file, unpacked: more than any image within the limit of pixels needs
LARGEST_CLASSES = 100_000


class Names:
    """Texts by number, kept as one run of bytes and where each ends."""

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]):
        self.blob, self.ends = blob, ends

    @staticmethod
    def of(names: Iterable[str]) -> Names:
        """Texts packed; names that are not UTF-8 come back as they were."""
        coded = [name.encode("utf-8", "surrogateescape") for name in names]
        ends = np.cumsum(np.fromiter(map(len, coded), np.int64, len(coded)))
        return Names(np.frombuffer(b"".join(coded), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.ends)

    def __getitem__(self, i: int) -> str:
        start = int(self.ends[i - 1]) if i else 0
        return self.blob[start : int(self.ends[i])].tobytes().decode("utf-8", "surrogateescape")


@dataclass(frozen=True)
class Listing:
    """Image files in the order of their rows.

    sizes: bytes of each, int64 [N]. where: what finds it and tells it from a changed one, int64 [N, k]. labels: int64
    [N] or None. watched: absolute paths and their `stamp` before they were listed: while those hold, none came or went.
    """

    names: Names
    sizes: NDArray[np.int64]
    where: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    classes: list[str]
    watched: dict[str, list[int]] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.names)

    def digest(self, *more: object) -> str:
        """A hash of all of it."""
        total = hashlib.blake2b(json.dumps([more, self.classes, len(self)], default=str).encode(), digest_size=16)
        labels = np.empty(0, np.int64) if self.labels is None else self.labels
        for array in (self.names.blob, self.names.ends, self.sizes, self.where, labels):
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def pick(self, keep: NDArray[np.int64]) -> Listing:
        """Only these rows."""
        names = Names.of(self.names[i] for i in keep.tolist())
        labels = None if self.labels is None else self.labels[keep]
        return Listing(names, self.sizes[keep], self.where[keep], labels, self.classes, self.watched)


class Files(Protocol):
    """Image files by number, wherever they lie."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """What a message calls file i."""

    def open(self, i: int) -> BinaryIO:
        """File i, to be closed by the caller. Raises OSError or ValueError where it cannot be had whole."""


class Place(Protocol):
    """Where images lie: a folder, an archive, shards."""

    @property
    def kind(self) -> str:
        """How the data set is called."""

    @property
    def root(self) -> str:
        """What was given, and what tells this place from others."""

    @property
    def stamps_prove(self) -> bool:
        """Whether unchanged times of the watched paths prove that no image was changed in place."""

    def listing(self) -> Listing:
        """All image files. Raises DataError."""

    def files(self, listing: Listing) -> Files:
        """What opens the files of a listing."""


def stamp(path: str | os.PathLike[str]) -> list[int]:
    """When a path was changed (ns), its size, and its number: what a change of it changes. Raises OSError."""
    found = os.stat(path)  # noqa: PTH116 - a Path a file is slow
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def is_image(name: str) -> bool:
    """Whether a file's name says that it is an image, and it is not hidden."""
    return os.path.splitext(name)[1].lower() in decode.SUFFIXES  # noqa: PTH122 - a Path a file is slow


def is_hidden(name: str) -> bool:
    """Whether any part of an archive's path is hidden, or a Mac's extra folder."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def refuse_escape(archive: str, name: str) -> None:
    """Raises DataError for an entry that would lie outside of the archive's own folder."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or parts[0][1:2] == ":":
        raise DataError(f"{archive} has the entry {name!r}, which points out of it: make the archive again without it")


def common_top(names: Sequence[str]) -> str:
    """The folder, with its slash, that all of these names lie in; empty where they share none.

    >>> common_top(["a/b/1.png", "a/b/c/2.png"]), common_top(["a/1.png", "2.png"])
    ('a/b/', '')
    """
    if not names:
        return ""
    low, high = min(names).split("/")[:-1], max(names).split("/")[:-1]
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return "".join(f"{part}/" for part in low[:same])


def by_folders(archive: str, names: Sequence[str]) -> tuple[list[int], NDArray[np.int64] | None, list[str]]:
    """The order of an archive's images, by folder and name as `folder` has them, with labels and class names.

    One level of folders are classes; a folder that holds everything is none. Raises DataError for loose images beside
    folders of images, and for deeper ones.
    """
    top = len(common_top(names))
    split = [name[top:].rpartition("/")[::2] for name in names]
    folders = sorted({folder for folder, _ in split})
    deep = next((i for i, (folder, _) in enumerate(split) if "/" in folder), None)
    if deep is not None:
        raise DataError(
            f"{archive}: {names[deep]} lies more than one folder deep: one level of folders are classes, or a "
            "dataset.json beside them names the labels"
        )
    if "" in folders and len(folders) > 1:
        raise DataError(f"{archive} has loose images and folders of images ({folders[1]}, ...): move the loose ones")
    order = sorted(range(len(names)), key=split.__getitem__)
    if folders == [""]:
        return order, None, []
    number = {folder: i for i, folder in enumerate(folders)}
    return order, np.array([number[split[i][0]] for i in order], np.int64), folders


def numbered_classes(source: str, labels: NDArray[np.int64]) -> list[str]:
    """Class names for labels that have none. Raises DataError for labels below 0 or too large to be class numbers."""
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=-1))
    if lowest < 0 or highest >= LARGEST_CLASSES:
        raise DataError(
            f"{source}: labels run from {lowest} to {highest}, and 0 to {LARGEST_CLASSES - 1} are allowed: "
            "number the classes from 0"
        )
    return [str(i) for i in range(highest + 1)]
