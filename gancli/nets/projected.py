"""Projected GAN's discriminator: heads on frozen pretrained features (Sauer et al. 2021).

The constants are those of the authors' PyTorch code.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.config.settings import LARGEST, at_most
from gancli.errors import ConfigError
from gancli.nets.freezing import Block
from gancli.nets.layers import matmul
from gancli.nets.layers.condition import need_classes
from gancli.nets.layers.direction import refuse_direction, renormalise, sliced_maps
from gancli.nets.layers.init import normal, uniform
from gancli.nets.layers.linear import Embedding
from gancli.nets.layers.mixing import Mix, Mixing, mixed
from gancli.nets.layers.norms import Norm
from gancli.nets.layers.norms import norm as norms
from gancli.nets.layers.spectral import Weighted
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict
from gancli.pretrained.pretrained import Pretrained

LEAK = 0.2
WIDEST, LAST = 8, 4  # the widest map of a head has 8 · ch channels; the last convolution takes 4×4 pixels
LABEL, JOINED = 128, 64  # widths of the label's embedding and of its product with the features
MOST = 6  # maps
MOST_CH = 1024  # of the mixing with 4 maps, whose largest matrix then has 2^25 numbers: memory checks do not count it
MULTIPLE = 32  # of images' sides, so that each map is twice the next one


class SpectralConv(Weighted):
    """A convolution with spectral norm and torch's default initialisation, [B, I, H, W] -> [B, O, h, w]."""

    def __init__(
        self, inputs: int, outputs: int, kernel: int, *, stride: int = 1, pad: int = 0, groups: int = 1, bias: bool
    ):
        bound = 1 / math.sqrt(inputs // groups * kernel**2)
        shape = (outputs, inputs // groups, kernel, kernel)
        super().__init__(shape, init=uniform(bound), spectral=True)
        self.stride, self.pad, self.groups = stride, pad, groups
        self.bias = nn.Parameter(torch.empty(outputs)) if bias else None
        if self.bias is not None:
            nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """Computed as a product of patches if that is faster."""
        weight = self.normalised()
        if self.groups > 1:
            return F.conv2d(x, weight, self.bias, self.stride, self.pad, groups=self.groups)
        if weight.shape[2] == 1:
            return matmul.pointwise(x, weight, self.bias)
        return matmul.convolve(x, weight, self.bias, self.stride, self.pad)


class Down(nn.Module):
    """A convolution with spectral norm, a norm and LeakyReLU that halves the map.

    separable: 3×3 per channel, then 1×1, and a 2×2 mean at the end; otherwise 4×4 with stride 2.
    """

    def __init__(self, inputs: int, outputs: int, separable: bool, norm: Norm):
        super().__init__()
        self.separable = separable
        parts = [SpectralConv(inputs, outputs, 4, stride=2, pad=1, bias=True)]
        if separable:
            each = SpectralConv(inputs, inputs, 3, pad=1, groups=inputs, bias=False)
            parts = [each, SpectralConv(inputs, outputs, 1, bias=False)]
        self.convs = nn.Sequential(*parts)
        self.norm = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/2, W/2]."""
        x = F.leaky_relu(self.norm(self.convs(x)), LEAK, inplace=True)
        return F.avg_pool2d(x, 2) if self.separable else x


class Head(nn.Module):
    """One map -> logits of its patches: halvings to 8 · ch channels, then a 4×4 convolution.

    classes: of labels, with which the features have an inner product (Miyato and Koyama 2018); 0: none. san: the last
    filter is a direction (`layers.direction`), without spectral norm.
    """

    def __init__(
        self, inputs: int, widths: Sequence[int], separable: bool, classes: int = 0, *, norm: Norm, san: bool = False
    ):
        super().__init__()
        steps = [inputs, *widths]
        self.downs = nn.ModuleList(Down(a, b, separable, norm) for a, b in pairwise(steps))
        last = SpectralConv(steps[-1], JOINED if classes else 1, LAST, bias=False)
        self.last = nn.Conv2d(steps[-1], 1, LAST, bias=False) if san else last
        self.embed = Embedding(classes, LABEL, init=normal(1.0)) if classes else None
        self.dense = nn.Linear(LABEL, JOINED) if classes else None

    def forward(self, x: Tensor, y: Tensor | None) -> Verdict:
        """[B, inputs, H, W], labels [B] or a mixture of classes -> logits [B, patches]; features: the last map."""
        for down in self.downs:
            x = down(x)
        if isinstance(self.last, nn.Conv2d):
            return sliced_maps(x, self.last, features=[x])
        out = self.last(x)
        if self.embed is not None and self.dense is not None:
            assert y is not None, "a conditional discriminator without labels"
            told = F.leaky_relu(self.dense(self.embed(y)), LEAK)
            out = (out * told[:, :, None, None]).sum(1) / math.sqrt(JOINED)
        return Verdict(out, features=[x])


class Discriminator(nn.Module):
    """Images -> the logits of all heads on the layers of a frozen pretrained network.

    Images whose shorter side is below `resolution` are enlarged to it (bilinear), others keep their size, except that
    sides are rounded up to multiples of 32. The network's maps are mixed by frozen random weights (`layers.mixing`),
    and each goes to a head of its own.

    ch: width of the mixing and of the heads. mix, mixing_seed: of the mixing. separable: heads with depthwise
    convolutions. norm: batch norm, or layer norm. conditioning: "projection" takes an inner product with the label's
    embedding. san: SAN's last layers (`layers.direction`).
    EfficientNet-Lite0 with 4 layers, ch 64: 10,331,328 parameters, separable 696,512. Raises ConfigError for a network
    whose layers are not named, for other channels than 1 or 3, for maps that are too small, and ch or resolution above
    their limits.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        pretrained: Pretrained,
        classes: int = 0,
        *,
        ch: int = 64,
        mix: Mix = "scales",
        mixing_seed: int = 0,
        separable: bool = False,
        resolution: int = 224,
        norm: Literal["batch", "layer"] = "batch",
        conditioning: Literal["none", "projection"] = "none",
        san: bool = False,
    ):
        super().__init__()
        positive("model.D.ch", ch)
        positive("model.D.resolution", resolution)
        at_most(LARGEST, **{"model.D.resolution": resolution})
        channels = image(shape, "projected")[0]
        if channels not in (1, 3):
            raise ConfigError(f"model=projected takes images of 1 or 3 channels, not {channels}")
        if not 0 < len(pretrained.channels) <= MOST:
            raise ConfigError(
                f"model=projected needs 1 to {MOST} layers of the pretrained network, the largest map first, and got"
                f" {len(pretrained.channels)}: type {pretrained.where}.layers=[NAME,...]"
            )
        channels_of = list(pretrained.channels.values())
        at_most(min(MOST_CH, (MOST_CH << 3) >> (len(channels_of) - 1)), **{"model.D.ch": ch})
        self.pretrained, self.resolution = pretrained, resolution
        self.conditional, self.san = need_classes(conditioning, classes), san
        refuse_direction(san and self.conditional, "model.conditioning=projection multiplies its output by the label's")
        widths, of_labels = mixed(channels_of, ch, mix), classes if self.conditional else 0
        # Of maps of 8, 16, 32, ... pixels for an image of 256: the numbers of halvings to 8 pixels.
        halvings = range(len(widths) - (0 if mix == "scales" else 1), -1, -1)
        # Before the mixing, whose matrices are drawn at once: heads too large for the memory are refused.
        heads = nn.ModuleList(
            Head(
                inputs,
                [ch * max(1, WIDEST >> k) for k in range(count - 1, -1, -1)],
                separable,
                of_labels,
                norm=norms(norm),
                san=san,
            )
            for inputs, count in zip(widths, halvings, strict=False)
        )
        self.mixing, self.heads = Mixing(channels_of, ch, mix, mixing_seed), heads
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] or a mixture [B, classes] -> logits [B, patches of all heads]."""
        maps = list(self.pretrained.maps(self._enlarged(x), resize=False).values())
        told = [head(each, y) for head, each in zip(self.heads, self.mixing(self._checked(maps)), strict=True)]
        features = [last for verdict in told for last in verdict.features or ()]
        logits = torch.cat([each.flatten(1) for verdict in told for each in verdict.scales()], 1)
        if not self.san:
            return Verdict(logits, features=features)
        along = torch.cat([each.flatten(1) for verdict in told for each in verdict.along().scales()], 1)
        return Verdict(logits, features=features, direction=along)

    def directions(self) -> list[Tensor]:
        """The last filter of each head."""
        return [head.last.weight for head in self.heads if isinstance(head, Head)]

    def freezable(self) -> list[Block]:
        """The k-th halvings of all heads, which are parallel."""
        downs = [list(head.downs) for head in self.heads if isinstance(head, Head)]
        return [[each[k] for each in downs if k < len(each)] for k in range(max(map(len, downs)))]

    def _enlarged(self, x: Tensor) -> Tensor:
        factor = max(1.0, self.resolution / min(x.shape[2:]))
        sides = [MULTIPLE * math.ceil(round(side * factor) / MULTIPLE) for side in x.shape[2:]]
        if list(x.shape[2:]) == sides:
            return x
        return F.interpolate(x, sides, mode="bilinear", align_corners=False)

    def _checked(self, maps: list[Tensor]) -> list[Tensor]:
        """Raise ConfigError for layers without maps, or maps that do not halve down to enough pixels."""
        where = f"{self.pretrained.where}.layers"
        if any(x.dim() != 4 for x in maps):
            raise ConfigError(f"{where}: the layers of {self.pretrained.name} are no maps of pixels: choose others")
        sides = [tuple(x.shape[2:]) for x in maps]
        doubles = all(a == (2 * b[0], 2 * b[1]) for a, b in pairwise(sides))
        if self.mixing.mix == "scales" and not doubles:
            told = ", ".join(f"{h}×{w}" for h, w in sides)
            raise ConfigError(f"{where}: each map must have twice the size of the next one, and they have {told}")
        if min(sides[-1]) < LAST:
            raise ConfigError(
                f"model.D.resolution={self.resolution}: the smallest map has {sides[-1][0]}×{sides[-1][1]} pixels, and"
                f" heads need {LAST}: set {math.ceil(LAST / min(sides[-1]) * self.resolution)} or more"
            )
        return maps
