"""Which checkpoint is best by a metric, from the results in a run's eval/ directory."""

from __future__ import annotations

import math
from collections.abc import Collection
from pathlib import Path

from gancli.errors import ConfigError, RunError, suggestion
from gancli.store.files import files, read_json

# Results of `gan eval` by name, and which way is better.
LOWER = frozenset(
    {"fid", "fd", "kid", "kd", "ppl", "swd", "fid_per_class", "reverse_kl", "jsd", "w1", "mmd", "errors", "error_rate"}
)
HIGHER = frozenset(
    {"is", "precision", "recall", "density", "coverage", "class_accuracy", "cas", "modes", "good", "parzen"}
    | {"linear_probe"}
)
# Of these neither a larger nor a smaller value is better by itself: a share of copies is 0 for noise, too.
NEITHER = frozenset(
    {"ms_ssim", "ms_ssim_real", "memorisation", "nearer_to_training", "cas_real", "classifier_accuracy"}
    | {"parzen_error"}
)


def higher_is_better(metric: str, key: str = "observers.checkpoints.best") -> bool:
    """Whether larger values of a result are better. Raises ConfigError for a name that is none, or tells no such thing.

    >>> higher_is_better("fid"), higher_is_better("recall")
    (False, True)
    >>> higher_is_better("fd_clip"), higher_is_better("recall_clip")  # of another extractor than Inception
    (False, True)
    """
    names = sorted(LOWER | HIGHER | NEITHER, key=len, reverse=True)
    plain = next((name for name in names if metric == name or metric.startswith(f"{name}_")), None)
    if plain is None:
        raise ConfigError(f"{key}={metric}: no result has this name; {suggestion(metric, LOWER | HIGHER)}")
    if plain in NEITHER or metric.endswith("_std"):
        raise ConfigError(
            f"{key}={metric}: neither more nor less of it is better, so that it cannot choose; choices: "
            + ", ".join(sorted(LOWER | HIGHER))
        )
    return plain in HIGHER


def directed(metric: str) -> bool:
    """Whether a result can say which checkpoint is best.

    >>> directed("fd_clip"), directed("ms_ssim")
    (True, False)
    """
    try:
        higher_is_better(metric)
    except ConfigError:
        return False
    return True


def best_step(results: Path, metric: str, steps: Collection[int]) -> int | None:
    """The step, of those given, with the best value of a metric; the earliest of equals, None where none was measured.

    Values of different protocols are not compared: the protocol counts that most steps were measured by, of equals the
    one that was used last. results: a folder of JSON files with `step`, `protocol_id` and values by name.
    """
    sign = -1 if higher_is_better(metric) else 1
    scores: dict[str, dict[int, float]] = {}
    for path in sorted(files(results, "*.json"), key=lambda p: (p.stat().st_mtime_ns, p.name)):
        try:
            found = read_json(path)
            protocol, step, value = str(found["protocol_id"]), int(found["step"]), float(found[metric])
        except (RunError, KeyError, TypeError, ValueError, OverflowError):
            continue  # another metric's result, or a damaged one
        if step in steps and math.isfinite(value):
            scores[protocol] = {**scores.pop(protocol, {}), step: sign * value}  # the newest protocol comes last
    if not scores:
        return None
    values = max(reversed(scores.values()), key=len)
    return min(values, key=lambda step: (values[step], step))
