"""Atomic file writes (temporary name, fsync, rename) that follow no links, and reading of regular files.

Files are written, renamed and deleted by name in a folder that was opened without following links: a run directory may
be untrusted, with links that lead elsewhere. A path that the user typed may be a link; the caller resolves it first
(`gancli.store.rundir.claim`, `find`).
"""

from __future__ import annotations

import csv
import errno
import io
import json
import os
import secrets
import stat
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

from gancli.errors import RunError, plain

HALF = ".half"  # suffix of a file that is being written
LARGEST_JSON = 1 << 26  # bytes; ours have a few kilobytes
LONGEST_LINE = 1 << 22  # bytes of a row; ours have a few kilobytes

# Without these system calls, a link is looked for by name before the folder is used.
_HANDLES = os.open in os.supports_dir_fd and hasattr(os, "O_DIRECTORY") and hasattr(os, "O_NOFOLLOW")
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)
_AT_ONCE = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class Folder:
    """A directory held open, so that operations by name stay inside it. Raises OSError if it is a link."""

    def __init__(self, path: Path):
        self.path = path
        self._handle: int | None = None
        if path.is_symlink():  # opening it would only report that it is not a directory
            raise OSError(errno.ELOOP, "it is a link, and nothing is written or deleted through links")
        if _HANDLES:
            with suppress(PermissionError):  # a folder that may be writable but not readable
                self._handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK | _AT_ONCE)

    def open(self, name: str, flags: int) -> int:
        """Open a regular file in it, and return the handle. Raises OSError for a link, a pipe or any other kind."""
        if (self.path / name).is_symlink():
            raise OSError(errno.ELOOP, "it is a link, and nothing is written or deleted through links")
        handle = os.open(self._at(name), flags | _NO_LINK | _AT_ONCE, 0o644, dir_fd=self._handle)
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            os.close(handle)
            raise OSError(errno.EINVAL, "it is not a regular file")
        return handle

    def rename(self, name: str, new: str) -> None:
        """Rename a file in it, replacing a file of the new name."""
        os.replace(self._at(name), self._at(new), src_dir_fd=self._handle, dst_dir_fd=self._handle)

    def remove(self, name: str) -> None:
        """Delete a file or a link in it, if it exists."""
        with suppress(FileNotFoundError):
            os.unlink(self._at(name), dir_fd=self._handle)

    def sync(self) -> None:
        """Make renames survive a power cut, if the system can open folders."""
        if self._handle is not None:
            os.fsync(self._handle)

    def close(self) -> None:
        """Close the handle."""
        if self._handle is not None:
            os.close(self._handle)
            self._handle = None

    def _at(self, name: str) -> str:
        return name if self._handle is not None else str(self.path / name)


@contextmanager
def held(path: Path, make: bool = False) -> Iterator[Folder]:
    """Hold a directory open; make: create it first if it is missing. Raises OSError."""
    if make and not path.is_symlink():
        path.mkdir(parents=True, exist_ok=True)
    folder = Folder(path)
    try:
        yield folder
    finally:
        folder.close()


# -- writing -----------------------------------------------------------------------------------------------------------


@contextmanager
def whole_file(path: Path) -> Iterator[IO[bytes]]:
    """Write a file that appears under its name only once all of it is on disk.

    A link or a file of that name is replaced, never written to. Raises RunError, leaving nothing behind, if the disk is
    full or the folder cannot be written to or is a link.
    """
    try:
        with held(path.parent, make=True) as folder:
            half = f".{path.name}.{secrets.token_hex(4)}{HALF}"
            try:
                with os.fdopen(folder.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL), "wb") as file:
                    yield file
                    file.flush()
                    os.fsync(file.fileno())
                folder.rename(half, path.name)
                folder.sync()
            finally:
                folder.remove(half)
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path, error: OSError) -> RunError:
    """Return the error message for a failed write."""
    if path.parent.is_symlink():
        return RunError(
            f"cannot write {path}: {path.parent} is a link, and nothing is written or deleted through links; put a"
            " folder in its place, or choose another run_dir"
        )
    if error.errno in (errno.EEXIST, errno.ENOTDIR):
        return RunError(f"cannot write {path}: there is a file where a folder should be; remove it")
    if error.errno in (errno.ELOOP, errno.EINVAL) and error.filename is None:
        return RunError(f"cannot write {path}: {error.strerror}; delete it, or choose another run_dir")
    return RunError(f"cannot write {path}: {error.strerror or error}; free some space or choose another run_dir")


def add_line(path: Path, line: str) -> None:
    """Append a line to a text file. Raises RunError if the disk is full or the file cannot be written or is a link.

    A file that also has another name (a hard link, such as a backup's) is first replaced by a copy.
    """
    text = (line + "\n").encode(errors="backslashreplace")
    try:
        with held(path.parent) as folder:
            with os.fdopen(folder.open(path.name, os.O_RDWR | os.O_CREAT | os.O_APPEND), "r+b", buffering=0) as file:
                if os.fstat(file.fileno()).st_nlink < 2:
                    _write_all(file, text)
                    return
                before = file.read()
            with whole_file(path) as own:
                own.write(before + text)
    except OSError as error:
        raise cannot_write(path, error) from error


