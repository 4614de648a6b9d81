"""ProGAN: networks that grow, with equalised learning rates and pixel norm (Karras et al. 2018, table 2).

All blocks exist from the start; those of sizes to come are not used until the game's stages reach them.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gancli.nets.freezing import Block, each
from gancli.nets.growth import Growth, doubled, faded, halved, plan
from gancli.nets.layers.blur import blurred
from gancli.nets.layers.condition import need_classes, shares
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.equalized import EqualizedConv, EqualizedLinear, activated, pixel_norm
from gancli.nets.layers.minibatch import MinibatchDeviation
from gancli.nets.verdict import Verdict


class First(nn.Module):
    """Latents [B, inputs] -> [B, C, h, w]: a dense layer with one bias per channel, and a 3×3 convolution."""

    def __init__(self, inputs: int, channels: int, base: tuple[int, int]):
        super().__init__()
        # The gain is that of the released code, which has it from an earlier one.
        self.dense = EqualizedLinear(inputs, channels * math.prod(base), gain=math.sqrt(2) / 4, bias=channels)
        self.conv = EqualizedConv(channels, channels)
        self.base = (channels, *base)

    def forward(self, z: Tensor) -> Tensor:
        """[B, inputs] -> [B, C, h, w]."""
        x = pixel_norm(activated(self.dense(z).unflatten(1, self.base)))
        return pixel_norm(activated(self.conv(x)))


class Up(nn.Module):
    """Two 3×3 convolutions, the first after nearest-neighbour upsampling, each with LeakyReLU and pixel norm."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = EqualizedConv(inputs, outputs, resample="up")
        self.conv = EqualizedConv(outputs, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, 2H, 2W]."""
        return pixel_norm(activated(self.conv(pixel_norm(activated(self.up(x))))))


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] at the size that it has grown to, unbounded.

    ch_base, ch_max: channels at a size are ch_base / side, at most ch_max; the released fmap_base
    is half of ch_base. conditioning: "ac" concatenates the one-hot label to z.
    1024×1024×3, latent_dim 512: 23,079,115 parameters. Raises ConfigError for points and sides that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch_base: int = 16384,
        ch_max: int = 512,
        conditioning: Literal["none", "ac"] = "none",
    ):
        super().__init__()
        channels, base, wide = plan(shape, "progan", ch_base, ch_max)
        self.conditional, self.classes = need_classes(conditioning, classes), classes
        self.growth = Growth(len(wide) - 1)
        self.first = First(latent_dim + (classes if self.conditional else 0), wide[0], base)
        self.blocks = nn.ModuleList(Up(a, b) for a, b in pairwise(wide))
        self.to_rgb = nn.ModuleList(EqualizedConv(w, channels, 1, gain=1.0) for w in wide)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W]."""
        if self.conditional:
            assert y is not None, "a conditional generator without labels"
            z = torch.cat([z, shares(y, self.classes, z)], 1)
        x = before = self.first(pixel_norm(z))
        for block in self.blocks[: self.growth.doublings]:
            before, x = x, block(x)
        return rgb(self.growth, self.to_rgb, x, before)

    def freezable(self) -> list[Block]:
        """The blocks of each size from the base up, without layers to the image."""
        return each([self.first, *self.blocks])


def rgb(growth: Growth, to_rgb: nn.ModuleList, x: Tensor, before: Tensor) -> Tensor:
    """The image of the newest features x, mixed with the doubled image of those before while its size is faded in."""
    made: Tensor = to_rgb[growth.doublings](x)
    if not growth.fading:
        return made
    return faded(doubled(to_rgb[growth.doublings - 1](before)), made, growth.share)


