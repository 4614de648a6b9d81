"""What resolvers in typed words give now, as plain values: a record of them asks this machine for nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gancli.config.composition import hydra_compose
from gancli.config.grammar import as_word
from gancli.config.sealed import asks, no_resolvers


def pinned(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Overrides of gan train that say what resolvers in typed words, and in their folders' files, give now.

    Added to a command line that is written down, they make it mean the same without asking. The overrides compose.
    """
    if not folders and not any("$" in override for override in overrides):
        return []
    config, _ = hydra_compose("train", overrides, folders, typed=True)
    return [f"++{key}={as_word(_value(node, name))}" for key, node, name in _asking(config)]


def _asking(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """(dotted key, node, name in it) of each value that cannot be had without a resolver; a list counts as one."""
    from omegaconf import DictConfig
    from omegaconf.errors import OmegaConfBaseException

    for name in list(node.keys()):
        child = node._get_node(name)
        if isinstance(child, DictConfig) and not (child._is_interpolation() or child._is_none() or child._is_missing()):
            yield from _asking(child, f"{prefix}{name}.")
            continue
        try:
            with no_resolvers():
                _value(node, name)
        except OmegaConfBaseException as error:
            calls = not child._is_interpolation() or ":" in str(child._value())  # not just a reference to one that does
            if asks(error) is not None and calls:
                yield f"{prefix}{name}", node, name


def _value(node: Any, name: Any) -> Any:
    from omegaconf import OmegaConf

    value = node[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
