"""Unpaired images of the user: two domains in two folders."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Literal

from typing_extensions import Unpack

from gancli.data.domains import Channels, Side, beside, contents, listed, of_split, split_folders, walked, wanted
from gancli.data.imagefile import SUFFIXES
from gancli.data.layout import printable
from gancli.data.listing import Listing
from gancli.data.paired import DOMAINS, asks_feeds
from gancli.data.pixels import Size
from gancli.data.source import DataSet, Source, Sources, StreamOptions, limit_notes
from gancli.data.walk import given_folder, unlistable
from gancli.errors import CombinationError, DataError


def unpaired(
    root: str | None = None,
    root_B: str | None = None,
    size: Size = None,
    channels: Channels = None,
    limit: int | None = None,
    split: str = "train",
    store: Literal["raw", "encoded"] = "raw",
    check: Literal["auto", "quick", "full"] = "auto",
    *,
    columns: Mapping[str, str] | None = None,
    **dealt: Unpack[StreamOptions],
) -> DataSet:
    """Images of two domains as the feeds A and B, without labels, each yielded in its own order.

    root: has folders trainA and trainB, optionally testA and testB, or train/A, A/train and the like, or only A and B,
    which are `train`. With root_B, root is A's folder and root_B is B's. If there is no test, val is used. size,
    channels, bits, store, check: as in `pairs`; both domains have one size. Raises ConfigError for a missing `root` or
    wrong keys, CombinationError for a game that learns from pairs, SplitError for a missing split, DataError for a
    folder without images and, naming it, for a file that cannot be read.
    """
    if not asks_feeds(columns) and set(DOMAINS) <= (columns or {}).keys():
        raise CombinationError(
            "dataset=unpaired has no pairs, but this game learns from pairs: type dataset=pairs or model=cyclegan"
        )
    asked = wanted("unpaired", size, channels, store, check)
    try:
        (a, b), notes = _folders(root, root_B, split)
        sides = [Side("unpaired", folder, functools.cache(functools.partial(_listing, folder))) for folder in (a, b)]
        found, counts, told = contents(sides, asked, limit=limit, store=store, check=check, pairs=False)
    except OSError as error:
        raise unlistable(root, error) from error
    notes += told
    for domain, count in zip(DOMAINS, counts, strict=True):
        notes += [f"{domain}: {note}" for note in limit_notes(count, limit, None, ())]
    feeds = {domain: Source("unpaired", {"x": column}, **dealt) for domain, column in zip(DOMAINS, found, strict=True)}
    return Sources("unpaired", feeds, notes)


def _folders(root: str | None, root_B: str | None, split: str) -> tuple[tuple[Path, Path], list[str]]:
    """Return the folders of a split, and notes on what is ignored. Raises ConfigError, SplitError and DataError."""
    top = given_folder("unpaired", root, "with folders trainA and trainB, or with A's images beside dataset.root_B")
    if root_B is not None:
        other = given_folder("unpaired", root_B, "with images of B", key="root_B")
        if split_folders(top):
            raise DataError(
                f"dataset.root={root} has folders of both domains: leave dataset.root_B out, or name A's folder"
            )
        return of_split("unpaired", {"train": (top, other)}, split)
    splits = split_folders(top)
    if not splits:
        raise DataError(
            f"dataset.root={root} has neither folders trainA and trainB nor A and B: make them, or type"
            " dataset.root=FOLDER_OF_A dataset.root_B=FOLDER_OF_B"
        )
    folders, told = of_split("unpaired", splits, split)
    return folders, [*beside(top, splits.values()), *told]


def _listing(folder: Path) -> Listing:
    """List a domain's files, sorted. Raises DataError if there are none."""
    walk = walked(folder)
    if not walk.images:
        raise DataError(f"{printable(str(folder))} has no images: put them there ({', '.join(sorted(SUFFIXES))})")
    return listed(folder, walk, sorted(walk.images))
