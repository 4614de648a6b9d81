"""The settings of model=stylegan2 and stylegan3 that a network's tensors need, inferred from their shapes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor

from gancli.nets import layouts3
from gancli.nets.layouts import BASES, MOST, ROLES, LayoutError

COMMON: dict[str, Any] = {
    "model.ch_max": 512, "model.latent.dim": 512, "model.G.w_dim": 512, "model.mapping_layers": 8,
    "model.conditioning": "none", "model.D.architecture": "resnet", "model.D.mapping_layers": 8,
}  # fmt: skip
DEFAULTS = {"stylegan2": COMMON, "stylegan3": COMMON | {"model.mapping_layers": 2, "model.variant": "T"}}
CLASSES = "classes"  # of the labels: a fact of the data, not a key
KERNEL = dict(zip(ROLES, ("conv.conv.weight", "conv.weight"), strict=True))  # a name of every block


def settings(role: str, state: Mapping[str, Tensor], sides: Sequence[int] = ()) -> dict[str, Any]:
    """The keys of `gan train` that make a network of these tensors, and the number of classes, if there are labels.

    state: complete, by the names here. sides: of the images of StyleGAN 3's generator, which no tensor has. Raises
    LayoutError for widths that ch_base and ch_max cannot express.
    """
    blocks = [f"blocks.{k}" for k in range(MOST) if f"blocks.{k}.{KERNEL[role]}" in state]
    if sides:
        found = layouts3.settings(state, sides)
    else:
        found = _of_g(state, blocks) if role == ROLES[0] else _of_d(state, blocks)
    if "mapping.embed.weight" in state:
        found |= {"model.conditioning": "projection", CLASSES: state["mapping.embed.weight"].shape[1]}
    else:
        found["model.conditioning"] = "none"
    return found


def _of_g(state: Mapping[str, Tensor], blocks: list[str]) -> dict[str, Any]:
    constant, first = state["blocks.0.constant"], state["mapping.layers.0.weight"]
    widths = [state[f"{block}.conv.conv.weight"].shape[0] for block in blocks]
    embedded = state["mapping.embed.weight"].shape[0] if "mapping.embed.weight" in state else 0
    sides = [side << (len(blocks) - 1) for side in constant.shape[2:]]
    return {
        "dataset.size": [state["blocks.0.to_image.weight"].shape[0], *sides],
        **_widths(widths),
        "model.latent.dim": first.shape[1] - embedded,
        "model.G.w_dim": first.shape[0],
        "model.mapping_layers": _layers(state),
    }


def _of_d(state: Mapping[str, Tensor], blocks: list[str]) -> dict[str, Any]:
    width = state["conv.weight"].shape[0]
    base = math.isqrt(state["dense.weight"].shape[1] // width)
    side = base << len(blocks)
    images = [name for name in state if name.startswith("from_image.") and name.endswith(".weight")]
    residual = "blocks.0.skip.weight" in state
    architecture = "resnet" if residual else "skip" if len(images) > 1 else "orig"
    found = {
        "dataset.size": [state[images[0]].shape[1], side, side],
        **_widths([width, *(state[f"{block}.conv.weight"].shape[0] for block in blocks)]),
        "model.D.architecture": architecture,
    }
    return found | ({"model.D.mapping_layers": _layers(state)} if "mapping.embed.weight" in state else {})


def _layers(state: Mapping[str, Tensor]) -> int:
    return sum(name.startswith("mapping.layers.") and name.endswith(".weight") for name in state)


def _widths(widths: list[int]) -> dict[str, Any]:
    """ch_base and ch_max of the features' channels at each size, from the base up."""
    most = max(widths)
    for base in (*BASES, *(width * (4 << k) for k, width in reversed(list(enumerate(widths))))):
        if [max(1, min(base // (4 << k), most)) for k in range(len(widths))] == widths:
            return {"model.ch_base": base, "model.ch_max": most}
    raise LayoutError(f"has the channels {widths}, which are not ch_base / side, at most ch_max")


def merged(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The settings of all networks of a file, by their roles; of D alone where they differ."""
    whole: dict[str, Any] = {}
    for role, own in found.items():
        for key, value in own.items():
            if whole.setdefault(key, value) != value and key.startswith("model.ch_"):
                whole[f"model.{role}.{key.removeprefix('model.')}"] = value
    return whole


def differing(wanted: Mapping[str, Any], own: Mapping[str, Any]) -> list[str]:
    """The keys in which two networks of one role differ."""
    return [key for key, value in wanted.items() if value != own.get(key)]


def words(wanted: Mapping[str, Any], model: str = "stylegan2") -> list[str]:
    """The words of a command that set these keys, without those that are the model's defaults.

    >>> words({"dataset.size": [3, 64, 64], "model.ch_base": 16384, "model.latent.dim": 512})
    ['dataset.size=64', 'model.ch_base=16384']
    """
    kept = {k: v for k, v in wanted.items() if k != CLASSES and DEFAULTS[model].get(k) != v}
    size = kept.get("dataset.size")
    if size is not None:
        channels, height, width = size
        kept["dataset.size"] = height if (channels, height) == (3, width) else f"[{channels},{height},{width}]"
    return [f"{key}={value}" for key, value in kept.items()]
