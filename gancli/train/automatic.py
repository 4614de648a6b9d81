"""Settings that are `auto`: from the data, by one of two sets of rules.

`auto_rules=stylegan2`, below: those of StyleGAN2-ADA (Karras et al. 2020, released code). `auto_rules=few_shot`:
`gancli.train.few_shot`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, get_args

from gancli.config.paths import set_value, value_of
from gancli.config.settings import AutoRules
from gancli.data.facts import DataFacts
from gancli.data.source import DataSet, first_shape
from gancli.data.survey import Survey
from gancli.errors import ConfigError
from gancli.train import few_shot
from gancli.train.rules import AUTO, Chosen, holds

SETS = get_args(AutoRules)


@dataclass(frozen=True)
class Case:
    """What the rules depend on: side of the images (root of their pixels), batch size, number of processes."""

    side: float
    batch: int
    ranks: int


def batch_of(side: float, ranks: int) -> int:
    """The batch size: 64 at most, and 4096 / side, 32 at most, for each process.

    >>> [batch_of(side, 1) for side in (32, 256, 1024)], batch_of(256, 8)
    ([32, 16, 4], 64)
    """
    return max(min(ranks * min(int(4096 // side), 32), 64), ranks)


# By configuration key: R1's γ, the EMA's half-life in images, widths, rates and the group of the minibatch deviation.
RULES: dict[str, Callable[[Case], float]] = {
    "batch_size": lambda case: case.batch,
    "penalty.r1.weight": lambda case: 0.0002 * case.side**2 / case.batch,
    "model.ema.half_life": lambda case: round(case.batch * 10_000 / 32),
    "model.ch_base": lambda case: 32768 if case.side >= 512 else 16384,
    "model.D.group": lambda case: max(1, min(case.batch // case.ranks, 4)),
    "optimizer.G.lr": lambda case: 2e-3 if case.side >= 1024 else 2.5e-3,
    "optimizer.D.lr": lambda case: 2e-3 if case.side >= 1024 else 2.5e-3,
}


def asked(config: Mapping[str, Any]) -> list[str]:
    """Return the keys of a configuration that are `auto` and have a rule."""
    known = list(few_shot.rules(config)) if by_files(config) else list(_rules(config))
    return [key for key in known if value_of(config, key) == AUTO]


def by_files(config: Mapping[str, Any]) -> bool:
    """Whether the rules are those for few images, which need the sizes of the files and not their pixels.

    Raises ConfigError for rules that do not exist.
    """
    name = config.get("auto_rules") or SETS[0]
    if name not in SETS:
        raise ConfigError(f"auto_rules={name}: type {' or '.join(SETS)}")
    return bool(name == "few_shot")


def _rules(config: Mapping[str, Any]) -> dict[str, Callable[[Case], float]]:
    """Return the rules of StyleGAN2-ADA: a network's own width has the model's."""
    return RULES | {f"model.{name}.ch_base": RULES["model.ch_base"] for name in config["model"]}


def settled(config: Mapping[str, Any], data: DataSet, ranks: int = 1) -> tuple[dict[str, Any], Chosen]:
    """Return a configuration with a value for each key that is `auto`, and the line that lists them.

    Raises ConfigError for data without images.
    """
    shape = first_shape(dict(DataFacts.of(data).fields))
    if len(shape) != 3:
        raise ConfigError(f"{next(iter(asked(config)))}=auto: its rule is for images: type a number")
    side = math.sqrt(shape[1] * shape[2])
    given = config.get("batch_size")
    case = Case(side, batch_of(side, ranks) if given in (AUTO, None) else int(given), ranks)
    found = filled(config, case)
    told = (
        f"{key}={value:.4g}" if isinstance(value := value_of(found, key), float) else f"{key}={value}"
        for key in asked(config)
        if key in RULES
    )
    processes = f", {ranks} processes" if ranks > 1 else ""
    return found, Chosen(f"auto, for {shape[1]}×{shape[2]} pixels{processes}: {' '.join(told)}")


def surveyed(data: DataSet, config: Mapping[str, Any]) -> Survey:
    """Return the survey of loaded images, which have one size. Raises ConfigError for data without images."""
    facts = DataFacts.of(data)
    shape = first_shape(dict(facts.fields))
    if len(shape) != 3:
        raise ConfigError(f"{next(iter(asked(config)))}=auto: its rule is for images: type a number")
    return Survey.of([(shape[1], shape[2])], facts.images)


def recorded(config: Mapping[str, Any], run: Mapping[str, Any]) -> dict[str, Any]:
    """Return a configuration whose `auto` keys have the values of a run's, which were settled when it began."""
    found = dict(config)
    for key in asked(config):
        if holds(run, key):  # also None, which a rule may choose
            set_value(found, key, value_of(run, key))
        elif "." in key:  # its networks do not have it
            section, _, last = key.rpartition(".")
            set_value(found, section, {name: value for name, value in value_of(found, section).items() if name != last})
    return found


def filled(config: Mapping[str, Any], case: Case | None = None) -> dict[str, Any]:
    """Return a configuration with the rules' values for a case; by default one of 64×64 pixels."""
    if by_files(config):
        return few_shot.filled(config)
    found, rules = dict(config), _rules(config)
    for key in asked(config):
        set_value(found, key, rules[key](case or Case(64, batch_of(64, 1), 1)))
    return found
