"""comparison.html of a sweep: its finished jobs beside each other."""

from __future__ import annotations

from pathlib import Path

from gancli.errors import RunError
from gancli.sweeps.record import Sweep

NAME = "comparison.html"


def finished(sweep: Sweep) -> list[Path]:
    """The run directories of the jobs that are finished and still there."""
    runs = [sweep.run_of(job).path for job in sweep.jobs if job.status == "finished"]
    return [run for run in runs if (run / "run.json").is_file()]


def write(sweep: Sweep) -> Path:
    """Write SWEEP/comparison.html. Raises RunError where no job has finished, or a run is damaged."""
    from gancli.report import page  # jinja and plotly, which no sweep needs before its end

    runs = finished(sweep)
    if not runs:
        raise RunError(f"{sweep.path}: no job of this sweep has finished yet; a comparison needs one")
    return page.compare(runs, sweep.path / NAME)
