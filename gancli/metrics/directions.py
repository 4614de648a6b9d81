"""Whether a lower or a higher value of each `gan eval` result is better, as its metric declares."""

from __future__ import annotations

from functools import cache

from gancli.config.build import find
from gancli.config.files import file_of, groups, read
from gancli.errors import ConfigError, suggestion


@cache
def directions() -> dict[str, str]:
    """Return low, high or neither for each result by its plain name, for all metrics with a file in conf/metrics/."""
    found: dict[str, str] = {}
    for choice in groups("eval")["metrics"]:
        file = file_of("metrics", choice)
        assert file is not None
        found |= getattr(find(read(file)[1].get("_target_"), "metrics"), "better", {})
    return found


def higher_is_better(metric: str, key: str = "observers.checkpoints.best") -> bool:
    """Whether larger values of a result are better. Raises ConfigError for an unknown or directionless result.

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
            f"{key}={metric}: neither lower nor higher is better, so it cannot select a checkpoint; choices: "
            + ", ".join(choices)
        )
    return known[plain] == "high"


def directed(metric: str) -> bool:
    """Whether a result can select the best checkpoint.

    >>> directed("fd_clip"), directed("ms_ssim")
    (True, False)
    """
    try:
        higher_is_better(metric)
    except ConfigError:
        return False
    return True
