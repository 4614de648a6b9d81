"""StyleGAN 3's generator in the layout of NVIDIA's stylegan3: names, filters, and the settings that it needs here.

The numbers need no change. Its filters are constants, which are designed here, so that a file's must be equal; a
layer's size stands in its name alone. Source: `training/networks_stylegan3.py`.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import count
from typing import Any

import torch
from torch import Tensor, nn

from gancli.nets.layers.alias_free import AliasFree
from gancli.nets.layouts import BASES, DENSE, MEAN, LayoutError, reshaped
from gancli.nets.stylegan3 import CRITICAL, LAYERS, MARGIN, SMALLEST, signals

LAYER = re.compile(r"synthesis\.L([0-9]{1,2})_([0-9]{1,5})_[0-9]{1,5}\.weight")
OTHER = "not a network of the architecture of model=stylegan3"
NEAR = 1e-5  # between two filters, whose taps have the sum 1
LARGEST = 1 << 14  # pixels of a side
INPUT = {
    "input.weight": "weight", "input.affine.weight": "affine.weight", "input.affine.bias": "affine.bias",
    "input.frequencies": "freqs", "input.phases": "phases",
}  # fmt: skip
FIXED = ("input.frequencies", "input.phases")  # which a run and its EMA share
PARTS = {
    "style.weight": "affine.weight", "style.bias": "affine.bias", "weight": "weight", "bias": "bias",
    "magnitude": "magnitude_ema",
}  # fmt: skip


def ours(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights by the names of `gancli.nets.stylegan3`, without the mean of w if there is none.

    Raises LayoutError for tensors that are missing, unknown or not finite, for other filters, for magnitudes that are
    not positive, and for a transform that moves all images.
    """
    names = _layers(state)
    wanted = _table(state, [f"synthesis.{name}" for name in names])
    filters = {f"synthesis.{name}.{way}_filter" for name in names[:-1] for way in ("up", "down")}
    known = {*wanted.values(), *filters, "mapping.w_avg", "synthesis.input.transform"}
    missing = [name for name in (*wanted.values(), *sorted(filters)) if name not in state]
    strange = [name for name in state if name not in known]
    if missing or strange:
        word, name = ("lacks", missing[0]) if missing else ("has", strange[0])
        raise LayoutError(f"{word} {name[:80]}: {OTHER}")
    found = {own: reshaped(name, "same", state[name]) for own, name in wanted.items()}
    for own, value in found.items():
        if own.endswith("magnitude") and not (value.dim() == 0 and float(value) > 0):
            raise LayoutError(f"{wanted[own]} is {value.tolist()}, and a mean square is above 0")
    _refuse_transform(state)
    _refuse_filters(state, names)
    if "mapping.w_avg" in state:
        found[MEAN] = reshaped("mapping.w_avg", "same", state["mapping.w_avg"].reshape(-1))
    return found


def side_of(state: Mapping[str, object]) -> int:
    """The side in pixels of the images of a network by their names. Raises LayoutError."""
    return int(_layers(state)[-1].split("_")[1])


def _layers(state: Mapping[str, object]) -> list[str]:
    """Their names of the layers, L0_36_512 and so on. Raises LayoutError."""
    found = {int(match[1]): match[0] for match in map(LAYER.fullmatch, state) if match}
    if sorted(found) != list(range(LAYERS + 1)) or sum(LAYER.fullmatch(name) is not None for name in state) > len(
        found
    ):
        raise LayoutError(f"has {len(found)} layers with weights, not {LAYERS + 1}: {OTHER}")
    return [found[k].removeprefix("synthesis.").removesuffix(".weight") for k in range(LAYERS + 1)]


def _table(state: Mapping[str, object], layers: Sequence[str]) -> dict[str, str]:
    """Their name by ours."""
    found = {own: f"synthesis.input.{name}" for own, name in INPUT.items()}
    depth = next(i for i in count() if f"mapping.fc{i}.weight" not in state)
    mapping = {f"mapping.layers.{i}": f"mapping.fc{i}" for i in range(max(1, depth))}
    if "mapping.embed.weight" in state:
        mapping["mapping.embed"] = "mapping.embed"
    found |= {own + a: name + b for own, name in mapping.items() for a, b, _ in DENSE}
    return found | {f"layers.{k}.{own}": f"{at}.{name}" for k, at in enumerate(layers) for own, name in PARTS.items()}


def _refuse_transform(state: Mapping[str, Tensor]) -> None:
    transform = state.get("synthesis.input.transform")
    if transform is not None and not (
        transform.shape == (3, 3) and torch.equal(transform.double(), torch.eye(3).double())
    ):
        raise LayoutError(
            "has a synthesis.input.transform that moves all its images: set it to the identity, torch.eye(3), and save"
            " the file again"
        )


