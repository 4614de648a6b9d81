"""FastGAN: images of two sizes from one generator, and a discriminator that learns to reconstruct (Liu et al. 2021).

The constants are those of the released code. Every weight has spectral norm. The smaller image has 128 pixels, or half
of the side below 256 pixels, where both networks are the same ones cut short.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import CombinationError
from gancli.nets.freezing import Block
from gancli.nets.layers.condition import need_classes
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.direction import renormalise, sliced_maps
from gancli.nets.layers.excitation import Excitation, Trunk, UpBlock, plan
from gancli.nets.layers.init import dcgan_, normal
from gancli.nets.layers.kernel4 import Spectral4
from gancli.nets.layers.linear import Embedding
from gancli.nets.layers.norms import Norm
from gancli.nets.layers.norms import norm as norms
from gancli.nets.verdict import Verdict

LEAK = 0.2
LEAST = 3  # doublings of the base: 32 pixels
SMALL = 5  # doublings of the smaller image's base, at most: 128 pixels
WIDEST = 6  # doublings of the largest features that D's blocks get, at most: 256 pixels
# D's channels in multiples of ch: of its last layer, then by the doublings of the base, 8 to 512 pixels.
MULTIPLES = (16, 8, 4, 2, 1, 1 / 2, 1 / 4, 1 / 8)
REACH = 3  # halvings between the features that excite and the excited ones, in D
Conditioning = Literal["none", "projection"]
init = normal(0.02)


def small_level(doublings: int) -> int:
    """How often the smaller image's base is doubled.

    >>> [small_level(k) for k in (3, 6, 8)]
    [2, 5, 5]
    """
    return min(SMALL, doublings - 1)


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1), on request with smaller ones of the same latents.

    ch: channels at 128 pixels; 16 times as many at the base, an eighth at 1024. Every other block has two convolutions
    and noise. The released code leaves tanh out at 256 and 512 pixels. conditioning: with "projection" the gains and
    biases of the blocks' norms are affine in an embedding of the label (not in the paper). 256×256×3, latent_dim 256:
    29,127,846 parameters. Raises ConfigError for points, sides that do not halve, and data without classes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int = 64,
        conditioning: Conditioning = "none",
    ):
        super().__init__()
        channels, base, widths = plan(shape, "fastgan", ch, LEAST)
        self.conditional = need_classes(conditioning, classes)
        self.embed = Embedding(classes, latent_dim, init=normal(1.0)) if self.conditional else None
        full = [k % 2 == 0 for k in range(len(widths) - 1)]
        condition = latent_dim if self.conditional else 0
        self.trunk = Trunk(latent_dim, base, widths, full, condition=condition, init=init)
        self.small = small_level(len(widths) - 1)
        self.to_small = Conv(widths[self.small], channels, 1, bias=False, init=init, spectral=True)
        self.to_full = Conv(widths[-1], channels, bias=False, init=init, spectral=True)
        dcgan_(self.trunk)

    @staticmethod
    def natural_latent(shape: tuple[int, ...]) -> int:
        """The released code's size of z."""
        return 256

    def forward(self, z: Tensor, y: Tensor | None = None, both: bool = False) -> Tensor | tuple[Tensor, Tensor]:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W].

        both: and smaller ones after them, [B, C, 128, 128] or of half the side.
        """
        assert self.embed is None or y is not None, "a conditional generator without labels"
        condition = None if self.embed is None else self.embed(y).to(z.dtype)
        features = self.trunk(z, condition)
        image = torch.tanh(self.to_full(features[-1]))
        return (image, torch.tanh(self.to_small(features[self.small]))) if both else image

    def freezable(self) -> list[Block]:
        """The base, with the labels' embedding, then the blocks of each size with their excitation."""
        return self.trunk.freezable(self.embed)


