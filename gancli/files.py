"""Files that are whole or absent: a temporary name, fsync, rename."""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

from gancli.errors import RunError, plain

HALF = ".half"  # how the name of a file ends that is being written
LARGEST_JSON = 1 << 26  # bytes; ours have some kilobytes


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only when all of it is on the disk.

    Raises RunError, leaving nothing behind, when the disk is full or the folder cannot be written.
    """
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=HALF, dir=path.parent)
        temporary = Path(name)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.chmod(0o644)
        temporary.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise cannot_write(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)


def cannot_write(path: Path, error: OSError) -> RunError:
    """What to tell the person when a write fails."""
    return RunError(f"cannot write {path}: {error.strerror or error}; free some space or choose another run_dir")


def halves(folder: Path) -> list[Path]:
    """What a process that was killed while it wrote left in a folder."""
    return list(folder.glob(f".*{HALF}"))


def add_line(path: Path, line: str) -> None:
    """Add a line to a text file. Raises RunError when the disk is full or the file cannot be written."""
    try:
        with path.open("a", encoding="utf-8") as file:
            file.write(line + "\n")
    except OSError as error:
        raise cannot_write(path, error) from error


def sync(path: Path) -> None:
    """Bring what was added to a file onto the disk, so that it outlasts a power cut; nothing where there is no file.

    Raises RunError when the disk is full.
    """
    try:
        with path.open("ab") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise cannot_write(path, error) from error


def _sync_folder(folder: Path) -> None:
    """Make a rename outlast a power cut, where the system lets a folder be opened."""
    try:
        handle = os.open(folder, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_text(path: Path, text: str) -> None:
    """Replace a text file whole."""
    with whole_file(path) as file:
        file.write(text.encode())


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file whole."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def read_json(path: Path) -> Any:
    """A JSON file's value. Raises RunError when it is missing, damaged, or far larger than any of ours."""
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"over {LARGEST_JSON >> 20} MiB")
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {plain(error)}") from None
