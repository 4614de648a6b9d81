"""The end of a sweep: write the ranking and the comparison page, and report failed jobs."""

from __future__ import annotations

import sys

from gancli.config.commands import command, word
from gancli.config.settings import Better
from gancli.errors import GanError
from gancli.sweeps import pages, ranking
from gancli.sweeps.record import OVER, Sweep


def report(sweep: Sweep, rank: str | None, better: Better) -> None:
    """Write and print the ranking. Raises GanError for unfinished or failed jobs, with the command to continue."""
    made = ranking.rank(sweep, rank, better)
    ranking.write_csv(sweep, made)
    drawn = _drawn(sweep, made)
    ranking.print_table(made)
    for caveat in made.caveats():
        say(f"note: {caveat}")
    print(f"ranking: {sweep.path / 'ranking.csv'}" + (f", {sweep.path / 'ranking.png'}" if drawn else ""), flush=True)
    _write_page(sweep)
    left = [job for job in sweep.jobs if job.status not in OVER]
    failed = [job for job in sweep.jobs if job.status == "failed"]
    if left:
        named = "; ".join(f"{job.run}: {job.reason or 'interrupted'}" for job in left)
        raise GanError(
            f"{len(left)} of {len(sweep.jobs)} jobs are not finished ({named}); to resume them:"
            f" {command('train', '-m', word('resume_sweep', sweep.path))}"
        )
    if failed:
        named = "; ".join(f"[{job.title()}] {job.reason}" for job in failed)
        raise GanError(
            f"{len(failed)} of {len(sweep.jobs)} jobs failed: {named}; to run them again:"
            f" {command('train', '-m', word('resume_sweep', sweep.path), 'retry=true')}"
        )


def began(sweep: Sweep) -> bool:
    """Whether any job has a run, or may still get one."""
    return any(job.status != "failed" or sweep.run_of(job).path.exists() for job in sweep.jobs)


def all_wrong(sweep: Sweep) -> GanError:
    """The error of a sweep in which no job could start: the first job's."""
    first = sweep.jobs[0]
    if len(sweep.jobs) == 1:
        return GanError(str(first.reason))
    same = all(job.reason == first.reason for job in sweep.jobs)
    return GanError(
        f"none of the {len(sweep.jobs)} jobs can start"
        + (f": {first.reason}" if same else f"; the first, [{first.title()}]: {first.reason}")
    )


def _drawn(sweep: Sweep, made: ranking.Ranking) -> bool:
    """Write ranking.png, or print a note if that fails; return whether it was written."""
    try:
        return ranking.write_plot(sweep, made)
    except Exception as error:
        say(f"note: no ranking.png: {' '.join(str(error).split())[:200] or type(error).__name__}")
        return False


def _write_page(sweep: Sweep) -> None:
    """Write comparison.html, or print a note if that fails, since the jobs are finished in any case."""
    if not pages.finished(sweep):
        return
    try:
        print(f"comparison: {pages.write(sweep)}", flush=True)
    except Exception as error:
        say(f"note: no {pages.NAME}: {' '.join(str(error).split())[:200] or type(error).__name__}")


def say(text: str) -> None:
    """Print a line for the user to stderr."""
    print(text, file=sys.stderr, flush=True)
