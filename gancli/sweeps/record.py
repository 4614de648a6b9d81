"""A sweep's directory: its jobs and their states, and how to find it again.

sweep.json     the command line and every job: overrides, choices, run directory, status
NN-CHOICES/    an ordinary run directory per job
ranking.csv    every job with its choices and results        ranking.png   results by each choice
comparison.html   the finished jobs on one page
logs/          output of jobs in separate processes          .jobs/        a state per job, written by its process
"""

from __future__ import annotations

import contextlib
import os
import platform
import re
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gancli.config.build import make_as
from gancli.config.choices import MOST_JOBS
from gancli.errors import ConfigError, RunError, suggestion
from gancli.store import rundir
from gancli.store.files import files, read_json, remove, write_json, write_text
from gancli.store.rundir import RunDir

NAME = "sweep.json"
LISTS = ("overrides", "keys", "places", "pins")
OVER = ("finished", "failed")
STATUSES = ("waiting", "running", "interrupted", *OVER)
MOST_DIGITS = 400


@dataclass
class Job:
    """One training of a sweep.

    overrides: as typed, without the run directory, with absolute paths. choices: those that differ between jobs, as
    typed, by key. run: its directory's name. status: waiting, running, interrupted, finished or failed. seconds: over
    all starts.
    """

    number: int
    overrides: list[str]
    choices: dict[str, Any]
    run: str
    status: str = "waiting"
    reason: str | None = None
    seconds: float = 0.0

    def title(self) -> str:
        """Its choices as text, or its number."""
        return " ".join(f"{key}={value}" for key, value in self.choices.items()) or f"job {self.number}"


@dataclass
class Sweep:
    """A sweep on disk.

    overrides: of the jobs, with all their choices, as typed. keys: the sweep's own overrides. places: folders of
    --config-dir. pins: values of resolvers when the sweep was created (config/untrusted.py), for jobs that a search
    adds later, with paths relative to `folder`, the command's working directory; empty: the current one. made: folders
    that this process created for it.
    """

    path: Path
    overrides: list[str]
    keys: list[str]
    places: list[str]
    jobs: list[Job] = field(default_factory=list)
    pins: list[str] = field(default_factory=list)
    folder: str = ""
    made: list[Path] = field(default_factory=list)
    guard: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def add(self, overrides: Sequence[str], choices: Mapping[str, Any]) -> Job:
        """Append a job, and return it."""
        number = len(self.jobs) + 1
        self.jobs.append(Job(number, list(overrides), dict(choices), directory_name(number, choices)))
        return self.jobs[-1]

    def save(self) -> None:
        """Write sweep.json."""
        with self.guard:
            jobs = [asdict(job) for job in self.jobs]
            about = {name: getattr(self, name) for name in ("overrides", "keys", "places", "pins", "folder")}
            write_json(self.path / NAME, about | {"jobs": jobs})

    def run_of(self, job: Job) -> RunDir:
        """A job's run directory."""
        return RunDir(self.path / job.run)

    def take_stock(self) -> None:
        """Update the jobs from their state files."""
        with self.guard:
            for job in self.jobs:
                state = read_state(self.path, job.number)
                job.status, job.reason = state.get("status", job.status), state.get("reason")
                job.seconds = state.get("seconds", job.seconds)

    def settle_killed(self) -> None:
        """Correct the status of jobs recorded as running, whose processes are gone, from their runs."""
        self.take_stock()
        for job in self.jobs:
            if job.status != "running":
                continue
            run = self.run_of(job)
            try:
                finished = run.about().get("status") == "finished"
            except RunError:
                finished = False
            status = "finished" if finished else "interrupted"
            write_state(self.path, job.number, status=status)
        self.take_stock()

    @property
    def stopping(self) -> bool:
        """Whether the user stopped the sweep: no further job starts."""
        return stop_file(self.path).exists()


def load(path: Path) -> Sweep:
    """Load a sweep from its directory, which may be damaged or untrusted. Raises RunError."""
    about = read_json(path / NAME)
    try:
        if not isinstance(about, dict):
            raise ValueError("it is no JSON object")
        lists = [_texts(about.get(name, [] if name == "pins" else None), name) for name in LISTS]
        listed = about.get("jobs")
        if not isinstance(listed, list) or len(listed) > MOST_JOBS:
            raise ValueError(f"its jobs are not a list of at most {MOST_JOBS:,}")
        jobs = [_job(job, k) for k, job in enumerate(listed, 1)]
        if len({job.run for job in jobs}) < len(jobs):
            raise ValueError("two jobs have one run directory")
        overrides, keys, places, pins = lists
        (folder,) = _texts([about.get("folder", "")], "folder")
        return Sweep(path, overrides, keys, places, jobs, pins, folder)
    except (ConfigError, ValueError) as error:
        raise RunError(f"{path / NAME} is damaged: {' '.join(str(error).split())[:300]}") from None


def _texts(value: Any, name: str) -> list[str]:
    if not isinstance(value, list) or not all(isinstance(each, str) and _plain(each) for each in value):
        raise ValueError(f"its {name} must be a list of texts")
    return list(value)


def _plain(text: str) -> bool:
    """Whether a text can be printed, typed and used in a path."""
    return "\0" not in text and not any(0xD800 <= ord(c) <= 0xDFFF for c in text)


