"""Reads reference files: sizes are validated before anything is unpacked, and no code in them is run."""

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

from gancli.store.arrays import header
from gancli.store.safe import examine

LARGEST = 1 << 32  # bytes of a file, and of its unpacked contents
BOMB_BYTES, BOMB_RATIO = 1 << 26, 50  # features compress to no less than a tenth: above both limits it is a zip bomb
LARGEST_ABOUT = 1 << 20  # characters of the JSON text about the reference
LARGEST_VALUE = 1e9  # features of networks are below this
WIDEST = 8192  # features per image; their covariance then takes half a gibibyte
ARRAYS = ("mu", "sigma", "n", "features")


def read_file(path: Path) -> tuple[dict[str, Any], str]:
    """Return those of the arrays mu, sigma, n, features and the dictionary about that are there, and the SHA-256.

    Raises ValueError, OSError or an exception of the libraries for a file that is not a reference.
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
    """Read one array after validating its size. Raises ValueError for a size or dtype that is not allowed.

    >>> import io
    >>> file = io.BytesIO()
    >>> np.savez(file, mu=np.arange(2.0))
    >>> _member(zipfile.ZipFile(file), "mu.npy").tolist()
    [0.0, 1.0]
    """
    member = archive.getinfo(name)
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise ValueError(f"{name} is compressed by a method that NumPy does not use")
    if member.file_size > LARGEST or (
        member.file_size > BOMB_BYTES and member.file_size > BOMB_RATIO * member.compress_size
    ):
        raise ValueError(f"{name} unpacks to {member.file_size >> 20:,} MiB, which is too much for its compressed size")
    with archive.open(member) as file:
        shape, by_columns, kind = header(file, name, member.file_size)
        if kind.kind not in ("U" if text else "fiu"):
            raise ValueError(f"{name} has dtype {kind}, and {'text is' if text else 'plain numbers are'} needed")
        if text and (shape != () or kind.itemsize > 4 * LARGEST_ABOUT):
            raise ValueError(f"{name} is not a short text")
        size = math.prod(shape) * kind.itemsize
        content = bytearray(size)
        view, at = memoryview(content), 0
        while at < size:
            part = file.read(min(size - at, 1 << 24))
            if not part:
                raise ValueError(f"{name} is truncated")
            view[at : at + len(part)] = part
            at += len(part)
        file.read(1)  # past the end, where zipfile checks the CRC
    flat = np.frombuffer(content, kind)
    return flat.reshape(shape, order="F" if by_columns else "C")


def about(text: str) -> dict[str, Any]:
    """Parse a reference's JSON text. Raises ValueError if it cannot be serialised again."""

    def refuse(word: str) -> Any:
        raise ValueError(f"{word} in its JSON text")

    found = json.loads(text, parse_constant=refuse)
    if not isinstance(found, dict) or not all(
        isinstance(found.get(key, {}), dict) for key in ("reference", "extractor")
    ):
        raise ValueError("its JSON text is not a dictionary")
    again = json.dumps(found, ensure_ascii=False, allow_nan=False).encode()  # lone surrogates, numbers beyond float64
    if len(again) > LARGEST_ABOUT:
        raise ValueError("its JSON text is over 1 MiB")
    return found


def _torch(file: IO[bytes]) -> dict[str, Any]:
    """Read torch-fidelity's cached statistics, a dict of arrays, or its cached features, a tensor [n, d]."""
    examine(file, legacy=True, arrays=True)
    kinds = [np.ndarray, np.dtype, *(getattr(np.dtypes, name) for name in dir(np.dtypes) if name.endswith("DType"))]
    rebuild = pickle.loads(pickle.dumps(np.zeros(1).__reduce__()[0]))  # NumPy's own; its module differs by version
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
            raise ValueError(f"{name} is a {type(value).__name__}, not an array")
    return kept


def checked(found: Mapping[str, Any]) -> tuple[NDArray[np.float64] | None, NDArray[np.float64] | None, Tensor | None]:
    """Return mu, sigma and features of a file's arrays; mu and sigma are None if there are only features.

    Raises ValueError or KeyError if they do not match each other, or are not statistics of features.
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
    # float32 files are symmetric up to rounding of the largest entry.
    if (np.diagonal(sigma) < 0).any() or np.abs(sigma - sigma.T).max() > 1e-5 * np.abs(sigma).max():
        raise ValueError("sigma is not a covariance: not symmetric, or negative on its diagonal")
    if features is not None and features.shape[1] != len(mu):
        raise ValueError(f"features of shape {tuple(features.shape)} and mu of shape {mu.shape}")
    return mu, sigma, features


def _numbers(name: str, value: Any, dimensions: int) -> NDArray[Any]:
    array: NDArray[Any] = np.asarray(value)
    if array.dtype.kind not in "fiu":
        raise ValueError(f"{name} of {array.dtype}")
    if array.ndim != dimensions:
        raise ValueError(f"{name} of shape {array.shape}")
    # Minimum and maximum need no copy; a NaN is in both.
    low, high = (float(end) for end in (array.min(initial=0), array.max(initial=0)))
    if not (low >= -LARGEST_VALUE and high <= LARGEST_VALUE**2):
        raise ValueError(f"{name} has values out of range for features, from {low:g} to {high:g}")
    return array


def count(found: Mapping[str, Any], features: Tensor | None) -> int | None:
    """Return the number of images of a reference; None if unknown. Raises ValueError for an invalid number."""
    if features is not None:
        return len(features)
    if "n" not in found:
        return None
    n = np.asarray(found["n"])
    if n.size != 1 or n.dtype.kind not in "fiu" or not 2 <= float(n.reshape(())) <= 1 << 53 or float(n.reshape(())) % 1:
        raise ValueError("n is not a number of images")
    return int(n.reshape(()))
