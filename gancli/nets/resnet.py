"""The residual networks of SNGAN, projection GAN, SAGAN and BigGAN: one architecture with options for each paper.

Miyato et al. 2018 (appendix B.4), Miyato and Koyama 2018, Zhang et al. 2019, Brock et al. 2019 (appendix B); for the
widths by image size see `gancli.nets.widths`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.freezing import Block as Frozen
from gancli.nets.layers.condition import HIDDEN_WIDTH, Condition, Conditioning, Judge, Labels, need_classes, shares
from gancli.nets.layers.conv import Resample
from gancli.nets.layers.direction import renormalise
from gancli.nets.layers.norms import NoNorm, Norm
from gancli.nets.layers.norms import norm as norms
from gancli.nets.layers.recipe import InitKind, Recipe
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict
from gancli.nets.widths import CPU_WIDTH, CPU_WIDTH_NOTE, Family, attention_sides, widths_for

BN_EPS, BN_MOMENTUM = 2e-5, 0.1  # of the SNGAN authors' framework; its decay of 0.9 is torch's momentum of 0.1
CHUNK_Z = 20  # dimensions of z for each part of BigGAN's G: 120 in all at 128 pixels, 140 at 256, 160 at 512


class Block(nn.Module):
    """Two 3×3 convolutions and a shortcut: x + conv(relu(norm(conv(relu(norm(x)))))).

    hidden: channels between the convolutions. resample: "up" at the first, "down" after the second, and in the
    shortcut, which is a 1×1 convolution if size or channels change. first: omits the first norm and ReLU, for the
    block whose input is the image. norm: channels -> module, called as norm(x, y); only norms get the condition.
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
        recipe: Recipe | None = None,
    ):
        super().__init__()
        recipe = recipe or Recipe()
        self.norm1 = None if first else norm(inputs)
        self.conv1 = recipe.conv(inputs, hidden, resample="up" if resample == "up" else None, hidden=True)
        self.norm2 = norm(hidden)
        self.conv2 = recipe.conv(hidden, outputs, resample="down" if resample == "down" else None, hidden=True)
        learned = inputs != outputs or resample is not None
        self.shortcut = recipe.conv(inputs, outputs, 1, resample=resample) if learned else None

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], doubled or halved."""
        h = x
        if self.norm1 is not None:
            # The shortcut still needs x, so the ReLU may overwrite its input only if that is a norm's output.
            h = F.relu(self.norm1(x, y), inplace=not isinstance(self.norm1, NoNorm))
        h = self.conv1(h)
        h = F.relu(self.norm2(h, y), inplace=True)
        h = self.conv2(h)
        out: Tensor = h.add_(x if self.shortcut is None else self.shortcut(x))
        return out


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1).

    ch: width in the family's unit; null: the paper's for the size (SNGAN 256 up to 32 pixels, 64 above; BigGAN 96 from
    128 pixels up, and below them 16, for CPUs). family: selects the widths. conditioning: unless "none", labels enter
    through the norms or (labels="input") concatenated to z. shared: width of one class embedding for all norms; 0: a
    lookup table in each. skip_z: an equal chunk of z for the first layer and each block. attention: sides of the
    feature maps that have it; null: half of the image's, as in SAGAN and BigGAN (64 at 512 pixels).
    32×32×3, latent_dim 128, SNGAN: 4,276,739 parameters. Raises ConfigError for points and sizes that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int | None = None,
        family: Family = "sngan",
        conditioning: Conditioning = "none",
        labels: Labels = "norm",
        shared: int = 0,
        skip_z: bool = False,
        attention: Sequence[int] | None = (),
        spectral: bool = False,
        init: InitKind = "sngan",
        bn_eps: float = BN_EPS,
        sn_eps: float = 1e-12,
    ):
        super().__init__()
        channels, height, width = image(shape, family)
        plan, self.base = widths_for(height, width, family)
        self.ch = plan.g_ch if ch is None else ch
        self.notes = (CPU_WIDTH_NOTE,) if ch is None and plan.g_ch == CPU_WIDTH else ()
        positive("model.ch", self.ch)
        self.conditional = need_classes(conditioning, classes)
        recipe = Recipe(spectral, sn_eps, init)
        widths = [m * self.ch for m in plan.up]
        self.condition = Condition(
            latent_dim,
            classes,
            len(widths) - 1,
            labels=labels if self.conditional else "none",
            shared=shared,
            skip_z="split" if skip_z else "none",
            recipe=recipe,
        )
        self.dense = recipe.linear(self.condition.first, widths[0] * self.base[0] * self.base[1])
        block = partial(Block, norm=self.condition.norm(bn_eps, BN_MOMENTUM), resample="up", recipe=recipe)
        self.blocks = nn.ModuleList(block(a, b, hidden=b) for a, b in pairwise(widths))
        side = min(height, width)
        sides = [min(self.base) << k for k in range(1, len(widths))]
        wanted = attention_sides(attention, side, min(side // 2, 64 if side >= 512 else side), sides)
        self.attention = nn.ModuleDict(
            {str(k): recipe.attention(widths[k + 1]) for k, s in enumerate(sides) if s in wanted}
        )
        self.norm = norms("batch", eps=bn_eps, momentum=BN_MOMENTUM)(widths[-1])
        self.conv = recipe.conv(widths[-1], channels)

    @staticmethod
    def natural_latent(shape: tuple[int, ...], family: Family = "sngan") -> int:
        """The papers' size of z for images of this shape."""
        if family == "sngan":
            return 128
        _, height, width = image(shape, family)
        return CHUNK_Z * len(widths_for(height, width, family)[0].up)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W]."""
        first, conditions = self.condition(z, y)
        h = self.dense(first).view(z.shape[0], -1, *self.base)
        for k, block in enumerate(self.blocks):
            h = block(h, conditions[k])
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        return torch.tanh(self.conv(F.relu(self.norm(h), inplace=True)))

    def freezable(self) -> list[Frozen]:
        """The first layer with the embedding of labels, then the blocks."""
        return [[self.condition, self.dense], *with_attention(self.blocks, self.attention)]


class Discriminator(nn.Module):
    """Images -> one logit each: residual blocks, sum over pixels, a dense head.

    ch, family, attention: as for the generator (null attention: half of the image's side, 64 at most). conditioning:
    how D uses labels: "none"; "input" concatenates one-hot maps to the image; "hidden" concatenates an embedding to the
    features of the middle block; "ac" classifies; "projection". wide: a block's hidden width is its output's (SAGAN,
    BigGAN), not its input's. norm: in the blocks; the papers have none. spectral: spectral norm of every weight.
    san: SAN's last layer (`layers.direction`), without spectral norm.
    32×32×3, SNGAN: 1,053,824 parameters. Raises ConfigError for points and sizes that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int | None = None,
        family: Family = "sngan",
        conditioning: Conditioning = "none",
        attention: Sequence[int] | None = (),
        wide: bool = False,
        norm: Literal["batch", "layer", "none"] = "none",
        spectral: bool = True,
        init: InitKind = "sngan",
        sn_eps: float = 1e-12,
        san: bool = False,
    ):
        super().__init__()
        channels, height, width = image(shape, family)
        plan, _ = widths_for(height, width, family)
        ch = plan.d_ch if ch is None else ch
        positive("model.ch", ch)
        self.conditioning, self.classes = conditioning, classes
        self.conditional = need_classes(conditioning, classes)
        recipe = Recipe(spectral, sn_eps, init)
        block = partial(Block, norm=norms(norm, eps=BN_EPS, momentum=BN_MOMENTUM), recipe=recipe)
        widths = [m * ch for m in plan.down + plan.flat]
        halvings = len(plan.down)
        self.middle = len(widths) // 2 if conditioning == "hidden" else -1
        self.join = recipe.embedding(classes, HIDDEN_WIDTH) if conditioning == "hidden" else None
        channels += classes if conditioning == "input" else 0
        # The released SNGAN's hidden width: the output's in the first block, the input's in all others.
        blocks = [block(channels, widths[0], hidden=widths[0], resample="down", first=True)]
        for k, (a, b) in enumerate(pairwise(widths), start=1):
            inputs = a + (HIDDEN_WIDTH if k == self.middle else 0)
            blocks.append(block(inputs, b, hidden=b if wide else inputs, resample="down" if k < halvings else None))
        self.blocks = nn.ModuleList(blocks)
        sides = [min(height, width) >> min(k + 1, halvings) for k in range(len(widths))]
        wanted = attention_sides(attention, min(height, width), min(sides[0], 64), sides)
        # Several blocks may share a size; attention follows the first of them.
        self.attention = nn.ModuleDict({str(sides.index(s)): recipe.attention(widths[sides.index(s)]) for s in wanted})
        self.head, self.san = Judge(widths[-1], classes, conditioning, recipe, bias=plan.head_bias, san=san), san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] if D is conditional -> logits [B], and with "ac" classes [B, classes]."""
        h = x
        if self.conditioning == "input" and y is not None:
            h = torch.cat([x, _everywhere(shares(y, self.classes, x), x)], 1)
        for k, block in enumerate(self.blocks):
            if k == self.middle and self.join is not None and y is not None:
                h = torch.cat([h, _everywhere(self.join(y).to(h.dtype), h)], 1)
            h = block(h)
            if str(k) in self.attention:
                h = self.attention[str(k)](h)
        verdict: Verdict = self.head(F.relu(h, inplace=True), y)
        return verdict

    def freezable(self) -> list[Frozen]:
        """The blocks; the embedding that "hidden" concatenates is in its block."""
        found = with_attention(self.blocks, self.attention)
        return [[*block, self.join if k == self.middle else None] for k, block in enumerate(found)]

    def directions(self) -> list[Tensor]:
        """Those of the head."""
        return self.head.directions()


def with_attention(blocks: nn.ModuleList, attention: nn.ModuleDict) -> list[Frozen]:
    """Each block with the self-attention that follows it."""
    follows = dict(attention.items())
    return [[block, follows.get(str(k))] for k, block in enumerate(blocks)]


def _everywhere(rows: Tensor, like: Tensor) -> Tensor:
    """[B, width] -> [B, width, H, W], the same at every pixel."""
    return rows[:, :, None, None].expand(-1, -1, *like.shape[2:])