class Down(nn.Module):
    """Two 3×3 convolutions with LeakyReLU, the second before 2×2 averaging; blur: binomial filter before the second."""

    def __init__(self, inputs: int, outputs: int, blur: bool = False):
        super().__init__()
        self.conv = EqualizedConv(inputs, inputs)
        self.down = EqualizedConv(inputs, outputs, resample="down")
        self.blur = blur

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/2, W/2]."""
        x = activated(self.conv(x))
        return activated(self.down(blurred(x) if self.blur else x))


class Last(nn.Module):
    """Features at the base -> outputs: the minibatch deviation, a 3×3 convolution and two dense layers."""

    def __init__(self, channels: int, base: tuple[int, int], outputs: int, group: int):
        super().__init__()
        self.deviation = MinibatchDeviation(group)
        self.conv = EqualizedConv(channels + 1, channels)
        self.dense = EqualizedLinear(channels * math.prod(base), channels)
        self.out = EqualizedLinear(channels, outputs, gain=1.0)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """[B, C, h, w] -> outputs [B, outputs], and the features before the last layer, [B, C]."""
        x = activated(self.conv(self.deviation(x)))
        features = activated(self.dense(x.flatten(1)))
        return self.out(features), features


class Discriminator(nn.Module):
    """Images -> one logit each: the generator's blocks reversed, without norms, with the deviation of groups.

    Images larger than the size that it has grown to are averaged down to it. ch_base, ch_max: as for the
    generator. conditioning: "ac" adds a classifier, "projection" takes the logit of the label's class (Mescheder et
    al. 2018). group: samples in a group of the minibatch deviation. blur: binomial filter before each halving, as in
    StyleGAN. san: SAN's last layer (`layers.direction`).
    1024×1024×3: 23,087,249 parameters. Raises ConfigError as the generator does.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch_base: int = 16384,
        ch_max: int = 512,
        conditioning: Literal["none", "ac", "projection"] = "none",
        group: int = 4,
        blur: bool = False,
        san: bool = False,
    ):
        super().__init__()
        channels, base, wide = plan(shape, "progan", ch_base, ch_max)
        self.conditional, self.classes, self.conditioning = need_classes(conditioning, classes), classes, conditioning
        self.growth, self.base_height = Growth(len(wide) - 1), base[0]
        self.from_rgb = nn.ModuleList(EqualizedConv(channels, w, 1) for w in wide)
        self.blocks = nn.ModuleList(Down(b, a, blur) for a, b in pairwise(wide))
        outputs = {"none": 1, "ac": 1 + classes, "projection": classes}[conditioning]
        self.last, self.san = Last(wide[0], base, outputs, group), san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] or a mixture [B, classes] -> logits [B] and, with "ac", classes [B, classes]."""
        newest = self.growth.doublings
        x = halved(x, (x.shape[2] // (self.base_height << newest)).bit_length() - 1)
        features = activated(self.from_rgb[newest](x))
        for k in range(newest, 0, -1):
            features = self.blocks[k - 1](features)
            if k == newest and self.growth.fading:
                old = activated(self.from_rgb[newest - 1](halved(x)))
                features = faded(old, features, self.growth.share)
        out, last = self.last(features)
        classes = out[:, 1:] if self.conditioning == "ac" else None
        if self.conditioning == "projection":
            assert y is not None, "a projection discriminator without labels"
            chosen = shares(y, self.classes, out)
            if self.san:
                weight, bias = self._head()
                chosen = chosen.to(weight.dtype)
                return sliced(last, chosen @ weight, chosen @ bias, features=[last])
            return Verdict((out * chosen).sum(1), features=[last])
        if self.san:
            return sliced(last, *self._head(), classes=classes, features=[last])
        return Verdict(out[:, 0], classes, [last])

    def freezable(self) -> list[Block]:
        """The blocks of each size of the complete network, from the largest down, each with its layer from the image.

        The last is that of the base.
        """
        sizes: list[Block] = [[self.from_rgb[k], self.blocks[k - 1]] for k in range(len(self.blocks), 0, -1)]
        return [*sizes, [self.from_rgb[0], self.last.conv, self.last.dense]]

    def directions(self) -> list[Tensor]:
        """The rows of the last layer's weight that make logits."""
        return [self._head()[0]]

    def _head(self) -> tuple[Tensor, Tensor]:
        """Weights and biases of the last layer's outputs that are logits."""
        count, out = self.classes if self.conditioning == "projection" else 1, self.last.out
        assert out.bias is not None
        return out.weight[:count], out.bias[:count]
