"""Data sets as streams use them: a table of named columns, or several; and the steps that all data sets share."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypedDict

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from typing_extensions import Unpack

from gancli.compute.rng import key
from gancli.data.columns import Column, Index, checked, refuse_idle, refuse_names, window
from gancli.data.fields import Field, Label, field_of
from gancli.data.layout import some
from gancli.data.pixels import Size, fit
from gancli.data.rows import Rows
from gancli.errors import CombinationError, ConfigError, DataError, SplitError


def raw_bits(n: int, *purpose: object) -> NDArray[np.uint64]:
    """Return n random 64-bit numbers keyed by their purpose.

    Raw words of Philox: NumPy guarantees that they are the same in every version, unlike its distributions.
    """
    bits: NDArray[np.uint64] = np.random.Philox(key=key(*purpose)).random_raw(n)
    return bits


def order(n: int, *purpose: object) -> Index:
    """Return a permutation of 0 ... n-1 keyed by its purpose, int64 [n].

    >>> order(5, 0, "real", 0).tolist() == order(5, 0, "real", 0).tolist() != order(5, 0, "real", 1).tolist()
    True
    """
    return np.argsort(raw_bits(n, *purpose), kind="stable").astype(np.int64, copy=False)


def chosen(n: int, limit: int | None) -> Index | None:
    """Return the rows that `dataset.limit` keeps, or None for all of them.

    They are the first of one fixed shuffle, so that classes stay mixed and a smaller limit keeps a subset of a larger
    one's rows. Raises ConfigError for a limit under 1; one over n keeps everything.
    """
    check_limit(limit)
    return None if limit is None or limit >= n else order(n, "limit")[:limit]


def limit_notes(count: int, limit: int | None, labels: NDArray[Any] | None, classes: Sequence[str]) -> list[str]:
    """Return notes on side effects of `dataset.limit`, a line each.

    count: of all items. labels: of the kept ones.

    >>> limit_notes(8, 10, None, [])
    ['dataset.limit=10: there are only 8, all are used']
    >>> limit_notes(8, 2, np.array([0, 0]), ["cat", "dog"])
    ['dataset.limit=2 leaves no image of dog, so 1 of the 2 classes is empty']
    """
    if limit is None:
        return []
    if limit > count:
        return [f"dataset.limit={limit}: there are only {count:,}, all are used"]
    gone = [] if labels is None or limit == count else np.setdiff1d(np.arange(len(classes)), labels).tolist()
    if not gone:
        return []
    names = some([classes[i] for i in gone])
    which = f"{names}, so {len(gone)} of the {len(classes)} classes {'is' if len(gone) == 1 else 'are'} empty"
    return [f"dataset.limit={limit} leaves no image of {which}"]


def check_limit(limit: int | None) -> None:
    """Raise ConfigError for a limit that keeps nothing."""
    if limit is not None and limit < 1:
        raise ConfigError(f"dataset.limit={limit} keeps nothing: type 1 or more, or dataset.limit=null for all")


def check_split(name: str, split: str, allowed: Sequence[str]) -> None:
    """Raise SplitError, listing the existing splits, unless `split` is one of them."""
    if split not in allowed:
        listed = " or ".join(f"dataset.split={choice}" for choice in allowed)
        raise SplitError(f"dataset={name} has no split {split!r}: type {listed}")


@dataclass(frozen=True)
class Modes:
    """The Gaussians that points were drawn from: means [K, D], one standard deviation for all."""

    means: NDArray[np.float64]
    sigma: float


class StreamOptions(TypedDict, total=False):
    """How streams yield a table's rows: keys of every data set with spatial columns, as in `Source`."""

    flip: bool
    dequantize: bool
    crop: int | None
    jitter: int


