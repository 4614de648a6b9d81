"""Lists of images, kept in the user's cache directory so that a million files are listed only once."""

from __future__ import annotations

import hashlib
import json
import time
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gancli.data import cache
from gancli.data.listing import Listing, Names, Place, stamp
from gancli.errors import DataError, RunError
from gancli.store.files import read_json, whole_file

Check = Literal["auto", "quick", "full"]
CHECKS = ("auto", "quick", "full")
FULL_UP_TO = 200_000  # `auto` checks up to this many files one by one, in a second or two
_FORM = 2  # increment when the stored format changes
_QUIET = 2_000_000_000  # ns: a folder changed this shortly before it was listed may change again with the same time


@dataclass(frozen=True)
class Index:
    """The index of a place: the number of images, a hash of their listing, and the listing on request."""

    count: int
    digest: str
    classes: list[str]
    labels: NDArray[np.int64] | None
    size: int  # bytes of all files
    fresh: Listing | None  # None: read from the cache
    _path: Path
    notes: tuple[str, ...] = ()

    def listing(self) -> Listing:
        """Return the whole listing. Raises DataError if the cached one is gone or changed."""
        if self.fresh is not None:
            return self.fresh
        found = _load(self._path)
        if found is None or found.digest() != self.digest:
            raise DataError(f"{self._path} was changed or removed during the run: start again")
        return found


def look(place: Place, check: Check) -> Index:
    """Return the index of a place: from the cache if still valid, else listed anew. Raises DataError.

    full: compares every file's name, size and modification time. quick: compares the times of the folders (of the
    archive file), which change if a file is added, removed or replaced under its name, but not if it is overwritten in
    place. auto: full up to FULL_UP_TO loose files, else quick; archives are one file each, so that quick misses
    nothing.
    """
    path = _path(place)
    kept = None if check == "full" else _kept(path, place, check)
    if kept is not None:
        return kept
    listing = place.listing()
    total = int(listing.sizes.sum())
    digest, notes = listing.digest(), listing.notes
    return Index(len(listing), digest, listing.classes, listing.labels, total, listing, path, notes)


def keep(index: Index, place: Place) -> None:
    """Write a new index to the cache for the next start. Raises DataError if the cache cannot be written."""
    listing = index.fresh
    if listing is None or not listing.watched:
        return
    now = time.time_ns()
    known = read_json_or_none(index._path)
    told = {"form": _FORM, "root": place.root, "count": index.count, "digest": index.digest}
    told |= {"classes": index.classes, "size": index.size, "watched": listing.watched, "notes": list(index.notes)}
    told |= {"quiet": all(now - changed > _QUIET for changed, *_ in listing.watched.values())}
    if known == told:
        return
    arrays = {"blob": listing.names.blob, "ends": listing.names.ends, "sizes": listing.sizes, "where": listing.where}
    if listing.labels is not None:
        arrays["labels"] = listing.labels
    try:
        with whole_file(index._path.with_suffix(".npz")) as file:
            np.savez(file, **arrays)  # type: ignore[arg-type]
    except RunError as error:
        raise DataError(
            f"the index cannot be cached in {index._path.parent} ({error.__cause__}): "
            "set XDG_CACHE_HOME to another folder"
        ) from error
    cache.keep_json(index._path, told)


def read_json_or_none(path: Path) -> Any:
    """Return a JSON file's value, None if it is missing or damaged."""
    try:
        return read_json(path)
    except RunError:
        return None


def _kept(path: Path, place: Place, check: Check) -> Index | None:
    """Return the cached index, None if there is none or it may be stale."""
    known = read_json_or_none(path)
    try:
        if known["form"] != _FORM or known["root"] != place.root or not known["quiet"]:
            return None
        if check == "auto" and not place.stamps_prove and known["count"] <= FULL_UP_TO:
            return None
        if any(stamp(watched) != before for watched, before in known["watched"].items()):
            return None
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            labels = arrays.get("labels")
        count, digest, size = int(known["count"]), str(known["digest"]), int(known["size"])
        classes, notes = list(map(str, known["classes"])), tuple(map(str, known["notes"]))
        return Index(count, digest, classes, labels, size, None, path, notes)
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None  # damaged: listed again


def _load(path: Path) -> Listing | None:
    known = read_json_or_none(path)
    try:
        with np.load(path.with_suffix(".npz"), allow_pickle=False) as arrays:
            labels = arrays.get("labels")
            names = Names(arrays["blob"], arrays["ends"])
            return Listing(names, arrays["sizes"], arrays["where"], labels, known["classes"], known["watched"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None


def _path(place: Place) -> Path:
    named = hashlib.blake2b(json.dumps([place.kind, place.root]).encode(), digest_size=16).hexdigest()
    return cache.place("index") / f"{named}.json"
