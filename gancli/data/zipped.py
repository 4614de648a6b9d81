"""A zip archive of images as a data set, in the layout of StyleGAN's dataset_tool or as folders of classes."""

from __future__ import annotations

import io
import json
import stat
import struct
import zipfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray

from gancli.data.gather import gather
from gancli.data.listing import (
    LARGEST_FILE,
    Listing,
    Names,
    by_folders,
    common_top,
    is_hidden,
    is_image,
    numbered_classes,
    refuse_escape,
    stamp,
)
from gancli.data.pixels import Size
from gancli.data.rows import Opened
from gancli.data.source import Source, check_split
from gancli.errors import ConfigError, DataError

_LOCAL = struct.Struct("<4s22xHH")  # an entry's own header: signature, ..., lengths of its name and of its extras
_DAMAGED = (OSError, ValueError, EOFError, KeyError, RuntimeError, NotImplementedError, struct.error, zlib.error)


def archive(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
) -> Source:
    """The images of one zip archive (`dataset=zip`), the same rows as the same images in a folder.

    Labels: of `dataset.json` where there is one ({"labels": [["00000/img.png", 3], ...]} or null, as StyleGAN's
    dataset_tool writes it), else of one level of folders, else none. All else is as in `folder`.
    Raises ConfigError for a missing `root` or a wrong size, DataError for an archive that is damaged, encrypted or
    hostile (entries that point out of it, overlap, are links or unpack to too much), by the entry's name.
    """
    check_split("zip", split, ["train"])
    if root is None:
        raise ConfigError("dataset=zip needs to know which file: type dataset.root=FILE.zip")
    path = Path(root).expanduser()
    if path.is_dir():
        raise DataError(f"dataset.root={root} is a folder, not a file: type dataset=folder, or dataset.root=FILE.zip")
    if not path.is_file():
        raise DataError(f"dataset.root={root} does not exist: type dataset.root=FILE.zip")
    try:
        return gather(Zip(path), size=size, limit=limit, flip=flip, dequantize=dequantize, store=store, check=check)
    except OSError as error:
        raise DataError(f"dataset.root={root} cannot be read ({error.strerror}): make it readable") from error


@dataclass(frozen=True)
class Zip:
    """A zip archive as a place."""

    path: Path
    kind = "zip"
    stamps_prove = True

    @property
    def root(self) -> str:
        """The file, links resolved."""
        return str(self.path.resolve())

    def listing(self) -> Listing:
        """The images in the order of their names. Raises DataError."""
        watched = {self.root: stamp(self.path)}
        entries, described = self._entries()
        images = [entry for entry in entries if is_image(entry.filename)]
        if not images:
            raise DataError(f"{self.path} holds no images{_inner(entries)}: put images into it, in folders of classes")
        names = [entry.filename for entry in images]
        if described is not None:
            order = sorted(range(len(names)), key=names.__getitem__)
            labels, classes = _described(self.path, [names[i] for i in order], *described)
        else:
            order, labels, classes = by_folders(str(self.path), names)
        chosen = [images[i] for i in order]
        facts = [(e.header_offset, e.compress_size, e.file_size, e.compress_type, e.CRC) for e in chosen]
        where = np.array(facts, np.int64)
        return Listing(Names.of(e.filename for e in chosen), where[:, 2], where, labels, classes, watched)

    def files(self, listing: Listing) -> Entries:
        """What unpacks them, one at a time."""
        return Entries(self.root, listing.names, listing.where)

    def _entries(self) -> tuple[list[zipfile.ZipInfo], tuple[str, Any] | None]:
        """All entries that are not hidden, and dataset.json's folder and contents where there is one."""
        try:
            with zipfile.ZipFile(self.path) as file:
                everything = [entry for entry in file.infolist() if not entry.is_dir()]
                _refuse_hostile(self.path, everything)
                entries = [entry for entry in everything if not is_hidden(entry.filename)]
                top = common_top([entry.filename for entry in entries])
                found = next((entry for entry in entries if entry.filename == f"{top}dataset.json"), None)
                return entries, None if found is None else (top, json.loads(file.read(found)))
        except (zipfile.BadZipFile, *_DAMAGED) as error:
            reason = " ".join(str(error).split()) or type(error).__name__
            raise DataError(f"{self.path} cannot be read as a zip archive ({reason}): make or copy it again") from error


