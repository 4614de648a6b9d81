"""comparison.html of a sweep: its finished jobs side by side."""

from __future__ import annotations

from pathlib import Path

from gancli.errors import RunError
from gancli.sweeps.record import Sweep

NAME = "comparison.html"


def finished(sweep: Sweep) -> list[Path]:
    """The existing run directories of the finished jobs."""
    runs = [sweep.run_of(job).path for job in sweep.jobs if job.status == "finished"]
    return [run for run in runs if (run / "run.json").is_file()]


def write(sweep: Sweep) -> Path:
    """Write SWEEP/comparison.html. Raises RunError if no job has finished, or a run is damaged."""
    from gancli.report import page  # imports jinja and plotly, which are needed only here

    runs = finished(sweep)
    if not runs:
        raise RunError(f"{sweep.path}: no job of this sweep has finished yet; a comparison needs one")
    return page.compare(runs, sweep.path / NAME)