class Source:
    """A data set ready for streams: one table, whose columns belong together row by row.

    crop: the side of the square cropped from each row of the spatial columns (None: no crop); jitter: by how many
    pixels these are enlarged first. Streams crop at a random position, `rows` at the centre without enlarging. flip:
    whether streams mirror at random. All columns of a row are cropped and mirrored alike. dequantize: whether streams
    yield images as x / 128 - 1 + U(0, 1 / 128). modes: of 2D toys, for metrics. notes: what was ignored or changed, a
    line each. fields: of each column, as networks get it. Raises DataError if rows do not fit their field or columns
    differ in length, ConfigError for an impossible crop or jitter.
    """

    def __init__(
        self,
        name: str,
        columns: Mapping[str, Column],
        *,
        flip: bool = False,
        crop: int | None = None,
        jitter: int = 0,
        dequantize: bool = False,
        modes: Modes | None = None,
        notes: Sequence[str] = (),
    ):
        self.name, self.modes, self.notes = name, modes, tuple(notes)
        self.flip, self.crop, self.jitter, self.dequantize = flip, crop, jitter, dequantize
        self.columns = checked(f"dataset={name}", columns)
        refuse_idle(name, self.columns, flip, dequantize)
        self.window = window(name, self.columns, crop, jitter)
        side = None if self.window is None else self.window.side
        self.fields: dict[str, Field] = {
            title: c.field if side is None else c.field.sized(*side) for title, c in self.columns.items()
        }

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())).content)

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of a row of the first column, as networks get it."""
        return first_shape(self.fields)

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names of the first label column; empty without one."""
        return class_names(self.fields)

    @property
    def labels(self) -> Index:
        """The first label column, int64 [N]; zeros without one."""
        found = next((c for c in self.columns.values() if isinstance(c.field, Label)), None)
        return np.zeros(len(self), np.int64) if found is None else found.content[np.arange(len(self))]

    @property
    def in_memory(self) -> bool:
        """Whether rows are in memory; if not, they are read or decoded on access."""
        return all(column.at_hand for column in self.columns.values())

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of what streams yield: all columns as sized and limited, crops, flips and noise."""
        told = {title: c.field.plain() for title, c in self.columns.items()}
        facts = [told, len(self), self.flip, self.crop, self.jitter, self.dequantize]
        total = hashlib.sha256(json.dumps(facts).encode())
        for column in self.columns.values():
            total.update(column.hash().encode())
        return total.hexdigest()

    def only(self, index: Index) -> Source:
        """Return the same data set with these rows only."""
        return Source(
            self.name,
            {title: column.only(index) for title, column in self.columns.items()},
            flip=self.flip,
            crop=self.crop,
            jitter=self.jitter,
            dequantize=self.dequantize,
            modes=self.modes,
            notes=self.notes,
        )

    def stored(self, index: Index, columns: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return these rows of these columns (None: all) as stored, uncropped, on the CPU."""
        wanted = self.columns if columns is None else columns
        return {title: torch.from_numpy(self.columns[title].content[index]) for title in wanted}

    def rows(self, index: Index, level: int = 0, columns: Sequence[str] | None = None) -> dict[str, Tensor]:
        """Return these rows as fields store them, on the CPU; spatial columns are cropped at the centre, not mirrored.

        level: spatial columns at 1 / 2^level of their sides. columns: None: all. Raises DataError for a missing level.
        """
        found = self.stored(index, columns)
        if self.window is not None:
            middle = self.window.middle(len(index))
            found = {title: self.columns[title].field.changed(x, middle) for title, x in found.items()}
        return self.shrunk(found, level)

    def shrunk(self, rows: dict[str, Tensor], level: int) -> dict[str, Tensor]:
        """Return stored rows, spatial columns at 1 / 2^level of their sides. Raises DataError if there are none."""
        if not level:
            return rows
        if not any(field.spatial for field in self.fields.values()):
            raise DataError(f"dataset={self.name} has no level {level}: only images have smaller levels")
        return {title: f.shrunk(x, level) if (f := self.fields[title]).spatial else x for title, x in rows.items()}


