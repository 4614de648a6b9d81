"""Results of a sweep's runs by name: from evaluations, and columns of metrics.jsonl."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gancli.config.settings import Better
from gancli.errors import ConfigError, RunError, suggestion
from gancli.metrics.directions import directed, higher_is_better
from gancli.store.environment import environment
from gancli.store.files import files, finite, json_lines, read_json
from gancli.store.rundir import RunDir

FIRST = ("fid", "kid")  # preferred for the ranking if rank= is not given
NOT_RESULTS = frozenset(("step", "seen", "seconds", "images_per_second"))


@dataclass(frozen=True)
class Result:
    """Results of one evaluation at one step. kind: equal for comparable evaluations."""

    step: int
    written: int
    kind: str
    values: dict[str, float]


@dataclass(frozen=True)
class Findings:
    """All results of a run.

    evaluated: newest last. trained: the mean of each column over the last tenth of its rows.
    """

    evaluated: tuple[Result, ...]
    trained: dict[str, float]


def findings(run: RunDir) -> Findings:
    """Read a run's results; damaged files are ignored."""
    found = [r for r in map(_result, files(run.results, "*.json")) if r is not None]
    return Findings(tuple(sorted(found, key=lambda r: (r.step, r.written, r.kind))), _trained(run))


def _result(path: Any) -> Result | None:
    try:
        found = read_json(path)
        step, protocol = int(found["step"]), found["protocol"]
        return Result(step, path.stat().st_mtime_ns, _kind(protocol), numbers(found))
    except (RunError, OSError, KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError):
        return None


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The finite numbers among the values.

    >>> numbers({"fid": 3.5, "step": 4, "warnings": [], "ok": True})
    {'fid': 3.5}
    """
    found = {name: finite(value) for name, value in values.items() if name not in NOT_RESULTS}
    return {name: value for name, value in found.items() if value is not None and name.isprintable()}


def _kind(protocol: Mapping[str, Any]) -> str:
    """A protocol as text, without what differs between runs: the run, its step, time and machine of evaluation."""
    left_out = {*environment(), "seconds"}
    fake = {k: v for k, v in protocol["fake"].items() if k not in ("run", "step", "seen")}
    kept = {k: v for k, v in protocol.items() if k not in left_out} | {"fake": fake}
    return json.dumps(kept, sort_keys=True, default=str)


def _trained(run: RunDir) -> dict[str, float]:
    columns: dict[str, list[float]] = {}
    for row in json_lines(run.metrics):
        for name, value in numbers(row).items():
            columns.setdefault(name, []).append(value)
    tails = {name: values[-max(1, len(values) // 10) :] for name, values in columns.items()}
    return {name: sum(tail) / len(tail) for name, tail in tails.items()}


@dataclass(frozen=True)
class Score:
    """One run's result of some name; `kind` is empty for a column of metrics.jsonl."""

    value: float
    kind: str = ""


def scores(all_of: Mapping[int, Findings], name: str) -> dict[int, Score]:
    """The result `name` of every run that has it, by job.

    Of several evaluations, the newest under the protocol that most runs share is used.
    """
    having = {k: [r for r in f.evaluated if name in r.values] for k, f in all_of.items()}
    votes = Counter(kind for results in having.values() for kind in {r.kind for r in results})
    found = {}
    for number, results in having.items():
        if results:
            best = max(results, key=lambda r: (votes[r.kind], r.step, r.written))
            found[number] = Score(best.values[name], best.kind)
    if not found:
        found = {k: Score(f.trained[name]) for k, f in all_of.items() if name in f.trained}
    return found


def names(all_of: Mapping[int, Findings]) -> list[str]:
    """The names of all runs' results: of evaluations before columns of training."""
    results = [n for f in all_of.values() for r in f.evaluated for n in r.values]
    columns = [n for f in all_of.values() for n in f.trained]
    ordered = [n for n in FIRST if n in results] + results
    return list(dict.fromkeys([*ordered, *[n for n in ("loss_G",) if n in columns], *columns]))


def chosen(all_of: Mapping[int, Findings], rank: str | None, losses: bool = True) -> str | None:
    """The name to rank by; None if no run has any. losses: whether columns of training may be the default.

    Raises ConfigError if no run has the requested result.
    """
    there = names(all_of)
    if rank is None:
        return next((n for n in there if losses or evaluated(all_of, n)), None)
    if all_of and rank not in there:
        hint = suggestion(rank, there) if there else "the runs have no results"
        raise ConfigError(
            f"rank={rank}: no finished run of the sweep has this result; {hint}; gan eval run=RUN writes results, and"
            " resume_sweep= ranks again"
        )
    return rank


def evaluated(all_of: Mapping[int, Findings], name: str) -> bool:
    """Whether an evaluation of some run has this result."""
    return any(name in r.values for f in all_of.values() for r in f.evaluated)


def is_low(name: str, better: Better) -> bool:
    """Whether lower values of a result are better.

    >>> is_low("fid", "auto"), is_low("class_accuracy", "auto"), is_low("loss_G", "high")
    (True, False, False)
    """
    if better != "auto":
        return better == "low"
    return name != "images_per_second" and not (directed(name) and higher_is_better(name))


def mean_std(values: Sequence[float]) -> tuple[float, float | None]:
    """Mean and sample standard deviation; None for a single value.

    >>> mean_std([1.0, 3.0])
    (2.0, 1.4142135623730951)
    """
    mean = sum(values) / len(values)
    if len(values) < 2:
        return mean, None
    return mean, math.sqrt(sum((v - mean) ** 2 for v in values) / (len(values) - 1))
