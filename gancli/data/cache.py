"""Decoded images kept in the user's cache directory: written once, whole or not at all, then memory-mapped."""

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
_KINDS = {8: "|u1", 16: "<u2"}  # how images lie in a file, by their bits


def cache_dir() -> Path:
    """Where data that can be made again is kept: $XDG_CACHE_HOME/gan, else ~/.cache/gan."""
    given = os.environ.get("XDG_CACHE_HOME", "")
    if given and Path(given).is_absolute():
        return Path(given) / "gan"
    try:
        return Path.home() / ".cache" / "gan"
    except RuntimeError:  # a user without a home
        return Path(tempfile.gettempdir()) / "gan"


def place(name: str) -> Path:
    """A folder of the cache. It may be a link, as to a larger disk: nobody but the person puts one there."""
    return Path(os.path.realpath(cache_dir() / name))


def load(key: str) -> tuple[NDArray[Any], str] | None:
    """This key's images, a memory map [N, C, H, W], and their SHA-256; None when they are not wholly there."""
    array, beside = _paths(key)
    try:
        images: NDArray[Any] = np.load(array, mmap_mode="r", allow_pickle=False)
        known = read_json(beside)
        if images.dtype == _KINDS[known.get("bits", 8)] and list(images.shape) == known["shape"]:
            return images, str(known["sha256"])
    except (OSError, ValueError, EOFError, KeyError, TypeError, RunError):
        pass  # missing or damaged: made again
    return None


def facts(key: str) -> tuple[tuple[int, ...], str, int] | None:
    """The shape [N, C, H, W], SHA-256 and bits of images that were decoded once, kept here or not; None: unknown."""
    try:
        known = read_json(_paths(key)[1])
        return tuple(map(int, known["shape"])), str(known["sha256"]), int(known.get("bits", 8))
    except (KeyError, TypeError, ValueError, AttributeError, RunError):
        return None


def notes(key: str) -> tuple[str, ...]:
    """What was said when this key's images were decoded."""
    try:
        return tuple(map(str, read_json(_paths(key)[1])["notes"]))
    except (KeyError, TypeError, RunError):
        return ()


def note(
    key: str, shape: tuple[int, ...], parts: Iterable[NDArray[Any]], told: Sequence[str] = (), bits: int = 8
) -> str:
    """The SHA-256 of images that arrive in parts and are not kept, written down for `facts`.

    told: what `notes` will answer. Raises DataError.
    """
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part.astype(_KINDS[bits], copy=False).tobytes())
    keep_json(_paths(key)[1], _told(shape, digest.hexdigest(), told, bits))
    return digest.hexdigest()


def keep_json(path: Path, value: Any) -> None:
    """A small file of the cache. Raises DataError where it cannot be written."""
    try:
        write_json(path, value)
    except RunError as error:
        raise DataError(
            f"{path.parent} cannot be written ({error.__cause__}): set XDG_CACHE_HOME to another folder"
        ) from error


@contextlib.contextmanager
def alone(key: str) -> Iterator[None]:
    """One process at a time makes the same images; the others wait for it, then find them made.

    What a killed one left half-written is removed at once: no other can be writing it. Raises DataError.
    """
    try:
        import fcntl
    except ImportError:  # no such thing on this system: each makes its own, and the last one's stays
        yield
        return
    array = _paths(key)[0]
    lock = place("locks") / key  # stays: removing it could let two in
    try:
        lock.parent.mkdir(parents=True, exist_ok=True)
        with lock.open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            for path in array.parent.glob(f".{array.name}.*"):
                path.unlink(missing_ok=True)
            yield
    except OSError as error:
        raise DataError(
            f"decoded images cannot be kept in {array.parent} ({error.strerror or error}): "
            "set XDG_CACHE_HOME to another folder"
        ) from error


def store(
    key: str, shape: tuple[int, int, int, int], parts: Iterable[NDArray[Any]], told: Sequence[str] = (), bits: int = 8
) -> tuple[NDArray[Any], str]:
    """Writes images that arrive in parts, and returns what `load` would. told: what `notes` will answer.

    The file gets its name when it is complete and on the disk, so that a killed run leaves nothing that looks like one.
    Raises DataError when the disk is full or the directory cannot be written.
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
        # After the images: without these facts they do not count.
        write_json(beside, _told(shape, digest.hexdigest(), told, bits))
    except RunError as error:
        raise DataError(
            f"decoded images cannot be kept in {array.parent} ({error.__cause__}): make room there, set XDG_CACHE_HOME "
            "to another folder, or type a smaller dataset.size or dataset.limit"
        ) from error
    written = load(key)
    if written is None:
        raise DataError(f"decoded images in {array} cannot be read back: set XDG_CACHE_HOME to another folder")
    return written


def _told(shape: Sequence[int], digest: str, notes: Sequence[str], bits: int) -> dict[str, Any]:
    """What is written beside images."""
    return {"shape": list(shape), "sha256": digest, "notes": list(notes)} | ({} if bits == 8 else {"bits": bits})


def _paths(key: str) -> tuple[Path, Path]:
    folder = place("images")
    return folder / f"{key}.npy", folder / f"{key}.json"


def _sweep(folder: Path) -> None:
    """Removes what killed runs left behind more than a day ago."""
    for path in folder.glob(".*"):
        with contextlib.suppress(OSError):
            if time.time() - path.stat().st_mtime > _DAY:
                path.unlink()
