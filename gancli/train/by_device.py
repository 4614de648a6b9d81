"""`model.generator=auto`: the generator that the device at hand trains in the time of a small run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gancli.compute import device
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.flags import split
from gancli.config.generators import GROUP, KEY
from gancli.config.paths import value_of
from gancli.train.rules import AUTO

GENERATORS = {"cpu": "dcgan"}  # by torch's kind of device
OTHER = "fastgan_lite"
SECTIONS = ("game", "model", "optimizer")  # those that a choice of the group sets


def with_generator(
    config: Mapping[str, Any], overrides: Sequence[str], run: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Return a configuration and its command line with a generator by name in place of `auto`.

    run: the configuration of the run that is resumed, which keeps its generator. Raises GanError.
    """
    if value_of(config, KEY) != AUTO:
        return config, list(overrides)
    kind = device.chosen(make_as(device.DeviceChoice, config["device"], "device").kind).type
    name = GENERATORS.get(kind, OTHER) if run is None else value_of(run, KEY)
    words = [*overrides, f"{GROUP}={name}"]
    _, own, folders = split(words)
    named = compose("train", own, folders, typed=run is None)
    return {**config, **{section: named[section] for section in SECTIONS}}, words
