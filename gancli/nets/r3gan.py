"""R3GAN: residual blocks of grouped convolutions without any normalisation (Huang et al. 2024, section 4, config E).

Each stage is a resampling and two blocks. Stages up to 32 pixels have `ch` channels, and each finer stage half of the
one before; a group of the middle convolution has 16 channels.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block as Frozen
from gancli.nets.layers.condition import need_classes, shares
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.shapes import base, halvings, image, positive
from gancli.nets.verdict import Verdict

Conditioning = Literal["none", "projection"]

BLOCKS = 2  # a stage
EXPANSION = 2  # of a block's hidden width
GROUP = 16  # channels of a group
LEAK = 0.2
GAIN = math.sqrt(2 / (1 + LEAK**2))  # of weights before a LeakyReLU, so that it preserves the variance
LABEL_WIDTH = 64  # of G's embedding of a class


def stages(height: int, width: int, ch: int) -> tuple[tuple[int, int], list[int]]:
    """The base's size, and the width of each stage from the base up. Raises ConfigError for sides that do not halve.

    >>> stages(64, 64, 768)
    ((4, 4), [768, 768, 768, 768, 384])
    """
    found, steps = base(height, width), halvings(min(height, width))
    if found is None or not steps:
        raise ConfigError(
            f"model=r3gan generates images whose sides halve exactly down to 4 to 7 pixels, not {height}x{width}:"
            " set dataset.size to 28, 32, 64, 128 or 256, or use model=dcgan"
        )
    sides = [min(found) << k for k in range(steps + 1)]
    return found, [max(1, ch * 32 // max(32, side)) for side in sides]


def _drawn(layer: nn.Module, gain: float = 1.0) -> nn.Module:
    """Initialise a layer's weights as N(0, gain² / fan in), and return it."""
    weight = layer.weight
    assert isinstance(weight, Tensor)
    nn.init.normal_(weight, 0.0, gain / math.sqrt(weight[0].numel()))
    return layer


def _conv(inputs: int, outputs: int, kernel: int = 1, groups: int = 1, gain: float = 1.0) -> nn.Module:
    return _drawn(nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, groups=groups, bias=False), gain)


