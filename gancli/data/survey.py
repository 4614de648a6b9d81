"""Number and sizes of a data set's images, from the files' headers: before a size is chosen and pixels are decoded."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from gancli.data import decode, folder, zipped
from gancli.data.index import look
from gancli.data.listing import Place
from gancli.data.source import chosen, order
from gancli.errors import DataError

PLACES: dict[str, Callable[[str | None], Place]] = {
    "gancli.data.folder.folder": folder.place,
    "gancli.data.zipped.archive": zipped.place,
}
MOST = 5000  # headers that are read


@dataclass(frozen=True)
class Survey:
    """images: their number. shortest, longest: side in pixels of any image. side: median of their shorter sides."""

    images: int
    shortest: int
    longest: int
    side: int

    @staticmethod
    def of(sizes: Iterable[tuple[int, int]], images: int | None = None) -> Survey:
        """Return the survey of images by height and width. images: their number, if these are some of them.

        >>> Survey.of([(40, 60), (50, 50), (90, 70)])
        Survey(images=3, shortest=40, longest=90, side=50)
        """
        found = list(sizes)
        least, most = min(map(min, found)), max(map(max, found))
        return Survey(len(found) if images is None else images, least, most, statistics.median_low(map(min, found)))

    @property
    def told(self) -> str:
        """Describe the images."""
        if self.shortest == self.longest:
            return f"{self.images:,} images of {self.side}×{self.side} pixels"
        return (
            f"{self.images:,} images with sides of {self.shortest} to {self.longest} pixels, shorter side"
            f" {self.side} in the median"
        )


def of_files(node: Mapping[str, Any]) -> Survey | None:
    """Return the survey of a folder or zip archive; None for other data sets. node: the dataset section.

    Raises ConfigError without dataset.root, DataError for files that cannot be read.
    """
    place_of = PLACES.get(str(node.get("_target_")))
    if place_of is None:
        return None
    place = place_of(node.get("root"))
    try:
        listing = look(place, "full").listing()
    except OSError as error:
        raise DataError(
            f"dataset.root={node.get('root')} cannot be listed ({error.strerror}): make it readable"
        ) from error
    rows = chosen(len(listing), node.get("limit"))
    listing = listing if rows is None else listing.pick(rows)
    count = len(listing)
    if count > MOST:
        listing = listing.pick(np.sort(order(count, "survey")[:MOST]))
    return Survey.of(((height, width) for _, height, width in decode.headers(place.files(listing))), count)