@torch.no_grad()
def _refuse_filters(state: Mapping[str, Tensor], names: Sequence[str]) -> None:
    """Raise LayoutError unless sizes and filters are those of the layers here."""
    side, radial = side_of(state), variant_of(state[f"synthesis.{names[0]}.weight"]) == "R"
    if not SMALLEST <= side <= LARGEST or side & (side - 1):
        raise LayoutError(
            f"makes images of {side} pixels a side, and model=stylegan3 of a power of two from {SMALLEST}"
        )
    plan = [replace(each, channels=1) for each in signals((1, side, side), 2, 1)]
    for k, name in enumerate(names[:-1]):
        if int(name.split("_")[1]) != plan[k + 1].sides[0]:
            raise LayoutError(f"has a layer {name}, which has {plan[k + 1].sides[0]} pixels a side here: {OTHER}")
        plane = radial and k < LAYERS - CRITICAL
        with torch.random.fork_rng(devices=[]), torch.device("cpu"):
            layer = AliasFree(plan[k], plan[k + 1], 1, radial=plane)
        up, pairs = layer.up_filter.double(), layer.down_filter.double()
        down = torch.einsum("ra,rb->ab", pairs[:, 0], pairs[:, 1]) if plane else pairs[0, 0]
        for way, own in {"up": up / up.sum(), "down": down}.items():
            other = reshaped(f"{name}.{way}_filter", "same", state[f"synthesis.{name}.{way}_filter"]).double()
            if other.shape != own.shape or float((other - own).abs().max()) > NEAR:
                raise LayoutError(
                    f"has another filter in synthesis.{name}.{way}_filter than model=stylegan3, which would make other"
                    " images"
                )


def variant_of(weight: Tensor) -> str:
    """T for a layer's weight of 3×3, R for one of 1×1. Raises LayoutError."""
    kinds = {(3, 3): "T", (1, 1): "R"}
    if weight.dim() != 4 or tuple(weight.shape[2:]) not in kinds:
        raise LayoutError(f"has layers of the shape {list(weight.shape)}: {OTHER}")
    return kinds[int(weight.shape[2]), int(weight.shape[3])]


# -- settings ----------------------------------------------------------------------------------------------------------


def settings(state: Mapping[str, Tensor], sides: Sequence[int]) -> dict[str, Any]:
    """The keys of `gan train` that make a generator of these tensors.

    state: complete, by the names here. sides: height and width of its images, which no tensor has. Raises LayoutError
    for widths that ch_base and ch_max cannot express.
    """
    first, embed = state["mapping.layers.0.weight"], state.get("mapping.embed.weight")
    variant = variant_of(state["layers.0.weight"])
    widths = [len(state[f"layers.{k}.weight"]) for k in range(LAYERS + 1)]
    shape = (widths[-1], *sides)
    return {
        "dataset.size": list(shape),
        "model.variant": variant,
        **_widths(shape, widths[:-1], 2 if variant == "R" else 1),
        "model.latent.dim": first.shape[1] - (0 if embed is None else embed.shape[0]),
        "model.G.w_dim": first.shape[0],
        "model.mapping_layers": sum(
            re.fullmatch(r"mapping\.layers\.[0-9]+\.weight", name) is not None for name in state
        ),
    }


def _widths(shape: tuple[int, ...], widths: Sequence[int], more: int) -> dict[str, Any]:
    """ch_base and ch_max of the layers' channels. more: the variant's factor of both."""
    plan = signals(shape, 1, 1)[1:-1]
    most = -(-max(widths) // more)
    low, high = 0.0, math.inf
    for each, width in zip(plan, widths, strict=True):
        low = max(low, (width - 0.5) * 2 * each.cutoff / more if width > 1 else 0.0)
        high = min(high, math.inf if width >= most * more else (width + 0.5) * 2 * each.cutoff / more)
    narrowest = round(widths[-1] * 2 * plan[-1].cutoff / more)
    for base in (*BASES, narrowest, math.ceil(low), math.ceil(low) + 1):
        made = signals(shape, base * more, most * more)[1:-1] if low <= base <= high and base else []
        if [each.channels for each in made] == list(widths):
            return {"model.ch_base": base, "model.ch_max": most}
    raise LayoutError(f"has the channels {list(widths)}, which are not ch_base / (2 · cutoff), at most ch_max")


def undone(net: nn.Module) -> list[str]:
    """The words that undo the options of a generator here that theirs does not have."""
    first: Any = net.layers[0]  # type: ignore[index]
    start: Any = net.signals[0]  # type: ignore[index]
    found = [] if first.up_filter.numel() > 1 else ["model.G.filtered=true"]
    return found + ([] if start.sides[0] == math.ceil(start.rate) + 2 * MARGIN else [f"model.G.margin={MARGIN}"])
