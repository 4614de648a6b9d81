"""Image files of two domains, A and B: finding their folders and decoding both to one size."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancli.data import decode, imagefile
from gancli.data.columns import Column
from gancli.data.fields import Image
from gancli.data.folder import Loose
from gancli.data.gather import Found, Held, Sizes, Store, asked_size
from gancli.data.index import Check, look
from gancli.data.layout import DESCRIPTION, printable, some
from gancli.data.listing import Files, Listing
from gancli.data.paired import DOMAINS
from gancli.data.pixels import Shape, Size, window
from gancli.data.source import chosen
from gancli.data.walk import Walk, listing_of
from gancli.errors import ConfigError, DataError, SplitError

SPLITS = ("train", "val", "test")
Channels = int | list[int] | None
_LAYOUTS = ("{split}{domain}", "{split}/{domain}", "{domain}/{split}")
_RULES = 1  # part of the cache key: increment when decoding changes


def taken(name: str) -> bool:
    """Whether a file is an image, by its suffix."""
    return os.path.splitext(name)[1].lower() in imagefile.SUFFIXES  # noqa: PTH122 - a Path a file is slow


def walked(folder: Path) -> Walk:
    """Walk everything below a folder."""
    walk = Walk(str(folder), taken)
    walk.run()
    if walk.described:
        walk.left_out.file(DESCRIPTION)
    return walk


def listed(folder: Path, walk: Walk, files: Sequence[tuple[str, int, int]]) -> Listing:
    """Build a listing of files (name, size, modification time), with notes on what else is in the folder."""
    notes = [line.replace("left out", f"left out of {printable(str(folder))}", 1) for line in walk.left_out.note()]
    return listing_of(files, None, [], walk.watched, notes)


def split_folders(top: Path) -> dict[str, tuple[Path, Path]]:
    """Return the folders of A and B by split: trainA, trainB, or train/A, train/B, or A/train, B/train, or A, B.

    Empty if there are none. Raises DataError if only one of the two exists.
    """
    for layout in _LAYOUTS:
        found = {split: _both(top, layout, split) for split in SPLITS}
        if any(found.values()):
            return {split: folders for split, folders in found.items() if folders}
    folders = _both(top, "{domain}", "")
    return {"train": folders} if folders else {}


def _both(top: Path, layout: str, split: str) -> tuple[Path, Path] | None:
    a, b = (top / layout.format(split=split, domain=domain) for domain in DOMAINS)
    there = [path for path in (a, b) if path.is_dir()]
    if len(there) == 1:
        other = b if there[0] == a else a
        raise DataError(f"{there[0]} exists, but {other} does not: A and B are needed; create it, or rename the other")
    return (a, b) if there else None


def of_split(kind: str, splits: Mapping[str, tuple[Path, Path]], split: str) -> tuple[tuple[Path, Path], list[str]]:
    """Return the folders of a split, and a note if val is used as test. Raises SplitError for other splits."""
    if split in splits:
        return splits[split], []
    if split == "test" and "val" in splits:
        return splits["val"], ["there is no split test: val is used instead"]
    if split in SPLITS:
        listed = " or ".join(f"dataset.split={choice}" for choice in splits)
        raise SplitError(f"dataset={kind} finds no folders of the split {split}: type {listed}, or create them")
    raise SplitError(f"dataset={kind} has no split {split!r}: type dataset.split=train, val or test")


def beside(top: Path, used: Iterable[tuple[Path, Path]]) -> list[str]:
    """Return a note on what is ignored beside the folders of A and B."""
    kept = {path for pair in used for folder in pair for path in (folder, *folder.parents)}
    where = {top} | {path.parent for pair in used for path in pair}
    names = [
        str((folder / name).relative_to(top))
        for folder in sorted(where)
        for name in sorted(os.listdir(folder))  # noqa: PTH208 - names alone
        if not name.startswith(".") and folder / name not in kept
    ]
    return [f"left out of {printable(str(top))}: {some(names)}"] if names else []


@dataclass(frozen=True)
class Side:
    """The files of one domain (a `Place`), all below `top`.

    find: lists them. half: 0 or 1 if a file holds A and B side by side and this domain is its left or right half.
    """

    kind: str
    top: Path
    find: Callable[[], Listing]
    half: int | None = None
    stamps_prove = False

    @property
    def root(self) -> str:
        """The folder, links resolved."""
        return str(self.top.resolve())

    def listing(self) -> Listing:
        """The files in the order of their rows. Raises DataError."""
        return self.find()

    def files(self, listing: Listing) -> Loose:
        """Return an object that opens the files."""
        return Loose(self.top, listing.names)


class Wanted(NamedTuple):
    """The requested height and width, and the channels of A and B; None: as in the files."""

    sides: tuple[int, int] | None
    channels: tuple[int | None, int | None]


def wanted(kind: str, size: Size, channels: Channels, store: str, check: str) -> Wanted:
    """Parse `dataset.size` (one side, [height,width] or [channels,height,width]) and `dataset.channels`.

    Raises ConfigError for anything else, and for an unknown store or check.
    """
    whole = isinstance(size, Sequence) and len(size) == 3
    shape = asked_size(kind, [1, *size] if isinstance(size, Sequence) and len(size) == 2 else size, store, check)
    if channels is None:
        count = shape[0] if shape is not None and whole else None
        return Wanted(None if shape is None else shape[1:], (count, count))
    if whole:
        raise ConfigError(
            f"dataset.size={list(size)} and dataset.channels={channels} set channels twice: type"  # type: ignore[arg-type]
            f" dataset.size=[{size[1]},{size[2]}]"  # type: ignore[index]
        )
    pair = [channels, channels] if isinstance(channels, int) else channels
    if len(pair) != 2 or min(pair) < 1:
        raise ConfigError(f"dataset.channels={channels}: type a number, or one for A and one for B, as in [1,3]")
    return Wanted(None if shape is None else shape[1:], (pair[0], pair[1]))


def contents(
    sides: Sequence[Side], asked: Wanted, *, limit: int | None, store: Store, check: Check, pairs: bool
) -> tuple[list[Column], list[int], list[str]]:
    """Return the columns of A and B, the number of files of each, and notes; files of 8 and 16 bits keep their depth.

    Both get one height and width: the requested ones, else those that all files have, else the square of the smallest
    side. pairs: files of one index are partners and need the same size. Raises DataError naming a file that cannot be
    read or does not fit the others.
    """
    indexes = [look(side, check) for side in sides]
    rows = [chosen(index.count, limit) for index in indexes]
    places = [[side.kind, side.root, side.half, index.digest] for side, index in zip(sides, indexes, strict=True)]
    counts = [index.count if kept is None else len(kept) for index, kept in zip(indexes, rows, strict=True)]
    held = []
    for domain, side, index, kept in zip(DOMAINS, sides, indexes, rows, strict=True):
        said = json.dumps([_RULES, places, asked, counts, domain])
        key = hashlib.blake2b(said.encode(), digest_size=16).hexdigest()
        held.append(Held(side, index, kept, key, store, {bits: _decoder(bits, side.half) for bits in (8, 16)}))
    found = [each.kept() for each in held]
    if None in found:
        shapes = _targets([each.files for each in held], [side.half for side in sides], asked, pairs)
        found = [known or each.fresh(*shape) for known, each, shape in zip(found, held, shapes, strict=True)]
    notes = [note for index in indexes for note in index.notes]
    notes += [note for each in found if each for note in each.notes]
    columns = [_column(each) for each in found if each]
    return columns, [index.count for index in indexes], list(dict.fromkeys(notes))


def _column(found: Found) -> Column:
    channels, height, width = found.content.shape[1:]
    bits = 8 if found.content.dtype == np.uint8 else 16
    return Column(Image(channels, height, width, bits), found.content, found.digest)


class _Target(NamedTuple):
    """The shape, notes and bit depth of a domain's decoded files, as `Held.fresh` takes them."""

    shape: Shape
    notes: list[str]
    bits: int


