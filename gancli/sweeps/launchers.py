"""Where a sweep's jobs run: in this process, in processes of their own, in joblib's workers."""

from __future__ import annotations

import importlib
import io
import os
import platform
import signal
import subprocess
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import IO

from gancli.errors import ConfigError, GanError
from gancli.store.files import cannot_write, held
from gancli.sweeps.job import run_job
from gancli.sweeps.record import ask_to_stop, read_state, stop_file, write_state

LOOK = 0.05  # seconds between looks at processes
MOST_AT_ONCE = 1024  # jobs


class Launcher(ABC):
    """Runs jobs, and outlives their errors."""

    @abstractmethod
    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Run the jobs of the sweep in `folder`, taking a number when there is room; yields each that is over.

        What became of a job stands in its state file (record.read_state). `numbers` may be drawn from another thread,
        never by two at once.
        """


class Local(Launcher):
    """One after the other in this process."""

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """A job that a person interrupts ends the sweep."""
        for number in numbers:
            if run_job(folder, number) == "interrupted" and not read_state(folder, number).get("reason"):
                ask_to_stop(folder)
            yield number


@dataclass(frozen=True)
class Process(Launcher):
    """A process a job, `jobs` at once; each sees one GPU, and its share of the CPU's threads."""

    jobs: int | None = None

    def __post_init__(self) -> None:
        at_once(self.jobs)

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """A job whose process dies has failed; when this is closed early, the processes still there are killed."""
        width = at_once(self.jobs)
        running: dict[int, tuple[int, subprocess.Popen[bytes]]] = {}
        try:
            while True:
                for slot in sorted(set(range(width)) - set(running)):
                    number = next(numbers, None)
                    if number is None:
                        break
                    running[slot] = number, start(folder, number, os.environ | environment(slot, width))
                if not running:
                    return
                time.sleep(LOOK)
                for slot, (number, process) in list(running.items()):
                    if process.poll() is not None:
                        del running[slot]
                        note_death(folder, number, process.returncode)
                        yield number
        finally:
            for _, process in running.values():
                process.kill()
                process.wait()


@dataclass(frozen=True)
class Joblib(Launcher):
    """Workers that joblib keeps, `jobs` of them: torch is imported once a worker, which pays off for short jobs."""

    jobs: int | None = None

    def __post_init__(self) -> None:
        needs("joblib", "joblib")
        at_once(self.jobs)

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Raises GanError when a worker is killed: joblib then ends them all."""
        joblib = needs("joblib", "joblib")
        width = at_once(self.jobs)
        places = [environment(slot, width) for slot in range(width)]
        calls = (joblib.delayed(in_worker)(folder, number, places) for number in numbers)
        pool = joblib.Parallel(
            n_jobs=width, backend="loky", return_as="generator_unordered", pre_dispatch=width, batch_size=1
        )
        try:
            yield from pool(calls)
        except BrokenPipeError:
            raise
        except RuntimeError as error:
            if type(error).__name__ != "TerminatedWorkerError":
                raise
            raise GanError(
                "a worker of joblib was killed (out of memory?), and joblib ends all of them then: launcher=process"
                " goes on with the other jobs"
            ) from None


def in_worker(folder: Path, number: int, places: list[dict[str, str]]) -> int:
    """A job in one of joblib's workers, which first takes a place of its own; returns the number."""
    if "GAN_PLACE" not in os.environ:
        slot = _take_slot(folder, len(places))
        os.environ |= places[slot] | {"GAN_PLACE": str(slot)}
        os.setpgid(0, 0)  # Ctrl-C reaches the sweep, which passes it on once
    log = io.TextIOWrapper(opened_log(folder, number), encoding="utf-8", errors="backslashreplace")
    with log, redirect_stdout(log), redirect_stderr(log):
        run_job(folder, number)
    return number


def _take_slot(folder: Path, width: int) -> int:
    """The first place that no other living worker has; a lock on a file keeps it until this process ends."""
    import fcntl

    for slot in range(width):
        with held(folder / ".jobs", make=True) as places:
            handle = places.open(f"place{slot}", os.O_CREAT | os.O_RDWR)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return slot
        except OSError:
            os.close(handle)
    return 0


def start(folder: Path, number: int, env: dict[str, str]) -> subprocess.Popen[bytes]:
    """A job in a process of its own, which a Ctrl-C at the terminal does not reach; what it says goes to logs/."""
    command = [sys.executable, "-m", "gancli.sweeps.job", str(folder), str(number)]
    with opened_log(folder, number) as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )


def log_file(folder: Path, number: int) -> Path:
    """Where a job in another process says what `gan train` says."""
    return folder / "logs" / f"{number:02d}.txt"


def opened_log(folder: Path, number: int) -> IO[bytes]:
    """That file, to be added to; never through a link. Raises RunError."""
    path = log_file(folder, number)
    try:
        with held(path.parent, make=True) as logs:
            return os.fdopen(logs.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
    except OSError as error:
        raise cannot_write(path, error) from error


def note_death(folder: Path, number: int, code: int) -> None:
    """Write down a failure that a job could not write itself."""
    state = read_state(folder, number)
    if state.get("status") in ("finished", "failed", "interrupted"):
        return
    if stop_file(folder).exists():
        write_state(folder, number, status="interrupted")
        return
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    reason = f"its process {how} before it could say why; see {log_file(folder, number)}"
    write_state(folder, number, status="failed", reason=reason)


def end_running(folder: Path, numbers: Iterator[int]) -> None:
    """Ask the processes of running jobs on this machine to save and end."""
    for number in numbers:
        state = read_state(folder, number)
        here = state.get("host") == platform.node() and state.get("pid") != os.getpid()
        if here and state.get("status") == "running":
            try:
                os.kill(int(state["pid"]), signal.SIGTERM)
            except (OSError, KeyError, ValueError):
                continue


def at_once(jobs: int | None) -> int:
    """How many jobs run at once. Raises ConfigError below one."""
    if jobs is not None and not 1 <= jobs <= MOST_AT_ONCE:
        raise ConfigError(f"launcher.jobs={jobs}: from 1 to {MOST_AT_ONCE:,}, or null for one a GPU")
    return jobs or max(1, len(gpus()))


def environment(slot: int, width: int) -> dict[str, str]:
    """What a process at place `slot` of `width` is told: its GPU, in turn, and its share of the CPU's threads."""
    seen, told = gpus(), {}
    if len(seen) > 1:
        told["CUDA_VISIBLE_DEVICES"] = seen[slot % len(seen)]
    if "OMP_NUM_THREADS" not in os.environ:
        told["OMP_NUM_THREADS"] = str(max(1, cores() // width))
    return told


def gpus() -> list[str]:
    """The names of the CUDA devices that this process may use, as CUDA_VISIBLE_DEVICES writes them."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def cores() -> int:
    """Processors that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs(module: str, extra: str) -> ModuleType:
    """An optional library. Raises ConfigError that names how to get it."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"{module} is not installed: pip install 'gancli[{extra}]'") from None
