"""One job of a sweep, in this process: start or resume it, and record its result.

Launchers start `python -m gancli.sweeps.job SWEEP NUMBER` in separate processes.
"""

from __future__ import annotations

import gc
import math
import signal
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from gancli.config.compose import compose
from gancli.config.grammar import in_quotes
from gancli.config.unused import one_length, typed_keys
from gancli.errors import GanError, Interrupted, RunError
from gancli.store import rundir
from gancli.store.rundir import RunDir
from gancli.sweeps import record
from gancli.sweeps.record import Job, Sweep, read_state, stop_file, write_state


class Busy(Exception):  # noqa: N818
    """Another process, left over from an earlier start of the sweep, is training this job's run."""


def run_job(folder: Path, number: int) -> str:
    """Train or resume job `number` of the sweep in `folder` to its end; return its status.

    Any error is recorded in the job's state. Raises RunError if the state cannot be written.
    """
    state = read_state(folder, number)
    if state.get("status") == "finished":  # it was queued twice
        return "finished"
    before = float(state.get("seconds", 0.0))
    began = time.perf_counter()
    write_state(folder, number, status="running")
    status, reason, more = "finished", None, {}
    try:
        with _stoppable():
            if stop_file(folder).exists():
                raise Interrupted
            sweep = record.load(folder)
            _train(sweep, sweep.jobs[number - 1])
    except (Interrupted, KeyboardInterrupt):
        status = "interrupted"
    except Busy as error:
        status, reason = "interrupted", str(error)
    except GanError as error:
        status, reason = "failed", _one_line(str(error))
    except (Exception, SystemExit) as error:
        status, reason = "failed", _one_line(f"{type(error).__name__}: {error}")
        more = {"traceback": traceback.format_exc().splitlines()}
    seconds = round(before + time.perf_counter() - began, 3)
    write_state(folder, number, status=status, reason=reason, seconds=seconds, **more)
    return status


def _one_line(text: str) -> str:
    return " ".join(text.split())[:2000]


def _train(sweep: Sweep, job: Job) -> None:
    """Do the same as `gan train OVERRIDES run_dir=...`, or as `gan train resume=...` if there is a checkpoint."""
    import torch

    from gancli.verbs import train

    folders = [Path(p) for p in sweep.places]
    config = compose("train", job.overrides, folders)
    key, place = _place(sweep.run_of(job), one_length(config, typed_keys(job.overrides))["steps"])
    recorded = [*(f"--config-dir={p}" for p in folders), *job.overrides, f"{key}={in_quotes(place)}"]
    threads = torch.get_num_threads()
    try:
        train.run(config | {key: place}, recorded)
    finally:
        torch.set_num_threads(threads)  # device.threads applies to one job
        gc.collect()
        if torch.cuda.is_initialized():  # type: ignore[no-untyped-call]
            torch.cuda.empty_cache()  # the next job can use all of the memory


def _place(run: RunDir, steps: int | None) -> tuple[str, str]:
    """The override for the run's place: `run_dir` of a new run, or `resume` from its newest checkpoint.

    steps: of the whole run; None: as recorded in the run.

    If a run was stopped after its final checkpoint but before it finished, its last part is trained again, so that all
    its rows and results exist. Raises Busy; RunError if the directory is a link.
    """
    if run.path.is_symlink():
        raise RunError(f"{run.path} is a link, but a sweep only writes in its own directory: move the run back here")
    if not run.path.exists() or not any(run.path.iterdir()):
        return "run_dir", str(run.path)
    again = rundir.begun(run.path)
    try:
        run.lock()
    except RunError as error:
        raise Busy(str(error)) from None
    if again:
        run.withdraw()  # the remains of a job that was killed before its first checkpoint
    run.unlock()
    found = run.listing()
    known = run.about().get("steps") if steps is None and found else steps
    end = math.inf if known is None else known
    before_the_end = [step for step in found if step < end]
    if not before_the_end:
        return "run_dir", str(run.path)
    return "resume", str(found[max(before_the_end)] if max(found) >= end else run.path)


def stopping_signals() -> list[signal.Signals]:
    """The signals after which a sweep saves and ends; SIGHUP only if it is not ignored, as it is under nohup."""
    hangup = getattr(signal, "SIGHUP", None)
    lost = [] if hangup is None or signal.getsignal(hangup) is signal.SIG_IGN else [hangup]
    return [signal.SIGINT, signal.SIGTERM, *lost]


@contextmanager
def _stoppable() -> Iterator[None]:
    """In this context, SIGTERM and SIGINT raise KeyboardInterrupt; training handles them itself and saves first."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before: dict[Any, Any] = {s: signal.signal(s, interrupt) for s in stopping_signals()}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


if __name__ == "__main__":
    run_job(Path(sys.argv[1]), int(sys.argv[2]))