class Halve(nn.Module):
    """The mean of two branches that halve the image: 4×4 and 3×3 convolutions, and a 2×2 mean with a 1×1 one."""

    def __init__(self, inputs: int, outputs: int, norm: Norm):
        super().__init__()
        self.conv1 = Spectral4(inputs, outputs, init=init)
        self.norm1 = norm(outputs)
        self.conv2 = Conv(outputs, outputs, bias=False, init=init, spectral=True)
        self.norm2 = norm(outputs)
        self.direct = Conv(inputs, outputs, 1, resample="down", bias=False, init=init, spectral=True)
        self.norm3 = norm(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H / 2, W / 2]."""
        h = F.leaky_relu(self.norm1(self.conv1(x)), LEAK)
        h = F.leaky_relu(self.norm2(self.conv2(h)), LEAK)
        return (h + F.leaky_relu(self.norm3(self.direct(x)), LEAK)) / 2


class Decoder(nn.Module):
    """Features at 8×8 pixels -> an image in (-1, 1), doubled `doublings` times. ch: channels after four doublings."""

    def __init__(self, inputs: int, channels: int, doublings: int, ch: int, norm: Norm):
        super().__init__()
        widths = [inputs, *(m * ch for m in (4, 2, 2, 1)[:doublings])]
        blocks = [UpBlock(a, b, full=False, norm=norm, init=init) for a, b in pairwise(widths)]
        last = Conv(widths[-1], channels, bias=False, init=init, spectral=True)
        self.body = nn.Sequential(*blocks, last, nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, h, w] -> [B, channels, h · 2^doublings, w · 2^doublings]."""
        out: Tensor = self.body(x)
        return out


class Discriminator(nn.Module):
    """Images of two sizes -> logits [B, 5, 5] of each, and decoders that reconstruct images from D's features.

    ch: channels at 64 pixels; eight times as many at the last size. norm: batch norm, or layer norm. conditioning: with
    "projection" the inner product of the mean of the last features with an embedding of the label is added to all
    logits (not in the paper). san: SAN's last layer (`layers.direction`). 256×256×3: 11,526,160 parameters. Raises
    ConfigError as the generator does, CombinationError for SAN with labels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int = 64,
        norm: Literal["batch", "layer"] = "batch",
        conditioning: Conditioning = "none",
        san: bool = False,
    ):
        super().__init__()
        channels, base, plain = plan(shape, "fastgan", ch, LEAST)
        self.conditional, self.san = need_classes(conditioning, classes), san
        if san and self.conditional:
            raise CombinationError(
                "model.D.san=true needs a last layer that is linear, but model.conditioning=projection adds an inner"
                " product to it: set one of them to its default"
            )
        build, level = norms(norm), len(plain) - 1
        small, top = small_level(level), min(level, WIDEST)
        self.small_size = [side << small for side in base]
        wide = [max(1, int(m * ch)) for m in MULTIPLES]
        self.enter = _enter(channels, wide, level, build)
        self.halves = nn.ModuleList(Halve(wide[k + 1], wide[k], build) for k in range(top - 1, 0, -1))
        excited = range(1, top - REACH + 1)
        self.excitations = nn.ModuleDict({str(k): Excitation(wide[k + REACH], wide[k], init) for k in excited})
        self.enter_small = Spectral4(channels, wide[small], init=init)
        self.downs = nn.ModuleList(
            nn.Sequential(Spectral4(wide[k + 1], wide[k], init=init), build(wide[k]), nn.LeakyReLU(LEAK, True))
            for k in range(small - 1, 1, -1)
        )
        self.before = nn.Sequential(
            Conv(wide[1], wide[0], 1, bias=False, init=init, spectral=True), build(wide[0]), nn.LeakyReLU(LEAK, True)
        )
        self.head, self.head_small = (_head(inputs, san) for inputs in (wide[0], wide[2]))
        self.embed = Embedding(classes, wide[1], init=init, spectral=True) if self.conditional else None
        decoded, narrow = (wide[1], wide[2], wide[2]), max(1, ch // 2)
        self.decoders = nn.ModuleList(Decoder(inputs, channels, small - 1, narrow, build) for inputs in decoded)
        dcgan_(self)
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None, small: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B], smaller images (None: made of the others) -> logits of both sizes, [B, 5, 5] each.

        features: the last ones of both sizes, and those of the full images at twice their side.
        """
        found = [self.enter(x)]  # from the largest
        for k, block in zip(range(len(self.halves), 0, -1), self.halves, strict=True):
            h = block(found[-1])
            found.append(self.excitations[str(k)](found[-REACH], h) if str(k) in self.excitations else h)
        h = F.leaky_relu(self.enter_small(self.reduced(x) if small is None else small), LEAK)
        for down in self.downs:
            h = down(h)
        features = [found[-1], h, found[-2]]
        last = self.before(found[-1])
        if isinstance(self.head, nn.Conv2d) and isinstance(self.head_small, nn.Conv2d):
            parts = [sliced_maps(last, self.head), sliced_maps(h, self.head_small)]
            logits, along = ([getattr(part, name).squeeze(1) for part in parts] for name in ("logits", "direction"))
            return Verdict(logits, features=features, direction=along)
        logits = [self.head(last).squeeze(1), self.head_small(h).squeeze(1)]
        if self.embed is not None:
            assert y is not None, "a conditional discriminator without labels"
            added = (self.embed(y) * found[-1].mean((2, 3))).sum(1)[:, None, None]
            logits = [each + added for each in logits]
        return Verdict(logits, features=features)

    def reduced(self, images: Tensor) -> Tensor:
        """Images at the smaller size, by nearest pixels: [B, C, H, W] -> [B, C, h, w]."""
        return F.interpolate(images, size=self.small_size)

    def reconstructed(self, features: Sequence[Tensor], quarter: Tensor) -> list[Tensor]:
        """Reconstructions at the smaller size from a verdict's features: of both sizes' images, and of a quarter.

        quarter: which one of each image, int64 [B].
        """
        full, small, wide = features
        inputs = (full, small, quarters(wide, quarter))
        return [decoder(x) for decoder, x in zip(self.decoders, inputs, strict=True)]

    def freezable(self) -> list[Block]:
        """The first layers of both branches, their halvings, which are parallel, and the layer before a head."""
        found: list[Block] = [[self.enter, self.enter_small]]
        excited, downs = dict(self.excitations.items()), list(self.downs)
        for k, halve in enumerate(self.halves):
            small = downs[k] if k < len(downs) else None
            found.append([halve, excited.get(str(len(self.halves) - k)), small])
        return [*found, [self.before]]

    def directions(self) -> list[Tensor]:
        """The weights of both heads."""
        return [self.head.weight, self.head_small.weight]


