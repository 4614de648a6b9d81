"""Listings of the image files in a folder or an archive, stored in a few arrays."""

from __future__ import annotations

import hashlib
import json
import os
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode
from gancli.errors import ConfigError, DataError

LARGEST_FILE = 1 << 28  # bytes of one image file, unpacked: more than any image within the pixel limit needs


class Names:
    """Strings by index, stored as one array of bytes and the end of each."""

    def __init__(self, blob: NDArray[np.uint8], ends: NDArray[np.int64]):
        self.blob, self.ends = blob, ends

    @staticmethod
    def of(names: Iterable[str]) -> Names:
        """Pack strings; names that are not UTF-8 are restored unchanged."""
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
    """Image files in row order.

    sizes: bytes of each, int64 [N]. where: locates each file and detects changes to it, int64 [N, k]. labels: int64 [N]
    or None. watched: absolute paths and their `stamp` before listing: unchanged stamps mean that no file was added or
    removed. notes: what was ignored or changed, a line each.
    """

    names: Names
    sizes: NDArray[np.int64]
    where: NDArray[np.int64]
    labels: NDArray[np.int64] | None
    classes: list[str]
    watched: dict[str, list[int]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def digest(self, *more: object) -> str:
        """Return a hash of the whole listing."""
        total = hashlib.blake2b(json.dumps([more, self.classes, len(self)], default=str).encode(), digest_size=16)
        labels = np.empty(0, np.int64) if self.labels is None else self.labels
        for array in (self.names.blob, self.names.ends, self.sizes, self.where, labels):
            total.update(np.ascontiguousarray(array).data)
        return total.hexdigest()

    def pick(self, keep: NDArray[np.int64]) -> Listing:
        """Return a listing of these rows only."""
        names = Names.of(self.names[i] for i in keep.tolist())
        labels = None if self.labels is None else self.labels[keep]
        return Listing(names, self.sizes[keep], self.where[keep], labels, self.classes, self.watched, self.notes)


class Files(Protocol):
    """Image files by index, independent of where they are stored."""

    def __len__(self) -> int: ...

    def name(self, i: int) -> str:
        """Return what a message calls file i."""

    def open(self, i: int) -> BinaryIO:
        """Open file i; the caller closes it. Raises OSError or ValueError if it cannot be read completely."""


class Place(Protocol):
    """Where images are stored: a folder, an archive, shards."""

    @property
    def kind(self) -> str:
        """The name of the data set."""

    @property
    def root(self) -> str:
        """What was given; identifies the place."""

    @property
    def stamps_prove(self) -> bool:
        """Whether unchanged stamps of the watched paths prove that no image was overwritten in place."""

    def listing(self) -> Listing:
        """List all image files. Raises DataError."""

    def files(self, listing: Listing) -> Files:
        """Return an object that opens the files of a listing."""


def stamp(path: str | os.PathLike[str]) -> list[int]:
    """Return a path's modification time (ns), size and inode, which reveal changes. Raises OSError."""
    found = os.stat(path)  # noqa: PTH116 - a Path a file is slow
    return [found.st_mtime_ns, found.st_size, found.st_ino]


def kind_of(mode: int) -> str:
    """Return what a path is that is not a regular file, by its mode."""
    kinds = ((stat.S_ISFIFO, "named pipe"), (stat.S_ISSOCK, "socket"), (stat.S_ISDIR, "folder"))
    return next((name for holds, name in kinds if holds(mode)), "device")


def open_plain(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file; never a pipe or device, which might block. Raises OSError or ValueError."""
    mode = os.stat(path).st_mode  # noqa: PTH116 - a Path a file is slow
    if not stat.S_ISREG(mode):
        raise ValueError(f"it is a {kind_of(mode)}, not a file")
    # If it is replaced by a pipe just now, opening still does not block.
    flags = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    handle = os.open(path, os.O_RDONLY | flags)
    return os.fdopen(handle, "rb")


def given_file(kind: str, root: str | None, example: str) -> Path:
    """Return the regular file that `dataset.root` names.

    kind: of the data set. example: a file's name. Raises ConfigError if none is given, DataError if it is no file.
    """
    if root is None or not root.strip():
        said = "needs to know which file" if root is None else "was given an empty dataset.root"
        raise ConfigError(f"dataset={kind} {said}: type dataset.root={example}")
    path = Path(root).expanduser()
    if path.is_dir():
        raise DataError(f"dataset.root={root} is a folder, not a file: type dataset=folder, or dataset.root={example}")
    if not path.exists():
        raise DataError(f"dataset.root={root} does not exist: type dataset.root={example}")
    if not path.is_file():
        raise DataError(f"dataset.root={root} is a {kind_of(path.stat().st_mode)}: type dataset.root={example}")
    return path


def is_image(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in decode.SUFFIXES  # noqa: PTH122 - a Path a file is slow


def is_hidden(name: str) -> bool:
    """Whether any part of a path in an archive is hidden, or a folder that macOS adds."""
    return any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))


def refuse_escape(archive: str, name: str) -> None:
    """Raise DataError for an entry that would be unpacked outside the archive's own folder."""
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or "\0" in name or parts[0][1:2] == ":":
        raise DataError(f"{archive} has the entry {name!r}, which points outside it: make the archive again without it")
