"""The jobs of a sweep: every combination of the swept values, or those that Optuna suggests."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from gancli.config.choices import MOST_JOBS, values_of
from gancli.config.compose import expand
from gancli.config.grammar import parses
from gancli.errors import ConfigError
from gancli.sweeps.launchers import needs

LARGEST_SEED = 40_000  # of a search: each job's seed is derived from it and must be below NumPy's limit of 2^32
PROBES = 200  # jobs that are composed and checked before the first starts
LOG_FROM = 100  # an interval whose ends differ by this factor is searched on a logarithmic scale

Proposal = tuple[list[str], dict[str, Any]]  # a job's overrides, and its choices among them
Past = tuple[dict[str, Any], float | None]  # a job's choices, and its result; None if it failed


class Search(ABC):
    """Base: determines a sweep's jobs."""

    guided: bool = False  # whether later jobs depend on earlier results

    @abstractmethod
    def first(self, overrides: Sequence[str]) -> list[Proposal]:
        """The jobs known at the start. Raises ConfigError."""

    def probes(self, overrides: Sequence[str]) -> list[list[str]]:
        """Jobs whose validity implies that of all others. Raises ConfigError."""
        return [job for job, _ in self.first(overrides)]

    def further(self, overrides: Sequence[str], past: Sequence[Past], low: bool) -> Proposal | None:
        """The next job, given the earlier ones; None when there are enough."""
        return None


class Grid(Search):
    """Every combination of the swept values."""

    def first(self, overrides: Sequence[str]) -> list[Proposal]:
        """All jobs, in the order of the values as typed."""
        for parsed in _parsed(overrides):
            if parsed.is_interval_sweep():
                raise ConfigError(f"{parsed.input_line}: a grid takes no intervals; add search=optuna, or list values")
        keys = swept(overrides)
        jobs = expand(overrides)
        return [(job, {k.lstrip("+"): v for k, _, v in (o.partition("=") for o in job) if k in keys}) for job in jobs]

    def probes(self, overrides: Sequence[str]) -> list[list[str]]:
        """All jobs; of more than PROBES, those in which a value occurs for the first time, and the last."""
        jobs = [job for job, _ in self.first(overrides)]
        if len(jobs) <= PROBES:
            return jobs
        seen: set[str] = set()
        news = []
        for job in jobs:
            if not seen.issuperset(job):
                seen.update(job)
                news.append(job)
        return [*news[:PROBES], jobs[-1]]


