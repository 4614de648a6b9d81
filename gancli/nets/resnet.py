"""The SNGAN's residual networks, from 8 to 448 pixels (Miyato et al. 2018, appendix B.4; widths as they released).

A family of forms, chosen by the size of the images:
    up to 32    constant width; D halves twice, then two blocks at that size; a head without bias (CIFAR-10)
    40 to 56    G 8-4-2-1 times ch, D 1-2-4-8 and a block of 16 without halving (STL-10)
    64 to 112   G 16-8-4-2-1, D 1-2-4-8-16, every block halves
    128 up      G 16-16-8-4-2-1, D 1-2-4-8-16 and a block of 16 without halving (ImageNet)
G starts from a base whose shorter side is 4 to 7, so both sides must halve exactly down to it.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.layers.conv import Conv, Resample
from gancli.nets.layers.init import RELU_GAIN, xavier
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.norms import NoNorm, Norm
from gancli.nets.layers.norms import norm as norms
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict

BN_EPS, BN_MOMENTUM = 2e-5, 0.1  # of the authors' framework; its decay of 0.9 is torch's momentum of 0.1


@dataclass(frozen=True)
class Form:
    """One size's architecture: widths in multiples of ch.

    up: G's base, then each doubling block. down, flat: D's halving blocks, then those that keep the size.
    """

    up: tuple[int, ...]
    down: tuple[int, ...]
    flat: tuple[int, ...]
    g_ch: int = 64
    d_ch: int = 64
    head_bias: bool = True


SMALL = {n: Form((1,) * (n + 1), (1, 1), (1, 1), 256, 128, head_bias=False) for n in (1, 2, 3)}
LARGE = {
    3: Form((8, 4, 2, 1), (1, 2, 4, 8), (16,)),
    4: Form((16, 8, 4, 2, 1), (1, 2, 4, 8, 16), ()),
    5: Form((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,)),
    6: Form((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,)),
}
SMALL_SIDE = 32
POSSIBLE = "8 10 12 14 16 20 24 28 32 40 48 56 64 80 96 112 128 160 192 224 256 320 384 448"


def form(height: int, width: int) -> tuple[Form, tuple[int, int]]:
    """The architecture for a size, and G's base. Raises ConfigError where the sides do not halve exactly to 4..7.

    >>> form(28, 28)[1], form(48, 64)[1]
    ((7, 7), (6, 8))
    """
    short, halvings = min(height, width), 0
    while short >> halvings > 7:
        halvings += 1
    step = 1 << halvings
    forms = SMALL if short <= SMALL_SIDE else LARGE
    if halvings not in forms or height % step or width % step:
        raise ConfigError(
            f"model=sngan draws images whose sides halve exactly down to a shorter one of 4 to 7, not {height}x{width}:"
            f" set dataset.size=[C,SIDE,SIDE] with SIDE one of {POSSIBLE}, or use model=dcgan"
        )
    return forms[halvings], (height // step, width // step)


class Block(nn.Module):
    """Two 3×3 convolutions beside a shortcut: x + conv(relu(norm(conv(relu(norm(x)))))).

    hidden: channels between the convolutions. resample: "up" at the first, "down" after the second, and in the
    shortcut, which is a 1×1 convolution where size or channels change. first: without the norm and ReLU in front, for
    the block that sees the image. norm: channels -> module, called as norm(x, y); the labels reach the norms only.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        hidden: int,
        norm: Norm,
        resample: Resample = None,
        first: bool = False,
        spectral: bool = False,
    ):
        super().__init__()
        conv = partial(Conv, spectral=spectral)
        self.norm1 = None if first else norm(inputs)
        self.conv1 = conv(inputs, hidden, resample="up" if resample == "up" else None, init=xavier(RELU_GAIN))
        self.norm2 = norm(hidden)
        self.conv2 = conv(hidden, outputs, resample="down" if resample == "down" else None, init=xavier(RELU_GAIN))
        learned = inputs != outputs or resample is not None
        self.shortcut = conv(inputs, outputs, 1, resample=resample, init=xavier()) if learned else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], doubled or halved."""
        h = x
        if self.norm1 is not None:
            # The shortcut still needs x, so the ReLU may overwrite only what a norm has made of it.
            h = F.relu(self.norm1(x, y), inplace=not isinstance(self.norm1, NoNorm))
        h = self.conv1(h)
        h = F.relu(self.norm2(h, y), inplace=True)
        h = self.conv2(h)
        out: Tensor = h.add_(x if self.shortcut is None else self.shortcut(x))
        return out


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1).

    ch: width of the last block; null: the paper's for the size (256 up to 32 pixels, 64 above). 32×32×3, latent_dim
    128: 4,276,739 parameters. Raises ConfigError for points and sizes that do not halve exactly.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, classes: int = 0, *, ch: int | None = None):
        super().__init__()
        channels, height, width = image(shape, "sngan")
        plan, self.base = form(height, width)
        ch = plan.g_ch if ch is None else ch
        positive("model.ch", ch)
        norm = norms("batch", eps=BN_EPS, momentum=BN_MOMENTUM)
        widths = [m * ch for m in plan.up]
        self.dense = Linear(latent_dim, widths[0] * self.base[0] * self.base[1])
        self.blocks = nn.ModuleList(Block(a, b, hidden=b, norm=norm, resample="up") for a, b in pairwise(widths))
        self.norm = norm(widths[-1])
        self.conv = Conv(widths[-1], channels)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]; the labels are ignored."""
        h = self.dense(z).view(len(z), -1, *self.base)
        for block in self.blocks:
            h = block(h, y)
        return torch.tanh(self.conv(F.relu(self.norm(h, y), inplace=True)))


class Discriminator(nn.Module):
    """Images -> one logit each: residual blocks, sum over pixels, a dense head.

    ch: width of the first block; null: the paper's for the size (128 up to 32 pixels, 64 above). norm: in the blocks,
    none by the paper. spectral: every weight divided by its largest singular value. 32×32×3: 1,053,824 parameters.
    Raises ConfigError for points and sizes that do not halve exactly.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int | None = None,
        norm: Literal["batch", "layer", "none"] = "none",
        spectral: bool = True,
    ):
        super().__init__()
        channels, height, width = image(shape, "sngan")
        plan, _ = form(height, width)
        ch = plan.d_ch if ch is None else ch
        positive("model.ch", ch)
        block = partial(Block, norm=norms(norm, eps=BN_EPS, momentum=BN_MOMENTUM), spectral=spectral)
        widths = [m * ch for m in plan.down + plan.flat]
        # The released code's hidden width: the output's in the first block, the input's in all others.
        blocks = [block(channels, widths[0], hidden=widths[0], resample="down", first=True)]
        for k, (a, b) in enumerate(pairwise(widths), start=1):
            blocks.append(block(a, b, hidden=a, resample="down" if k < len(plan.down) else None))
        self.blocks = nn.ModuleList(blocks)
        self.head = Linear(widths[-1], 1, bias=plan.head_bias, spectral=spectral)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B]; the labels are ignored."""
        h = x
        for block in self.blocks:
            h = block(h, y)
        return Verdict(self.head(F.relu(h, inplace=True).sum((2, 3))).squeeze(1))
