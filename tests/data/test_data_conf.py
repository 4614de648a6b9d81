"""Each dataset's YAML names exactly the parameters of what it builds, with their defaults."""

from __future__ import annotations

import importlib
import inspect
from pathlib import Path

import pytest
import yaml

from gancli.config.build import defaults_of
from gancli.data.source import Source

CONF = Path(__file__).parents[2] / "conf" / "dataset"
NAMES = sorted(path.stem for path in CONF.glob("*.yaml"))


def test_every_data_set_has_a_file() -> None:
    expected = (
        "celeba cifar10 cifar100 emoji emoji_pairs fashion fashion_mnist folder gauss1d grid hub mnist npz pairs"
        " random ring stl10 svhn swissroll unpaired webdataset zip"
    )
    assert expected.split() == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_keys_are_the_parameters(name: str) -> None:
    node = yaml.safe_load((CONF / f"{name}.yaml").read_text(encoding="utf-8"))
    module, _, function = node.pop("_target_").rpartition(".")
    target = getattr(importlib.import_module(module), function)
    parameters, dealt = (inspect.signature(made).parameters for made in (target, Source))
    # What stands behind a `*` comes from the game, not from a file.
    own = {key: p.default for key, p in parameters.items() if p.kind is p.POSITIONAL_OR_KEYWORD}
    passed_on = {key: dealt[key].default for key in defaults_of(target).keys() - parameters.keys()}
    defaults = own | passed_on
    assert node == {key: list(value) if isinstance(value, tuple) else value for key, value in defaults.items()}
    assert {"size", "limit", "split", "flip"} <= set(node)


@pytest.mark.parametrize("name", NAMES)
def test_every_key_is_explained(name: str) -> None:
    lines = (CONF / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
    assert all("  # " in line for line in lines if not line.startswith(("_target_", "# ")))
