"""Any folder of images as a data set."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from gancli.data import cache, decode
from gancli.data.pixels import Shape, Size, parse_size
from gancli.data.source import Source, check_split, chosen
from gancli.errors import ConfigError, DataError

IN_MEMORY = 64 << 20
_RULES = 1  # part of the cache's key: count up when decoding, cropping or resizing change
_log = logging.getLogger(__name__)


def folder(
    root: str | None = None, size: Size = None, limit: int | None = None, split: str = "train", flip: bool = False
) -> Source:
    """The images under `root`; one level of sub-folders are classes, a flat folder has none.

    size: null keeps images that are all of one size as they are, and else takes the square of the smallest side among
    them; one side, or [C, H, W], crops centrally to that aspect and resizes. Channels are 1 where all files are grey,
    else 3. Transparent pixels go on white, 16 bits become 8, EXIF says what is up, of an animation the first frame is
    taken; hidden and other files are skipped. All images are `train`. Large folders are decoded once, into a memory map
    in the user's cache directory.
    Raises ConfigError for a missing `root` or a wrong size, DataError for a folder without images and for a file that
    is broken, cut short or too large, by its name.
    """
    check_split("folder", split, ["train"])
    if root is None:
        raise ConfigError("dataset=folder needs to know which folder: type dataset.root=PATH")
    top = Path(root).expanduser()
    if top.is_file():
        other = "dataset=npz" if top.suffix == ".npz" else "dataset.root=PATH with a folder of images"
        raise DataError(f"dataset.root={root} is a file, not a folder: type {other}")
    if not top.is_dir():
        raise DataError(f"dataset.root={root} does not exist: type dataset.root=PATH with a folder of images")
    try:
        files, labels, classes = listing(top)
    except OSError as error:
        raise DataError(f"dataset.root={root} cannot be listed ({error.strerror}): make it readable") from error
    return from_files("folder", top, files, labels, classes, size=size, limit=limit, flip=flip)


def listing(top: Path) -> tuple[list[str], NDArray[np.int64] | None, list[str]]:
    """The image files under `top` by relative name, sorted, with labels and class names where sub-folders give them.

    Raises DataError where there are none, or both loose ones and some in sub-folders.
    """
    loose, children = _scan(top)
    groups = {child: _scan(top / child)[0] for child in children}
    classes = [child for child in children if groups[child]]
    if loose and classes:
        raise DataError(
            f"dataset.root={top} has images ({loose[0]}, ...) and sub-folders of images ({classes[0]}, ...): "
            "move the loose ones into a sub-folder, or type dataset.root with one sub-folder"
        )
    if not loose and not classes:
        deeper = next((name for name in children if _has_classes(top / name)), None)
        kinds = ", ".join(sorted(decode.SUFFIXES))
        remedy = f"type dataset.root={top / deeper}" if deeper else f"put images there ({kinds})"
        raise DataError(f"dataset.root={top} has no images in it or in its sub-folders: {remedy}")
    if loose:
        return loose, None, []
    files = [f"{name}/{file}" for name in classes for file in groups[name]]
    labels = np.repeat(np.arange(len(classes)), [len(groups[name]) for name in classes])
    return files, labels.astype(np.int64), classes


def _has_classes(folder: Path) -> bool:
    return any(_scan(folder / child)[0] for child in _scan(folder)[1])


def _scan(folder: Path) -> tuple[list[str], list[str]]:
    """Names of the image files and of the sub-folders of a folder, sorted, hidden ones left out."""
    files, folders = [], []
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if entry.is_dir():
                folders.append(entry.name)
            elif os.path.splitext(entry.name)[1].lower() in decode.SUFFIXES:  # noqa: PTH122 - a Path a file is slow
                files.append(entry.name)
    return sorted(files), sorted(folders)


def from_files(
    name: str,
    top: Path,
    files: Sequence[str],
    labels: NDArray[np.int64] | None,
    classes: Sequence[str],
    *,
    size: Size,
    limit: int | None,
    flip: bool,
) -> Source:
    """A Source of image files by their names relative to `top`: limited, then decoded in memory or through the cache.

    Raises ConfigError for a wrong size, DataError naming a file that cannot be read.
    """
    keep = chosen(len(files), limit)
    if keep is not None:
        files = [files[i] for i in keep]
        labels = None if labels is None else labels[keep]
    asked = parse_size(size, None, name)
    if asked is not None and asked[0] not in (1, 3):
        raise ConfigError(
            f"dataset.size={list(asked)}: dataset={name} has 1 or 3 channels; type dataset.size=[3,64,64]"
        )
    paths = [top / file for file in files]
    key, file_bytes = _key(top, files, paths, size)
    found = cache.load(key)
    if found is None:
        shape = asked if asked and not isinstance(size, int) else _natural(paths, asked)
        total = len(files) * int(np.prod(shape))
        if max(total, file_bytes) < IN_MEMORY:
            return Source(name, np.concatenate(list(decode.images(paths, shape))), labels, classes, flip=flip)
        _log.info("decoding %d images of %s once, into %s", len(files), top, cache.cache_dir())
        found = cache.store(key, (len(files), *shape), decode.images(paths, shape))
    images, digest = found
    return Source(name, images, labels, classes, flip=flip, content_hash=digest)


def _natural(paths: Sequence[Path], asked: Shape | None) -> Shape:
    """The shape that the files' headers give: see `folder`. `asked` gives the sides where it is there."""
    shapes = decode.headers(paths)
    channels = max(shape[0] for shape in shapes)
    if asked is not None:
        return channels, asked[1], asked[2]
    sizes = {shape[1:] for shape in shapes}
    height, width = sizes.pop() if len(sizes) == 1 else (min(min(size) for size in sizes),) * 2
    natural = parse_size([channels, height, width], None, "folder")
    assert natural is not None
    return natural


def _key(top: Path, files: Sequence[str], paths: Sequence[Path], size: Size) -> tuple[str, int]:
    """A hash of all that the decoded pixels depend on, and the files' bytes. Raises DataError for a missing file."""
    try:
        facts = [(file, stat.st_size, stat.st_mtime_ns) for file, stat in zip(files, map(os.stat, paths), strict=True)]
    except OSError as error:
        message = f"{error.filename} cannot be read ({error.strerror}): type dataset.root=PATH with complete data"
        raise DataError(message) from error
    asked = size if size is None or isinstance(size, int) else list(size)
    said = json.dumps([_RULES, str(top.resolve()), asked, facts])
    return hashlib.blake2b(said.encode(), digest_size=16).hexdigest(), sum(fact[1] for fact in facts)
