"""Standard data sets, through torchvision's own classes and downloaders."""

from __future__ import annotations

import importlib.util
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Unpack

from gancli.data.cache import cache_dir
from gancli.data.folder import from_files
from gancli.data.listing import kind_of
from gancli.data.pixels import Size
from gancli.data.source import Source, StreamOptions, check_split, finish
from gancli.errors import ConfigError, DataError

_FOLDERS = {"MNIST": "MNIST/raw", "FashionMNIST": "FashionMNIST/raw", "CIFAR10": "cifar-10-batches-py",
            "CIFAR100": "cifar-100-python", "SVHN": ".", "STL10": "stl10_binary", "CelebA": "celeba"}  # fmt: skip
_LARGEST_FILE = 1 << 32  # bytes; the largest one, STL-10's unlabeled images, has 2.8 GB


def mnist(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """MNIST: 60,000 train and 10,000 test digits, 28x28 grey. Size 32 pads by two black pixels.

    Raises ConfigError, DataError.
    """
    return _grey28("mnist", "MNIST", size, limit, split, root, download, **dealt)


def fashion_mnist(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """Fashion-MNIST: 60,000 train and 10,000 test clothes, 28x28 grey. Size 32 pads by two black pixels.

    Raises ConfigError, DataError.
    """
    return _grey28("fashion_mnist", "FashionMNIST", size, limit, split, root, download, **dealt)


def cifar10(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """CIFAR-10: 50,000 train and 10,000 test photographs, 32x32 colour, 10 classes. Raises ConfigError, DataError."""
    return _cifar("cifar10", "CIFAR10", size, limit, split, root, download, **dealt)


def cifar100(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """CIFAR-100: 50,000 train and 10,000 test photographs, 32x32 colour, 100 classes. Raises ConfigError, DataError."""
    return _cifar("cifar100", "CIFAR100", size, limit, split, root, download, **dealt)


def svhn(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """SVHN: house numbers, 73,257 train, 26,032 test, 531,131 extra, 32x32 colour, 10 classes; reading needs SciPy.

    Raises ConfigError, DataError.
    """
    check_split("svhn", split, ["train", "test", "extra"])
    if importlib.util.find_spec("scipy") is None:
        raise DataError("dataset=svhn is read with SciPy, which is not installed: type pip install scipy")
    data = _obtain("svhn", "SVHN", root, download, split=split)
    return finish(
        "svhn",
        data.data,
        np.atleast_1d(data.labels),
        [str(i) for i in range(10)],
        size=size,
        limit=limit,
        **dealt,
    )


def stl10(
    size: Size = None,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """STL-10: 5,000 train, 8,000 test (10 classes) and 100,000 unlabeled photographs, 96x96 colour.

    Raises ConfigError, DataError.
    """
    check_split("stl10", split, ["train", "test", "unlabeled"])
    data = _obtain("stl10", "STL10", root, download, split=split)
    if split == "unlabeled":
        return finish(
            "stl10",
            data.data,
            None,
            [],
            size=size,
            limit=limit,
            **dealt,
        )
    classes = getattr(data, "classes", None) or [str(i) for i in range(10)]  # from a file that may be missing
    return finish(
        "stl10",
        data.data,
        data.labels,
        classes,
        size=size,
        limit=limit,
        **dealt,
    )


def celeba(
    size: Size = 64,
    limit: int | None = None,
    split: str = "train",
    root: str | None = None,
    download: bool = False,
    attribute: str | None = None,
    **dealt: Unpack[StreamOptions],
) -> Source:
    """CelebA: 162,770 train, 19,867 valid, 19,962 test faces (or all), 178x218 colour.

    size: one side (64) resizes the central 178x178; null keeps 178x218. attribute: one of the 40 (Smiling, Male, ...)
    as two classes. Decoded once, to a memory map in the user's cache directory. Raises ConfigError, DataError.
    """
    check_split("celeba", split, ["train", "valid", "test", "all"])
    data = _obtain("celeba", "CelebA", root, download, split=split)
    labels, classes = None, []
    if attribute is not None:
        names = [name for name in data.attr_names if name]
        if attribute not in names:
            raise ConfigError(f"dataset.attribute={attribute} is unknown: type one of {', '.join(names)}, or null")
        labels, classes = data.attr[:, names.index(attribute)].numpy(), [f"not {attribute}", attribute]
    top = Path(data.root) / "celeba" / "img_align_celeba"
    # Colour by definition: no need to read 200,000 headers.
    shape: Size = [3, size, size] if isinstance(size, int) and not isinstance(size, bool) else size
    shape = [3, 218, 178] if shape is None else shape
    return from_files(
        "celeba",
        top,
        list(data.filename),
        labels,
        classes,
        size=shape,
        limit=limit,
        **dealt,
    )


def _grey28(
    name: str,
    kind: str,
    size: Size,
    limit: int | None,
    split: str,
    root: str | None,
    download: bool,
    **dealt: Unpack[StreamOptions],
) -> Source:
    check_split(name, split, ["train", "test"])
    data = _obtain(name, kind, root, download, train=split == "train")
    classes = [str(i) for i in range(10)] if kind == "MNIST" else list(data.classes)
    images, labels = data.data.numpy()[:, None], data.targets.numpy()
    return finish(
        name,
        images,
        labels,
        classes,
        size=size,
        limit=limit,
        pad=True,
        **dealt,
    )


def _cifar(
    name: str,
    kind: str,
    size: Size,
    limit: int | None,
    split: str,
    root: str | None,
    download: bool,
    **dealt: Unpack[StreamOptions],
) -> Source:
    check_split(name, split, ["train", "test"])
    data = _obtain(name, kind, root, download, train=split == "train")
    images: NDArray[np.uint8] = data.data.transpose(0, 3, 1, 2)
    return finish(
        name,
        images,
        np.asarray(data.targets),
        data.classes,
        size=size,
        limit=limit,
        **dealt,
    )


def _refuse_odd(name: str, folder: Path, files: str) -> None:
    """Raise DataError for pipes, devices and huge files among those that torchvision opens and reads whole."""
    for path in sorted(folder.glob(files)):
        facts = path.stat() if path.exists() else None
        if facts is None or stat.S_ISDIR(facts.st_mode):
            continue
        if not stat.S_ISREG(facts.st_mode):
            raise DataError(f"dataset={name}: {path} is a {kind_of(facts.st_mode)}, not a file: remove it")
        if facts.st_size > _LARGEST_FILE:
            raise DataError(f"dataset={name}: {path} has {facts.st_size >> 30} GiB, larger than any of its own files")


def _obtain(name: str, kind: str, root: str | None, download: bool, **choice: Any) -> Any:
    """Build torchvision's data set; its exceptions become a DataError with the remedy."""
    if root is not None and not root.strip():
        raise ConfigError(f"dataset={name} was given an empty dataset.root: type dataset.root=PATH, or leave it out")
    place = Path(root).expanduser() if root is not None else cache_dir() / "torchvision"
    _refuse_odd(name, place / _FOLDERS[kind], "*_32x32.mat" if kind == "SVHN" else "*")
    try:
        from torchvision import datasets

        make: Callable[..., Any] = getattr(datasets, kind)
        return make(str(place), download=download, **choice)
    except Exception as error:  # network, disk, archives, missing helpers: anything
        reason = " ".join(str(error).split()) or type(error).__name__
        if download:
            raise DataError(
                f"dataset={name} could not be downloaded into {place} ({reason}): check the connection, or type "
                "dataset.root=PATH with torchvision's files"
            ) from error
        if isinstance(error, RuntimeError) and "not found" in reason:
            raise DataError(
                f"dataset={name} is incomplete in {place}: type dataset.download=true, or dataset.root=PATH with "
                "torchvision's files"
            ) from error
        raise DataError(
            f"dataset={name} in {place} cannot be read ({reason}): remove it and type dataset.download=true, or "
            "dataset.root=PATH with torchvision's files"
        ) from error