def _targets(files: Sequence[Files], halves: Sequence[int | None], asked: Wanted, pairs: bool) -> list[_Target]:
    """Derive the targets from all files' headers. Raises DataError, and ConfigError for sides out of range."""
    sizes, seen = Sizes(), [_Seen(domain) for domain in DOMAINS]
    for which, i, found in _pairwise(files, halves) if pairs else _one_by_one(files, halves):
        seen[which].add(found, files[which], i)
        sizes.add(found.height, found.width, files[which], i)
    height, width, notes = (*asked.sides, []) if asked.sides else sizes.common()
    targets = []
    for each, channels in zip(seen, asked.channels, strict=True):
        count, told = each.channels(channels)
        targets.append(_Target((count, height, width), [*notes, *told], 16 if each.deep else 8))
    return targets


def _one_by_one(files: Sequence[Files], halves: Sequence[int | None]) -> Iterator[tuple[int, int, imagefile.Header]]:
    """Yield the domain, index and header of each file."""
    for which, (each, half) in enumerate(zip(files, halves, strict=True)):
        made = decode.in_order(lambda i, each=each, half=half: _header(each, i, half), len(each), decode.RUN)  # type: ignore[misc]
        yield from ((which, i, found) for i, found in enumerate(made))


def _pairwise(files: Sequence[Files], halves: Sequence[int | None]) -> Iterator[tuple[int, int, imagefile.Header]]:
    """As `_one_by_one`, partner after partner. Raises DataError if partners differ in size."""

    def both(i: int) -> list[imagefile.Header]:
        a, b = (_header(each, i, half) for each, half in zip(files, halves, strict=True))
        if (a.height, a.width) != (b.height, b.width):
            raise DataError(
                f"{printable(files[0].name(i))} is {a.width}x{a.height} and its partner {printable(files[1].name(i))}"
                f" {b.width}x{b.height}: give both one size, or remove both"
            )
        return [a, b]

    for i, headers in enumerate(decode.in_order(both, len(files[0]), decode.RUN)):
        yield from ((which, i, found) for which, found in enumerate(headers))


