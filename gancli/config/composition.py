"""Hydra's own composition of conf/ with overrides, and what a record may not change of it."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gancli.config import sealed
from gancli.config.files import conf_dir
from gancli.config.grammar import in_quotes
from gancli.errors import ConfigError


def search_path(folders: Sequence[Path]) -> list[str]:
    """The override that lets Hydra look for group files in further folders too."""
    return [f"hydra.searchpath=[{','.join(in_quotes(f'file://{f.resolve()}') for f in folders)}]"] if folders else []


def refuse_plugins(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ConfigError where a recorded command line, or its folders, would change Hydra itself.

    Hydra's callbacks, launchers and loggers name code to run; a run directory from a stranger must not choose them.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not folders:
        return  # without files of its own, a command line cannot reach Hydra but by keys that were refused before
    own = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "help", "run", "sweep", "env")
    try:
        found = [_hydra_node("train", each, places) for each, places in (([], []), (overrides, folders))]
    except (HydraException, OmegaConfBaseException, ValueError):
        return  # said in better words when it is composed for good
    for name in own:
        if found[0].get(name) != found[1].get(name):
            raise ConfigError(f"the run's --config-dir changes hydra.{name}: it was not followed")
    if any(found[1]["job"].get(name) for name in ("env_set", "env_copy")) or found[1]["job"].get("chdir"):
        raise ConfigError("the run's --config-dir changes hydra.job: it was not followed")


def _hydra_node(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """Hydra's own part of a composed configuration, unresolved."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir()), version_base="1.3"), sealed.no_resolvers():
        config = hydra_compose(verb, overrides=[*search_path(folders), *overrides], return_hydra_config=True)
    plain = OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def hydra_compose(
    verb: str, overrides: Sequence[str], folders: Sequence[Path], typed: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Hydra's composition, and the final choice of each group."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf, open_dict

    # Inside a job of Hydra's there is one already, which is set aside.
    one = GlobalHydra.instance()
    running, one.hydra = one.hydra, None
    try:
        known = nullcontext() if typed else sealed.no_resolvers()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"), known:  # which registers some of its own
            config = compose(verb, overrides=[*search_path(folders), *overrides], return_hydra_config=True)
    finally:
        one.hydra = running
    found = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(found, dict)
    with open_dict(config):
        del config["hydra"]
    return config, {str(g): c for g, c in found.items() if not str(g).startswith("hydra/")}


def unresolved(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> Any:
    """The composed configuration as plain values, for a look at its keys: nothing in it can be resolved later."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(hydra_compose(verb, overrides, folders)[0], resolve=False)
