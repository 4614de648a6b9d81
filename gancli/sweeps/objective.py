"""What a sweep may be ranked by: known before its first job, and comparable between its jobs."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from gancli.config.build import find
from gancli.config.compose import compose, groups
from gancli.errors import ConfigError, suggestion
from gancli.sweeps.results import Findings, names

GROUPS = frozenset(("loss", "penalty", "game", "model", "experiment"))  # whose choice changes what is minimised
# Columns of metrics.jsonl: of losses and players, of what D says, of alarms.
COLUMNS = ("loss_D", "loss_G", "D_real", "D_fake", "D_sign", "errors", "diversity", "gradient_G")
PLAYERS = re.compile(r"(loss|penalty|class|grad_norm|weight_norm|lr|diversity)_\w+")  # and directions


def swept(keys: Sequence[str]) -> list[str]:
    """The choices that change what is minimised: between them losses are different quantities.

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
    """Raise ConfigError, before any job runs, for a result that none will have, or a search without one to go by.

    keys: that are swept. guided: whether a search goes by results. jobs: as composed. found: by runs that are finished.
    """
    scored = set.intersection(*map(_scored, jobs)) if jobs else set()
    if rank is None:
        losses = swept(keys)
        if guided and losses and not scored and not any(f.evaluated for f in found.values()):
            raise ConfigError(
                f"search=optuna: losses of different {losses[0]} do not compare, and nothing else is measured:"
                " type observers.scores.every=1000 'observers.scores.metrics=[fid]', or rank=loss_G all the same"
            )
        return
    if rank in names(found) or any(rank == name or rank.startswith(f"{name}_") for name in scored):
        return
    if PLAYERS.fullmatch(rank) or rank in COLUMNS:
        if all((job["observers"].get("metrics") or {}) for job in jobs):
            if any(_rows(job) for job in jobs):
                return
            raise ConfigError(f"rank={rank}: no job comes to a row of metrics: type more steps, or leave rank out")
        raise ConfigError(f"rank={rank}: observers.metrics=null writes no such column; leave that out")
    every = _of_metrics(groups("eval")["metrics"])
    base = re.sub(r"^([fk])d_", r"\1id_", rank)  # as fid is called with another network than Inception
    for metric, words in every.items():
        word = next((w for w in words if base == w or base.startswith(f"{w}_")), None)
        if word is not None:
            raise ConfigError(_not_had(rank, metric, base[len(word) + 1 :]))
    known = {*COLUMNS, *names(found), *(word for words in every.values() for word in words)}
    raise ConfigError(f"rank={rank}: no run has such a result; {suggestion(rank, known)}")


def _rows(job: Mapping[str, Any]) -> bool:
    """Whether a job comes as far as a row of its metrics."""
    steps, every = None if job.get("images") else job.get("steps"), job["observers"]["metrics"].get("every", 1)
    return not isinstance(steps, int) or not isinstance(every, (int, float)) or steps >= every


def _not_had(rank: str, metric: str, rest: str) -> str:
    """What to say of a result of gan eval that no job gives. rest: of its name, behind the metric's word."""
    other = rest if rest in groups("eval")["extractor"] else ""
    now = f" observers.scores.extractor={other}" if other else ""
    later = f" extractor={other}" if other else ""
    return (
        f"rank={rank}: no run of this sweep has it, and none will: it is a result of gan eval. Let the jobs measure it"
        f" (observers.scores.every=1000 'observers.scores.metrics=[{metric}]'{now}), or leave rank out now, and type"
        f" gan train -m resume_sweep=SWEEP rank={rank} after gan eval run=SWEEP 'metrics=[{metric}]'{later}"
    )


def _scored(job: Mapping[str, Any]) -> set[str]:
    """The results that a job's scores give while it trains."""
    scores = job["observers"].get("scores")
    if not isinstance(scores, Mapping) or scores.get("every") is None:
        return set()
    words = {word for each in _of_metrics(scores.get("metrics") or ["kid"]).values() for word in each}
    other = scores.get("extractor", "inception")
    if other == "inception":
        return words
    return words | {f"{w.replace('fid', 'fd').replace('kid', 'kd')}_{other}" for w in words}


def _of_metrics(metrics: Sequence[str]) -> dict[str, set[str]]:
    """The names of what each metric gives with Inception's features."""
    found: dict[str, set[str]] = {}
    for name, node in compose("eval", [f"metrics=[{','.join(metrics)}]"])["metrics"].items():
        kind: Any = find(node["_target_"], f"metrics.{name}")
        found[name] = set(getattr(kind, "words", ()) or [getattr(kind, "name", name)])
    return found