def quarters(x: Tensor, which: Tensor) -> Tensor:
    """One quarter of each image [B, C, H, W] -> [B, C, H / 2, W / 2]. which: 0 to 3, row by row, [B].

    >>> quarters(torch.arange(4.0).view(1, 1, 2, 2), torch.tensor([2])).item()
    2.0
    """
    rows, channels, height, width = x.shape
    parts = x.reshape(rows, channels, 2, height // 2, 2, width // 2)
    return parts[torch.arange(len(x), device=x.device), :, which // 2, :, which % 2]


def _enter(channels: int, wide: Sequence[int], level: int, norm: Norm) -> nn.Module:
    """The first layers of the full images: at their size up to 256 pixels, above them halved down to it."""
    if level <= WIDEST:
        first: nn.Module = Conv(channels, wide[level], bias=False, init=init, spectral=True)
        return nn.Sequential(first, nn.LeakyReLU(LEAK, True))
    layers: list[nn.Module] = [Spectral4(channels, wide[level - 1], init=init), nn.LeakyReLU(LEAK, True)]
    for k in range(level - 1, WIDEST, -1):
        layers += [Spectral4(wide[k], wide[k - 1], init=init), norm(wide[k - 1]), nn.LeakyReLU(LEAK, True)]
    return nn.Sequential(*layers)


def _head(inputs: int, san: bool) -> Spectral4 | nn.Conv2d:
    """Features at 8×8 pixels -> logits at 5×5. san: without spectral norm, which would not change a direction."""
    return nn.Conv2d(inputs, 1, 4, bias=False) if san else Spectral4(inputs, 1, halve=False, init=init)
