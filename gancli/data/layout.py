"""Arrangement of image files: which class each belongs to, and a summary of the files left out."""

from __future__ import annotations

import json
import os
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gancli.errors import DataError

LARGEST_CLASSES = 100_000
DESCRIPTION = "dataset.json"  # StyleGAN's dataset_tool writes labels here
LARGEST_DESCRIPTION = 1 << 27  # bytes; for ImageNet's 1.3 million images it is about 40 MB
SPLITS = ("train", "training", "val", "valid", "validation", "dev", "test", "testing", "eval")  # suggested in order
_SHOWN = 5  # names in a line
_LABELS = '{"labels": [["00000/img00000000.png", 3], ...]} or {"labels": null}'

Labels = NDArray[np.int64]


class Arranged(NamedTuple):
    """Images in row order, with labels and class names if there are classes.

    notes: what was left out or changed, a line each.
    """

    order: list[int]
    labels: Labels | None
    classes: list[str]
    notes: list[str]


def printable(name: str) -> str:
    r"""Return a file's name as one line of text that every file and terminal can take.

    Bytes that are not UTF-8 (surrogate escapes) and control characters are escaped.

    >>> printable("caf\udce9\n")
    'caf\\xe9\\n'
    """
    if name.isprintable():
        return name
    return "".join(_escaped(c) if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp") else c for c in name)


def _escaped(character: str) -> str:
    code = ord(character)
    return f"\\x{code - 0xDC00:02x}" if 0xDC80 <= code <= 0xDCFF else repr(character)[1:-1]


def some(names: Sequence[str]) -> str:
    """Return the first few names, and how many more there are.

    >>> some(["a", "b", "c", "d", "e", "f", "g"])
    'a, b, c, d, e and 2 more'
    """
    shown = ", ".join(map(printable, names[:_SHOWN]))
    return f"{shown} and {len(names) - _SHOWN:,} more" if len(names) > _SHOWN else shown


class IgnoredFiles:
    """Counts the ignored files of a place, by kind."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()
        self._named: list[str] = []

    def file(self, name: str) -> None:
        """Count a file of an unsupported type."""
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122 - a Path a file is slow
        self.add(printable(suffix) if 1 < len(suffix) <= 12 else "file without a suffix")

    def add(self, kind: str, count: int = 1) -> None:
        """Count some of a kind, such as `.heic` or `hidden file`."""
        self._kinds[kind] += count

    def named(self, what: str) -> None:
        """Report one entry by name, such as a broken link."""
        self._named.append(what)

    def note(self) -> list[str]:
        """Return a line on everything left out; an empty list if nothing was."""
        kinds = sorted(self._kinds.items(), key=lambda item: (-item[1], item[0]))
        shown = [_count(kind, count) for kind, count in kinds[:8]]
        if len(kinds) > 8:
            shown.append(f"{sum(count for _, count in kinds[8:]):,} of {len(kinds) - 8} more kinds")
        if self._named:
            shown.append(some(sorted(self._named)))
        return [f"left out: {', '.join(shown)}"] if shown else []


def _count(kind: str, count: int) -> str:
    """
    >>> _count(".heic", 2), _count("hidden file", 2), _count("file without a suffix", 1)
    ('2 .heic', '2 hidden files', '1 file without a suffix')
    """
    if count == 1 or kind.startswith("."):
        return f"{count:,} {kind}"
    first, space, rest = kind.partition(" without ")
    return f"{count:,} {first}s{space}{rest}"


def common_top(names: Sequence[str]) -> str:
    """Return the deepest folder, with its slash, that contains all names; empty if they share none.

    >>> common_top(["a/b/1.png", "a/b/c/2.png"]), common_top(["a/1.png", "2.png"])
    ('a/b/', '')
    """
    if not names:
        return ""
    low, high = min(names).split("/")[:-1], max(names).split("/")[:-1]
    same = next((i for i, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high)))
    return "".join(f"{part}/" for part in low[:same])


def by_folders(place: str, names: Sequence[str], folders: Iterable[str] = (), *, root: str | None = None) -> Arranged:
    """Arrange images by their names relative to a place: each top folder is a class, with everything below it.

    folders: paths in folders that may have no image. root: the folder that contains all; None: an archive, in which a
    single folder around everything is skipped. Raises DataError for loose images beside folders of images, for folders
    that are splits, and for a folder whose class folders are one level deeper.
    """
    top = common_top(names)
    if root is not None:
        _refuse_too_high(place, names, top, root)
        top = ""
    split = [name[len(top) :].partition("/") for name in names]
    keys = [(first, rest) if slash else ("", first) for first, slash, rest in split]
    classes = sorted({folder for folder, _ in keys})
    notes = [f"all images are in {printable(top[:-1])}: they have no classes"] if top and classes == [""] else []
    paths = [path[len(top) :] if path.startswith(top) else path for path in folders]
    inside = {path.partition("/")[0] for path in paths if "/" in path}
    empty = sorted(inside - set(classes) - {""})
    if empty:
        notes.append(f"folders without supported images are not classes: {some(empty)}")
    order = sorted(range(len(names)), key=keys.__getitem__)
    if classes == [""]:
        return Arranged(order, None, [], notes)
    if classes[0] == "":
        loose = next(rest for folder, rest in keys if folder == "")
        deeper = next(name for name, key in zip(names, keys, strict=True) if key[0])
        if root is None:
            raise DataError(
                f"{place} has loose images and folders ({printable(deeper)}, ...): put the loose ones into a folder"
            )
        raise DataError(
            f"{place} has images ({printable(loose)}, ...) and sub-folders of images ({printable(deeper)}, ...): "
            "move the loose ones into a sub-folder, or type dataset.root with one sub-folder"
        )
    _refuse_splits(place, classes, root)
    titles = [printable(name) for name in classes]
    twin = next((title for title, count in Counter(titles).items() if count > 1), None)
    if twin is not None:
        raise DataError(f"{place} has two folders that are both shown as {twin}: rename one of them")
    if all(c.isdecimal() and len(c) == len(classes[0]) >= 5 for c in classes) and len(classes) > 1:
        notes.append(
            f"the folders {some(classes)} are used as classes; if they are only shards, put a {DESCRIPTION} "
            'beside them: {"labels": null}'
        )
    number = {folder: i for i, folder in enumerate(classes)}
    return Arranged(order, np.array([number[keys[i][0]] for i in order], np.int64), titles, notes)


def _refuse_too_high(place: str, names: Sequence[str], top: str, root: str) -> None:
    """Raise DataError if all images are in folders of one folder, which would make a single class."""
    first = top.partition("/")[0]
    if first and first.lower() not in SPLITS and all(name.count("/") > 1 for name in names):
        deeper = os.path.join(root, top[:-1])  # noqa: PTH118
        raise DataError(f"{place} has all its images below one sub-folder: type dataset.root={printable(deeper)}")


def _refuse_splits(place: str, classes: Sequence[str], root: str | None) -> None:
    """Raise DataError if all folders have the names of splits."""
    known = {name.lower(): name for name in classes}
    if not known.keys() <= set(SPLITS):
        return
    splits = [known[name] for name in SPLITS if name in known]
    if root is None:
        remedy = "make an archive of one of them"
    else:
        remedy = " or ".join(f"dataset.root={printable(os.path.join(root, name))}" for name in splits)  # noqa: PTH118
        remedy = f"type {remedy}"
    raise DataError(f"{place} has the splits of a data set ({', '.join(splits)}), which are not classes: {remedy}")


def by_description(where: str, content: bytes, names: Sequence[str], top: str = "") -> Arranged:
    """Arrange images as StyleGAN's dataset.json says: sorted by name, with its labels; folders are only shards.

    where: what messages call the file. names: of the images; top: the folder that the file's names are relative to.
    Raises DataError if the file is damaged or does not give each image an integer label.
    """
    order = sorted(range(len(names)), key=names.__getitem__)
    given = _parsed(where, content)
    if given is None:
        above = {name[len(top) :].partition("/")[0] for name in names if "/" in name[len(top) :]}
        folders = sorted(folder for folder in above if not folder.isdecimal())  # all-digit names are the tool's shards
        what = "is not a class" if len(folders) == 1 else "are not classes"
        note = f"{where} sets no labels: {some(folders)} {what}"
        return Arranged(order, None, [], [note] if folders else [])
    known: dict[str, int] = {}
    for name, label in given:
        plain = top + name.replace("\\", "/")
        if plain in known:
            raise DataError(f"{where} has {printable(name)[:200]} twice: label each image once")
        if not 0 <= label < 1 << 62:
            raise DataError(f"{where} has labels that are not class numbers: number the classes from 0")
        known[plain] = label
    missing = next((names[i] for i in order if names[i] not in known), None)
    if missing is not None:
        raise DataError(f"{where} has no label for {printable(missing)}: write {_LABELS}")
    labels, classes, notes = present(where, np.array([known[names[i]] for i in order], np.int64))
    absent = sorted(known.keys() - set(names))
    if absent:
        notes.append(f"{where} labels {_count('image without a file', len(absent))}: {some(absent)}"[:1000])
    return Arranged(order, labels, classes, notes)


def _parsed(where: str, content: bytes) -> list[tuple[str, int]] | None:
    """Return the pairs of a dataset.json; None if it sets no labels. Raises DataError."""
    try:
        found: Any = json.loads(content.decode("utf-8-sig"))
    except UnicodeDecodeError:
        raise DataError(f"{where} is not UTF-8 text: write {_LABELS}") from None
    except (ValueError, RecursionError) as error:
        deep = isinstance(error, RecursionError)
        reason = "it is nested too deeply" if deep else " ".join(str(error).split())[:200]
        raise DataError(f"{where} cannot be read as JSON ({reason}): write {_LABELS}") from None
    given = found.get("labels", ...) if isinstance(found, dict) else found
    if given is None and isinstance(found, dict):
        return None
    if not isinstance(given, list) or not all(
        isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and type(pair[1]) is int
        for pair in given
    ):
        raise DataError(f"{where} has no integer labels: write {_LABELS}, or remove it")
    return [(name, label) for name, label in given]


def present(where: str, labels: Labels, names: Sequence[str] | None = None) -> tuple[Labels, list[str], list[str]]:
    """Return labels, class names and notes for the classes that have an image: the others are dropped.

    labels: [N], from 0. names: of all class numbers; None: the numbers are the names. Raises DataError for labels below
    0, without a name, or too large to be class numbers, and for two classes of one name.
    """
    lowest, highest = int(labels.min(initial=0)), int(labels.max(initial=-1))
    if lowest < 0 or highest >= LARGEST_CLASSES:
        raise DataError(
            f"{where}: labels run from {lowest} to {highest}, and 0 to {LARGEST_CLASSES - 1} are allowed: "
            "number the classes from 0"
        )
    if names is not None and highest >= len(names):
        raise DataError(f"{where}: labels go up to {highest} but classes has {len(names)} names: name every class")
    titles = [printable(name) for name in names] if names is not None else [str(i) for i in range(highest + 1)]
    twin = next((title for title, count in Counter(titles).items() if count > 1), None)
    if twin is not None:
        raise DataError(f"{where} has two classes named {twin[:100]}: rename one of them")
    kept, compact = np.unique(labels, return_inverse=True)
    if len(kept) == len(titles):
        return labels, titles, []
    gone = np.setdiff1d(np.arange(len(titles)), kept)
    found = [titles[i] for i in kept]
    what = "classes" if names is not None else "labels"
    absent = some([titles[i] for i in gone])
    left = f"{len(found)} classes are" if len(found) > 1 else "only class is"
    note = f"{where}: no image has the {what} {absent}; the {left} {some(found)}"
    return compact.reshape(labels.shape).astype(np.int64), found, [note]
