"""A NumPy archive of images as a data set."""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from gancli.data.listing import numbered_classes
from gancli.data.pixels import Size
from gancli.data.source import Source, check_split, finish
from gancli.errors import ConfigError, DataError

LARGEST_BYTES = 1 << 34
BOMB_BYTES, BOMB_RATIO = 1 << 28, 500  # a member larger than both, unpacked and over packed, holds no images
_HINT = "numpy.savez(FILE, images=uint8 [N,H,W] or [N,H,W,C], labels=integers [N], classes=names)"


def npz(
    root: str | None = None,
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    layout: Literal["auto", "nhwc", "nchw"] = "auto",
) -> Source:
    """The images of one .npz file: `images` uint8 [N,H,W], [N,H,W,C] or [N,C,H,W]; `labels` [N], `classes` if any.

    layout: of four dimensions; auto takes the last one for channels where it is 4 or less, else the second one where
    that is. Labels without class names are named by their numbers. All images are `train`. No pickles are read.
    Raises ConfigError for a missing `root`, another split or an impossible size, DataError for all about the file.
    """
    check_split("npz", split, ["train"])
    if layout not in ("auto", "nhwc", "nchw"):
        raise ConfigError(f"dataset.layout={layout} is unknown: type dataset.layout=auto, nhwc or nchw")
    if root is None:
        raise ConfigError("dataset=npz needs to know which file: type dataset.root=FILE.npz")
    path = Path(root).expanduser()
    if path.is_dir():
        raise DataError(f"dataset.root={root} is a folder, not a file: type dataset=folder, or dataset.root=FILE.npz")
    if not path.is_file():
        raise DataError(f"dataset.root={root} does not exist: type dataset.root=FILE.npz")
    images, labels, names = _read(path)
    if labels is not None:
        labels = _check_labels(path, labels, len(images))
        names = names or numbered_classes(str(path), labels)
        if len(labels) and labels.max() >= len(names):
            raise DataError(
                f"{path}: labels go up to {labels.max()} and classes has {len(names)} names: name every class"
            )
    classes = names if labels is not None and names else []
    return finish(
        "npz",
        _channels_first(path, images, layout),
        labels,
        classes,
        size=size,
        limit=limit,
        flip=flip,
        dequantize=dequantize,
    )


def _read(path: Path) -> tuple[NDArray[Any], NDArray[Any] | None, list[str] | None]:
    try:
        with zipfile.ZipFile(path) as file:
            declared = sum(member.file_size for member in file.infolist())
            if declared > LARGEST_BYTES:
                raise DataError(
                    f"{path} unpacks to {declared >> 30} GiB, over the limit of 16: type dataset=folder with images"
                )
            for member in file.infolist():
                _check_member(path, file, member)
        with np.load(path, allow_pickle=False) as archive:
            if "images" not in archive:
                found = ", ".join(archive.files) or "nothing"
                raise DataError(f"{path} holds {found} and no `images`: write it with {_HINT}")
            arrays = {name: archive[name] for name in ("images", "labels", "classes") if name in archive}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile, zipfile.LargeZipFile, RuntimeError) as error:
        reason = " ".join(str(error).split())
        raise DataError(f"{path} cannot be read as an .npz file ({reason}): write it with {_HINT}") from error
    except Exception as error:  # a damaged member: zlib.error, struct.error, SyntaxError of the header, ...
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is damaged ({type(error).__name__}): write it again with {_HINT}") from error
    classes = [str(name) for name in arrays["classes"].reshape(-1)] if "classes" in arrays else None
    return arrays["images"], arrays.get("labels"), classes


def _check_member(path: Path, archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> None:
    """Raise DataError before memory is taken for an array larger than its bytes, or for a decompression bomb."""
    if member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * member.compress_size:
        raise DataError(f"{path}: {member.filename} unpacks to {member.file_size >> 20} MiB of next to nothing")
    if member.filename not in ("images.npy", "labels.npy", "classes.npy"):
        return
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, _, kind = read(file)
        held = member.file_size - file.tell()
    if not kind.hasobject and math.prod(shape) * kind.itemsize != held:  # objects are refused anyway
        raise DataError(f"{path}: {member.filename} says {list(shape)} of {kind} and has {held:,} bytes")


def _check_labels(path: Path, labels: NDArray[Any], count: int) -> NDArray[np.int64]:
    if labels.dtype.kind not in "iu" or labels.shape != (count,):
        raise DataError(
            f"{path}: labels are {labels.dtype} {list(labels.shape)}, and integers [{count}] are needed: "
            f"write it with {_HINT}"
        )
    if count and labels.min() < 0:
        raise DataError(f"{path}: the smallest label is {labels.min()}, and labels start at 0: write it with {_HINT}")
    return labels.astype(np.int64)


def _channels_first(path: Path, images: NDArray[Any], layout: str) -> NDArray[np.uint8]:
    if images.dtype != np.uint8 or images.ndim not in (3, 4):
        raise DataError(
            f"{path}: images are {images.dtype} {list(images.shape)}, and uint8 is needed: write it with {_HINT}"
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
