"""Launchers of a sweep's jobs: in this process, in separate processes, in joblib's workers."""

from __future__ import annotations

import importlib.util
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

LOOK = 0.05  # seconds between polls of processes
MOST_AT_ONCE = 1024  # jobs


class Launcher(ABC):
    """Base: runs jobs, and continues after their errors."""

    @abstractmethod
    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Run the jobs of the sweep in `folder`, taking the next number when a slot is free; yield each finished job.

        A job's result is in its state file (record.read_state). `numbers` may be consumed in another thread, but only
        by one at a time.
        """


class Local(Launcher):
    """Runs jobs one after the other in this process."""

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Run the jobs; an interrupt by the user ends the sweep."""
        for number in numbers:
            if run_job(folder, number) == "interrupted" and not read_state(folder, number).get("reason"):
                ask_to_stop(folder)
            yield number


@dataclass(frozen=True)
class Process(Launcher):
    """Runs each job in its own process, `jobs` at once, with one GPU and an equal share of the CPU threads."""

    jobs: int | None = None

    def __post_init__(self) -> None:
        at_once(self.jobs)

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Run the jobs; a job whose process dies has failed. Closing the generator early kills running processes."""
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
    """Runs jobs in `jobs` joblib workers, which import torch only once: faster for short jobs."""

    jobs: int | None = None

    def __post_init__(self) -> None:
        needs("joblib", "joblib")
        at_once(self.jobs)
        if importlib.util.find_spec("fcntl") is None:
            raise ConfigError("launcher=joblib needs file locks, which this system lacks: type launcher=process")

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Run the jobs. Raises GanError if a worker is killed, since joblib then ends all of them."""
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
                "a joblib worker was killed (out of memory?), after which joblib ends all workers: launcher=process"
                " continues with the other jobs"
            ) from None


def in_worker(folder: Path, number: int, places: list[dict[str, str]]) -> int:
    """Run a job in a joblib worker, which first takes a slot; return its number."""
    if "GAN_PLACE" not in os.environ:
        slot = _take_slot(folder, len(places))
        os.environ |= places[slot] | {"GAN_PLACE": str(slot)}
        os.setpgid(0, 0)  # only the sweep's process gets Ctrl-C, and forwards it once
    log = io.TextIOWrapper(opened_log(folder, number), encoding="utf-8", errors="backslashreplace")
    with log, redirect_stdout(log), redirect_stderr(log):
        run_job(folder, number)
    return number


def _take_slot(folder: Path, width: int) -> int:
    """The first slot that no other live worker has; a file lock reserves it until this process ends."""
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
    """Start a job in its own process and session, which Ctrl-C at the terminal does not reach; its output is logged."""
    command = [sys.executable, "-m", "gancli.sweeps.job", str(folder), str(number)]
    with opened_log(folder, number) as log:
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=env, start_new_session=True
        )


def log_file(folder: Path, number: int) -> Path:
    """The log file with the output of a job in another process."""
    return folder / "logs" / f"{number:02d}.txt"


def opened_log(folder: Path, number: int) -> IO[bytes]:
    """Open the log file for appending, never through a link. Raises RunError."""
    path = log_file(folder, number)
    try:
        with held(path.parent, make=True) as logs:
            return os.fdopen(logs.open(path.name, os.O_WRONLY | os.O_CREAT | os.O_APPEND), "ab")
    except OSError as error:
        raise cannot_write(path, error) from error


def note_death(folder: Path, number: int, code: int) -> None:
    """Record a failure that the job could not record itself."""
    state = read_state(folder, number)
    if state.get("status") in ("finished", "failed", "interrupted"):
        return
    if stop_file(folder).exists():
        write_state(folder, number, status="interrupted")
        return
    how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"
    reason = f"its process {how} before it could report an error; see {log_file(folder, number)}"
    write_state(folder, number, status="failed", reason=reason)


def end_running(folder: Path, numbers: Iterator[int]) -> None:
    """Send SIGTERM to the processes of running jobs on this machine, which then save and end."""
    for number in numbers:
        state = read_state(folder, number)
        here = state.get("host") == platform.node() and state.get("pid") != os.getpid()
        if here and state.get("status") == "running":
            try:
                os.kill(int(state["pid"]), signal.SIGTERM)
            except (OSError, KeyError, ValueError):
                continue


def at_once(jobs: int | None) -> int:
    """The number of jobs at once. Raises ConfigError for a number out of range."""
    if jobs is not None and not 1 <= jobs <= MOST_AT_ONCE:
        raise ConfigError(f"launcher.jobs={jobs}: from 1 to {MOST_AT_ONCE:,}, or null for one per GPU")
    return jobs or max(1, len(gpus()))


def environment(slot: int, width: int) -> dict[str, str]:
    """The environment variables of a process in `slot` of `width`: its GPU, in turn, and its number of CPU threads."""
    visible, found = gpus(), {}
    if len(visible) > 1:
        found["CUDA_VISIBLE_DEVICES"] = visible[slot % len(visible)]
    if "OMP_NUM_THREADS" not in os.environ:
        found["OMP_NUM_THREADS"] = str(max(1, cores() // width))
    return found


def gpus() -> list[str]:
    """The CUDA devices that this process may use, in the notation of CUDA_VISIBLE_DEVICES."""
    listed = os.environ.get("CUDA_VISIBLE_DEVICES")
    if listed is not None:
        return [name.strip() for name in listed.split(",") if name.strip() not in ("", "-1")]
    import torch

    return [str(k) for k in range(torch.cuda.device_count())]


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def needs(module: str, extra: str) -> ModuleType:
    """Import an optional library. Raises ConfigError with the pip command if it is missing."""
    try:
        return importlib.import_module(module)
    except ImportError:
        raise ConfigError(f"{module} is not installed: pip install 'gancli[{extra}]'") from None