def _write_all(file: IO[bytes], text: bytes) -> None:
    """Write all of a text: raw writes may be short, on a disk that has just become full."""
    while text:
        text = text[file.write(text) :]


def sync(path: Path) -> None:
    """Sync what was added to a file to disk, so that it survives a power cut; a missing file is ignored.

    Raises RunError if the disk is full.
    """
    try:
        with held(path.parent) as folder, os.fdopen(folder.open(path.name, os.O_RDWR), "r+b") as file:
            os.fsync(file.fileno())
    except FileNotFoundError:
        return
    except OSError as error:
        raise cannot_write(path, error) from error


def write_text(path: Path, text: str) -> None:
    """Replace a text file atomically."""
    with whole_file(path) as file:
        file.write(text.encode(errors="backslashreplace"))


def write_json(path: Path, value: Any) -> None:
    """Replace a JSON file atomically. A name that is not UTF-8 is written in JSON's escapes and read back unchanged."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def rename(path: Path, name: str) -> None:
    """Rename a file within its folder, replacing one of the new name. Raises RunError."""
    try:
        with held(path.parent) as folder:
            folder.rename(path.name, name)
    except OSError as error:
        raise cannot_write(path, error) from error


def remove(path: Path) -> None:
    """Delete a file if it exists; of a link, only the link. Raises RunError, for a folder too."""
    try:
        with held(path.parent) as folder:
            folder.remove(path.name)
    except FileNotFoundError:
        return
    except OSError as error:
        raise RunError(f"cannot delete {path}: {error.strerror or error}") from error


def halves(folder: Path) -> list[Path]:
    """Return the unfinished files that a killed process left in a folder."""
    return files(folder, f".*{HALF}")


# -- reading -----------------------------------------------------------------------------------------------------------


def files(folder: Path, pattern: str) -> list[Path]:
    """Return the regular files of a folder whose names match, sorted by name; none if there is no folder.

    Other entries with such a name are left out: a folder, a pipe, a broken link.
    """
    return [path for path in sorted(folder.glob(pattern)) if path.is_file()]


def open_regular(path: Path) -> IO[bytes]:
    """Open a regular file for reading. Raises OSError for any other kind, without waiting for a pipe's other end."""
    handle = os.open(path, os.O_RDONLY | _AT_ONCE)
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise OSError(errno.EINVAL, "it is not a regular file", str(path))
    return os.fdopen(handle, "rb")


def read_bytes(path: Path, most: int) -> bytes:
    """Return a regular file's content. Raises OSError, or ValueError if it has more than `most` bytes."""
    with open_regular(path) as file:
        content = file.read(most + 1)
    if len(content) > most:
        raise ValueError(f"it has over {most >> 20} MiB")
    return content


def read_json(path: Path) -> Any:
    """Return a JSON file's value. Raises RunError if it is missing, damaged, or far larger than any of ours."""
    try:
        return json.loads(read_bytes(path, LARGEST_JSON).decode())
    except (OSError, ValueError, RecursionError) as error:
        raise RunError(f"cannot read {path}: {plain(error)}") from None


def json_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yield the rows of a file with one JSON object per line; truncated or damaged lines are skipped.

    Yields nothing for a file that is missing or not a regular one.
    """
    try:
        with open_regular(path) as file:
            whole = True  # whether the next read begins a line
            while line := file.readline(LONGEST_LINE):
                begins, whole = whole, line.endswith(b"\n")
                if begins and len(line) < LONGEST_LINE:
                    with suppress(ValueError, RecursionError):
                        row = json.loads(line)
                        if isinstance(row, dict):
                            yield row
    except OSError:
        return


def finite(value: Any) -> float | None:
    """Return a JSON value as a finite number, None if it is not one.

    >>> finite(3), finite(True), finite(10**400), finite("3")
    (3.0, None, None, None)
    """
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if abs(number) < float("inf") else None


def csv_text(rows: Iterable[Sequence[Any]]) -> str:
    """Return rows as CSV. A text that a spreadsheet would read as a formula gets a leading apostrophe.

    >>> csv_text([["=1+1", -2.5, "-2.5", "a b"]])
    "'=1+1,-2.5,-2.5,a b\\n"
    """
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([[_cell(cell) for cell in row] for row in rows])
    return text.getvalue()


def _cell(value: Any) -> Any:
    if not isinstance(value, (str, Path)) or not str(value).startswith(("=", "+", "-", "@", "\t", "\r")):
        return value
    try:
        float(str(value))
    except ValueError:
        return f"'{value}"
    return value
