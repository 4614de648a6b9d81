"""ProGAN and StyleGAN in the plainest form that says what their papers and released code do, to compare ours with.

Nothing of ours is used here but its weights, by name. Up- and downsampling are separate operations, every pass is its
own, and images are always at the last size, as in the released code: smaller ones have repeated pixels.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Weights = dict[str, Tensor]


def up(x: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        x = F.interpolate(x, scale_factor=2.0)
    return x


def down(x: Tensor, times: int = 1) -> Tensor:
    for _ in range(times):
        x = F.avg_pool2d(x, 2)
    return x


def blur(x: Tensor) -> Tensor:
    for axis in (2, 3):
        padded = F.pad(x, [1, 1, 0, 0] if axis == 3 else [0, 0, 1, 1])
        count = x.shape[axis]
        x = sum(k * padded.narrow(axis, start, count) / 4 for start, k in enumerate((1, 2, 1)))  # type: ignore[assignment]
    return x


def act(x: Tensor) -> Tensor:
    return F.leaky_relu(x, 0.2)


def norm(x: Tensor) -> Tensor:
    return x / torch.sqrt((x**2).mean(1, keepdim=True) + 1e-8)


class Plain:
    """Layers on a dictionary of weights."""

    def __init__(self, weights: Weights):
        self.w = weights

    def conv(self, x: Tensor, name: str, gain: float = math.sqrt(2), bias: bool = True) -> Tensor:
        weight = self.w[f"{name}.weight"]
        weight = weight * (gain / math.sqrt(weight[0].numel()))
        x = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        return self.biased(x, f"{name}.bias") if bias else x

    def dense(self, x: Tensor, name: str, gain: float = math.sqrt(2), rate: float = 1.0) -> Tensor:
        weight = self.w[f"{name}.weight"]
        return x @ (weight * (gain / math.sqrt(weight.shape[1]) * rate)).t() + self.w[f"{name}.bias"] * rate

    def biased(self, x: Tensor, name: str) -> Tensor:
        return x + self.w[name].view(1, -1, 1, 1)


class ProGenerator(Plain):
    """most: doublings of the complete network."""

    def __init__(self, weights: Weights, most: int, base: tuple[int, int] = (4, 4)):
        super().__init__(weights)
        self.most, self.base = most, base

    def block(self, x: Tensor, k: int) -> Tensor:
        if k:
            x = norm(act(self.conv(up(x), f"blocks.{k - 1}.up")))
            return norm(act(self.conv(x, f"blocks.{k - 1}.conv")))
        weight = self.w["first.dense.weight"]
        x = x @ (weight * (math.sqrt(2) / 4 / math.sqrt(weight.shape[1]))).t()
        x = self.biased(x.view(len(x), -1, *self.base), "first.dense.bias")
        return norm(act(self.conv(norm(act(x)), "first.conv")))

    def __call__(self, z: Tensor, lod: float, onehot: Tensor | None = None) -> Tensor:
        """The linear structure: every size's image, mixed by lod."""
        x = self.block(norm(z if onehot is None else torch.cat([z, onehot], 1)), 0)
        image = self.conv(x, "to_rgb.0", gain=1)
        for k in range(1, self.most + 1):
            if lod >= self.most - k + 1:
                return up(image, self.most - k + 1)
            x = self.block(x, k)
            old = min(max(lod - (self.most - k), 0.0), 1.0)
            image = self.conv(x, f"to_rgb.{k}", gain=1) * (1 - old) + up(image) * old
        return image