class Sources:
    """Several tables as several feeds, each with its own order; rows that belong together are in one table.

    feeds: by name. notes: what was ignored or changed, including the tables' notes. aligned: whether rows of one number
    are partners, one the target of the other.
    """

    def __init__(self, name: str, feeds: Mapping[str, Source], notes: Sequence[str] = (), *, aligned: bool = False):
        refuse_names(f"dataset={name}", "feeds", feeds)
        self.name, self.feeds, self.aligned = name, dict(feeds), aligned
        self.notes = (*notes, *(note for source in feeds.values() for note in source.notes))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the names and fingerprints of all feeds."""
        facts = [[feed, source.fingerprint] for feed, source in self.feeds.items()]
        return hashlib.sha256(json.dumps(facts).encode()).hexdigest()


DataSet = Source | Sources


def feeds_of(data: DataSet) -> dict[str, Source]:
    """Return the tables of a data set by feed name; the name of a single one is empty."""
    return {"": data} if isinstance(data, Source) else data.feeds


def lone(data: DataSet, who: str = "this game") -> Source:
    """Return the only table of a data set. who: the caller. Raises CombinationError if there are several."""
    if isinstance(data, Sources):
        feeds = ", ".join(data.feeds)
        raise CombinationError(f"{who} takes one table, but dataset={data.name} has the feeds {feeds}: choose another")
    return data


def first_shape(fields: Mapping[str, Field]) -> tuple[int, ...]:
    """Return the shape of a row of the first field."""
    return next(iter(fields.values())).shape


def class_names(fields: Mapping[str, Field]) -> tuple[str, ...]:
    """Return the class names of the first label field; empty without one."""
    return next((field.names for field in fields.values() if isinstance(field, Label)), ())


def table(
    name: str,
    content: NDArray[Any] | Rows,
    labels: NDArray[Any] | None = None,
    classes: Sequence[str] = (),
    *,
    more: Mapping[str, Column] | None = None,
    modes: Modes | None = None,
    content_hash: str | None = None,
    notes: Sequence[str] = (),
    **dealt: Unpack[StreamOptions],
) -> Source:
    """Build a Source of images uint8 [N, C, H, W] or points float32 [N, D] as column x, with any labels as y.

    more: further columns. content_hash: of the content. Raises DataError if labels are not integers [N], and as
    `Source`.
    """
    try:
        columns = {"x": Column(field_of(content), content, content_hash)}
    except DataError as error:
        raise DataError(f"dataset={name}: {error}") from None
    if labels is not None:
        numbers = whole_labels(f"dataset={name}", labels, len(content))
        columns["y"] = Column(Label(tuple(map(str, classes))), numbers)
    columns |= more or {}
    return Source(name, columns, modes=modes, notes=notes, **dealt)


def whole_labels(where: str, labels: NDArray[Any], count: int) -> Index:
    """Return labels as int64 [count]. Raises DataError if they are not integers, or more or fewer."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(
            f"{where} has labels {labels.dtype} {list(labels.shape)}: labels must be integers [{count}], the class of"
            " each row"
        )
    if len(labels) != count:
        raise DataError(f"{where} has {count} images and {len(labels)} labels: one label per image is needed")
    if labels.dtype.kind == "u":  # values that are too large are refused later, not made negative
        labels = np.minimum(labels.astype(np.uint64), np.uint64(np.iinfo(np.int64).max))
    return labels.astype(np.int64)


def finish(
    name: str,
    images: NDArray[np.uint8],
    labels: NDArray[Any] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    pad: bool = False,
    more: Mapping[str, Column] | None = None,
    notes: Sequence[str] = (),
    **dealt: Unpack[StreamOptions],
) -> Source:
    """Build a Source of images [N, C, H, W] in memory: limited, then resized (`pixels.fit`).

    more: further columns. notes: on what was read. Raises DataError if they are not images.
    """
    if images.ndim != 4 or images.dtype != np.uint8 or 0 in images.shape[1:]:
        raise DataError(f"dataset={name}: {images.dtype} {list(images.shape)} are not images: get its files again")
    labels = None if labels is None else whole_labels(f"dataset={name}", labels, len(images))
    count, keep, more = len(images), chosen(len(images), limit), dict(more or {})
    if keep is not None:
        images = images[keep]
        labels = None if labels is None else labels[keep]
        more = {title: column.only(keep) for title, column in more.items()}
    return table(
        name,
        fit(images, size, name, pad),
        labels,
        classes,
        more=more,
        notes=[*notes, *limit_notes(count, limit, labels, classes)],
        **dealt,
    )
