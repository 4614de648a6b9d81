"""StyleGAN 2 in its plainest form, on dictionaries of weights: a test's second opinion, and a bench's baseline.

Convolutions are grouped, with weights of each sample, or scale their input and output; resampling inserts zeros and
filters the large image.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Weights = dict[str, Tensor]
TAPS = (1.0, 3.0, 3.0, 1.0)


def resampled(x: Tensor, up: int = 1, down: int = 1, pad: tuple[int, int] = (0, 0), gain: float = 1.0) -> Tensor:
    """Insert zeros, pad, filter, and keep every `down`-th pixel."""
    b, c, h, w = x.shape
    wide = F.pad(x.reshape(b, c, h, 1, w, 1), [0, up - 1, 0, 0, 0, up - 1])
    wide = F.pad(wide.reshape(b, c, h * up, w * up), [*pad, *pad])
    line = torch.tensor(TAPS, dtype=x.dtype) / sum(TAPS)
    kernel = (line[:, None] * line * gain).expand(c, 1, 4, 4)
    return F.conv2d(wide, kernel, groups=c)[:, :, ::down, ::down]


def normed(x: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


def act(x: Tensor, gain: float = math.sqrt(2)) -> Tensor:
    return F.leaky_relu(x, 0.2) * gain


def dense(w: Mapping[str, Tensor], x: Tensor, name: str, rate: float = 1.0) -> Tensor:
    weight = w[f"{name}.weight"]
    return x @ (weight * (rate / math.sqrt(weight.shape[1]))).t() + w[f"{name}.bias"] * rate


def mapped(w: Mapping[str, Tensor], z: Tensor | None, onehot: Tensor | None = None) -> Tensor:
    parts = [] if z is None else [normed(z)]
    if onehot is not None:
        parts.append(normed(dense(w, onehot, "mapping.embed")))
    x = torch.cat(parts, 1)
    for k in range(sum(name.startswith("mapping.layers.") for name in w) // 2):
        x = act(dense(w, x, f"mapping.layers.{k}", 0.01))
    return x


class Synthesis:
    """noise: the map of a layer by its number and shape. form: grouped weights, or scaled input and output."""

    def __init__(
        self, weights: Weights, noise: Callable[[int, Tensor], Tensor], form: Literal["grouped", "scaled"] = "grouped"
    ):
        self.w, self.noise, self.form = weights, noise, form
        self.blocks = 1 + max(int(name.split(".")[1]) for name in weights if name.startswith("blocks."))

    def modulated(self, x: Tensor, style: Tensor, weight: Tensor, up: bool = False, demodulate: bool = True) -> Tensor:
        each = weight[None] * style[:, None, :, None, None]
        factor = torch.rsqrt((each**2).sum((2, 3, 4)) + 1e-8) if demodulate else torch.ones_like(each[:, :, 0, 0, 0])
        if self.form == "scaled":
            return self.conv(x * style[:, :, None, None], weight, up, 1) * factor[:, :, None, None]
        each = (each * factor[:, :, None, None, None]).flatten(0, 1)
        b, _, h, w = x.shape
        out = self.conv(x.reshape(1, -1, h, w), each, up, b)
        return out.view(b, -1, *out.shape[2:])

    def conv(self, x: Tensor, weight: Tensor, up: bool, groups: int) -> Tensor:
        if not up:
            return F.conv2d(x, weight, padding=weight.shape[2] // 2, groups=groups)
        outputs = len(weight) // groups
        turned = weight.view(groups, outputs, *weight.shape[1:]).transpose(1, 2).flatten(0, 1)
        return resampled(F.conv_transpose2d(x, turned, stride=2, groups=groups), pad=(1, 1), gain=4.0)

    def layer(self, x: Tensor, w: Tensor, name: str, number: int, up: bool = False) -> Tensor:
        style = dense(self.w, w, f"{name}.conv.style")
        x = self.modulated(x, style, self.w[f"{name}.conv.weight"], up)
        x = x + self.noise(number, x) * self.w[f"{name}.noise.scale"]
        return act(x + self.w[f"{name}.bias"].view(1, -1, 1, 1))

    def image(self, x: Tensor, w: Tensor, name: str) -> Tensor:
        weight = self.w[f"{name}.weight"]
        style = dense(self.w, w, f"{name}.style") / math.sqrt(weight.shape[1])
        return self.modulated(x, style, weight, demodulate=False) + self.w[f"{name}.bias"].view(1, -1, 1, 1)

    def __call__(self, w: Tensor) -> Tensor:
        """w: [B, styles, width]."""
        x = self.w["blocks.0.constant"].repeat(len(w), 1, 1, 1)
        x = self.layer(x, w[:, 0], "blocks.0.conv", 0)
        image = self.image(x, w[:, 1], "blocks.0.to_image")
        for k in range(1, self.blocks):
            x = self.layer(x, w[:, 2 * k - 1], f"blocks.{k}.up", 2 * k - 1, up=True)
            x = self.layer(x, w[:, 2 * k], f"blocks.{k}.conv", 2 * k)
            image = resampled(image, up=2, pad=(2, 1), gain=4.0) + self.image(
                x, w[:, 2 * k + 1], f"blocks.{k}.to_image"
            )
        return image


class Critic:
    def __init__(self, weights: Weights, architecture: str = "resnet", group: int = 4):
        self.w, self.architecture, self.group = weights, architecture, group
        self.blocks = sum(name.endswith(".down.weight") for name in weights)

    def conv(self, x: Tensor, name: str, stride: int = 1, pad: int = 0) -> Tensor:
        weight = self.w[f"{name}.weight"]
        x = F.conv2d(x, weight / math.sqrt(weight[0].numel()), stride=stride, padding=pad)
        return x + self.w[f"{name}.bias"].view(1, -1, 1, 1) if f"{name}.bias" in self.w else x

    def __call__(self, image: Tensor, onehot: Tensor | None = None) -> Tensor:
        skip = self.architecture == "skip"
        x = act(self.conv(image, f"from_image.{self.blocks if skip else 0}"))
        for k in range(self.blocks - 1, -1, -1):
            small = resampled(act(self.conv(x, f"blocks.{k}.conv", pad=1)), pad=(2, 2))
            small = act(self.conv(small, f"blocks.{k}.down", stride=2))
            if self.architecture == "resnet":
                small = (small + self.conv(resampled(x, down=2, pad=(1, 1)), f"blocks.{k}.skip")) / math.sqrt(2)
            x = small
            if skip:
                image = resampled(image, down=2, pad=(1, 1))
                x = x + act(self.conv(image, f"from_image.{k}"))
        size = min(self.group, len(x))
        groups = [x[g :: len(x) // size] for g in range(len(x) // size)]
        spread = [torch.sqrt(((g - g.mean(0)) ** 2).mean(0) + 1e-8).mean() for g in groups]
        extra = torch.stack([spread[i % len(groups)] for i in range(len(x))]).view(-1, 1, 1, 1)
        x = act(self.conv(torch.cat([x, extra.expand(-1, 1, *x.shape[2:])], 1), "conv", pad=1))
        out = dense(self.w, act(dense(self.w, x.flatten(1), "dense")), "out")
        if onehot is None:
            return out[:, 0]
        return (out * mapped(self.w, None, onehot)).sum(1) / math.sqrt(out.shape[1])
