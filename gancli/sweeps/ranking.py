"""The end of a sweep: a table for the terminal, ranking.csv with every job, ranking.png over every choice."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from gancli.files import whole_file, write_text
from gancli.sweeps.record import Job, Sweep
from gancli.sweeps.results import Better, Findings, Score, chosen, findings, is_low, mean_std, names, scores


@dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seed. place: from 1; None without a result."""

    choices: dict[str, str]
    jobs: tuple[Job, ...]
    values: tuple[float, ...]
    place: int | None = None

    @property
    def mean(self) -> float | None:
        """Over the seeds that have a result."""
        return mean_std(self.values)[0] if self.values else None


@dataclass(frozen=True)
class Ranking:
    """A sweep in order. name: of the result; None where no run has any."""

    name: str | None
    low: bool
    keys: tuple[str, ...]
    groups: tuple[Group, ...]
    found: Mapping[int, Findings]
    scores: Mapping[int, Score]

    @property
    def how(self) -> str:
        """What it is ordered by, in words."""
        if self.name is None:
            return "no run has a result yet"
        return f"ranked by {self.name}, {'lower' if self.low else 'higher'} is better"

    def caveats(self) -> list[str]:
        """What a reader of the table has to know."""
        said = []
        if self.name is not None and not any(s.kind for s in self.scores.values()):
            said.append(
                f"{self.name} is a mean over the last rows of training and says little of the images; gan eval run=RUN"
                " or observers.scores give results that do"
            )
        if len({s.kind for s in self.scores.values()}) > 1:
            said.append(f"{self.name} was measured under different protocols: compare with care")
        return said


def rank(sweep: Sweep, wanted: str | None, better: Better) -> Ranking:
    """Order a sweep's jobs by their runs' own results. Raises ConfigError where no run has what was asked for."""
    found = {job.number: findings(sweep.run_of(job)) for job in sweep.jobs if job.status == "finished"}
    name = chosen(found, wanted)
    low = name is not None and is_low(name, better)
    values = scores(found, name) if name is not None else {}
    keys = tuple(dict.fromkeys(key for job in sweep.jobs for key in job.choices))
    several = tuple(key for key in keys if key != "seed")
    members: dict[tuple[str, ...], list[Job]] = {}
    for job in sweep.jobs:
        members.setdefault(tuple(shown(job, key) for key in several), []).append(job)
    groups = []
    for chose, jobs in members.items():
        of_group = tuple(values[job.number].value for job in jobs if job.number in values)
        groups.append(Group(dict(zip(several, chose, strict=True)), tuple(jobs), of_group))
    groups.sort(key=lambda g: (g.mean is None, (g.mean or 0.0) * (1 if low else -1), g.jobs[0].number))
    placed = tuple(Group(g.choices, g.jobs, g.values, k + 1 if g.values else None) for k, g in enumerate(groups))
    return Ranking(name, low, keys, placed, found, values)


def shown(job: Job, key: str) -> str:
    """A job's choice as text."""
    value = job.choices.get(key, "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_table(ranking: Ranking) -> None:
    """The groups in order, best first."""
    from rich.console import Console
    from rich.table import Table

    keys = [key for key in ranking.keys if key != "seed"]
    table = Table(title=ranking.how)
    for title in ("", *keys, ranking.name or "", "runs", "time"):
        table.add_column(title, justify="left" if title in keys else "right", overflow="fold")
    for group in ranking.groups:
        done = sum(job.status == "finished" for job in group.jobs)
        table.add_row(
            str(group.place or ""),
            *(group.choices[key] for key in keys),
            _plus_minus(group.values),
            str(done) if done == len(group.jobs) else f"{done} of {len(group.jobs)}",
            _clock(sum(job.seconds for job in group.jobs)),
        )
    Console().print(table)


def _plus_minus(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, std = mean_std(values)
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def write_csv(sweep: Sweep, ranking: Ranking) -> None:
    """ranking.csv: a row a job, best first: place, choices, every result, time, run directory, why it failed."""
    columns = names(ranking.found)
    if ranking.name is not None:
        columns = [ranking.name, *(n for n in columns if n != ranking.name)]
    by_name = {name: scores(ranking.found, name) for name in columns}
    text = io.StringIO()
    table = csv.writer(text, lineterminator="\n")
    table.writerow(["place", "job", *ranking.keys, "status", *columns, "seconds", "run", "reason"])
    for group in ranking.groups:
        for job in group.jobs:
            values = [by_name[name].get(job.number) for name in columns]
            table.writerow(
                [
                    group.place or "",
                    job.number,
                    *(shown(job, key) for key in ranking.keys),
                    job.status,
                    *("" if score is None else f"{score.value:.8g}" for score in values),
                    f"{job.seconds:.1f}",
                    sweep.path / job.run,
                    job.reason or "",
                ]
            )
    write_text(sweep.path / "ranking.csv", text.getvalue())


def write_plot(sweep: Sweep, ranking: Ranking) -> bool:
    """ranking.png: a panel a choice, a dot a run, a line through the means; False where there is nothing to show."""
    from matplotlib.figure import Figure

    keys = [key for key in ranking.keys if key != "seed"] or list(ranking.keys)
    points = {job.number: ranking.scores[job.number].value for job in sweep.jobs if job.number in ranking.scores}
    if not points or not keys:
        return False
    figure = Figure(figsize=(3.6 * len(keys) + 0.6, 3.4), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, keys, strict=True):
        jobs = [job for job in sweep.jobs if job.number in points]
        where, numeric = _positions([shown(job, key) for job in jobs])
        heights = [points[job.number] for job in jobs]
        panel.plot(where, heights, "o", alpha=0.6, markersize=5)
        at = sorted(set(where))
        means = [mean_std([h for w, h in zip(where, heights, strict=True) if w == x])[0] for x in at]
        panel.plot(at, means, "-" if numeric else "_", color="0.3", markersize=22, linewidth=1)
        if numeric and min(at) > 0 and max(at) / min(at) >= 50:
            panel.set_xscale("log")
        if not numeric:
            labels = {w: shown(job, key) for w, job in zip(where, jobs, strict=True)}
            crowded = sum(map(len, labels.values())) > 28
            panel.set_xticks(
                at, [labels[x] for x in at], rotation=40 if crowded else 0, ha="right" if crowded else "center"
            )
            panel.set_xlim(min(at) - 0.5, max(at) + 0.5)
        panel.set_xlabel(key)
        panel.grid(axis="y", alpha=0.3)
    panels[0].set_ylabel(f"{ranking.name} ({'lower' if ranking.low else 'higher'} is better)")
    with whole_file(sweep.path / "ranking.png") as file:
        figure.savefig(file, format="png", dpi=110)
    return True


def _positions(values: Sequence[str]) -> tuple[list[float], bool]:
    """Where each choice stands on the axis, and whether as a number: words stand side by side as they come.

    >>> _positions(["ns", "hinge", "ns"])
    ([0.0, 1.0, 0.0], False)
    >>> _positions(["1", "2", "4", "8", "16"])[1]
    True
    """
    order = list(dict.fromkeys(values))
    try:
        plain = [float(value) for value in values]
    except ValueError:
        plain = []
    if len(order) > 4 and plain and all(abs(x) < float("inf") for x in plain):
        return plain, True
    return [float(order.index(value)) for value in values], False
