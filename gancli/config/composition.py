"""Hydra's composition of conf/ with overrides, and its protection against untrusted runs."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from gancli.config import untrusted
from gancli.config.files import conf_dir
from gancli.config.grammar import in_quotes
from gancli.errors import ConfigError


def search_path(folders: Sequence[Path]) -> list[str]:
    """Return the override that adds folders to Hydra's search path."""
    return [f"hydra.searchpath=[{','.join(in_quotes(f'file://{f.resolve()}') for f in folders)}]"] if folders else []


def refuse_plugins(overrides: Sequence[str], folders: Sequence[Path]) -> None:
    """Raise ConfigError if a recorded command line, or its folders, would change Hydra's own settings.

    Hydra's callbacks, launchers and loggers name code to run; an untrusted run directory must not set them.
    """
    from hydra.errors import HydraException
    from omegaconf.errors import OmegaConfBaseException

    if not folders:
        return  # without folders, only keys could change Hydra, and those were refused before
    own = ("callbacks", "launcher", "sweeper", "job_logging", "hydra_logging", "help", "run", "sweep", "env")
    try:
        found = [_hydra_node("train", each, places) for each, places in (([], []), (overrides, folders))]
    except (HydraException, OmegaConfBaseException, ValueError):
        return  # the final composition reports it with a better message
    for name in own:
        if found[0].get(name) != found[1].get(name):
            raise ConfigError(f"the run's --config-dir changes hydra.{name}: it was not followed")
    if any(found[1]["job"].get(name) for name in ("env_set", "env_copy")) or found[1]["job"].get("chdir"):
        raise ConfigError("the run's --config-dir changes hydra.job: it was not followed")


def _hydra_node(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> dict[str, Any]:
    """Return the `hydra` section of a composed configuration, unresolved."""
    from hydra import compose as hydra_compose
    from hydra import initialize_config_dir
    from omegaconf import OmegaConf

    with initialize_config_dir(str(conf_dir()), version_base="1.3"), untrusted.no_resolvers():
        config = hydra_compose(verb, overrides=[*search_path(folders), *overrides], return_hydra_config=True)
    plain = OmegaConf.to_container(config.hydra, resolve=False)
    assert isinstance(plain, dict)
    return {str(name): value for name, value in plain.items()}


def hydra_compose(
    verb: str, overrides: Sequence[str], folders: Sequence[Path], typed: bool = False
) -> tuple[Any, dict[str, Any]]:
    """Return Hydra's composition, and the final choice of each group."""
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from omegaconf import OmegaConf, open_dict

    # Inside a Hydra job there is an instance already: set it aside.
    one = GlobalHydra.instance()
    running, one.hydra = one.hydra, None
    try:
        known = nullcontext() if typed else untrusted.no_resolvers()
        with initialize_config_dir(str(conf_dir()), version_base="1.3"), known:  # this registers Hydra's resolvers
            config = compose(verb, overrides=[*search_path(folders), *overrides], return_hydra_config=True)
    finally:
        one.hydra = running
    found = OmegaConf.to_container(config.hydra.runtime.choices)
    assert isinstance(found, dict)
    with open_dict(config):
        del config["hydra"]
    return config, {str(g): c for g, c in found.items() if not str(g).startswith("hydra/")}


def unresolved(verb: str, overrides: Sequence[str], folders: Sequence[Path]) -> Any:
    """Return the composed configuration as plain, unresolved values, to inspect its keys."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(hydra_compose(verb, overrides, folders)[0], resolve=False)
