"""A cache of decoded images in the user's cache directory: written atomically, then memory-mapped."""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gancli.errors import DataError, RunError
from gancli.store.files import read_json, whole_file, write_json

_DAY = 86_400.0
_KINDS = {8: "|u1", 16: "<u2"}  # dtype of a cached file, by bit depth


def cache_dir() -> Path:
    """Return the directory of files that can be recomputed: $XDG_CACHE_HOME/gan, else ~/.cache/gan."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "gan"
    try:
        return Path.home() / ".cache" / "gan"
    except RuntimeError:  # no home directory
        return Path(tempfile.gettempdir()) / "gan"


def place(name: str) -> Path:
    """Return a folder of the cache, links resolved: the user may link it to a larger disk."""
    return Path(os.path.realpath(cache_dir() / name))


def load(key: str) -> tuple[NDArray[Any], str] | None:
    """Return a key's images, a memory map [N, C, H, W], and their SHA-256; None if they are missing or incomplete."""
    array, beside = _paths(key)
    try:
        images: NDArray[Any] = np.load(array, mmap_mode="r", allow_pickle=False)
        known = read_json(beside)
        if images.dtype == _KINDS[known.get("bits", 8)] and list(images.shape) == known["shape"]:
            return images, str(known["sha256"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, RunError):
        pass  # missing or damaged: decoded again
    return None


def facts(key: str) -> tuple[tuple[int, ...], str, int] | None:
    """Return the shape [N, C, H, W], SHA-256 and bits of images decoded before, cached or not; None if unknown."""
    try:
        known = read_json(_paths(key)[1])
        return tuple(map(int, known["shape"])), str(known["sha256"]), int(known.get("bits", 8))
    except (KeyError, TypeError, ValueError, AttributeError, RunError):
        return None


def notes(key: str) -> tuple[str, ...]:
    """Return the notes recorded when this key's images were decoded."""
    try:
        return tuple(map(str, read_json(_paths(key)[1])["notes"]))
    except (KeyError, TypeError, RunError):
        return ()


def note(
    key: str, shape: tuple[int, ...], parts: Iterable[NDArray[Any]], told: Sequence[str] = (), bits: int = 8
) -> str:
    """Compute the SHA-256 of images that arrive in parts and are not kept, record it for `facts`, and return it.

    told: what `notes` will return. Raises DataError.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.astype(_KINDS[bits], copy=False).tobytes())
    keep_json(_paths(key)[1], _told(shape, digest.hexdigest(), told, bits))
    return digest.hexdigest()


def keep_json(path: Path, value: Any) -> None:
    """Write a small file of the cache. Raises DataError if it cannot be written."""
    try:
        write_json(path, value)
    except RunError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.__cause__}): set XDG_CACHE_HOME to another folder"
        ) from error


@contextlib.contextmanager
def alone(key: str) -> Iterator[None]:
    """Hold a lock so that one process at a time decodes the same images; the others wait, then find them cached.

    Removes at once what a killed process left half-written: the lock excludes other writers. Raises DataError.
    """
    try:
        import fcntl
    except ImportError:  # not on this system: each process decodes its own, and the last one's is kept
        yield
        return
    array = _paths(key)[0]
    lock = place("locks") / key  # never removed: removing it could let two processes in
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for path in array.parent.glob(f".{array.name}.*"):
                path.unlink(missing_ok=True)
            yield
    except OSError as error:
        raise DataError(
            f"decoded images cannot be cached in {array.parent} ({error.strerror or error}): "
            "set XDG_CACHE_HOME to another folder"
        ) from error


def store(
    key: str, shape: tuple[int, int, int, int], parts: Iterable[NDArray[Any]], told: Sequence[str] = (), bits: int = 8
) -> tuple[NDArray[Any], str]:
    """Write images that arrive in parts, and return what `load` would. told: what `notes` will return.

    The file gets its name once it is complete and synced to disk, so a killed run leaves no partial file of that name.
    Raises DataError if the disk is full or the directory cannot be written.
    """
    array, beside = _paths(key)
    digest = hashlib.sha256()
    try:
        with whole_file(array) as file:
            _sweep(array.parent)
            needed, free = int(np.prod(shape)) * bits // 8, shutil.disk_usage(array.parent).free
            if needed > free:
                raise OSError(f"{needed >> 20} MiB are needed and {free >> 20} MiB free")
            np.lib.format.write_array_header_1_0(file, {"descr": _KINDS[bits], "fortran_order": False, "shape": shape})
            for part in parts:
                data = part.astype(_KINDS[bits], copy=False).tobytes()
                digest.update(data)
                file.write(data)
        # Written after the images: `load` ignores images without this file.
        write_json(beside, _told(shape, digest.hexdigest(), told, bits))
    except RunError as error:
        raise DataError(
            f"decoded images cannot be cached in {array.parent} ({error.__cause__}): free space, set XDG_CACHE_HOME "
            "to another folder, or type a smaller dataset.size or dataset.limit"
        ) from error
    written = load(key)
    if written is None:
        raise DataError(f"decoded images in {array} cannot be read back: set XDG_CACHE_HOME to another folder")
    return written


def _told(shape: Sequence[int], digest: str, notes: Sequence[str], bits: int) -> dict[str, Any]:
    """Return the contents of the JSON file beside the images."""
    return {"shape": list(shape), "sha256": digest, "notes": list(notes)} | ({} if bits == 8 else {"bits": bits})


def _paths(key: str) -> tuple[Path, Path]:
    folder = place("images")
    return folder / f"{key}.npy", folder / f"{key}.json"


def _sweep(folder: Path) -> None:
    """Remove temporary files that killed runs left more than a day ago."""
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                path.unlink()
