"""Run directories: what they hold, how they are created and how they are locked.

config.yaml      the whole configuration        metrics.jsonl   a row every few steps
run.json         its origin and status          log.txt         what was logged
samples/         grids from fixed latents       checkpoints/    NNNNNNNN.pt, each with its .json
eval/            results of `gan eval`, one file per checkpoint and protocol
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from gancli.config.commands import command, word
from gancli.errors import ConfigError, RunError
from gancli.store import recorded
from gancli.store.best import best_step
from gancli.store.files import (
    HALF,
    add_line,
    files,
    halves,
    held,
    open_regular,
    read_bytes,
    read_json,
    remove,
    rename,
    sync,
    whole_file,
    write_json,
    write_text,
)

OUTPUTS = Path("outputs")
MARK = b"gan train\n"  # content of a run's lock file
# The files and folders that a run writes.
OWN = (
    *(".lock", "run.json", "config.yaml", "metrics.jsonl", "log.txt", "report.html", "logger.json"),
    *("checkpoints", "samples", "eval", "tensorboard", "wandb"),
)
ASIDE = ".aside"  # suffix of checkpoints later than the step that a run went back to


class RunDir:
    """A training run on disk. made: whether this process created its directory, which `withdraw` then deletes.

    Writing and deleting in it follow no link (`gancli.store.files`); `path` itself is not a link if it was found or
    claimed by the functions below or in finding.py.
    """

    def __init__(self, path: Path, made: bool = False):
        self.path, self.made = path, made
        self.samples, self.checkpoints, self.results = path / "samples", path / "checkpoints", path / "eval"
        self.metrics, self.log_file = path / "metrics.jsonl", path / "log.txt"
        self._lock: IO[bytes] | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Write config.yaml: the whole configuration, as composed."""
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def config(self) -> dict[str, Any]:
        """Return the configuration of this run. Raises RunError."""
        return recorded.config(self.path / "config.yaml")

    def about(self) -> dict[str, Any]:
        """Return run.json's content, with validated types. Raises RunError."""
        return recorded.about(self.path / "run.json")

    def update(self, **values: Any) -> None:
        """Change values in run.json, atomically."""
        path = self.path / "run.json"
        write_json(path, (self.about() if path.exists() else {}) | values)

    def started(self) -> bool:
        """Whether there is a run to resume or to inspect."""
        return (self.path / "run.json").is_file()

    def say(self, text: str) -> None:
        """Append a dated line to log.txt. Raises RunError."""
        add_line(self.log_file, f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def append(self, row: Mapping[str, Any]) -> None:
        """Append a row to metrics.jsonl. Raises RunError."""
        add_line(self.metrics, json.dumps(row))

    def flush(self) -> None:
        """Sync all rows so far to disk: a checkpoint is never there without the rows before it."""
        if self.metrics.exists():
            sync(self.metrics)

    def forget_after(self, step: int) -> int:
        """Go back to `step`: drop later rows and grids, and a truncated row; set later checkpoints aside.

        Rows of step 0 are dropped too, since a run resumed from there writes them again. Checkpoints set aside are kept
        until the next one is complete (`drop_aside`). Returns how many invalid lines of metrics.jsonl were dropped, not
        counting a truncated last one. Raises RunError.
        """
        # Checkpoints first: if the process is killed now, the run still resumes from `step`.
        for number, path in self.listing().items():
            if number > step:
                rename(path, path.name + ASIDE)
                remove(path.with_suffix(".json"))
        last = step or -1
        for path in (*files(self.samples, "*.png"), *files(self.samples, "*.txt")):
            if path.stem.isdecimal() and int(path.stem) > last:
                remove(path)
        if not self.metrics.exists():
            return 0
        damaged, cut = 0, False
        try:
            with open_regular(self.metrics) as lines, whole_file(self.metrics) as kept:
                for line in lines:
                    cut = not line.endswith(b"\n")
                    try:
                        number = json.loads(line)["step"]
                        if type(number) is not int:
                            raise TypeError
                        if number <= last:
                            kept.write(line.rstrip(b"\n") + b"\n")
                    except (ValueError, KeyError, TypeError, RecursionError):
                        damaged += not cut
        except OSError as error:
            raise RunError(f"cannot read {self.metrics}: {error.strerror or error}; delete it to resume") from None
        return damaged

    def drop_aside(self) -> None:
        """Delete the checkpoints that were set aside: a newer one is complete."""
        for path in files(self.checkpoints, f"*{ASIDE}"):
            remove(path)

    def lock(self) -> None:
        """Keep other processes from training in this directory. Raises RunError if one already does.

        Also raises if a file or folder that a run writes is a link: nothing is written through links.
        """
        if self._lock is not None:
            return
        for path in [self.path / name for name in OWN]:
            if path.is_symlink():
                raise RunError(
                    f"{path} is a link, and nothing is written or deleted through links: put the file or folder itself"
                    " there, or delete it"
                )
        self._lock = self._locked()
        for folder in (self.path, self.checkpoints, self.samples, self.results):
            for left in halves(folder):  # left by a killed process
                remove(left)

    def _locked(self) -> IO[bytes] | None:
        """Return the lock's open file, which marks a run; None if the system has no locks. Raises RunError."""
        try:
            import fcntl
        except ImportError:
            return None
        path = self.path / ".lock"
        try:
            while True:
                with held(self.path) as folder:
                    file = os.fdopen(folder.open(path.name, os.O_RDWR | os.O_CREAT), "r+b")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    raise RunError(f"{self.path}: another process is training here; wait for it or stop it") from None
                except OSError:
                    pass  # a file system without locks
                found = os.fstat(file.fileno())
                # A process that unlocked in the meantime deleted the file: a lock on it excludes nobody.
                if path.exists() and path.stat().st_ino == found.st_ino:
                    break
                file.close()
            if found.st_nlink < 2:  # else it has another name, and is not only ours
                file.truncate()
                file.write(MARK)
                file.flush()
            return file
        except OSError as error:
            where = path if path.exists() else self.path
            raise RunError(
                f"cannot write to {where}: {error.strerror}; choose another place with run_dir=PATH"
            ) from None

    @property
    def locked(self) -> bool:
        """Whether this process holds the lock; never, on a system without locks."""
        return self._lock is not None

    def unlock(self) -> None:
        """Release the lock."""
        if self._lock is not None:
            with contextlib.suppress(RunError):
                remove(self.path / ".lock")
            self._lock.close()
            self._lock = None

    def withdraw(self) -> None:
        """Delete what a run wrote if nothing came of it, and its directory if this process created it."""
        for path in [*halves(self.path), *(self.path / name for name in OWN)]:
            with contextlib.suppress(RunError, OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    remove(path)
        if self.made:
            with contextlib.suppress(OSError):  # it holds other files
                self.path.rmdir()

    def best_by(self) -> str:
        """Return the metric that chooses this run's best checkpoint; fid if its configuration names none."""
        try:
            return str(self.config()["observers"]["checkpoints"].get("best") or "fid")
        except (RunError, KeyError, TypeError, AttributeError):
            return "fid"

    def best(self, metric: str) -> int | None:
        """Return the step of the best checkpoint by the results of `gan eval`; None if none has the metric."""
        return best_step(self.results, metric, self.listing())

    def listing(self) -> dict[int, Path]:
        """Return the checkpoint files by step, sorted."""
        found = {int(path.stem): path for path in files(self.checkpoints, "*.pt") if path.stem.isdecimal()}
        return dict(sorted(found.items()))

    def checkpoint(self, which: int | str) -> Path:
        """Return the file of `last`, `best` or a step. Raises RunError listing the existing steps."""
        found = self.listing()
        if not found:
            raise RunError(f"{self.path} holds no checkpoint")
        if which == "last":
            return found[max(found)]
        step: int | str | None = which
        if which == "best":
            metric = self.best_by()
            try:
                step = self.best(metric)
            except ConfigError as error:
                raise RunError(f"{self.path}: {error}") from None
            if step is None:
                typed = command("eval", word("run", self.path), "checkpoint=STEP")
                raise RunError(f"{self.path}: no checkpoint has a {metric} yet; run {typed}")
        if not isinstance(step, int) or step not in found:
            steps = ", ".join(map(str, found))
            raise RunError(f"checkpoint={which}: {self.path.name} has last, best and the steps {steps}")
        return found[step]


def refuse_taken(chosen: str | None, key: str = "run_dir", again: bool = False) -> None:
    """Raise RunError if a requested directory cannot be used, before any work is done for it.

    A missing or empty folder can be used: any other has files of others, or of another run. again: so can a directory
    where a run was started and killed before it could be resumed.
    """
    if chosen is None:
        return
    if not chosen.strip():
        raise RunError(f"{key}= is empty: give a path, or leave it out")
    path = Path(chosen).expanduser()
    if again and begun(real(path)):
        return
    try:
        there = sorted(os.listdir(path))  # noqa: PTH208  # names, however they are spelled
    except FileNotFoundError:
        if path.is_symlink():
            raise RunError(f"{key}={chosen} is a broken link: choose another place") from None
        return
    except NotADirectoryError:
        raise RunError(f"{key}={chosen}: a part of this path is a file; choose another place with {key}=PATH") from None
    except OSError as error:
        raise RunError(f"{key}={chosen} cannot be read: {error.strerror}; choose another place") from None
    if "run.json" in there:
        remedy = f"{word('resume', chosen)} resumes it; or " if key == "run_dir" else ""
        raise RunError(f"{key}={chosen} holds a run already: {remedy}choose another place")
    if RunDir(path).listing():
        raise RunError(f"{key}={chosen} holds checkpoints of a run without its run.json: choose another place")
    if there:
        shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise RunError(
            f"{key}={chosen} is a folder with other files in it ({shown}), which could be overwritten: choose another"
            f" place, such as {key}={path / 'new'}"
        )


def begun(path: Path) -> bool:
    """Whether a run was started here by this program and killed before it could be resumed.

    Recognised by the lock, which then remains, and by no other files than those written before the first step.
    """
    try:
        mark = read_bytes(path / ".lock", len(MARK))
        if os.listdir(path) == [".lock"] and not mark:  # noqa: PTH208  # created, not yet written
            return True
        if mark != MARK or path.is_symlink():
            return False
        if (path / "run.json").exists() and read_json(path / "run.json").get("status") != "starting":
            return False
        inside = [p.name for p in (path / "checkpoints").iterdir()] if (path / "checkpoints").is_dir() else []
        others = {p.name for p in path.iterdir()} - {".lock", "run.json", "config.yaml", "checkpoints"}
    except (OSError, ValueError, AttributeError, RunError):
        return False
    first = all(name.lstrip(".").partition(".")[0] == "00000000" for name in inside)
    return first and all(name.startswith(".") and name.endswith(HALF) for name in others)


def real(path: Path) -> Path:
    """Return a directory's own path: the user may give a link to it, and nothing is written through links."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def claim(path: Path, key: str = "run_dir", again: bool = False) -> Path:
    """Create a directory, or take an empty one; return its real path. Raises RunError as `refuse_taken`.

    From then on everything in it is this program's own. The returned path is not a link, so that writing below it
    (`gancli.store.files`) follows none.
    """
    refuse_taken(str(path), key, again)
    try:
        path.mkdir(parents=True, exist_ok=True)
        if not os.access(path, os.W_OK | os.X_OK):
            raise PermissionError(13, "Permission denied")
        return real(path)
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}; choose another place with {key}=PATH") from None


def new_directory(verb: str, name: str, chosen: str | None) -> Path:
    """Create the directory that a verb writes to: `run_dir`, or outputs/VERB/DATE_TIME-NAME. Raises RunError."""
    if chosen is not None:
        if not chosen.strip():
            raise RunError("run_dir= is empty: give a path, or leave it out")
        return claim(Path(chosen).expanduser(), again=verb == "train")
    try:
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{name}"
        for suffix in ["", *(f"-{k}" for k in range(2, 1000))]:
            path = OUTPUTS / verb / f"{stem}{suffix}"
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}; choose another place with run_dir=PATH") from None
    raise RunError(f"{OUTPUTS / verb} holds too many runs of this second; wait a moment")