@dataclass
class _Seen:
    """A summary of the headers of a domain's files."""

    domain: str
    first: dict[int, str] = field(default_factory=dict)  # one file for each number of channels
    count: int = 0
    deep: int = 0
    alpha: int = 0

    def add(self, found: imagefile.Header, files: Files, i: int) -> None:
        """Add a file's header."""
        if found.channels not in self.first:
            self.first[found.channels] = files.name(i)
        self.count += 1
        self.deep += found.bits == 16
        self.alpha += found.alpha

    def channels(self, asked: int | None) -> tuple[int, list[str]]:
        """Return the number of channels for all files, and notes on conversions. Raises DataError if files disagree."""
        count = max(self.first) if asked is None else asked
        if asked is None and len(self.first) > 1 and self.first.keys() != {1, 3}:
            (few, one), (more, other) = sorted(self.first.items())[:2]
            raise DataError(
                f"{printable(one)} has {few} channels and {printable(other)} {more}: type dataset.channels=N to"
                " convert all, or use separate folders"
            )
        notes = []
        if 0 < self.deep < self.count:
            notes.append(f"{self.domain}: {self.deep:,} of {self.count:,} images have 16 bits: all are converted to 16")
        if self.alpha and count != 4:
            notes.append(
                f"{self.domain}: {self.alpha:,} of {self.count:,} images have alpha: they are composited on white;"
                " dataset.channels=4 keeps alpha"
            )
        return count, notes


def _header(files: Files, i: int, half: int | None) -> imagefile.Header:
    """Read the header of file i, or of a half of it. Raises DataError naming the file."""
    with decode.named(files.name(i)), files.open(i) as file:
        found = imagefile.header(file)
        return found if half is None else found._replace(width=_half(found.width))


def _half(width: int) -> int:
    if width % 2:
        raise ValueError(f"it is {width} pixels wide, but A and B are its halves: the width must be even")
    return width // 2


def _decoder(bits: int, half: int | None) -> decode.Decoder:
    """Return a decoder of a file, or of a half of it, to uint8 or uint16 [C, H, W]."""

    def one(files: Files, i: int, shape: Shape) -> NDArray[Any]:
        with decode.named(files.name(i)), files.open(i) as file:
            image = imagefile.pixels(file)
            if half is not None:
                image = np.split(image, [_half(image.shape[2])], axis=2)[half]
        return resized(imagefile.fitted(image, shape[0], bits, files.name(i)), *shape[1:])

    return one


def resized(image: NDArray[Any], height: int, width: int) -> NDArray[Any]:
    """Resize the largest central window of the aspect by an antialiased Lanczos filter, as `decode.decode` does."""
    from PIL import Image as Pillow

    if image.shape[1:] == (height, width):
        return image
    top, left, tall, wide = window(image.shape[1], image.shape[2], height, width)
    image = image[:, top : top + math.ceil(tall), left : left + math.ceil(wide)]
    deep = image.dtype == np.uint16
    channels = [
        np.asarray(
            Pillow.fromarray(np.ascontiguousarray(channel, np.float32 if deep else None)).resize(
                (width, height), Pillow.Resampling.LANCZOS, box=(0, 0, wide, tall)
            )
        )
        for channel in image
    ]
    joined = np.stack(channels)
    return joined.round().clip(0, 65535).astype(np.uint16) if deep else joined
