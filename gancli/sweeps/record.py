"""A sweep's directory: what its jobs are, how far they got, and how to find them again.

sweep.json     the command line and every job: overrides, choices, run directory, status
NN-CHOICES/    a run directory a job, an ordinary one
ranking.csv    every job with its choices and results        ranking.png   results over each choice
comparison.html   the finished jobs on one page
logs/          what jobs in processes of their own said      .jobs/        a state a job, written by who runs it
"""

from __future__ import annotations

import os
import platform
import re
import threading
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from gancli import rundir
from gancli.errors import GanError, RunError, suggestion
from gancli.files import read_json, write_json
from gancli.rundir import RunDir

OVER = ("finished", "failed")


@dataclass
class Job:
    """One training of a sweep.

    overrides: as typed, without the run directory. choices: of them what differs from job to job, by key.
    run: its directory's name. status: waiting, running, interrupted, finished or failed. seconds: over all sittings.
    """

    number: int
    overrides: list[str]
    choices: dict[str, Any]
    run: str
    status: str = "waiting"
    reason: str | None = None
    seconds: float = 0.0

    def title(self) -> str:
        """Its choices for people, or its number."""
        return " ".join(f"{key}={value}" for key, value in self.choices.items()) or f"job {self.number}"


@dataclass
class Sweep:
    """A sweep on the disk.

    overrides: of the jobs, with all their choices, as typed. keys: of the sweep. places: folders of --config-dir.
    """

    path: Path
    overrides: list[str]
    keys: list[str]
    places: list[str]
    jobs: list[Job] = field(default_factory=list)
    guard: threading.RLock = field(default_factory=threading.RLock, repr=False)

    def add(self, overrides: Sequence[str], choices: Mapping[str, Any]) -> Job:
        """A further job."""
        number = len(self.jobs) + 1
        self.jobs.append(Job(number, list(overrides), dict(choices), directory_name(number, choices)))
        return self.jobs[-1]

    def save(self) -> None:
        """Write sweep.json."""
        with self.guard:
            jobs = [asdict(job) for job in self.jobs]
            about = {"overrides": self.overrides, "keys": self.keys, "places": self.places, "jobs": jobs}
            write_json(self.path / "sweep.json", about)

    def run_of(self, job: Job) -> RunDir:
        """A job's run directory."""
        return RunDir(self.path / job.run)

    def settle(self) -> None:
        """Take over what the jobs' own state files say."""
        with self.guard:
            for job in self.jobs:
                state = read_state(self.path, job.number)
                job.status, job.reason = state.get("status", job.status), state.get("reason")
                job.seconds = float(state.get("seconds", job.seconds))

    def settle_killed(self) -> None:
        """Of jobs that say they run and whose process is no more: tell from the run what became of it."""
        self.settle()
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
        self.settle()

    @property
    def stopping(self) -> bool:
        """Whether a person asked for the end: no further job begins."""
        return stop_file(self.path).exists()


def load(path: Path) -> Sweep:
    """A sweep from its directory. Raises RunError."""
    about = read_json(path / "sweep.json")
    try:
        jobs = [Job(**job) for job in about["jobs"]]
        if [job.number for job in jobs] != list(range(1, len(jobs) + 1)):
            raise ValueError("its jobs are not numbered from 1")
        if any(Path(job.run).name != job.run or job.run in ("", ".", "..") for job in jobs):
            raise ValueError("a run lies outside of it")
        overrides, keys, places = ([str(o) for o in about[name]] for name in ("overrides", "keys", "places"))
        return Sweep(path, overrides, keys, places, jobs)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise RunError(f"{path / 'sweep.json'} is damaged: {' '.join(str(error).split())}") from None


def find(which: str) -> Sweep:
    """A sweep by its directory, or `last`. Raises RunError."""
    there = [p.parent for p in rundir.OUTPUTS.glob("sweeps/*/sweep.json")]
    if which == "last":
        if not there:
            raise RunError(
                f"resume_sweep=last: no sweep under {rundir.OUTPUTS / 'sweeps'} yet; start one with gan train -m, or"
                " give its path"
            )
        return load(max(there, key=lambda p: ((p / "sweep.json").stat().st_mtime_ns, p.name)))
    path = Path(which).expanduser()
    if not (path / "sweep.json").is_file():
        hint = suggestion(path.name, [p.name for p in there]) if there else "start one with gan train -m"
        raise RunError(f"resume_sweep={which}: no such sweep; {hint}")
    return load(path)


def new_directory(name: str, chosen: str | None) -> Path:
    """Make a sweep's directory: `sweep_dir`, or outputs/sweeps/DATE_TIME-NAME. Raises RunError."""
    try:
        return rundir.new_directory("sweeps", name, chosen)
    except GanError as error:
        raise RunError(str(error).replace("run_dir", "sweep_dir")) from None


def directory_name(number: int, choices: Mapping[str, Any]) -> str:
    """A job's directory: its number and what it chose, in letters that need no quotes anywhere.

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
    """The file whose presence tells every job of a sweep not to begin."""
    return path / ".stop"


def state_file(path: Path, number: int) -> Path:
    """A job's own state file."""
    return path / ".jobs" / f"{number:04d}.json"


def read_state(path: Path, number: int) -> dict[str, Any]:
    """What a job's process last said of it; empty before that."""
    file = state_file(path, number)
    state = read_json(file) if file.exists() else {}
    return state if isinstance(state, dict) else {}


def write_state(path: Path, number: int, *, status: str, reason: str | None = None, **more: Any) -> None:
    """Say what became of a job; its seconds so far stay unless told anew."""
    kept = {"seconds": read_state(path, number).get("seconds", 0.0)}
    who = {"pid": os.getpid(), "host": platform.node()}
    write_json(state_file(path, number), {**kept, **who, "status": status, "reason": reason, **more})
