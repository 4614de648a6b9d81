"""DCGAN: strided and transposed convolutions throughout, no pooling, no dense hidden layers.

Each stage halves (rounding down) or doubles the image with a 4×4 kernel of stride 2, until the shorter side is below 8:
64×64 has four stages between the image and a base of 4×4, 28×28 has two and a base of 7×7. Channels double towards the
base. Any size from 8 up, also non-square (Radford et al. 2016, section 3).
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, in_blocks
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.init import dcgan_
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.minibatch import MinibatchDiscrimination, Referenced, unwrapped
from gancli.nets.layers.norms import Kind
from gancli.nets.layers.norms import norm as norms
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict

LEAK = 0.2
SMALLEST = 8


def ladder(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes from the image down to the base. Raises ConfigError for sides below 8.

    >>> ladder(45, 64)
    [(45, 64), (22, 32), (11, 16), (5, 8)]
    """
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"model=dcgan generates images of at least {SMALLEST} pixels a side, not {height}x{width}:"
            f" set dataset.size=[C,{SMALLEST},{SMALLEST}] or larger, or use model=mlp"
        )
    sizes = [(height, width)]
    while min(sizes[-1]) >= SMALLEST:
        sizes.append((sizes[-1][0] // 2, sizes[-1][1] // 2))
    return sizes


class Project(nn.ConvTranspose2d):
    """z [B, inputs] -> [B, outputs, *base]: a transposed convolution of one pixel, computed as a matrix product."""

    def __init__(self, inputs: int, outputs: int, base: tuple[int, int]):
        super().__init__(inputs, outputs, base, bias=False)

    def forward(self, input: Tensor, output_size: list[int] | None = None) -> Tensor:
        """[B, inputs] -> [B, outputs, *base]."""
        return (input @ self.weight.flatten(1)).view(input.shape[0], *self.weight.shape[1:])


class Logit(nn.Conv2d):
    """[B, inputs, *base] -> [B]: a convolution whose kernel covers its input, computed as a matrix product."""

    def __init__(self, inputs: int, base: tuple[int, int]):
        super().__init__(inputs, 1, base, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """[B, inputs, *base] -> [B]."""
        return F.linear(input.flatten(1), self.weight.flatten(1)).squeeze(1)


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1).

    ch: channels of the last stage before the image; the base has ch × 2^(stages - 1). norm: batch norm as in the paper,
    or virtual batch norm; ReLU everywhere but at the output. 64×64×3, latent_dim 100, ch 64: 3,576,704 parameters.
    Raises ConfigError for points and sides below 8.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int = 64,
        norm: Literal["batch", "virtual"] = "batch",
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "dcgan")
        sizes = ladder(height, width)[::-1]
        build = norms(norm)
        wide = ch * 2 ** (len(sizes) - 2)
        layers: list[nn.Module] = [Project(latent_dim, wide, sizes[0]), build(wide), nn.ReLU(True)]
        for small, large in pairwise(sizes):
            last = large == sizes[-1]
            narrow = channels if last else wide // 2
            odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
            layers.append(nn.ConvTranspose2d(wide, narrow, 4, 2, 1, output_padding=odd, bias=False))
            layers += [nn.Tanh()] if last else [build(narrow), nn.ReLU(True)]
            wide = narrow
        self.body: nn.Module = nn.Sequential(*layers)
        dcgan_(self)
        if norm == "virtual":
            self.body = Referenced(self.body, (latent_dim,))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]; the labels are ignored."""
        out: Tensor = self.body(z)
        return out

    def freezable(self) -> list[Block]:
        """The stages but for the last."""
        return in_blocks(unwrapped(self.body))[:-1]


class Discriminator(nn.Module):
    """Images -> one logit each: the generator reversed, with LeakyReLU 0.2.

    ch: channels of the first stage. norm: of every stage but the first, whose input is the image; "layer" is WGAN-GP's.
    minibatch: kernels of minibatch discrimination before the head. san: SAN's last layer (`layers.direction`).
    64×64×3, ch 64: 2,765,568 parameters. Raises ConfigError for points and sides below 8.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int = 64,
        norm: Kind = "batch",
        minibatch: int = 0,
        san: bool = False,
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "dcgan")
        sizes = ladder(height, width)
        build = norms(norm)
        layers: list[nn.Module] = [nn.Conv2d(channels, ch, 4, 2, 1, bias=False), nn.LeakyReLU(LEAK, True)]
        for _ in sizes[2:]:
            # Norms have their own bias; without a norm the convolution needs one.
            layers += [nn.Conv2d(ch, 2 * ch, 4, 2, 1, bias=norm == "none"), build(2 * ch), nn.LeakyReLU(LEAK, True)]
            ch *= 2
        self.body: nn.Module = nn.Sequential(*layers)
        self.head, self.san = _head(ch, sizes[-1], minibatch), san
        dcgan_(self)
        renormalise(self)
        if norm == "virtual":
            self.body = Referenced(self.body, shape)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B]; the labels are ignored."""
        features = self.body(x)
        if self.san:
            flat = features.flatten(1)
            h = self.head[:2](flat) if isinstance(self.head, nn.Sequential) else flat
            return sliced(h, self._last.weight.flatten(1), self._last.bias, features=[flat])
        return Verdict(self.head(features), features=[features.flatten(1)])

    def freezable(self) -> list[Block]:
        """The stages."""
        return in_blocks(unwrapped(self.body))

    def directions(self) -> list[Tensor]:
        """The head's weight."""
        return [self._last.weight]

    @property
    def _last(self) -> Linear | Logit:
        """The layer that makes the logit."""
        last = self.head[2] if isinstance(self.head, nn.Sequential) else self.head
        assert isinstance(last, (Linear, Logit))
        return last


def _head(channels: int, base: tuple[int, int], kernels: int) -> nn.Module:
    """Features -> logit, with minibatch discrimination if `kernels` is not 0."""
    if not kernels:
        return Logit(channels, base)
    inputs = channels * base[0] * base[1]
    layers = [nn.Flatten(), MinibatchDiscrimination(inputs, kernels), Linear(inputs + kernels, 1), nn.Flatten(0)]
    return nn.Sequential(*layers)
