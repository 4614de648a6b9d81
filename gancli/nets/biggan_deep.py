"""BigGAN-deep: bottleneck blocks; shortcuts in G have no weights (Brock et al. 2019, appendix B).

Two blocks a stage; between their 1×1 convolutions the width is a quarter. Every norm gets all of z and of the class
embedding. If channels shrink, G's shortcut drops the last ones; if they grow, D's adds new ones by a 1×1 convolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.freezing import Block
from gancli.nets.layers.condition import Condition, Judge, need_classes
from gancli.nets.layers.direction import renormalise
from gancli.nets.layers.norms import Norm
from gancli.nets.layers.norms import norm as norms
from gancli.nets.layers.recipe import InitKind, Recipe
from gancli.nets.resnet import BN_MOMENTUM, with_attention
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict
from gancli.nets.widths import CPU_WIDTH, CPU_WIDTH_NOTE, attention_sides, widths_for

Conditioning = Literal["none", "ac", "projection"]  # how D uses labels
RATIO = 4  # of a block's width to that of its 3×3 convolutions
DEPTH = 2  # blocks a stage


class UpBlock(nn.Module):
    """1×1 to a quarter of the width, two 3×3, 1×1, each after norm and ReLU; `up` doubles before the first 3×3."""

    def __init__(self, inputs: int, outputs: int, *, norm: Norm, up: bool, recipe: Recipe):
        super().__init__()
        hidden = max(1, inputs // RATIO)
        self.outputs, self.up = outputs, up
        self.norms = nn.ModuleList([norm(inputs), norm(hidden), norm(hidden), norm(hidden)])
        self.enter = recipe.conv(inputs, hidden, 1, hidden=True)
        self.conv1 = recipe.conv(hidden, hidden, resample="up" if up else None, hidden=True)
        self.conv2 = recipe.conv(hidden, hidden, hidden=True)
        self.leave = recipe.conv(hidden, outputs, 1, hidden=True)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], doubled if `up`; outputs never exceed inputs."""
        h = x
        for norm, conv in zip(self.norms, (self.enter, self.conv1, self.conv2, self.leave), strict=True):
            h = conv(F.relu(norm(h, y), inplace=True))
        kept = x[:, : self.outputs]
        out: Tensor = h.add_(F.interpolate(kept, scale_factor=2.0) if self.up else kept)
        return out