class Entries:
    """Entries of an archive, by number; read at their places, so that threads share one file."""

    def __init__(self, path: str, names: Names, where: NDArray[np.int64]):
        self._file, self._names, self._where = Opened(path), names, where

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """ARCHIVE:ENTRY."""
        return f"{self._file.path}:{self._names[i]}"

    def open(self, i: int) -> BinaryIO:
        """The entry unpacked in memory, never more than it says. Raises EOFError or ValueError where it is damaged."""
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
            raise ValueError(f"it unpacks to another size than the {size} bytes it says")
        if zlib.crc32(data) != checksum:
            raise ValueError("its checksum is wrong")
        return io.BytesIO(data)


def _refuse_hostile(path: Path, entries: Sequence[zipfile.ZipInfo]) -> None:
    """Raises DataError naming an entry that no honest archive of images has, before anything is unpacked."""
    seen: set[str] = set()
    for entry in entries:
        name = entry.filename
        refuse_escape(str(path), entry.orig_filename)
        if stat.S_ISLNK(entry.external_attr >> 16):
            raise DataError(f"{path}: the entry {name} is a link: make the archive again with the files themselves")
        if entry.flag_bits & 1:
            raise DataError(f"{path}: the entry {name} is encrypted: make the archive again without a password")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(f"{path}: the entry {name} is packed by method {entry.compress_type}: store or deflate it")
        wanted = is_image(name) or name.endswith("dataset.json")
        if wanted and max(entry.file_size, entry.compress_size) > LARGEST_FILE:
            raise DataError(f"{path}: the entry {name} unpacks to {entry.file_size >> 20} MiB, and 256 are the limit")
        if entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size:
            raise DataError(f"{path}: the entry {name} is stored and says two sizes: make the archive again")
        if name in seen:
            raise DataError(f"{path} has the entry {name} twice: make the archive again")
        seen.add(name)
    size = path.stat().st_size
    ordered = sorted(entries, key=lambda entry: entry.header_offset)
    for entry, following in zip(ordered, [*ordered[1:], None], strict=True):
        end = entry.header_offset + 30 + len(entry.orig_filename) + entry.compress_size
        if end > size:
            raise DataError(f"{path} is cut short: the entry {entry.filename} ends beyond it: copy the archive again")
        if following is not None and end > following.header_offset:
            raise DataError(f"{path}: {entry.filename} and {following.filename} overlap: make the archive again")


def _inner(entries: Sequence[zipfile.ZipInfo]) -> str:
    name = next((e.filename for e in entries if e.filename.lower().endswith((".zip", ".tar", ".gz", ".7z"))), None)
    return f" (archives in archives, such as {name}, are not opened)" if name else ""


def _described(path: Path, names: Sequence[str], top: str, found: Any) -> tuple[NDArray[np.int64] | None, list[str]]:
    """Labels and class names by dataset.json. Raises DataError for one that does not label these images."""
    where = f"{path}:{top}dataset.json"
    given = found.get("labels") if isinstance(found, dict) else found
    if isinstance(found, dict) and given is None:
        return None, []
    shown = '{"labels": [["00000/img00000000.png", 3], ...]} or {"labels": null}'
    if not isinstance(given, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int
        for pair in given
    ):
        raise DataError(f"{where} names no whole-number labels: write {shown}")
    known = {f"{top}{name}": label for name, label in given}
    missing = next((name for name in names if name not in known), None)
    if missing is not None:
        raise DataError(f"{where} has no label for {missing}: write {shown}")
    if not all(0 <= label < 1 << 62 for label in known.values()):
        raise DataError(f"{where} has labels that are no class numbers: number the classes from 0")
    labels = np.array([known[name] for name in names], np.int64)
    return labels, numbered_classes(where, labels)
