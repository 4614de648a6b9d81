"""Values of resolvers (`${oc.env:...}`) on the command line, recorded as plain values so that resuming needs none."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gancli.config.composition import hydra_compose
from gancli.config.grammar import as_word
from gancli.config.untrusted import asks, no_resolvers


def pinned(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Return overrides of gan train with the current values of resolvers in the overrides and their folders' files.

    Appended to the recorded command line, they reproduce it without resolvers. The overrides must compose.
    """
    if not folders and not any("$" in override for override in overrides):
        return []
    config, _ = hydra_compose("train", overrides, folders, typed=True)
    return [f"++{key}={as_word(_value(node, name))}" for key, node, name in _asking(config)]


def _asking(node: Any, prefix: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (dotted key, node, name) of each value that needs a resolver; a list counts as one value."""
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
            calls = not child._is_interpolation() or ":" in str(child._value())  # not only a reference to such a value
            if asks(error) is not None and calls:
                yield f"{prefix}{name}", node, name


def _value(node: Any, name: Any) -> Any:
    from omegaconf import OmegaConf

    value = node[name]
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value