class DownBlock(nn.Module):
    """1×1 to a quarter of the width, two 3×3, 1×1, each after a ReLU; `down` halves before the last 1×1."""

    def __init__(self, inputs: int, outputs: int, *, down: bool, recipe: Recipe):
        super().__init__()
        hidden = max(1, outputs // RATIO)
        self.down = down
        self.enter = recipe.conv(inputs, hidden, 1, hidden=True)
        self.conv1 = recipe.conv(hidden, hidden, hidden=True)
        self.conv2 = recipe.conv(hidden, hidden, hidden=True)
        self.leave = recipe.conv(hidden, outputs, 1, hidden=True)
        self.more = recipe.conv(inputs, outputs - inputs, 1) if outputs > inputs else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], halved if `down`."""
        h = self.enter(F.relu(x))
        h = self.conv2(F.relu(self.conv1(F.relu(h, inplace=True)), inplace=True))
        h = F.relu(h, inplace=True)
        if self.down:
            h, x = F.avg_pool2d(h, 2), F.avg_pool2d(x, 2)
        kept = x if self.more is None else torch.cat([x, self.more(x)], 1)
        out: Tensor = self.leave(h).add_(kept)
        return out


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1).

    ch: width of the last stage; null: 128 from 128 pixels up, and below them 16, for CPUs. shared: width of the class
    embedding. attention: as in `resnet.Generator`. 128×128×3, 1000 classes: 50,244,484 parameters.
    Raises ConfigError for points, sizes that do not halve exactly, and data without classes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int | None = None,
        conditioning: Conditioning = "projection",
        shared: int = 128,
        attention: Sequence[int] | None = None,
        spectral: bool = True,
        init: InitKind = "orthogonal",
        bn_eps: float = 1e-5,
        sn_eps: float = 1e-6,
    ):
        super().__init__()
        channels, height, width = image(shape, "biggan_deep")
        plan, self.base = widths_for(height, width, "biggan_deep")
        self.ch = plan.g_ch if ch is None else ch
        self.notes = (CPU_WIDTH_NOTE,) if ch is None and plan.g_ch == CPU_WIDTH else ()
        positive("model.ch", self.ch)
        positive("model.shared", shared)
        self.conditional = need_classes(conditioning, classes)
        recipe = Recipe(spectral, sn_eps, init)
        widths = [m * self.ch for m in plan.up]
        self.condition = Condition(
            latent_dim,
            classes,
            DEPTH * (len(widths) - 1),
            labels="norm" if self.conditional else "none",
            shared=shared,
            skip_z="whole",
            recipe=recipe,
        )
        norm = self.condition.norm(bn_eps, BN_MOMENTUM)
        self.dense = recipe.linear(self.condition.first, widths[0] * self.base[0] * self.base[1])
        blocks: list[UpBlock] = []
        for a, b in pairwise(widths):
            blocks.append(UpBlock(a, a, norm=norm, up=False, recipe=recipe))
            blocks.append(UpBlock(a, b, norm=norm, up=True, recipe=recipe))
        self.blocks = nn.ModuleList(blocks)
        side = min(height, width)
        sides = [min(self.base) << k for k in range(1, len(widths))]
        wanted = attention_sides(attention, side, min(side // 2, 64), sides)
        self.attention = nn.ModuleDict(
            {str(DEPTH * k + 1): recipe.attention(widths[k + 1]) for k, s in enumerate(sides) if s in wanted}
        )
        self.norm = norms("batch", eps=bn_eps, momentum=BN_MOMENTUM)(widths[-1])
        self.conv = recipe.conv(widths[-1], channels)

    @staticmethod
    def natural_latent(shape: tuple[int, ...]) -> int:
        """The paper's size of z."""
        return 128

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W]."""
        first, conditions = self.condition(z, y)
        h = self.dense(first).view(z.shape[0], -1, *self.base)
        for k, block in enumerate(self.blocks):
            h = block(h, conditions[k])
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))

    def freezable(self) -> list[Block]:
        """The first layer with the embedding of labels, then the blocks."""
        return [[self.condition, self.dense], *with_attention(self.blocks, self.attention)]


class Discriminator(nn.Module):
    """Images -> one logit each: a 3×3 convolution, stages of two bottleneck blocks, sum over pixels, a dense head.

    ch, attention: as for the generator (null attention: 64 at most). conditioning: "projection", "ac" or "none".
    san: SAN's last layer (`layers.direction`), without spectral norm.
    128×128×3, 1000 classes: 34,590,210 parameters. Raises ConfigError as the generator does.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int | None = None,
        conditioning: Conditioning = "projection",
        attention: Sequence[int] | None = None,
        spectral: bool = True,
        init: InitKind = "orthogonal",
        sn_eps: float = 1e-6,
        san: bool = False,
    ):
        super().__init__()
        channels, height, width = image(shape, "biggan_deep")
        plan, _ = widths_for(height, width, "biggan_deep")
        ch = plan.d_ch if ch is None else ch
        positive("model.ch", ch)
        self.conditional = need_classes(conditioning, classes)
        recipe = Recipe(spectral, sn_eps, init)
        widths = [m * ch for m in (plan.stem, *plan.down, *plan.flat)]
        self.stem = recipe.conv(channels, widths[0])
        blocks = []
        for k, (a, b) in enumerate(pairwise(widths)):
            blocks.append(DownBlock(a, b, down=k < len(plan.down), recipe=recipe))
            blocks.append(DownBlock(b, b, down=False, recipe=recipe))
        self.blocks = nn.ModuleList(blocks)
        side = min(height, width)
        sides = [side >> min(k + 1, len(plan.down)) for k in range(len(widths) - 1)]
        wanted = attention_sides(attention, side, min(sides[0], 64), sides)
        self.attention = nn.ModuleDict(
            {str(DEPTH * sides.index(s) + 1): recipe.attention(widths[sides.index(s) + 1]) for s in wanted}
        )
        self.head, self.san = Judge(widths[-1], classes, conditioning, recipe, san=san), san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] -> logits [B], and with "ac" classes [B, classes]."""
        h = self.stem(x)
        for k, block in enumerate(self.blocks):
            h = block(h)
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        verdict: Verdict = self.head(F.relu(h, inplace=True), y)
        return verdict

    def freezable(self) -> list[Block]:
        """The blocks, the first of them with the first convolution."""
        first, *others = with_attention(self.blocks, self.attention)
        return [[self.stem, *first], *others]

    def directions(self) -> list[Tensor]:
        """Those of the head."""
        return self.head.directions()
