"""Data sets of the Hugging Face hub, or local ones in its formats, read by the `datasets` library."""

from __future__ import annotations

import io
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.gather import gather
from gancli.data.layout import present
from gancli.data.listing import LARGEST_FILE, Listing, Names, kind_of, open_plain
from gancli.data.pixels import Size
from gancli.data.source import Source, StreamOptions, check_split
from gancli.errors import ConfigError, DataError


def hub(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    image: str = "image",
    label: str | None = "label",
    store: Literal["raw", "encoded"] = "raw",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """A data set of the Hugging Face hub by name, or a folder: saved by `save_to_disk`, or of parquet files.

    image, label: column names; label=null for no labels. Labels are class numbers, or texts that become classes in
    alphabetical order. Rows keep the data set's order; sizes, store and the rest are as in `folder`. Code of data sets
    is not run. Raises ConfigError for a missing `root`, a wrong column or split, DataError if `datasets` is not
    installed, the data set cannot be loaded, or a row holds no image.
    """
    if root is None or not root.strip():
        said = "needs to know which data set" if root is None else "was given an empty dataset.root"
        raise ConfigError(f"dataset=hub {said}: type dataset.root=OWNER/NAME or a folder")
    table = _obtain(root, split)
    for name, column in (("image", image), ("label", label)):
        if column is not None and column not in table.column_names:
            listed = ", ".join(table.column_names)
            none = " or null" if name == "label" else ""
            raise ConfigError(
                f"dataset.{name}={column} is not a column of {root}: type dataset.{name}= one of {listed}{none}"
            )
    place = Hub(root, split, image, label, _undecoded(root, table, image))
    return gather(place, size=size, limit=limit, store=store, **dealt)


@dataclass(frozen=True)
class Hub:
    """A table with a column of images (a `Place`); the library memory-maps it."""

    given: str
    split: str
    image: str
    label: str | None
    table: Any
    kind = "hub"
    stamps_prove = True

    @property
    def root(self) -> str:
        """What was given; the table's fingerprint, in the listing, tells versions apart."""
        return f"{self.given} {self.split} {self.image} {self.label}"

    def listing(self) -> Listing:
        """List the rows, in order."""
        count = len(self.table)
        if count == 0:
            raise DataError(f"dataset.root={self.given} has no rows in its split {self.split}")
        labels, classes, notes = self._labels()
        # The fingerprint identifies all contents; sizes are unknown without reading them.
        where = np.arange(count, dtype=np.int64)[:, None]
        mark = Names.of([str(self.table._fingerprint)] + [""] * (count - 1))
        return Listing(mark, np.zeros(count, np.int64), where, labels, classes, notes=tuple(notes))

    def files(self, listing: Listing) -> Cells:
        """Return an object that reads the images, one at a time."""
        return Cells(self.given, self.table, self.image, listing.where)

    def _labels(self) -> tuple[NDArray[np.int64] | None, list[str], list[str]]:
        if self.label is None:
            return None, [], []
        feature = self.table.features[self.label]
        column = self.table.data.column(self.label).to_numpy()
        if self.table._indices is not None:
            column = column[self.table._indices.column(0).to_numpy()]
        where = f"dataset.root={self.given}, column {self.label}"
        if column.dtype.kind in "iu":
            return present(where, column.astype(np.int64), getattr(feature, "names", None) or None)
        if column.dtype.kind == "O" and all(isinstance(value, str) for value in column):
            classes, numbers = np.unique(column.astype(str), return_inverse=True)
            return present(where, numbers.astype(np.int64), classes.tolist())
        raise DataError(f"{where} holds neither class numbers nor texts (every row needs one): type dataset.label=null")


class Cells:
    """The images of a table's column, by index."""

    def __init__(self, given: str, table: Any, column: str, where: NDArray[np.int64]):
        self._given, self._table, self._column, self._where = given, table, column, where

    def __len__(self) -> int:
        return len(self._where)

    def name(self, i: int) -> str:
        """DATA SET:row N."""
        return f"{self._given}:row {int(self._where[i, 0])}"

    def open(self, i: int) -> BinaryIO:
        """Open the image's bytes, or the file beside the table that the row names. Raises OSError or ValueError."""
        cell = self._table[int(self._where[i, 0])][self._column]
        if not isinstance(cell, dict) or (cell.get("bytes") is None and cell.get("path") is None):
            raise ValueError("the row is empty")
        if cell["bytes"] is None:
            return open_plain(cell["path"])
        if len(cell["bytes"]) > LARGEST_FILE:
            raise ValueError(f"it has {len(cell['bytes']) >> 20} MiB; the limit is 256")
        return io.BytesIO(cell["bytes"])


def _obtain(root: str, split: str) -> Any:
    """Load the table of one split. Raises ConfigError for an unknown split, DataError for anything else."""
    try:
        import datasets
    except ImportError:
        raise DataError(
            "dataset=hub needs the library datasets, which is not installed: type pip install 'gancli[hub]'"
        ) from None
    path = Path(root).expanduser()
    try:
        datasets.disable_progress_bars()
        if path.is_dir() and any((path / name).is_file() for name in ("dataset_dict.json", "state.json")):
            found = datasets.load_from_disk(str(path))
        elif path.exists() or root.startswith((".", "/", "~")) or root.count("/") > 1:
            if not path.is_dir():
                raise DataError(f"dataset.root={root} is not a folder: type dataset.root=OWNER/NAME or a folder")
            _refuse_pipes(path)
            found = datasets.load_dataset(str(path))
        else:
            found = datasets.load_dataset(root)
    except DataError:
        raise
    except Exception as error:  # network, files, formats: anything
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise DataError(
            f"dataset.root={root} cannot be loaded ({reason}): type dataset.root=OWNER/NAME "
            "or a folder that datasets can load"
        ) from error
    if isinstance(found, datasets.DatasetDict):
        check_split("hub", split, list(found))
        return found[split]
    check_split("hub", split, [str(found.split or "train")])
    return found


def _refuse_pipes(folder: Path) -> None:
    """Raise DataError for entries that are neither file nor folder: opening them may block forever."""
    for place, _, names in os.walk(folder):
        for name in names:
            path = Path(place) / name
            mode = path.stat().st_mode if path.exists() else stat.S_IFREG
            if not stat.S_ISREG(mode):
                raise DataError(f"{path} is a {kind_of(mode)}, not a file: remove it")


def _undecoded(root: str, table: Any, image: str) -> Any:
    """Return the table with its images undecoded. Raises DataError if the column holds no images."""
    import datasets

    if not isinstance(table.features[image], datasets.Image):
        raise DataError(f"dataset.root={root}: the column {image} holds no images: type dataset.image=COLUMN")
    return table.cast_column(image, datasets.Image(decode=False))
