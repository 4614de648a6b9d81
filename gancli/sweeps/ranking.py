"""The ranking of a sweep: a table for the terminal, ranking.csv with every job, ranking.png by every choice."""

from __future__ import annotations

import contextlib
import shlex
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gancli.config.settings import Better
from gancli.errors import RunError
from gancli.store.files import csv_text, whole_file, write_text
from gancli.sweeps.objective import swept
from gancli.sweeps.record import Job, Sweep
from gancli.sweeps.results import Findings, Score, chosen, findings, is_low, mean_std, names, scores

SPREAD = "standard deviation over seeds"


@dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seed. place: from 1, shared by tied groups; None without a result."""

    choices: dict[str, str]
    jobs: tuple[Job, ...]
    values: tuple[float, ...]
    place: int | None = None

    @property
    def mean(self) -> float | None:
        """The mean over the seeds that have a result."""
        return mean_std(self.values)[0] if self.values else None

    @property
    def spread(self) -> float | None:
        """The standard deviation over these seeds; None for fewer than two."""
        return mean_std(self.values)[1] if self.values else None


@dataclass(frozen=True)
class Ranking:
    """A sweep in order. name: of the result; None if no run has one that is comparable between the jobs.

    objective: swept keys that change what is minimised, so that losses are not comparable.
    """

    path: Path
    name: str | None
    low: bool
    keys: tuple[str, ...]
    groups: tuple[Group, ...]
    found: Mapping[int, Findings]
    scores: Mapping[int, Score]
    objective: tuple[str, ...] = ()
    advised: str = "fid"  # a metric that fits the data

    @property
    def how(self) -> str:
        """The criterion of the order, as text."""
        if self.name is not None:
            return f"ranked by {self.name}, {'lower' if self.low else 'higher'} is better"
        if self.found and self.objective:
            return f"not ranked: losses are not comparable between values of {self.objective[0]}"
        return "no run has a result yet"

    @property
    def legend(self) -> str:
        """The explanation of the table."""
        if any(g.spread is not None for g in self.groups):
            return f"mean ± {SPREAD}; means that differ by at most the larger deviation share a place"
        return "values that are equal in the digits shown share a place" if self.name is not None else ""

    def caveats(self) -> list[str]:
        """Notes on how to read the table."""
        notes = []
        if not any(s.kind for s in self.scores.values()):
            if self.name is not None:
                notes.append(
                    f"{self.name} is a mean over the last rows of training and does not measure sample quality"
                    + (f"; it is not comparable between values of {self.objective[0]}" if self.objective else "")
                )
            if self.found:
                place = shlex.quote(str(self.path))
                notes.append(
                    f"to rank by sample quality: gan eval run={place} 'metrics=[{self.advised}]', then gan train -m"
                    f" resume_sweep={place} rank={self.advised}"
                )
        if len({s.kind for s in self.scores.values()}) > 1:
            notes.append(f"{self.name} was measured under different protocols: compare with care")
        return notes


def rank(sweep: Sweep, wanted: str | None, better: Better) -> Ranking:
    """Rank a sweep's jobs by their runs' results. Raises ConfigError if no run has the requested result."""
    found = {job.number: findings(sweep.run_of(job)) for job in sweep.jobs if job.status == "finished"}
    keys = tuple(dict.fromkeys(key for job in sweep.jobs for key in job.choices))
    objective = tuple(swept(keys))
    name = chosen(found, wanted, not objective)
    low = name is not None and is_low(name, better)
    values = scores(found, name) if name is not None else {}
    several = tuple(key for key in keys if key != "seed")
    members: dict[tuple[str, ...], list[Job]] = {}
    for job in sweep.jobs:
        members.setdefault(tuple(shown(job, key) for key in several), []).append(job)
    groups = []
    for chose, jobs in members.items():
        of_group = tuple(values[job.number].value for job in jobs if job.number in values)
        groups.append(Group(dict(zip(several, chose, strict=True)), tuple(jobs), of_group))
    placed = tuple(_placed(groups, low))
    return Ranking(sweep.path, name, low, keys, placed, found, values, objective, _advised(sweep, found))


def _advised(sweep: Sweep, found: Mapping[int, Findings]) -> str:
    """The metric to recommend: FID for images, the number of covered modes for points."""
    for number in found:
        with contextlib.suppress(RunError, KeyError, TypeError, AttributeError):
            fields = sweep.run_of(sweep.jobs[number - 1]).about()["data"]["fields"]
            return "modes" if [field["kind"] for field in fields.values()][:1] == ["points"] else "fid"
    return "fid"


def _placed(groups: Sequence[Group], low: bool) -> Iterator[Group]:
    """Groups in order with their places; groups tied with the first one of a place share it."""
    ordered = sorted(groups, key=lambda g: (g.mean is None, (g.mean or 0.0) * (1 if low else -1), g.jobs[0].number))
    first: Group | None = None
    place = None
    for k, group in enumerate(ordered, 1):
        if not group.values:
            place = None
        elif first is None or not tied(first, group):
            first, place = group, k
        yield replace(group, place=place)


def tied(a: Group, b: Group) -> bool:
    """Whether two groups' means differ by at most the larger of their spreads, or are equal in the digits shown."""
    if a.mean is None or b.mean is None:
        return False
    spread = max(a.spread or 0.0, b.spread or 0.0)
    return abs(a.mean - b.mean) <= spread or f"{a.mean:.4g}" == f"{b.mean:.4g}"