class StyleGenerator(Plain):
    """noise: the map of a layer by its number and shape."""

    def __init__(self, weights: Weights, most: int, noise: Callable[[int, Tensor], Tensor]):
        super().__init__(weights)
        self.most, self.noise = most, noise

    def mapping(self, z: Tensor, onehot: Tensor | None = None) -> Tensor:
        x = norm(z if onehot is None else torch.cat([z, onehot @ self.w["mapping.embed"]], 1))
        for k in range(sum(name.startswith("mapping.layers.") for name in self.w) // 2):
            x = act(self.dense(x, f"mapping.layers.{k}", rate=0.01))
        return x

    def layer(self, x: Tensor, w: Tensor, k: int, nth: int) -> Tensor:
        name, number = f"blocks.{k}.styled.{nth}", 2 * k + nth
        x = x + self.noise(number, x) * self.w[f"{name}.noise.scale"].view(1, -1, 1, 1)
        x = act(self.biased(x, f"{name}.bias"))
        x = x - x.mean((2, 3), keepdim=True)
        x = x / torch.sqrt((x**2).mean((2, 3), keepdim=True) + 1e-8)
        style = self.dense(w[:, number], f"{name}.style", gain=1).view(len(x), 2, -1, 1, 1)
        return x * (style[:, 0] + 1) + style[:, 1]

    def block(self, x: Tensor | None, w: Tensor, k: int) -> Tensor:
        if x is None:
            x = self.w["blocks.0.constant"].repeat(len(w), 1, 1, 1)
        else:
            x = blur(self.conv(up(x), f"blocks.{k}.up", bias=False))
        x = self.layer(x, w, k, 0)
        return self.layer(self.conv(x, f"blocks.{k}.conv", bias=False), w, k, 1)

    def __call__(self, w: Tensor, lod: float) -> Tensor:
        """w: [B, layers, width]."""
        x = self.block(None, w, 0)
        image = self.conv(x, "to_rgb.0", gain=1)
        for k in range(1, self.most + 1):
            if lod >= self.most - k + 1:
                return up(image, self.most - k + 1)
            x = self.block(x, w, k)
            old = min(max(lod - (self.most - k), 0.0), 1.0)
            image = self.conv(x, f"to_rgb.{k}", gain=1) * (1 - old) + up(image) * old
        return image


class Critic(Plain):
    """The discriminator of both; blurs: StyleGAN's."""

    def __init__(self, weights: Weights, most: int, blurs: bool = False, group: int = 4):
        super().__init__(weights)
        self.most, self.blurs, self.group = most, blurs, group

    def rgb(self, x: Tensor, k: int) -> Tensor:
        return act(self.conv(x, f"from_rgb.{k}"))

    def block(self, x: Tensor, k: int) -> Tensor:
        if k:
            x = act(self.conv(x, f"blocks.{k - 1}.conv"))
            x = down(self.conv(blur(x) if self.blurs else x, f"blocks.{k - 1}.down", bias=False))
            return act(self.biased(x, f"blocks.{k - 1}.down.bias"))
        size = min(self.group, len(x))
        groups = [x[g :: len(x) // size] for g in range(len(x) // size)]
        spread = [torch.sqrt(((g - g.mean(0)) ** 2).mean(0) + 1e-8).mean() for g in groups]
        extra = torch.stack([spread[i % len(groups)] for i in range(len(x))]).view(-1, 1, 1, 1)
        x = act(self.conv(torch.cat([x, extra.expand(-1, 1, *x.shape[2:])], 1), "last.conv"))
        return self.dense(act(self.dense(x.flatten(1), "last.dense")), "last.out", gain=1)

    def __call__(self, image: Tensor, lod: float) -> Tensor:
        """Images at the last size -> outputs [B, n]; levels above lod play no part."""
        x: Tensor | None = None
        for k in range(self.most, 0, -1):
            level = self.most - k
            if lod >= level + 1:
                continue
            features = self.rgb(down(image, level), k) if x is None else x
            old = min(max(lod - level, 0.0), 1.0)
            x = self.block(features, k) * (1 - old) + self.rgb(down(image, level + 1), k - 1) * old
        return self.block(self.rgb(down(image, self.most), 0) if x is None else x, 0)


def faded(real: Tensor, lod: float, level: int) -> Tensor:
    """Real images of a level as the networks see them: mixed with their halved selves, at the last size."""
    old = lod - math.floor(lod)
    return up(real * (1 - old) + up(down(real)) * old, level)


def slopes(critic: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
    """The squared norm of each image's gradient."""
    x = images.detach().requires_grad_(True)
    (grad,) = torch.autograd.grad(critic(x).sum(), x, create_graph=True)
    return (grad**2).sum((1, 2, 3))


def weights_of(net: nn.Module) -> Weights:
    """Copies of a network's parameters, which take gradients."""
    return {name: p.detach().clone().requires_grad_(True) for name, p in net.named_parameters()}
