"""Frozen random mixing of feature maps across channels and scales (Sauer et al. 2021, section 3.2)."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import key
from gancli.nets.layers import matmul

Mix = Literal["scales", "channels", "none"]


class Mixing(nn.Module):
    """Feature maps of n scales, the largest first, -> as many maps, mixed by random weights that are never trained.

    "channels": a 1×1 convolution of each map to ch, 2 · ch, 4 · ch, ... channels. "scales": then, from the smallest map
    to the largest, the sum with what comes from below is doubled in size (bilinear, corners aligned) and a 1×1
    convolution halves its channels, except for the largest map. "none": the maps themselves.

    channels: of the maps. The weights follow from `seed` alone, and only their SHA-256 is in the state: loading a state
    with another one fails. Both convolutions and the doubling are linear, and a 1×1 convolution commutes with the
    doubling; so each map has one product of both weights, computed before the doubling at a quarter of its size.
    """

    sha256: Tensor

    def __init__(self, channels: Sequence[int], ch: int = 64, mix: Mix = "scales", seed: int = 0):
        super().__init__()
        self.mix = mix
        wide = [ch << k for k in range(len(channels))]
        last = len(wide) - 1
        self.channels = mixed(channels, ch, mix)
        real = not torch.empty(0).is_meta
        weights = drawn(channels, wide, mix, seed) if real else None
        self.register_buffer("sha256", _hash(weights) if weights is not None else torch.empty(32, dtype=torch.uint8))
        for k, (inputs, width, outputs) in enumerate(zip(channels, wide, self.channels, strict=True)):
            if mix == "none":
                continue
            of_map, bias = torch.empty(outputs, inputs, 1, 1), torch.empty(outputs)
            below = torch.empty(outputs, width, 1, 1) if mix == "scales" and k < last else None
            if weights is not None:
                of_map, bias, from_below = _product(weights, k)
                below = None if below is None else from_below
            for name, tensor in (("map", of_map), ("bias", bias), ("below", below)):
                self.register_buffer(f"{name}{k}", tensor, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """[B, channels, h, w] each, the largest first -> [B, `channels`, 2h, 2w], or [B, `channels`, h, w]."""
        if self.mix == "none":
            return list(maps)
        found: list[Tensor] = []
        for k in range(len(maps) - 1, -1, -1):
            x = matmul.pointwise(maps[k], self._own("map", k, maps[k]), self._own("bias", k, maps[k]))
            if self.mix == "scales":
                if found:
                    x = x + matmul.pointwise(found[0], self._own("below", k, x), None)
                x = F.interpolate(x, scale_factor=2.0, mode="bilinear", align_corners=True)
            found.insert(0, x)
        return found

    def _own(self, name: str, k: int, like: Tensor) -> Tensor:
        tensor: Tensor = getattr(self, f"{name}{k}")
        return tensor.to(like.dtype)

    def _load_from_state_dict(self, state_dict: Mapping[str, Any], prefix: str, *args: Any) -> None:
        """Refuse a state of other random weights."""
        stored, errors = state_dict.get(f"{prefix}sha256"), args[-1]
        if isinstance(stored, Tensor) and not self.sha256.is_meta and not torch.equal(stored.cpu(), self.sha256.cpu()):
            errors.append(
                "the frozen random mixing of D is another one than that of these weights: set model.D.mixing_seed,"
                " model.D.ch and model.D.mix to the values of the run they come from"
            )
        super()._load_from_state_dict(state_dict, prefix, *args)

    def extra_repr(self) -> str:
        """The text for `print(net)`."""
        return f"{self.mix}, channels={self.channels}"


def mixed(channels: Sequence[int], ch: int, mix: Mix) -> list[int]:
    """Return the channels of the mixed maps.

    >>> mixed([24, 40, 112], 64, "scales"), mixed([24, 40, 112], 64, "channels"), mixed([24, 40, 112], 64, "none")
    ([64, 64, 128], [64, 128, 256], [24, 40, 112])
    """
    wide = [ch << k for k in range(len(channels))]
    if mix == "scales":
        return [wide[0]] + [width // 2 for width in wide[1:]]
    return wide if mix == "channels" else list(channels)


def drawn(channels: Sequence[int], wide: Sequence[int], mix: Mix, seed: int) -> dict[str, Tensor]:
    """Return the weights before they are multiplied, [O, I] and [O], U(±1/√I): torch's default initialisation.

    channelK, channel_biasK: of the convolution across channels of map K; scaleK, scale_biasK: of the one after it.
    """
    found: dict[str, Tensor] = {}
    generator = torch.Generator().manual_seed(key(seed, "mixing"))

    def draw(name: str, k: int, outputs: int, inputs: int) -> None:
        for part, shape in ((name, (outputs, inputs)), (f"{name}_bias", (outputs,))):
            numbers = torch.rand(shape, generator=generator, device="cpu", dtype=torch.float32)
            found[f"{part}{k}"] = (2 * numbers - 1) / math.sqrt(inputs)

    for k, (inputs, width) in enumerate(zip(channels, wide, strict=True)):
        if mix != "none":
            draw("channel", k, width, inputs)
    for k, width in enumerate(wide):
        if mix == "scales":
            draw("scale", k, width // 2 if k else width, width)
    return found


def _product(weights: Mapping[str, Tensor], k: int) -> tuple[Tensor, Tensor, Tensor | None]:
    """A map's weight and bias, and the weight of what comes from below: products of both convolutions, in float64."""
    own, bias = weights[f"channel{k}"].double(), weights[f"channel_bias{k}"].double()
    if f"scale{k}" not in weights:
        return own.float()[:, :, None, None], bias.float(), None
    scale = weights[f"scale{k}"].double()
    bias = scale @ bias + weights[f"scale_bias{k}"].double()
    return (scale @ own).float()[:, :, None, None], bias.float(), scale.float()[:, :, None, None]


def _hash(weights: Mapping[str, Tensor]) -> Tensor:
    """SHA-256 of the names and float32 bits of the weights, uint8 [32]."""
    content = hashlib.sha256()
    for name, tensor in weights.items():
        content.update(name.encode() + tensor.numpy().astype("<f4").tobytes())
    return torch.tensor(list(content.digest()), dtype=torch.uint8)
