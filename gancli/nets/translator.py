"""CycleGAN's ResNet generator: two halvings, residual blocks, two doublings (Johnson et al. 2016)."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block as Frozen
from gancli.nets.freezing import in_blocks
from gancli.nets.layers import image_norms
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.init import dcgan_, normal
from gancli.nets.layers.minibatch import unwrapped
from gancli.nets.layers.noise import Dropout
from gancli.nets.layers.reflect import ReflectConv2d
from gancli.nets.shapes import image, positive, share

HALVINGS = 2
LARGE = 128  # pixels above which the paper has 9 blocks instead of 6


class Block(nn.Module):
    """x + two convolutions of x, without an activation after the sum."""

    def __init__(self, ch: int, norm: image_norms.Kind, dropout: float):
        super().__init__()
        bias = norm == "instance"
        first = [ReflectConv2d(ch, ch, 3, bias=bias), image_norms.norm(norm, ch), nn.ReLU(True)]
        middle = [Dropout(dropout)] if dropout else []
        self.body = nn.Sequential(*first, *middle, ReflectConv2d(ch, ch, 3, bias=bias), image_norms.norm(norm, ch))

    def forward(self, x: Tensor) -> Tensor:
        """[B, ch, H, W] -> the same."""
        out: Tensor = x + self.body(x)
        return out


class Generator(nn.Module):
    """Images [B, C, H, W] -> images [B, out_channels, H, W] in (-1, 1) (Zhu et al. 2017, appendix 7.2).

    ch: channels at full size. blocks: residual blocks; None: 9 if the shorter side is above 128 pixels, else 6.
    upsample: transposed convolutions as in the paper, or nearest neighbours and a convolution, which avoids
    checkerboard artefacts. dropout: inside the blocks, in training. 3 channels, 9 blocks: 11,378,179 parameters. Raises
    ConfigError for sides below 8 pixels or not divisible by 4.
    """

    multiple = 2**HALVINGS

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        *,
        ch: int = 64,
        blocks: int | None = None,
        norm: image_norms.Kind = "instance",
        upsample: Literal["transposed", "nearest"] = "transposed",
        dropout: float = 0.0,
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "cyclegan")
        if min(height, width) < 8 or height % self.multiple or width % self.multiple:
            raise ConfigError(
                f"this generator takes images of at least 8 pixels whose sides are multiples of {self.multiple}, not"
                f" {height}x{width}: set dataset.size=[C,H,W] or dataset.crop"
            )
        count = (9 if min(height, width) > LARGE else 6) if blocks is None else blocks
        if count < 0:
            raise ConfigError(f"model.blocks={blocks}: a number of residual blocks, or null for the paper's")
        share("model.G_A2B.dropout", dropout)
        bias = norm == "instance"
        layers: list[nn.Module] = [ReflectConv2d(channels, ch, 7, bias=bias), image_norms.norm(norm, ch), nn.ReLU(True)]
        for _ in range(HALVINGS):
            layers += [nn.Conv2d(ch, 2 * ch, 3, 2, 1, bias=bias), image_norms.norm(norm, 2 * ch), nn.ReLU(True)]
            ch *= 2
        layers += [Block(ch, norm, dropout) for _ in range(count)]
        for _ in range(HALVINGS):
            ch //= 2
            enlarge: nn.Module = nn.ConvTranspose2d(2 * ch, ch, 3, 2, 1, output_padding=1, bias=bias)
            if upsample == "nearest":
                enlarge = Conv(2 * ch, ch, resample="up", bias=bias, init=normal(0.02))
            layers += [enlarge, image_norms.norm(norm, ch), nn.ReLU(True)]
        self.body = nn.Sequential(*layers, ReflectConv2d(ch, out_channels, 7), nn.Tanh())
        dcgan_(self)

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, H, W]; sides are multiples of 4."""
        out: Tensor = self.body(x)
        return out

    def freezable(self) -> list[Frozen]:
        """The first convolution, the halvings, the residual blocks and the doublings."""
        return in_blocks(unwrapped(self.body))[:-1]
