"""Checks of a sweep's ranking criterion: whether its jobs will have it, and whether it is comparable between them."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gancli.config.build import find
from gancli.config.compose import compose, groups
from gancli.errors import ConfigError, suggestion
from gancli.sweeps.results import Findings, names

GROUPS = frozenset(("loss", "penalty", "game", "model", "experiment"))  # groups that change what is minimised
# Columns of metrics.jsonl: of losses and players, of D's logits, of alarms.
COLUMNS = ("loss_D", "loss_G", "D_real", "D_fake", "D_sign", "errors", "diversity", "gradient_G")
PLAYERS = re.compile(r"(loss|penalty|class|grad_norm|weight_norm|lr|diversity)_\w+")  # by player or direction


def swept(keys: Sequence[str]) -> list[str]:
    """The swept keys that change what is minimised, so that losses are not comparable between jobs.

    >>> swept(["loss", "optimizer.G.lr", "penalty.r1.weight", "seed"])
    ['loss', 'penalty.r1.weight']
    """
    plain = [key.lstrip("+~").partition("@")[0] for key in keys]
    return [key for key in plain if key in GROUPS or key.startswith(("loss.", "penalty."))]


def refuse_rank(
    rank: str | None,
    keys: Sequence[str],
    guided: bool,
    jobs: Sequence[Mapping[str, Any]],
    found: Mapping[int, Findings],
) -> None:
    """Raise ConfigError, before any job runs, for a result that no job will have, or a search without a result.

    keys: the swept ones. guided: whether a search uses results. jobs: configs. found: results of finished runs.
    """
    scored = set.intersection(*map(_scored, jobs)) if jobs else set()
    if rank is None:
        losses = swept(keys)
        if guided and losses and not scored and not any(f.evaluated for f in found.values()):
            raise ConfigError(
                f"search=optuna: losses are not comparable between values of {losses[0]}, and nothing else is measured:"
                " set observers.scores.every=1000 'observers.scores.metrics=[fid]', or rank=loss_G to use it anyway"
            )
        return
    if rank in names(found) or any(rank == name or rank.startswith(f"{name}_") for name in scored):
        return
    if PLAYERS.fullmatch(rank) or rank in COLUMNS:
        if all((job["observers"].get("metrics") or {}) for job in jobs):
            if any(_rows(job) for job in jobs):
                return
            raise ConfigError(f"rank={rank}: the jobs are too short for a row of metrics: set more steps, or omit rank")
        raise ConfigError(f"rank={rank}: observers.metrics=null writes no such column: leave it out")
    every = _of_metrics(groups("eval")["metrics"])
    base = re.sub(r"^([fk])d_", r"\1id_", rank)  # fid's name with another network than Inception
    for metric, results in every.items():
        result = next((r for r in results if base == r or base.startswith(f"{r}_")), None)
        if result is not None:
            raise ConfigError(_not_had(rank, metric, base[len(result) + 1 :]))
    known = {*COLUMNS, *names(found), *(result for results in every.values() for result in results)}
    raise ConfigError(f"rank={rank}: no run has such a result; {suggestion(rank, known)}")


def _rows(job: Mapping[str, Any]) -> bool:
    """Whether a job has enough steps for a row of metrics."""
    steps, every = None if job.get("images") else job.get("steps"), job["observers"]["metrics"].get("every", 1)
    return not isinstance(steps, int) or not isinstance(every, (int, float)) or steps >= every


def _not_had(rank: str, metric: str, rest: str) -> str:
    """The message for a result of gan eval that no job has. rest: the end of its name, after the metric's."""
    other = rest if rest in groups("eval")["extractor"] else ""
    now = f" observers.scores.extractor={other}" if other else ""
    later = f" extractor={other}" if other else ""
    return (
        f"rank={rank}: training does not compute it, gan eval does. Let the jobs measure it"
        f" (observers.scores.every=1000 'observers.scores.metrics=[{metric}]'{now}), or leave rank out and afterwards"
        f" type gan eval run=SWEEP 'metrics=[{metric}]'{later}, then gan train -m resume_sweep=SWEEP rank={rank}"
    )


def _scored(job: Mapping[str, Any]) -> set[str]:
    """The names of the results of a job's observers.scores."""
    scores = job["observers"].get("scores")
    if not isinstance(scores, Mapping) or scores.get("every") is None:
        return set()
    found = {name for each in _of_metrics(scores.get("metrics") or ["kid"]).values() for name in each}
    other = scores.get("extractor", "inception")
    if other == "inception":
        return found
    return found | {f"{name.replace('fid', 'fd').replace('kid', 'kd')}_{other}" for name in found}


def _of_metrics(metrics: Sequence[str]) -> dict[str, set[str]]:
    """The names of each metric's results with Inception's features."""
    found: dict[str, set[str]] = {}
    for name, node in compose("eval", [f"metrics=[{','.join(metrics)}]"])["metrics"].items():
        kind: Any = find(node["_target_"], f"metrics.{name}")
        found[name] = set(getattr(kind, "words", ()) or [getattr(kind, "name", name)])
    return found
