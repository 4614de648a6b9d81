"""What a run directory holds, and how to find one.

config.yaml      the whole configuration        metrics.jsonl   a row every so many steps
run.json         what made it, and its status   log.txt         what was said
samples/         grids from fixed latents       checkpoints/    NNNNNNNN.pt, each with its .json
eval/            results of `gan eval`, one file a checkpoint and protocol
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import IO, Any

from omegaconf import OmegaConf

from gancli.config.commands import command, word
from gancli.errors import ConfigError, RunError, suggestion
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
MARK = b"gan train\n"  # what the lock of a run holds
# What a run writes: files, and folders.
OWN = (
    *(".lock", "run.json", "config.yaml", "metrics.jsonl", "log.txt", "report.html", "logger.json"),
    *("checkpoints", "samples", "eval", "tensorboard", "wandb"),
)
ASIDE = ".aside"  # how the name of a checkpoint ends that the run went back past


class RunDir:
    """A training run on the disk. made: whether this process made its directory, which goes where nothing came of it.

    What is written or deleted in it follows no link (`gancli.store.files`); `path` itself is none where it was found or
    claimed by the functions below.
    """

    def __init__(self, path: Path, made: bool = False):
        self.path, self.made = path, made
        self.samples, self.checkpoints, self.results = path / "samples", path / "checkpoints", path / "eval"
        self.metrics, self.log_file = path / "metrics.jsonl", path / "log.txt"
        self._lock: IO[bytes] | None = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml: the whole configuration, as it was composed."""
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def config(self) -> dict[str, Any]:
        """The configuration that made this run. Raises RunError."""
        return recorded.config(self.path / "config.yaml")

    def about(self) -> dict[str, Any]:
        """run.json's content, each value of its kind. Raises RunError."""
        return recorded.about(self.path / "run.json")

    def update(self, **values: Any) -> None:
        """Change values in run.json, all at once."""
        path = self.path / "run.json"
        write_json(path, (self.about() if path.exists() else {}) | values)

    def started(self) -> bool:
        """Whether there is a run to go on with or to look at."""
        return (self.path / "run.json").is_file()

    def say(self, text: str) -> None:
        """Add a dated line to log.txt. Raises RunError."""
        add_line(self.log_file, f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl. Raises RunError."""
        add_line(self.metrics, json.dumps(row))

    def flush(self) -> None:
        """Bring all rows so far onto the disk: a checkpoint never outlives the rows before it."""
        if self.metrics.exists():
            sync(self.metrics)

    def forget_after(self, step: int) -> int:
        """Go back to `step`: drop rows and grids past it, and a row that was cut short; set later checkpoints aside.

        What is seen at step 0 is seen again when a run goes on from there, so its rows are dropped too. Checkpoints
        that were set aside stay until the next one is whole (`drop_aside`). Returns how many lines of metrics.jsonl
        were no rows and are left out, but for a last one that was cut short. Raises RunError.
        """
        # First the checkpoints: were the process killed now, the run would still go on from `step`.
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
            raise RunError(f"cannot read {self.metrics}: {error.strerror or error}; delete it to go on") from None
        return damaged

    def drop_aside(self) -> None:
        """Delete the checkpoints that were set aside: a newer one is whole."""
        for path in files(self.checkpoints, f"*{ASIDE}"):
            remove(path)

    def lock(self) -> None:
        """Keep other processes from training in this directory. Raises RunError when one already does.

        So it does where a link stands for something that a run writes: nothing is written through links.
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
            for left in halves(folder):  # of a process that was killed
                remove(left)

    def _locked(self) -> IO[bytes] | None:
        """The lock's open file, which says whose it is; None where the system has none. Raises RunError."""
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
                # Whoever left in the meantime took the file away: a lock on it keeps nobody out.
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
        """Whether this process keeps others out; never, on a system without locks."""
        return self._lock is not None

    def unlock(self) -> None:
        """Let others in again."""
        if self._lock is not None:
            with contextlib.suppress(RunError):
                remove(self.path / ".lock")
            self._lock.close()
            self._lock = None

    def withdraw(self) -> None:
        """Delete what a run wrote of which nothing came, and its directory where that is new."""
        for path in [*halves(self.path), *(self.path / name for name in OWN)]:
            with contextlib.suppress(RunError, OSError):
                if path.is_dir() and not path.is_symlink():
                    shutil.rmtree(path)
                else:
                    remove(path)
        if self.made:
            with contextlib.suppress(OSError):  # it holds something else
                self.path.rmdir()

    def best_by(self) -> str:
        """The metric that this run's best checkpoint is chosen by; fid where its configuration names none."""
        try:
            return str(self.config()["observers"]["checkpoints"].get("best") or "fid")
        except (RunError, KeyError, TypeError, AttributeError):
            return "fid"

    def best(self, metric: str) -> int | None:
        """The step of the checkpoint that is best by a result of `gan eval`; None where none has it."""
        return best_step(self.results, metric, self.listing())

    def listing(self) -> dict[int, Path]:
        """The checkpoint files by step, in order."""
        found = {int(path.stem): path for path in files(self.checkpoints, "*.pt") if path.stem.isdecimal()}
        return dict(sorted(found.items()))

    def checkpoint(self, which: int | str) -> Path:
        """The file of `last`, `best` or a step. Raises RunError naming the steps there are."""
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
    """Raise RunError where a directory that was asked for cannot be taken, before any work is done for it.

    Taken may be what is not there yet, and an empty folder: in any other there are files of others, or of another run.
    again: so may a directory where a run was begun and killed before it could be resumed.
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
            raise RunError(f"{key}={chosen} is a link that leads nowhere: choose another place") from None
        return
    except NotADirectoryError:
        raise RunError(f"{key}={chosen}: a part of this path is a file; choose another place with {key}=PATH") from None
    except OSError as error:
        raise RunError(f"{key}={chosen} cannot be read: {error.strerror}; choose another place") from None
    if "run.json" in there:
        way = f"{word('resume', chosen)} goes on with it; or " if key == "run_dir" else ""
        raise RunError(f"{key}={chosen} holds a run already: {way}choose another place")
    if RunDir(path).listing():
        raise RunError(f"{key}={chosen} holds checkpoints of a run without its run.json: choose another place")
    if there:
        shown = ", ".join(there[:3]) + (f" and {len(there) - 3} more" if len(there) > 3 else "")
        raise RunError(
            f"{key}={chosen} is a folder with other things in it ({shown}), which could be overwritten: choose another"
            f" place, such as {key}={path / 'new'}"
        )


def begun(path: Path) -> bool:
    """Whether a run was begun here by this program and killed before there was what it can go on from.

    Told by the lock, which is left then, and by nothing else being there than what comes before the first step.
    """
    try:
        mark = read_bytes(path / ".lock", len(MARK))
        if os.listdir(path) == [".lock"] and not mark:  # noqa: PTH208  # made, and not yet marked
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
    """A directory's own path: a person may name it by a link, and nothing is written through links."""
    return Path(os.path.realpath(path)) if path.is_symlink() else path


def claim(path: Path, key: str = "run_dir", again: bool = False) -> Path:
    """Make a directory, or take an empty one; returns where it really is. Raises RunError as `refuse_taken`.

    From then on all in it is this program's own. The path that is returned is no link, so that writing below it
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
    """Make the directory a verb writes to: `run_dir`, or outputs/VERB/DATE_TIME-NAME. Raises RunError."""
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


def find(which: str, key: str = "run") -> tuple[RunDir, Path | None]:
    """A run by its directory, a checkpoint file in it, or `last`; the file too when one was named. Raises RunError."""
    if which == "last":
        runs = [p.parent for place in ("train", "sweeps/*") for p in OUTPUTS.glob(f"{place}/*/run.json")]
        if not runs:
            raise RunError(
                f"{key}=last: no run under {OUTPUTS / 'train'} yet; start one with gan train, or give its path"
            )
        return RunDir(real(max(runs, key=_composed_at))), None
    path = Path(which).expanduser()
    if path.is_file():
        if path.suffix == ".json":
            raise RunError(f"{key}={which} is no checkpoint: give a run directory, or a file of its checkpoints/")
        run = RunDir(real(path.parent.parent))
        return (run, path) if run.started() else (RunDir(path), path)
    if not path.is_dir():
        there = [p.name for p in OUTPUTS.glob("train/*") if p.is_dir() and p.name != "sweeps"]
        hint = suggestion(path.name, there) if there else "start one with gan train"
        raise RunError(f"{key}={which}: no such run; {hint}")
    path = real(path)
    if not RunDir(path).started():
        if begun(path):
            raise RunError(f"{key}={which}: this run was killed before its first checkpoint: type again what began it")
        raise RunError(f"{key}={which} is not a run directory: it has no run.json")
    return RunDir(path), None


def _composed_at(path: Path) -> tuple[int, str]:
    """When a run's configuration was written, in ns; of equals, the name decides."""
    config = path / "config.yaml"
    return config.stat().st_mtime_ns if config.exists() else 0, path.name


def names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, different for different ones: the shortest endings of the paths that tell them apart.

    >>> names([Path("/x/P/0"), Path("/x/Q/0"), Path("/x/a"), Path("/x/P/0")])
    ['P/0', 'Q/0', 'a', 'P/0']
    """
    whole = [path.resolve() for path in paths]
    found = []
    for path in whole:
        others = [other.parts for other in set(whole) - {path}]
        depths = range(1, len(path.parts) + 1)
        depth = next((k for k in depths if all(parts[-k:] != path.parts[-k:] for parts in others)), len(path.parts))
        found.append(str(Path(*path.parts[-depth:])))
    return found
