"""Which way each result of `gan eval` is better, as its metric says."""

from __future__ import annotations

from functools import cache

from gancli.config.build import find
from gancli.config.files import file_of, groups, read
from gancli.errors import ConfigError, suggestion


@cache
def directions() -> dict[str, str]:
    """Each result by its plain name: low, high or neither; of all metrics that have a file in conf/metrics/."""
    found: dict[str, str] = {}
    for choice in groups("eval")["metrics"]:
        file = file_of("metrics", choice)
        assert file is not None
        found |= getattr(find(read(file)[1].get("_target_"), "metrics"), "better", {})
    return found


def higher_is_better(metric: str, key: str = "observers.checkpoints.best") -> bool:
    """Whether larger values of a result are better. Raises ConfigError for a name that is none, or tells no such thing.

    >>> higher_is_better("fid"), higher_is_better("recall")
    (False, True)
    >>> higher_is_better("fd_clip"), higher_is_better("recall_clip")  # of another extractor than Inception
    (False, True)
    """
    known = directions()
    choices = sorted(name for name, way in known.items() if way != "neither")
    names = sorted(known, key=len, reverse=True)
    plain = next((name for name in names if metric == name or metric.startswith(f"{name}_")), None)
    if plain is None:
        raise ConfigError(f"{key}={metric}: no result has this name; {suggestion(metric, choices)}")
    if known[plain] == "neither" or metric.endswith("_std"):
        raise ConfigError(
            f"{key}={metric}: neither more nor less of it is better, so that it cannot choose; choices: "
            + ", ".join(choices)
        )
    return known[plain] == "high"


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
