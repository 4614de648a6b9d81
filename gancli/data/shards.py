"""Tar shards as a data set, grouped into samples by WebDataset's rules."""

from __future__ import annotations

import io
import json
import math
import re
import tarfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.gather import gather
from gancli.data.layout import Arranged, IgnoredFiles, by_folders, present
from gancli.data.listing import LARGEST_FILE, Listing, Names, is_hidden, is_image, kind_of, refuse_escape, stamp
from gancli.data.pixels import Size
from gancli.data.rows import Opened
from gancli.data.source import Source, StreamOptions, check_split
from gancli.errors import ConfigError, DataError

MOST_SHARDS = 100_000
_LARGEST_LABEL = 1 << 20  # bytes of a .cls or .json file


def webdataset(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    image: str | None = None,
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """The images of uncompressed tar shards, the same rows as the same images in a folder.

    root: a .tar file, or several by braces ('shards-{000..009}.tar'). Files of one name up to the first dot are one
    sample. image: the extension of its picture; null: the only one that is an image. Labels: from `.cls` files, else
    from "label" in `.json` files, else each top folder is a class. Rows are sorted by name over all shards. Raises
    ConfigError for a missing `root` or a wrong size, DataError if WebDataset is not installed and, naming the entry,
    for a shard that is damaged or hostile (links, entries that point outside, or too large).
    Source: https://github.com/webdataset/webdataset (the format's rules).
    """
    check_split("webdataset", split, ["train"])
    if root is None or not root.strip():
        said = "needs to know which shards" if root is None else "was given an empty dataset.root"
        raise ConfigError(f"dataset=webdataset {said}: type dataset.root='shards-{{000..009}}.tar'")
    place = Shards(expand(root), image)
    try:
        return gather(
            place,
            size=size,
            limit=limit,
            store=store,
            check=check,
            **dealt,
        )
    except OSError as error:
        raise DataError(f"dataset.root={root} cannot be read ({error.strerror}): make it readable") from error


def expand(root: str) -> list[Path]:
    """Return the shards' paths. Raises DataError if one is not a local .tar file."""
    try:
        from braceexpand import braceexpand
    except ImportError:
        raise _missing() from None
    if "://" in root or root.startswith("pipe:"):
        raise DataError(f"dataset.root={root}: shards are read from local disks only: copy them first")
    # Counted first: the expansion holds each range in memory.
    spans = [abs(int(b) - int(a)) + 1 for a, b in re.findall(r"\{(-?\d{1,30})\.\.(-?\d{1,30})", root)]
    if math.prod(spans) > MOST_SHARDS:
        raise DataError(f"dataset.root={root} names more than {MOST_SHARDS:,} shards: make fewer, larger ones")
    try:
        names = list(islice(braceexpand(root), MOST_SHARDS + 1))
    except ValueError:
        raise DataError(f"dataset.root={root} has a brace that is not closed: type 'shards-{{000..009}}.tar'") from None
    if len(names) > MOST_SHARDS:
        raise DataError(f"dataset.root={root} names more than {MOST_SHARDS:,} shards: make fewer, larger ones")
    paths = [Path(name).expanduser() for name in names]
    for path in paths:
        if path.suffix.lower() != ".tar":
            raise DataError(
                f"dataset.root={root}: {path} is not a .tar file: shards are uncompressed, as in 'x-{{0..9}}.tar'"
            )
        if not path.is_file():
            what = f"is a {kind_of(path.stat().st_mode)}" if path.exists() else "does not exist"
            raise DataError(f"dataset.root={root}: {path} {what}: type dataset.root='shards-{{000..009}}.tar'")
    return paths


def _missing() -> DataError:
    return DataError("dataset=webdataset needs WebDataset, which is not installed: type pip install 'gancli[shards]'")


@dataclass
class _Sample:
    """A sample of a shard."""

    name: str
    shard: int
    images: list[tuple[str, int, int]] = field(default_factory=list)  # entry, offset, size
    label: int | None = None


@dataclass(frozen=True)
class Shards:
    """Tar shards (a `Place`)."""

    paths: Sequence[Path]
    image: str | None
    kind = "webdataset"
    stamps_prove = True

    @property
    def root(self) -> str:
        """All files, links resolved, and which of a sample's images is used."""
        more = "" if self.image is None else f" ({self.image})"
        return " ".join(str(path.resolve()) for path in self.paths) + more

    def listing(self) -> Listing:
        """List the images, sorted by name. Raises DataError."""
        watched = {str(path.resolve()): stamp(path) for path in self.paths}
        left_out = IgnoredFiles()
        folders, samples = set[str](), list[_Sample]()
        for i, path in enumerate(self.paths):
            samples += _samples(path, i, self.image, left_out, folders)
        if not samples:
            wanted = "images" if self.image is None else f"files ending in .{self.image}"
            problem = f"the shards, the first of them {self.paths[0]}, hold no {wanted}: type dataset.image=EXTENSION"
            raise DataError("; ".join([problem, *left_out.note()]))
        found = self._labelled(samples, [sample.images[0][0] for sample in samples], folders)
        chosen = [samples[i] for i in found.order]
        where = np.array([(s.shard, s.images[0][1], s.images[0][2]) for s in chosen], np.int64)
        names, notes = Names.of(s.images[0][0] for s in chosen), (*left_out.note(), *found.notes)
        return Listing(names, where[:, 2], where, found.labels, found.classes, watched, notes)

    def files(self, listing: Listing) -> Members:
        """Return an object that reads the members, one at a time."""
        return Members([str(path.resolve()) for path in self.paths], listing.names, listing.where)

    def _labelled(self, samples: Sequence[_Sample], names: Sequence[str], folders: set[str]) -> Arranged:
        told = [sample.label is not None for sample in samples]
        if not any(told):
            return by_folders(str(self.paths[0]), names, folders)
        if not all(told):
            first = samples[told.index(False)]
            raise DataError(f"{self.paths[first.shard]}: {first.name} has no label, but others do: label all or none")
        order = sorted(range(len(names)), key=names.__getitem__)
        labels = np.array([samples[i].label for i in order], np.int64)
        return Arranged(order, *present(str(self.paths[0]), labels))


class Members:
    """Members of shards, by index; read by offset, so that threads share the files."""

    def __init__(self, paths: Sequence[str], names: Names, where: NDArray[np.int64]):
        self._paths, self._names, self._where = paths, names, where
        self._opened: dict[int, Opened] = {}

    def __len__(self) -> int:
        return len(self._names)

    def name(self, i: int) -> str:
        """SHARD:ENTRY."""
        return f"{self._paths[int(self._where[i, 0])]}:{self._names[i]}"

    def open(self, i: int) -> BinaryIO:
        """Open the member's bytes. Raises OSError or EOFError."""
        shard, offset, size = self._where[i].tolist()
        file = self._opened.get(shard)
        if file is None:
            file = self._opened.setdefault(shard, Opened(self._paths[shard]))
            if len(self._opened) > 256:  # far below a process's limit of open files
                self._opened.pop(next(iter(self._opened)))
        return io.BytesIO(file.read(size, offset))


def _samples(path: Path, shard: int, image: str | None, left_out: IgnoredFiles, folders: set[str]) -> list[_Sample]:
    """Return the samples of a shard that have an image; count the rest, collect folders. Raises DataError."""
    try:
        from webdataset.tariterators import base_plus_ext
    except ImportError:
        raise _missing() from None
    found: dict[str, _Sample] = {}
    names: set[str] = set()
    size = path.stat().st_size
    file = Opened(str(path))
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                tar.members = []  # type: ignore[attr-defined]  # else it would keep all members
                _refuse_hostile(path, member, size, names)
                if not is_hidden(member.name):
                    folders.add(
                        f"{member.name}/" if member.isdir() else f"{member.name.rpartition('/')[0]}/".lstrip("/")
                    )
                if not member.isreg():
                    continue
                base, extension = base_plus_ext(member.name)
                if is_hidden(member.name):
                    left_out.add("hidden file")
                    continue
                if base is None:
                    left_out.file(member.name)
                    continue
                sample = found.setdefault(base, _Sample(base, shard))
                plain = extension.lower()
                if plain == image if image is not None else is_image(f"x.{plain}") and "." not in plain:
                    sample.images.append((member.name, member.offset_data, member.size))
                elif plain == "cls" or (plain == "json" and sample.label is None):
                    label = _label(path, member, file)
                    sample.label = sample.label if label is None else label
                else:
                    left_out.file(member.name)
            if tar.offset + 512 > size:
                raise EOFError("it is truncated")
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(f"{path} cannot be read as a tar shard ({reason}): make or copy it again") from error
    for sample in found.values():
        if len(sample.images) > 1:
            raise DataError(
                f"{path}: {sample.name} has {len(sample.images)} images ({sample.images[0][0]}, ...): "
                "choose one, as in dataset.image=jpg"
            )
    bare = sum(not sample.images for sample in found.values())
    if bare:
        left_out.add("sample without an image", bare)
    return [sample for sample in found.values() if sample.images]


def _refuse_hostile(path: Path, member: tarfile.TarInfo, size: int, names: set[str]) -> None:
    """Raise DataError naming a member that no valid shard has."""
    refuse_escape(str(path), member.name)
    if not (member.isreg() or member.isdir()) or member.issparse():
        raise DataError(f"{path}: the entry {member.name} is not a regular file: make the shard again without it")
    if member.isreg() and member.offset_data + member.size > size:
        raise DataError(f"{path} is truncated: the entry {member.name} ends beyond it: copy the shard again")
    if is_image(member.name) and member.size > LARGEST_FILE:
        raise DataError(f"{path}: the entry {member.name} has {member.size >> 20} MiB; the limit is 256")
    if member.isreg() and member.name in names:
        raise DataError(f"{path} has the entry {member.name} twice: make the shard again")
    names.add(member.name)


def _label(path: Path, member: tarfile.TarInfo, file: Opened) -> int | None:
    """Return a sample's class number; None if its JSON has none. Raises DataError."""
    if member.size > _LARGEST_LABEL:
        raise DataError(f"{path}: the entry {member.name} is too large for a label: write an integer")
    text = file.read(member.size, member.offset_data)
    try:
        if member.name.endswith(".cls"):
            number: Any = int(text)
        else:
            described = json.loads(text)
            number = described.get("label") if isinstance(described, dict) else None
            if number is None:
                return None
        if type(number) is not int or not 0 <= number < 1 << 62:
            raise ValueError
    except (ValueError, RecursionError):
        raise DataError(f"{path}: the entry {member.name} has no class number: write an integer from 0") from None
    return number