class Activation(nn.Module):
    """LeakyReLU of the input plus a bias per channel."""

    def __init__(self, channels: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        return F.leaky_relu(x + self.bias[:, None, None], LEAK)


class Block(nn.Module):
    """x + 1×1, grouped 3×3, 1×1 convolutions; the last starts at 0, so blocks start as the identity.

    total: number of blocks in the network, by which the other weights are scaled (Fixup, Zhang et al. 2019).
    """

    def __init__(self, width: int, total: int):
        super().__init__()
        wide = EXPANSION * width
        gain = GAIN * total ** (-1 / 4)
        self.body = nn.Sequential(
            _conv(width, wide, gain=gain),
            Activation(wide),
            _conv(wide, wide, 3, groups=max(1, wide // GROUP), gain=gain),
            Activation(wide),
            _conv(wide, width, gain=0.0),
        )

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same."""
        out: Tensor = x + self.body(x)
        return out


class Resample(nn.Module):
    """Resampling by 2 with the kernel [1, 3, 3, 1] in both directions, and a 1×1 convolution if the width changes.

    The convolution runs on the smaller image, before upsampling or after downsampling.
    """

    kernel: Tensor

    def __init__(self, inputs: int, outputs: int, up: bool):
        super().__init__()
        self.up = up
        taps = torch.tensor([1.0, 3.0, 3.0, 1.0]) / 8
        self.register_buffer("kernel", torch.outer(taps, taps) * (4 if up else 1), persistent=False)
        self.conv = _conv(inputs, outputs) if inputs != outputs else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, 2H, 2W] or [B, outputs, H/2, W/2]."""
        if self.up:
            x = self.conv(x)
        kernel = self.kernel.to(x.dtype).expand(x.shape[1], 1, 4, 4)
        resampled = F.conv_transpose2d if self.up else F.conv2d
        x = resampled(x, kernel, stride=2, padding=1, groups=x.shape[1])
        return x if self.up else self.conv(x)


class Generator(nn.Module):
    """z -> images: a learned base scaled by z, stages, a 1×1 convolution; unbounded, as in the paper.

    ch: channels of the stages up to 32 pixels. conditioning: "projection" concatenates a label embedding to z.
    32×32×3, ten classes: 20,781,952 parameters. Raises ConfigError for points and sides that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int = 768,
        conditioning: Conditioning = "none",
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "r3gan")
        self.conditional, self.classes = need_classes(conditioning, classes), classes
        small, widths = stages(height, width, ch)
        self.embed = _drawn(nn.Linear(classes, LABEL_WIDTH, bias=False)) if self.conditional else None
        self.base = nn.Parameter(torch.randn(widths[0], *small))
        self.scale = _drawn(nn.Linear(latent_dim + (LABEL_WIDTH if self.conditional else 0), widths[0], bias=False))
        layers: list[nn.Module] = []
        for k, outputs in enumerate(widths):
            layers += [Resample(widths[k - 1], outputs, up=True)] if k else []
            layers += [Block(outputs, BLOCKS * len(widths)) for _ in range(BLOCKS)]
        self.body = nn.Sequential(*layers, _conv(widths[-1], channels))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W], unbounded."""
        if self.embed is not None:
            assert y is not None, "a conditional generator without labels"
            z = torch.cat([z, self.embed(shares(y, self.classes, z)).to(z.dtype)], 1)
        out: Tensor = self.body(self.base * self.scale(z)[:, :, None, None])
        return out

    def freezable(self) -> list[Frozen]:
        """The stages, the first with the base, its scale and the embedding of labels."""
        found: list[list[nn.Module | nn.Parameter | None]] = [[self.embed, self.base, self.scale]]
        for layer in list(self.body)[:-1]:
            if isinstance(layer, Resample):
                found.append([])
            found[-1].append(layer)
        return list[Frozen](found)


class Discriminator(nn.Module):
    """Images -> one logit each: the generator reversed, ending with a product with a learned base per channel.

    ch, conditioning: as for the generator; "projection" multiplies the output with the class embedding. san: SAN's
    last layer (`layers.direction`). 32×32×3, ten
    classes: 21,280,512 parameters. Raises ConfigError as the generator does.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int = 768,
        conditioning: Conditioning = "none",
        san: bool = False,
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "r3gan")
        self.conditional, self.classes = need_classes(conditioning, classes), classes
        small, widths = stages(height, width, ch)
        layers: list[nn.Module] = [_conv(channels, widths[-1])]
        for k, inputs in reversed(list(enumerate(widths))):
            layers += [Block(inputs, BLOCKS * len(widths)) for _ in range(BLOCKS)]
            layers += [Resample(inputs, widths[k - 1], up=False)] if k else []
        self.body = nn.Sequential(*layers)
        self.base = _drawn(nn.Conv2d(widths[0], widths[0], small, groups=widths[0], bias=False))
        outputs = widths[0] if self.conditional else 1
        self.head = _drawn(nn.Linear(widths[0], outputs, bias=False))
        gain = 1 / math.sqrt(outputs)
        self.embed = _drawn(nn.Linear(classes, outputs, bias=False), gain) if self.conditional else None
        self.san = san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] if D is conditional -> logits [B]."""
        features = self.base(self.body(x)).flatten(1)
        if self.embed is None:
            if self.san:
                return sliced(features, *self.directions(), features=[features])
            return Verdict(self.head(features).squeeze(1), features=[features])
        assert y is not None, "a projection discriminator without labels"
        out = self.head(features)
        embedded = self.embed(shares(y, self.classes, out))
        if self.san:
            return sliced(out, embedded, features=[features])
        return Verdict((out * embedded).sum(1), features=[features])

    def freezable(self) -> list[Frozen]:
        """The stages, the first with the first convolution, the last with the base."""
        found = list[list[nn.Module]]([[]])
        for layer in self.body:
            found[-1].append(layer)
            if isinstance(layer, Resample):
                found.append([])
        found[-1].append(self.base)
        return list[Frozen](found)

    def directions(self) -> list[Tensor]:
        """The head's weight; with labels, the embedding of each class."""
        weight = self.head.weight if self.embed is None else self.embed.weight
        assert isinstance(weight, Tensor)
        return [weight if self.embed is None else weight.t()]
