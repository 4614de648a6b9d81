"""Reads the files that references are kept in: sizes are checked before anything is unpacked, and nothing is run."""

from __future__ import annotations

import hashlib
import json
import math
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.store.safe import examine

LARGEST = 1 << 32  # bytes of a file, and of what it unpacks to
BOMB_BYTES, BOMB_RATIO = 1 << 26, 50  # features are not packed to less than a tenth: more than both is none
LARGEST_ABOUT = 1 << 20  # characters of the text that says where a reference comes from
LARGEST_VALUE = 1e9  # no network's features are larger
WIDEST = 8192  # features of an image; their covariance then has half a gibibyte
ARRAYS = ("mu", "sigma", "n", "features")


def read_file(path: Path) -> tuple[dict[str, Any], str]:
    """The arrays mu, sigma, n, features and the dictionary about, as far as they are there, and the file's SHA-256.

    Raises ValueError or OSError, and whatever the libraries raise, for a file that holds no reference.
    """
    if path.stat().st_size > LARGEST:
        raise ValueError(f"over {LARGEST >> 30} GiB")
    with path.open("rb") as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest() if hasattr(hashlib, "file_digest") else _hash(file)
        file.seek(0)
        found = _npz(file) if path.suffix.lower() == ".npz" else _torch(file)
    return found, sha256


def _hash(file: IO[bytes]) -> str:
    total = hashlib.sha256()
    while part := file.read(1 << 20):
        total.update(part)
    return total.hexdigest()


def _npz(file: IO[bytes]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    with zipfile.ZipFile(file) as archive:
        names = set(archive.namelist())
        for name in ARRAYS:
            if f"{name}.npy" in names:
                found[name] = _member(archive, f"{name}.npy")
        if "about.npy" in names:
            found["about"] = about(str(_member(archive, "about.npy", text=True)))
    return found


def _member(archive: zipfile.ZipFile, name: str, text: bool = False) -> NDArray[Any]:
    """One array, its bytes counted before they are unpacked. Raises ValueError for sizes or kinds that it may not have.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.savez(file, mu=np.arange(2.0))
    >>> _member(zipfile.ZipFile(file), "mu.npy").tolist()
    [0.0, 1.0]
    """
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is packed by another method than NumPy's")
    if member.file_size > LARGEST or (
        member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * member.compress_size
    ):
        raise ValueError(f"{name} unpacks to {member.file_size >> 20:,} MiB of next to nothing")
    with archive.open(member) as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        shape, by_columns, kind = read(file)
        if kind.kind not in ("U" if text else "fiu"):
            raise ValueError(f"{name} is of {kind}, and {'text' if text else 'plain numbers'} are needed")
        if text and (shape != () or kind.itemsize > 4 * LARGEST_ABOUT):
            raise ValueError(f"{name} is no short text")
        size = math.prod(shape) * kind.itemsize
        if size != member.file_size - file.tell():
            raise ValueError(f"{name} says {list(shape)} of {kind} and has {member.file_size - file.tell():,} bytes")
        content = bytearray(size)
        view, at = memoryview(content), 0
        while at < size:
            part = file.read(min(size - at, 1 << 24))
            if not part:
                raise ValueError(f"{name} ends too early")
            view[at : at + len(part)] = part
            at += len(part)
        file.read(1)  # past the end, where the check sum is compared
    flat = np.frombuffer(content, kind)
    return flat.reshape(shape, order="F" if by_columns else "C")


def about(text: str) -> dict[str, Any]:
    """The dictionary that a reference's text is. Raises ValueError for one that cannot be written down again."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} in its text")

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, {}), dict) for key in ("reference", "extractor")
    ):
        raise ValueError("a text that is no dictionary")
    again = json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # lone surrogates, numbers beyond float64
    if len(again) > LARGEST_ABOUT:
        raise ValueError("a text of over 1 MiB")
    return found


def _torch(file: IO[bytes]) -> dict[str, Any]:
    """torch-fidelity's cached statistics, a dict of arrays, or its cached features, a tensor [n, d]."""
    examine(file, legacy=True, arrays=True)
    kinds = [np.ndarray, np.dtype, *(getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType"))]
    rebuild = pickle.loads(pickle.dumps(np.zeros(1).__reduce__()[0]))  # NumPy's own, wherever it keeps it
    import _codecs

    with torch.serialization.safe_globals([*kinds, rebuild, _codecs.encode]):
        found = torch.load(file, map_location="cpu", weights_only=True)
    if isinstance(found, Tensor):
        found = {"features": found}
    if not isinstance(found, dict):
        raise ValueError("neither a tensor nor a dictionary")
    kept: dict[str, Any] = {}
    for name in ARRAYS:
        value = found.get(name)
        if isinstance(value, Tensor):
            value = value.detach().to(torch.float64 if value.dtype == torch.float64 else torch.float32).numpy()
        if isinstance(value, (np.ndarray, int, float)) and not isinstance(value, bool):
            kept[name] = np.asarray(value)
        elif value is not None:
            raise ValueError(f"{name} is a {type(value).__name__} and no array")
    return kept


def checked(found: Mapping[str, Any]) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, Tensor | None]:
    """mu, sigma and features of a file's arrays; mu and sigma None where only features are there.

    Raises ValueError or KeyError where they do not fit each other, or are no features' statistics.
    """
    features = None
    if "features" in found:
        features = torch.from_numpy(np.ascontiguousarray(_numbers("features", found["features"], 2), np.float32))
        if len(features) < 2 or not 0 < features.shape[1] <= WIDEST:
            raise ValueError(f"features of shape {tuple(features.shape)}")
    if "mu" not in found and features is not None:
        return None, None, features
    mu, sigma = (_numbers(name, found[name], k).astype(np.float64) for name, k in (("mu", 1), ("sigma", 2)))
    if not 0 < len(mu) <= WIDEST or sigma.shape != (len(mu), len(mu)):
        raise ValueError(f"mu of shape {mu.shape} and sigma of shape {sigma.shape}")
    # float32 files are symmetric to their own rounding of the largest entry.
    if (np.diagonal(sigma) < 0).any() or np.abs(sigma - sigma.T).max() > 1e-5 * np.abs(sigma).max():
        raise ValueError("sigma is no covariance: not symmetric, or negative on its diagonal")
    if features is not None and features.shape[1] != len(mu):
        raise ValueError(f"features of shape {tuple(features.shape)} and mu of shape {mu.shape}")
    return mu, sigma, features


def _numbers(name: str, value: Any, dimensions: int) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} of {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(f"{name} of shape {array.shape}")
    # By its ends, which need no copy; a NaN is at both.
    low, high = (float(end) for end in (array.min(initial=0), array.max(initial=0)))
    if not (low >= -LARGEST_VALUE and high <= LARGEST_VALUE**2):
        raise ValueError(f"{name} holds numbers that are no feature's, from {low:g} to {high:g}")
    return array


def count(found: Mapping[str, Any], features: Tensor | None) -> int | None:
    """How many images a reference is of; None where the file does not say. Raises ValueError for no such number."""
    if features is not None:
        return len(features)
    if "n" not in found:
        return None
    n = np.asarray(found["n"])
    if n.size != 1 or n.dtype.kind not in "fiu" or not 2 <= float(n.reshape(())) <= 1 << 53 or float(n.reshape(())) % 1:
        raise ValueError("n is no number of images")
    return int(n.reshape(()))
