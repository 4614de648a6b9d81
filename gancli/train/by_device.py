"""Choices of config groups that depend on the device, or whose own values a recipe's rules need."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from gancli.compute import device
from gancli.config.build import make_as
from gancli.config.compose import compose, composed
from gancli.config.files import leaves
from gancli.config.flags import split
from gancli.config.generators import GROUP, KEY
from gancli.config.paths import value_of
from gancli.train.few_shot import GENERATORS, OTHER
from gancli.train.rules import AUTO

SECTIONS = ("game", "model", "optimizer")  # those that a choice of a generator sets
LAYERS = "pretrained.layers"


def with_generator(
    config: Mapping[str, Any], overrides: Sequence[str], run: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], list[str]]:
    """Return a configuration and its command line with a generator by name where it is `auto`: by the device.

    With labels it is one that takes them. run: the configuration of the run that is resumed, which keeps its
    generator. Raises GanError.
    """
    if value_of(config, KEY) != AUTO or (run is not None and value_of(run, KEY) is None):
        return config, list(overrides)
    kind = device.chosen(make_as(device.DeviceChoice, config["device"], "device").kind).type
    plain = value_of(config, "model.conditioning") == "none"
    name = value_of(run or {}, KEY) or (GENERATORS.get(kind, OTHER) if plain else OTHER)[0]
    words = [*overrides, f"{GROUP}={name}"]
    _, own, folders = split(words)
    named = compose("train", own, folders, typed=run is None)
    return {**config, **{section: named[section] for section in SECTIONS}}, words


def usual_layers(config: Mapping[str, Any], overrides: Sequence[str]) -> Any:
    """Return the layers that the pretrained network's group file names, if those of the configuration are `auto`.

    Files of networks by name, `arch`, may name none: the last of strides 4 to 32.
    """
    if value_of(config, LAYERS) != AUTO:
        return None
    _, own, folders = split(overrides)
    choice = composed("train", own, folders, typed=True).choices["pretrained"]
    return leaves("pretrained", choice, folders).get(LAYERS) or ("stages" if "arch" in config["pretrained"] else None)