def shown(job: Job, key: str) -> str:
    """A job's choice as text."""
    value = job.choices.get(key, "")
    return f"{value:.6g}" if isinstance(value, float) else str(value)


def print_table(ranking: Ranking) -> None:
    """Print the groups in order, best first."""
    from rich.console import Console
    from rich.table import Table

    keys = [key for key in ranking.keys if key != "seed"]
    table = Table()
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
    console = Console(markup=False, emoji=False, highlight=False)  # choices may contain brackets and colons
    for part in (ranking.how, table, ranking.legend):
        console.print(part, soft_wrap=part is not table)


def _plus_minus(values: Sequence[float]) -> str:
    if not values:
        return "-"
    mean, std = mean_std(values)
    return f"{mean:.4g}" if std is None else f"{mean:.4g} ± {std:.2g}"


def _clock(seconds: float) -> str:
    hours, rest = divmod(round(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def write_csv(sweep: Sweep, ranking: Ranking) -> None:
    """Write ranking.csv, one row per job, best first: place, choices, all results, time, run directory, error."""
    columns = names(ranking.found)
    if ranking.name is not None:
        columns = [ranking.name, *(n for n in columns if n != ranking.name)]
    by_name = {name: scores(ranking.found, name) for name in columns}
    over_seeds = [] if ranking.name is None else [f"mean {ranking.name}", SPREAD]
    rows: list[list[Any]] = [
        ["place", "job", *ranking.keys, "status", *columns, *over_seeds, "seconds", "run", "reason"]
    ]
    for group in ranking.groups:
        both = [_digits(group.mean), _digits(group.spread)][: len(over_seeds)]
        for job in group.jobs:
            found = [by_name[name].get(job.number) for name in columns]
            values = [_digits(None if score is None else score.value) for score in found]
            choices = [shown(job, key) for key in ranking.keys]
            end = [f"{job.seconds:.1f}", sweep.path / job.run, job.reason or ""]
            rows.append([group.place or "", job.number, *choices, job.status, *values, *both, *end])
    write_text(sweep.path / "ranking.csv", csv_text(rows))


def _digits(value: float | None) -> str:
    return "" if value is None else f"{value:.8g}"


def write_plot(sweep: Sweep, ranking: Ranking) -> bool:
    """Write ranking.png, one panel per swept key, with a dot per run and means; False if there is nothing to show."""
    from matplotlib.figure import Figure

    keys = [key for key in ranking.keys if key != "seed"] or list(ranking.keys)
    points = {job.number: ranking.scores[job.number].value for job in sweep.jobs if job.number in ranking.scores}
    if not points or not keys:
        return False
    figure = Figure(figsize=(max(3.6 * len(keys) + 0.6, 4.6), 3.7), layout="constrained")
    panels = figure.subplots(1, len(keys), sharey=True, squeeze=False)[0]
    for panel, key in zip(panels, keys, strict=True):
        jobs = [job for job in sweep.jobs if job.number in points]
        _panel(panel, key, [shown(job, key) for job in jobs], [points[job.number] for job in jobs])
    how = f"{ranking.name} ({'lower' if ranking.low else 'higher'} is better)"
    panels[0].set_ylabel(how, parse_math=False)
    figure.supxlabel("dot: one run · bar: mean of the runs with this value ± their standard deviation", fontsize=8)
    with whole_file(sweep.path / "ranking.png") as file, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # for characters that the font lacks
        figure.savefig(file, format="png", dpi=110)
    return True


def _panel(panel: Any, key: str, choices: Sequence[str], heights: Sequence[float]) -> None:
    """Draw one key's panel: a dot per run, and for each value a bar at the mean with the standard deviation."""
    where, numeric = _positions(choices)
    panel.plot(where, heights, "o", alpha=0.6, markersize=5)
    at = sorted(set(where))
    of_each = [mean_std([h for w, h in zip(where, heights, strict=True) if w == x]) for x in at]
    means, spreads = [mean for mean, _ in of_each], [std or 0.0 for _, std in of_each]
    panel.errorbar(at, means, spreads, fmt="-" if numeric else "_", color="0.3", markersize=22, linewidth=1)
    if numeric and min(at) > 0 and max(at) / min(at) >= 50:
        panel.set_xscale("log")
    if not numeric:
        labels = [cut(choices[where.index(x)]) for x in at]
        crowded = sum(map(len, labels)) > 28
        turned = {"rotation": 40 if crowded else 0, "ha": "right" if crowded else "center"}
        panel.set_xticks(at, labels, parse_math=False, **turned)
        panel.set_xlim(min(at) - 0.5, max(at) + 0.5)
    panel.set_xlabel(cut(key), parse_math=False)
    panel.grid(axis="y", alpha=0.3)


def cut(text: str, most: int = 40) -> str:
    """Shorten a text for the plot.

    >>> cut("abcdef", 4)
    'abc…'
    """
    return text if len(text) <= most else f"{text[: most - 1]}…"


def _positions(values: Sequence[str]) -> tuple[list[float], bool]:
    """Each choice's position on the axis, and whether the axis is numeric; texts are placed in order of occurrence.

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