def _job(found: Any, number: int) -> Job:
    """Validate a recorded job. Raises ConfigError or ValueError."""
    where = f"jobs[{number - 1}]"
    if not isinstance(found, dict):
        raise ValueError(f"{where} is no JSON object")
    job: Job = make_as(Job, found, where)
    _texts(job.overrides, f"{where}.overrides")
    if job.number != number:
        raise ValueError("its jobs are not numbered from 1")
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}", job.run):
        raise ValueError(f"{where}: its run is not a plain name of a directory in the sweep")
    for name, value in job.choices.items():
        text = isinstance(value, (str, int, float)) and _plain(str(value)[:MOST_DIGITS])
        if not _plain(name) or not (text or value is None) or not _finite(value):
            raise ValueError(f"{where}.choices must be texts and numbers")
    checked = _state({"status": job.status, "reason": job.reason, "seconds": job.seconds})
    if len(checked) < 3:
        raise ValueError(f"{where}: its status, reason or seconds are not valid")
    return job


def _finite(value: Any) -> bool:
    """Whether a number is finite and of reasonable size; true for values that are not numbers."""
    if not isinstance(value, (int, float)):
        return True
    return abs(value) < 2**63  # false for NaN


def find(which: str) -> Sweep:
    """Load a sweep by its directory, or the newest for `last`. Raises RunError."""
    there = [p.parent for p in rundir.OUTPUTS.glob(f"sweeps/*/{NAME}") if p.is_file()]
    if which == "last":
        if not there:
            raise RunError(
                f"resume_sweep=last: no sweep under {rundir.OUTPUTS / 'sweeps'} yet; start one with gan train -m, or"
                " give its path"
            )
        return load(rundir.real(max(there, key=lambda p: ((p / NAME).stat().st_mtime_ns, p.name))))
    path = rundir.real(Path(which).expanduser())
    if not (path / NAME).exists():
        hint = suggestion(path.name, [p.name for p in there]) if there else "start one with gan train -m"
        raise RunError(f"resume_sweep={which}: no such sweep; {hint}")
    return load(path)


def new_directory(name: str, chosen: str | None) -> tuple[Path, list[Path]]:
    """Create a sweep's directory: `sweep_dir`, or outputs/sweeps/DATE_TIME-NAME; return it and all created folders.

    Raises RunError.
    """
    if chosen is not None:
        place = Path(chosen).expanduser()
        made = [folder for folder in (place, *place.parents) if not folder.exists()]
        return rundir.claim(place, "sweep_dir"), made
    above = [folder for folder in (rundir.OUTPUTS / "sweeps", rundir.OUTPUTS) if not folder.exists()]
    try:
        path = rundir.new_directory("sweeps", name, None)
        return path, [path, *above]
    except RunError as error:
        raise RunError(str(error).replace("run_dir", "sweep_dir")) from None


def directory_name(number: int, choices: Mapping[str, Any]) -> str:
    """A job's directory name: its number and its choices, in characters that need no quotes.

    >>> directory_name(3, {"loss": "hinge", "optimizer.G.lr": "1e-4", "seed": "2"})
    '03-hinge-lr1e-4-seed2'
    >>> directory_name(4, {"optimizer.G.lr": "1e+30"})
    '04-lr1e30'
    """
    words = []
    for key, value in choices.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        plain = re.sub(r"[^A-Za-z0-9._-]+", "-", shown.replace("e+", "e")).strip("-.")
        leaf = re.sub(r"[^A-Za-z0-9_]+", "", key.rpartition(".")[2])
        words.append(plain if plain[:1].isalpha() and "." not in key else f"{leaf}{plain}")
    return "-".join([f"{number:02d}", *words])[:80].rstrip("-.")


def stop_file(path: Path) -> Path:
    """The file whose presence stops a sweep: no further job starts."""
    return path / ".stop"


def ask_to_stop(path: Path) -> None:
    """Create the stop file."""
    write_text(stop_file(path), "")


def state_file(path: Path, number: int) -> Path:
    """A job's state file."""
    return path / ".jobs" / f"{number:04d}.json"


def read_state(path: Path, number: int) -> dict[str, Any]:
    """The valid values of a job's state file; empty if there is none."""
    try:
        return _state(read_json(state_file(path, number)))
    except RunError:
        return {}


def _state(found: Any) -> dict[str, Any]:
    """The valid values of a state."""
    if not isinstance(found, dict):
        return {}
    kinds: dict[str, Callable[[Any], bool]] = {
        "status": lambda v: v in STATUSES,
        "reason": lambda v: v is None or (isinstance(v, str) and _plain(v)),
        "seconds": lambda v: type(v) in (int, float) and v >= 0 and _finite(v),
        "pid": lambda v: type(v) is int and 1 < v < 2**31,
        "host": lambda v: isinstance(v, str),
        "traceback": lambda v: isinstance(v, list),
    }
    return {name: found[name] for name, good in kinds.items() if name in found and good(found[name])}


def write_state(path: Path, number: int, *, status: str, reason: str | None = None, **more: Any) -> None:
    """Write a job's state; `seconds` is kept unless it is given."""
    kept = {"seconds": read_state(path, number).get("seconds", 0.0)}
    who = {"pid": os.getpid(), "host": platform.node()}
    write_json(state_file(path, number), {**kept, **who, "status": status, "reason": reason, **more})


def withdraw(path: Path, made: Sequence[Path]) -> None:
    """Delete the files of a sweep in which no job could start, and the folders created for it."""
    with contextlib.suppress(RunError):
        for folder in (path / ".jobs", path / "logs"):
            for file in files(folder, "*"):
                remove(file)
        for name in (NAME, ".stop", ".lock"):
            remove(path / name)
    for folder in [path / ".jobs", path / "logs", *made]:
        with contextlib.suppress(OSError):  # it contains other files
            folder.rmdir()


def refuse_links(path: Path) -> None:
    """Raise RunError if a path that a sweep writes is a link, which may lead elsewhere."""
    for name in (".jobs", "logs", ".stop", ".lock"):
        if (path / name).is_symlink():
            raise RunError(f"{path / name} is a link, but a sweep only writes in its own directory: remove it")
