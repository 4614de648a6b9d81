"""A NumPy archive of images as a data set."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.layout import present, printable, some
from gancli.data.listing import given_file
from gancli.data.pixels import Size
from gancli.data.source import Source, StreamOptions, check_split, finish
from gancli.errors import ConfigError, DataError
from gancli.store.arrays import header

LARGEST_BYTES = 1 << 34
BOMB_BYTES, BOMB_RATIO = 1 << 28, 500  # a member larger than both, unpacked and over packed, holds no images
KEYS = ("images", "labels", "classes")
_HINT = "numpy.savez(FILE, images=uint8 [N,H,W] or [N,H,W,C], labels=integers [N], classes=names)"


def npz(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    layout: Literal["auto", "nhwc", "nchw"] = "auto",
    **dealt: Unpack[StreamOptions],
) -> Source:
    """The images of one .npz file: `images` uint8 [N,H,W], [N,H,W,C] or [N,C,H,W]; optional `labels` [N], `classes`.

    layout: of four dimensions; auto takes the last one as channels if it is 4 or less, else the second one if that is.
    Labels without class names are named by their numbers; classes without an image are dropped, with a note. The only
    split is `train`. Pickles are not read. Raises ConfigError for a missing `root`, another split or an impossible
    size, DataError for anything wrong with the file.
    """
    check_split("npz", split, ["train"])
    if layout not in ("auto", "nhwc", "nchw"):
        raise ConfigError(f"dataset.layout={layout} is unknown: type dataset.layout=auto, nhwc or nchw")
    path = given_file("npz", root, "FILE.npz")
    images, labels, names, notes = _read(path)
    pixels, classes = _channels_first(path, images, layout), list[str]()
    if labels is not None:
        labels, classes, more = present(str(path), _check_labels(path, labels, len(images)), names)
        notes += more
    elif names is not None:
        notes.append(f"{path}: classes without labels are not used")
    return finish(
        "npz",
        pixels,
        labels,
        classes,
        size=size,
        limit=limit,
        notes=notes,
        **dealt,
    )


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, list[str] | None, list[str]]:
    """Read images, labels and class names as stored, and notes. Raises DataError."""
    try:
        with zipfile.ZipFile(path) as file:
            members = file.infolist()
            declared = sum(member.file_size for member in members)
            if declared > LARGEST_BYTES:
                raise DataError(
                    f"{path} unpacks to {declared >> 30} GiB, over the limit of 16: type dataset=folder with images"
                )
            for member in members:
                _check_member(path, file, member)
        found = [member.filename.removesuffix(".npy") for member in members]
        with np.load(path, allow_pickle=False) as archive:
            there = {member.filename for member in members}
            arrays = {name: archive[f"{name}.npy"] for name in KEYS if f"{name}.npy" in there}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as an .npz file ({reason}): write it with {_HINT}") from error
    except Exception as error:  # a damaged member: zlib.error, struct.error, SyntaxError of the header, ...
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({type(error).__name__}): write it again with {_HINT}") from error
    if "images" not in arrays:
        raise DataError(f"{path} holds {some(found) or 'nothing'} but no `images`: write it with {_HINT}")
    more = [name for name in found if name not in KEYS]
    notes = [f"left out of {path}: {some(more)} (images, labels and classes are read)"] if more else []
    return arrays["images"], arrays.get("labels"), _names(path, arrays.get("classes")), notes


def _names(path: Path, given: NDArray[Any] | None) -> list[str] | None:
    """Return class names given as texts, bytes or integers. Raises DataError."""
    if given is None:
        return None
    flat = given.reshape(-1)
    if flat.dtype.kind == "S":
        return [printable(name.decode("utf-8", "surrogateescape")) for name in flat.tolist()]
    if flat.dtype.kind not in "Uiu":
        raise DataError(f"{path}: classes are {flat.dtype}, but texts are needed: write it with {_HINT}")
    return [str(name) for name in flat.tolist()]


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise ValueError, before allocating memory, for a header that contradicts the size, DataError for a bomb."""
    if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * member.compress_size:
        raise DataError(f"{path}: {member.filename} unpacks to {member.file_size >> 20} MiB, a decompression bomb")
    if member.filename not in ("images.npy", "labels.npy", "classes.npy"):
        return
    with archive.open(member) as file:
        header(file, member.filename, member.file_size)


def _check_labels(path: Path, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"{path}: labels are {labels.dtype} {list(labels.shape)}, but integers [{count}] are needed: "
            f"write it with {_HINT}"
        )
    if count and labels.min() < 0:
        raise DataError(f"{path}: the smallest label is {labels.min()}, but labels start at 0: write it with {_HINT}")
    # Values that are too large are refused later; they must not become negative here.
    large = np.uint64(np.iinfo(np.int64).max)
    numbers: NDArray[np.int64] = np.minimum(labels.astype(np.uint64), large).astype(np.int64)
    return numbers


def _channels_first(path: Path, images: NDArray[Any], layout: str) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)}, but uint8 is needed: write it with {_HINT}"
        )
    if 0 in images.shape:
        raise DataError(f"{path}: images are empty, {list(images.shape)}: write it with {_HINT}")
    if images.ndim == 3:
        return images[:, None]
    if layout == "auto":
        if images.shape[3] > 4 and images.shape[1] > 4:
            raise DataError(f"{path}: which axis of {list(images.shape)} is channels? Type dataset.layout=nhwc or nchw")
        layout = "nhwc" if images.shape[3] <= 4 else "nchw"
    return images.transpose(0, 3, 1, 2) if layout == "nhwc" else images
