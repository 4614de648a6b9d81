"""Zip archives of images as a data set, in the layout of StyleGAN's dataset_tool or as folders of classes."""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.gather import gather
from gancli.data.layout import DESCRIPTION, LARGEST_DESCRIPTION, IgnoredFiles, by_description, by_folders, common_top
from gancli.data.listing import (
    LARGEST_FILE,
    Listing,
    Names,
    given_file,
    is_hidden,
    is_image,
    refuse_escape,
    stamp,
)
from gancli.data.pixels import Size
from gancli.data.rows import Opened
from gancli.data.source import Source, StreamOptions, check_split
from gancli.errors import DataError

_LOCAL = struct.Struct("<4s22xHH")  # an entry's own header: signature, ..., lengths of its name and of its extras
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, struct.error, zlib.error)


def archive(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """The images of one zip archive (`dataset=zip`), the same rows as the same images in a folder.

    Labels: from `dataset.json` if there is one ({"labels": [["00000/img.png", 3], ...]} or null, as written by
    StyleGAN's dataset_tool), else each top folder is a class, else none. All else is as in `folder`. Raises
    ConfigError for a missing `root` or a wrong size, DataError, naming the entry, for an archive that is damaged,
    encrypted or hostile (entries that point outside, overlap, are links or unpack to too much).
    """
    check_split("zip", split, ["train"])
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
        raise DataError(f"dataset.root={root} cannot be read ({error.strerror}): make it readable") from error


def place(root: str | None) -> Zip:
    """Return the archive that `dataset.root` names. Raises ConfigError or DataError if it is missing."""
    return Zip(given_file("zip", root, "FILE.zip"))


@dataclass(frozen=True)
class Zip:
    """A zip archive (a `Place`)."""

    path: Path
    kind = "zip"
    stamps_prove = True

    @property
    def root(self) -> str:
        """The file, links resolved."""
        return str(self.path.resolve())

    def listing(self) -> Listing:
        """List the images, sorted by name. Raises DataError."""
        watched = {self.root: stamp(self.path)}
        left_out = IgnoredFiles()
        entries, folders, description = self._entries(left_out)
        images = {name: entry for name, entry in entries.items() if is_image(name)}
        if not images:
            problem = f"{self.path} holds no images{_inner(list(entries))}: put images into it, in folders of classes"
            raise DataError("; ".join([problem, *left_out.note()]))
        names, top = list(images), common_top(list(entries))
        if description is not None:
            found = by_description(f"{self.path}:{top}{DESCRIPTION}", description, names, top)
        else:
            found = by_folders(str(self.path), names, folders)
        chosen = [(names[i], images[names[i]]) for i in found.order]
        facts = [(e.header_offset, e.compress_size, e.file_size, e.compress_type, e.CRC) for _, e in chosen]
        where, told = np.array(facts, np.int64), (*left_out.note(), *found.notes)
        packed = Names.of(name for name, _ in chosen)
        return Listing(packed, where[:, 2], where, found.labels, found.classes, watched, told)

    def files(self, listing: Listing) -> Entries:
        """Return an object that unpacks the entries, one at a time."""
        return Entries(self.root, listing.names, listing.where)

    def _entries(self, left_out: IgnoredFiles) -> tuple[dict[str, zipfile.ZipInfo], list[str], bytes | None]:
        """Return entries by name that are not hidden, the folders, and the contents of dataset.json if there is one."""
        try:
            with zipfile.ZipFile(self.path) as file:
                if not file.infolist():
                    raise DataError(f"{self.path} is an empty zip archive: put images into it")
                # Windows' own tools once wrote backslashes between folders.
                named = [(entry.filename.replace("\\", "/"), entry) for entry in file.infolist()]
                files = [(name, entry) for name, entry in named if not name.endswith("/")]
                _refuse_hostile(self.path, files)
                found = {name: entry for name, entry in files if not is_hidden(name)}
                description = f"{common_top(list(found))}{DESCRIPTION}"
                for name in found:
                    if not is_image(name) and name != description:
                        left_out.file(name)
                if len(found) < len(files):
                    left_out.add("hidden file", len(files) - len(found))
                folders = [name for name, _ in named if "/" in name and not is_hidden(name)]
                return found, folders, file.read(found[description]) if description in found else None
        except (zipfile.BadZipFile, *_DAMAGED) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.path} cannot be read as a zip archive ({reason}): make or copy it again") from error


class Entries:
    """Entries of an archive, by index; read by offset, so that threads share one file."""

    def __init__(self, path: str, names: Names, where: NDArray[np.int64]):
        self._file, self._names, self._where = Opened(path), names, where

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """ARCHIVE:ENTRY."""
        return f"{self._file.path}:{self._names[i]}"

    def open(self, i: int) -> BinaryIO:
        """Unpack the entry in memory, up to its recorded size. Raises EOFError or ValueError if it is damaged."""
        offset, packed, size, method, checksum = self._where[i].tolist()
        signature, name_length, extra_length = _LOCAL.unpack(self._file.read(_LOCAL.size, offset))
        if signature != b"PK\x03\x04":
            raise ValueError("its header is damaged")
        data = self._file.read(packed, offset + _LOCAL.size + name_length + extra_length)
        if method == zipfile.ZIP_DEFLATED:
            unpacker = zlib.decompressobj(-15)
            data = unpacker.decompress(data, size + 1)
            if len(data) == size and not unpacker.eof:
                unpacker.decompress(unpacker.unconsumed_tail, 1)
        if len(data) != size:
            raise ValueError(f"it does not unpack to the {size} bytes that its header gives")
        if zlib.crc32(data) != checksum:
            raise ValueError("its checksum is wrong")
        return io.BytesIO(data)


def _refuse_hostile(path: Path, named: Sequence[tuple[str, zipfile.ZipInfo]]) -> None:
    """Raise DataError naming an entry that no valid archive of images has, before anything is unpacked."""
    seen: set[str] = set()
    for name, entry in named:
        refuse_escape(str(path), entry.orig_filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"{path}: the entry {name} is a link: make the archive again with the files themselves")
        if entry.flag_bits & 1:
            raise DataError(f"{path}: the entry {name} is encrypted: make the archive again without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: the entry {name} is packed by method {entry.compress_type}: store or deflate it")
        most = LARGEST_DESCRIPTION if name.endswith(DESCRIPTION) else LARGEST_FILE if is_image(name) else 1 << 62
        if max(entry.file_size, entry.compress_size) > most:
            unpacked = f"unpacks to {entry.file_size >> 20} MiB; the limit is {most >> 20}"
            raise DataError(f"{path}: the entry {name} {unpacked}")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise DataError(f"{path}: the entry {name} is stored with two different sizes: make the archive again")
        if name in seen:
            raise DataError(f"{path} has the entry {name} twice: make the archive again")
        seen.add(name)
    size = path.stat().st_size
    ordered = sorted((entry for _, entry in named), key=lambda entry: entry.header_offset)
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        end = entry.header_offset + 30 + len(entry.orig_filename) + entry.compress_size
        if end > size:
            raise DataError(f"{path} is truncated: the entry {entry.filename} ends beyond it: copy the archive again")
        if following is not None and end > following.header_offset:
            raise DataError(f"{path}: {entry.filename} and {following.filename} overlap: make the archive again")


def _inner(names: Sequence[str]) -> str:
    name = next((name for name in names if name.lower().endswith((".zip", ".tar", ".gz", ".7z"))), None)
    return f" (archives in archives, such as {name}, are not opened)" if name else ""
