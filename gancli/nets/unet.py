"""pix2pix's U-Net generator: an encoder down to one pixel and a decoder, with skip connections."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import leaky_relu, relu

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, each
from gancli.nets.layers import image_norms
from gancli.nets.layers.init import dcgan_
from gancli.nets.layers.kernel4 import Double, Patchwise
from gancli.nets.layers.noise import Dropout
from gancli.nets.shapes import image, positive, share

LEAK = 0.2
FEWEST, MOST = 5, 9  # stages, of 32 and of 512 pixels
WIDEST = 8  # stages have at most this times ch channels


def natural_downs(height: int, width: int) -> int:
    """How often both sides halve exactly, at most 9 times. Raises ConfigError for fewer than 5.

    >>> natural_downs(64, 64), natural_downs(256, 512), natural_downs(96, 96)
    (6, 8, 5)
    """
    exact = next((n for n in range(MOST, 0, -1) if height % 2**n == 0 == width % 2**n), 0)
    if exact < FEWEST:
        raise ConfigError(
            f"the U-Net halves both sides at least {FEWEST} times, but {height}x{width} halves exactly only {exact}"
            f" times: set dataset.size=[C,H,W] or dataset.crop to multiples of {2**FEWEST}, or use the ResNet"
            " generator of model=cyclegan"
        )
    return exact


class Generator(nn.Module):
    """Images [B, C, H, W] -> images [B, out_channels, H, W] in (-1, 1) (Isola et al. 2017, appendix 6.1).

    ch: channels of the first stage. downs: how often the sides halve; None: as often as they halve exactly. norm: of
    all stages but the outermost and, in the encoder, the innermost. dropout: the network's noise, in the decoder stages
    of the released PyTorch code, which are those from the fifth level down except the innermost: three at 256 pixels,
    one at 64, none at 32; in evaluation too, unless `test_dropout` is false. 256 pixels, 3 channels: 54,413,955
    parameters. Raises ConfigError for sides that do not halve exactly.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        out_channels: int,
        *,
        ch: int = 64,
        downs: int | None = None,
        norm: image_norms.Kind = "batch",
        dropout: float = 0.5,
        test_dropout: bool = True,
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "pix2pix")
        exact = natural_downs(height, width)
        if downs is not None and not 2 <= downs <= exact:
            raise ConfigError(
                f"model.G.downs={downs}: 2 to {exact} for images of {height}x{width}, or null for {exact}"
            )
        share("model.G.dropout", dropout)
        count = exact if downs is None else downs
        self.multiple = 2**count
        widths = [ch * min(2**level, WIDEST) for level in range(count)]
        bias = norm == "instance"  # batch norm has its own
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, wide in enumerate(widths):
            inputs = widths[level - 1] if level else channels
            layers: list[nn.Module] = [Patchwise(inputs, wide, bias=bias)]
            self.down.append(nn.Sequential(*layers, *([image_norms.norm(norm, wide)] if 0 < level < count - 1 else [])))
        for level, wide in reversed(list(enumerate(widths))):
            inputs = wide if level == count - 1 else 2 * wide
            if not level:
                self.up.append(nn.Sequential(Double(inputs, out_channels), nn.Tanh()))
                break
            narrow = widths[level - 1]
            layers = [Double(inputs, narrow, bias=bias), image_norms.norm(norm, narrow)]
            if FEWEST <= level + 1 < count:
                layers.append(Dropout(dropout, always=test_dropout))
            self.up.append(nn.Sequential(*layers))
        dcgan_(self)

    @property
    def noisy(self) -> bool:
        """Whether outputs for the same image differ."""
        return any(isinstance(m, Dropout) and m.p and m.always for m in self.modules())

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, out_channels, H, W]; sides are multiples of `multiple`."""
        made = [self.down[0](x)]
        for stage in list(self.down)[1:]:
            made.append(stage(leaky_relu(made[-1], LEAK)))
        out: Tensor = self.up[0](relu(made.pop()))
        for stage in list(self.up)[1:]:
            out = stage(relu(torch.cat([made.pop(), out], 1)))
        return out

    def freezable(self) -> list[Block]:
        """The encoder's stages, and the decoder's but for the last."""
        return each([*self.down, *self.up][:-1])
