"""Image pairs of the user: folders A and B with equal names, or files that hold both side by side."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from gancli.data.domains import (
    SPLITS,
    Channels,
    Side,
    beside,
    contents,
    listed,
    of_split,
    split_folders,
    walked,
    wanted,
)
from gancli.data.imagefile import SUFFIXES
from gancli.data.layout import printable, some
from gancli.data.listing import Listing
from gancli.data.paired import DOMAINS, KEPT, as_feeds, asks_feeds
from gancli.data.pixels import Size
from gancli.data.source import DataSet, Source, StreamOptions, limit_notes
from gancli.data.walk import Walk, given_folder, unlistable
from gancli.errors import ConfigError, DataError

File = tuple[str, int, int]  # name below the folder, size, modification time


def pairs(
    root: str | None = None,
    size: Size = None,
    channels: Channels = None,
    limit: int | None = None,
    split: str = "train",
    disjoint: bool = False,
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    **dealt: Unpack[StreamOptions],
) -> DataSet:
    """Pairs of images, as columns A and B without labels, or as feeds if the game takes feeds.

    root: has folders train, val and test, else everything is `train`; each holds folders A and B with files of equal
    names except for the suffix, or files whose left half is A and whose right half is B. A/train, B/train and trainA,
    trainB are also supported. If there is no test, val is used. size: null keeps images that all have one size, else
    takes the square of the smallest side. channels: null keeps those of the files, alpha composited on white; else
    [a,b]. A domain has 16 bits if any of its files does. disjoint: for feeds, A from the first half of the rows and B
    from the second; rows of test, or of val in its place, keep their partners. store: see `gather`; check: see
    `index.look`. Raises ConfigError for a missing `root` or wrong keys, SplitError for a missing split, DataError
    naming a file that has no partner, differs from it in size, or cannot be read.
    """
    apart = asks_feeds(columns)
    if disjoint and not apart:
        raise ConfigError("dataset.disjoint=true leaves no pairs, but this game needs pairs: leave it out")
    asked = wanted("pairs", size, channels, store, check)
    top = given_folder("pairs", root, "with folders A and B, or files of A and B side by side")
    try:
        sides, notes = _sides(top, split)
        found, counts, told = contents(sides, asked, limit=limit, store=store, check=check, pairs=True)
    except OSError as error:
        raise unlistable(root, error) from error
    if sides[0].half is not None:
        _, height, width = found[0].field.shape
        notes.append(f"each file holds A and B side by side, images of {width}x{height}")
    notes += [*told, *limit_notes(counts[0], limit, None, ())]
    notes += [KEPT] if disjoint and split == "test" else []
    table = Source("pairs", dict(zip(DOMAINS, found, strict=True)), notes=notes, **dealt)
    return as_feeds(table, disjoint=disjoint and split != "test") if apart else table


def _sides(top: Path, split: str) -> tuple[list[Side], list[str]]:
    """Return A and B of a split, and notes. Raises SplitError, and DataError if one of two folders is missing."""
    splits = split_folders(top)
    if not splits:
        named = [name for name in SPLITS if (top / name).is_dir()]
        splits = {name: (top / name, top / name) for name in named} or {"train": (top, top)}
    notes = beside(top, splits.values()) if (top, top) not in splits.values() else []
    (a, b), told = of_split("pairs", splits, split)
    if a == b:
        walk = functools.cache(lambda: _halves(a))
        return [Side("pairs", a, walk, half) for half in (0, 1)], [*notes, *told]
    both = functools.cache(lambda: _partners(a, b))
    return [Side("pairs", a, lambda: both()[0]), Side("pairs", b, lambda: both()[1])], [*notes, *told]


def _halves(folder: Path) -> Listing:
    """List the files that hold both. Raises DataError if there are none."""
    walk = walked(folder)
    if not walk.images:
        raise DataError(
            f"{printable(str(folder))} has neither folders A and B nor images of A and B side by side: put them there"
            f" ({', '.join(sorted(SUFFIXES))})"
        )
    return listed(folder, walk, sorted(walk.images))


def _partners(a: Path, b: Path) -> tuple[Listing, Listing]:
    """List the files of equal names in two folders. Raises DataError for one without a partner, or two of one name."""
    walks = [walked(folder) for folder in (a, b)]
    files = [_by_stem(folder, walk) for folder, walk in zip((a, b), walks, strict=True)]
    for here, there, own, others in ((a, b, files[0], files[1]), (b, a, files[1], files[0])):
        alone = [str(here / own[stem][0]) for stem in sorted(own.keys() - others.keys())]
        if alone:
            has = "have no partners" if len(alone) > 1 else "has no partner"
            raise DataError(
                f"{some(alone)} {has} in {printable(str(there))}: names of a pair differ only in the suffix;"
                " add the missing ones or remove these"
            )
    if not files[0]:
        raise DataError(
            f"{printable(str(a))} and {b.name} have no images: put them there ({', '.join(sorted(SUFFIXES))})"
        )
    a_listing, b_listing = (
        listed(folder, walk, [own[stem] for stem in sorted(own)])
        for folder, walk, own in zip((a, b), walks, files, strict=True)
    )
    return a_listing, b_listing


def _by_stem(folder: Path, walk: Walk) -> dict[str, File]:
    """Map names without suffix to files. Raises DataError if two files share one."""
    found: dict[str, File] = {}
    for file in sorted(walk.images):
        stem = os.path.splitext(file[0])[0]  # noqa: PTH122 - a Path a file is slow
        if stem in found:
            first, second = (printable(str(folder / name)) for name in (found[stem][0], file[0]))
            raise DataError(f"{first} and {second} would have the same partner: remove one of them")
        found[stem] = file
    return found
