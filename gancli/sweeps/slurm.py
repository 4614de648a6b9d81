"""The SLURM launcher, which uses submitit."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from gancli.errors import ConfigError
from gancli.sweeps.job import run_job
from gancli.sweeps.launchers import Launcher, at_once, needs, note_death
from gancli.sweeps.record import stop_file


@dataclass(frozen=True)
class Task:
    """The function sent to a node; at the time limit submitit calls `checkpoint` and resubmits what it returns."""

    folder: str
    number: int

    def __call__(self) -> str:
        """Run the job, or resume it from its newest checkpoint."""
        return run_job(Path(self.folder), self.number)

    def checkpoint(self) -> Any:
        """Submit the same job again: it resumes from its checkpoint."""
        return needs("submitit", "slurm").helpers.DelayedSubmission(self)


@dataclass(frozen=True)
class Slurm(Launcher):
    """Runs each training as a SLURM job, submitted as an array; null leaves a setting to the cluster."""

    jobs: int = 16
    cluster: Literal["slurm", "local"] = "slurm"
    partition: str | None = None
    account: str | None = None
    qos: str | None = None
    constraint: str | None = None
    minutes: int = 1440
    gpus: int = 1
    cpus: int = 4
    memory: float | None = None
    setup: list[str] = field(default_factory=list)
    look: float = 2.0

    def __post_init__(self) -> None:
        at_once(self.jobs)
        for name, value, least in (("minutes", self.minutes, 1), ("gpus", self.gpus, 0), ("cpus", self.cpus, 1)):
            if value < least:
                raise ConfigError(f"launcher.{name}={value}: at least {least}")
        if self.memory is not None and not 0 < self.memory < float("inf"):
            raise ConfigError(f"launcher.memory={self.memory:g}: must be gigabytes above 0, or null")
        submitit = needs("submitit", "slurm")
        if self.cluster == "slurm" and submitit.SlurmExecutor.affinity() < 0:
            raise ConfigError("launcher=slurm: srun not found; log in to the cluster, or set launcher.cluster=local")

    def parameters(self) -> dict[str, Any]:
        """The parameters of submitit's executor."""
        asked: dict[str, Any] = {
            "name": "gan-sweep",
            "timeout_min": self.minutes,
            "gpus_per_node": self.gpus,
            "cpus_per_task": self.cpus,
            "tasks_per_node": 1,
            "nodes": 1,
        }
        if self.memory is not None:
            asked["mem_gb"] = self.memory
        if self.cluster != "slurm":
            return asked
        named = {name: getattr(self, name) for name in ("partition", "account", "qos", "constraint")}
        asked |= {f"slurm_{name}": value for name, value in named.items() if value is not None}
        if self.setup:
            asked["slurm_setup"] = list(self.setup)
        return asked

    def run(self, folder: Path, numbers: Iterator[int]) -> Iterator[int]:
        """Keep up to `jobs` jobs in the queue; those submitted together form an array. A stop cancels the queue."""
        executor = needs("submitit", "slurm").AutoExecutor(folder=folder / "logs" / "%j", cluster=self.cluster)
        executor.update_parameters(**self.parameters())
        running: dict[int, Any] = {}
        cancelled = self.cluster != "slurm"  # with launcher.cluster=local, jobs are stopped by signals
        try:
            while True:
                taken = list(islice(numbers, self.jobs - len(running)))
                with executor.batch() if len(taken) > 1 else nullcontext():
                    sent = {n: executor.submit(Task(str(folder.resolve()), n)) for n in taken}
                running |= sent
                if not running:
                    return
                time.sleep(self.look)
                if stop_file(folder).exists() and not cancelled:
                    cancelled = True
                    for job in running.values():
                        job.cancel(check=False)
                for number in [n for n, job in running.items() if job.done()]:
                    job = running.pop(number)
                    note_death(folder, number, 1 if job.exception() is not None else 0)
                    yield number
        finally:
            for job in running.values():
                job.cancel(check=False)