@dataclass(frozen=True)
class Optuna(Search):
    """Optuna's samplers over choices, ranges and intervals.

    A suggestion is a function of (seed, number, earlier results), so a resumed search continues as if it had not been
    interrupted. Source of tpe: Bergstra et al. 2011, Algorithms for Hyper-Parameter Optimization.
    """

    guided = True
    trials: int = 20
    startup: int = 10
    sampler: Literal["tpe", "random"] = "tpe"
    seed: int = 0

    def __post_init__(self) -> None:
        for name, value, least, most in (
            ("trials", self.trials, 1, MOST_JOBS),
            ("startup", self.startup, 1, MOST_JOBS),
            ("seed", self.seed, 0, LARGEST_SEED),
        ):
            if not least <= value <= most:
                raise ConfigError(f"search.{name}={value}: from {least} to {most:,}")
        needs("optuna", "optuna")

    def first(self, overrides: Sequence[str]) -> list[Proposal]:
        """No jobs: all are suggested later."""
        return []

    def probes(self, overrides: Sequence[str]) -> list[list[str]]:
        """Every listed value and both ends of every interval, one at a time."""
        ends = {key: _ends(space) for key, space in self.space(overrides).items()}
        middle = {key: values[0] for key, values in ends.items()}
        jobs = [_filled(overrides, middle | {key: value}) for key, values in ends.items() for value in values]
        return list({tuple(job): job for job in jobs}.values())

    def space(self, overrides: Sequence[str]) -> dict[str, Any]:
        """Optuna's distributions by key. Raises ConfigError if there are none, or if the seed is among them."""
        space = {p.get_key_element(): _distribution(p) for p in _parsed(overrides) if p.is_sweep_override()}
        if not space:
            raise ConfigError(
                "search=optuna has nothing to search: give several values or an interval, such as loss=ns,hinge or"
                " 'optimizer.G.lr=interval(1e-5,1e-3)'"
            )
        if "seed" in space:
            raise ConfigError(
                "seed=: a search optimises settings, and the seed is not one: give a single seed, or set search=grid"
            )
        return space

    def further(self, overrides: Sequence[str], past: Sequence[Past], low: bool) -> Proposal | None:
        """The sampler's next suggestion."""
        if len(past) >= self.trials:
            return None
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        space = self.space(overrides)
        seed = self.seed * 100_003 + len(past)
        samplers: dict[str, Callable[[], Any]] = {
            "tpe": lambda: optuna.samplers.TPESampler(seed=seed, n_startup_trials=self.startup),
            "random": lambda: optuna.samplers.RandomSampler(seed=seed),
        }
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            study = optuna.create_study(sampler=samplers[self.sampler](), direction="minimize" if low else "maximize")
            for number, (choices, value) in enumerate(past, 1):
                state = optuna.trial.TrialState.FAIL if value is None else optuna.trial.TrialState.COMPLETE
                try:
                    known = {key: choices[key] for key in space}
                    trial = optuna.trial.create_trial(params=known, distributions=space, value=value, state=state)
                except (KeyError, ValueError):
                    raise ConfigError(f"search: job {number} of the sweep has other swept keys or values") from None
                study.add_trial(trial)
            choices = study.ask(fixed_distributions=space).params
        return _filled(overrides, choices), choices


def swept(overrides: Sequence[str]) -> list[str]:
    """The keys with several values."""
    return [parsed.get_key_element() for parsed in _parsed(overrides) if parsed.is_sweep_override()]


def _parsed(overrides: Sequence[str]) -> list[Any]:
    from hydra.core.override_parser.overrides_parser import OverridesParser

    for override in overrides:
        if not parses(override):
            hint = "write key=value" if "=" not in override else "put the value in quotes: key='value'"
            raise ConfigError(f"cannot read {override!r}: {hint}")
    return list(OverridesParser.create().parse_overrides(list(overrides)))


def _distribution(parsed: Any) -> Any:
    """An override's values as an Optuna distribution."""
    from hydra.errors import HydraException
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    try:
        if not parsed.is_interval_sweep():
            if values_of(parsed) > MOST_JOBS:
                raise ConfigError(f"{parsed.input_line}: over {MOST_JOBS:,} values; give an interval(LOW,HIGH) instead")
            return CategoricalDistribution(list(parsed.sweep_string_iterator()))
        sweep = parsed.value()
        low, high, tags = sweep.start, sweep.end, set(sweep.tags)
        if not low < high:
            raise ConfigError(f"{parsed.input_line}: an interval goes from a lower to a higher number")
        if tags - {"log", "linear"}:
            raise ValueError(f"tag {', '.join(sorted(tags - {'log', 'linear'}))}: choose log or linear")
        log = "log" in tags or ("linear" not in tags and low > 0 and high / low >= LOG_FROM)
        whole = isinstance(low, int) and isinstance(high, int)
        return (IntDistribution if whole else FloatDistribution)(low, high, log=log)
    except (HydraException, ValueError, TypeError) as error:
        raise ConfigError(f"{parsed.input_line}: {' '.join(str(error).split())}") from None


def _ends(space: Any) -> list[Any]:
    return list(space.choices) if hasattr(space, "choices") else [space.low, space.high]


def _filled(overrides: Sequence[str], choices: dict[str, Any]) -> list[str]:
    """The overrides with the chosen values."""
    keys = [parsed.get_key_element() for parsed in _parsed(overrides)]
    return [f"{k}={choices[k]}" if k in choices else o for k, o in zip(keys, overrides, strict=True)]
