"""FastGAN's generator as Projected GAN trains it: batch norm and GLU, skip-layer excitation, spectral norm everywhere.

Liu et al. 2021, section 3.1; the form and the constants are those of Sauer et al. 2021 (appendix) and their code. At 64
and 128 pixels it is the same network cut short, so that no weight is unused.
"""

from __future__ import annotations

import math
from typing import Literal

from torch import Tensor, nn

from gancli.nets.freezing import Block
from gancli.nets.layers.condition import need_classes
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.equalized import pixel_norm
from gancli.nets.layers.excitation import Trunk, fan, plan, torch_default
from gancli.nets.layers.init import normal
from gancli.nets.layers.linear import Embedding


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W], unbounded.

    ch: channels at 128 pixels; 16 times as many at the base, an eighth at 1024. lite: one convolution a block instead
    of two, without noise. conditioning: with "projection" the gains and biases of the blocks' norms are affine in an
    embedding of the label, as wide as the latent. 256×256×3, latent_dim 256: 79,354,307 parameters, not lite
    105,684,175. Raises ConfigError for points, sides that do not halve, and data without classes.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch: int = 128,
        lite: bool = True,
        conditioning: Literal["none", "projection"] = "none",
    ):
        super().__init__()
        channels, base, widths = plan(shape, "projected", ch)
        self.conditional = need_classes(conditioning, classes)
        self.embed = Embedding(classes, latent_dim, init=normal(1.0)) if self.conditional else None
        self.trunk = Trunk(
            latent_dim,
            base,
            widths,
            [not lite] * (len(widths) - 1),
            condition=latent_dim if self.conditional else 0,
            first=fan(2 * widths[0] * math.prod(base)),  # torch's for a transposed convolution
        )
        self.to_image = Conv(widths[-1], channels, init=torch_default, spectral=True)
        fan(9 * widths[-1])(self.to_image.bias)  # type: ignore[arg-type]

    @staticmethod
    def natural_latent(shape: tuple[int, ...]) -> int:
        """The papers' size of z."""
        return 256

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, C, H, W]."""
        assert self.embed is None or y is not None, "a conditional generator without labels"
        condition = None if self.embed is None else self.embed(y).to(z.dtype)
        out: Tensor = self.to_image(self.trunk(pixel_norm(z), condition)[-1])
        return out

    def freezable(self) -> list[Block]:
        """The base, with the labels' embedding, then the blocks of each size with their excitation."""
        return self.trunk.freezable(self.embed)
