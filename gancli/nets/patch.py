"""PatchGAN: a discriminator with one logit for each patch of an image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, each
from gancli.nets.layers import image_norms
from gancli.nets.layers.direction import renormalise, sliced_maps
from gancli.nets.layers.init import dcgan_
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict

LEAK = 0.2
MOST, WIDEST = 5, 8


class Discriminator(nn.Module):
    """Images, or several joined in their channels, -> logits [B, 1, H', W'] (Isola et al. 2017, appendix 6.1.2).

    ch: channels of the first layer. layers: 1 to 5 that halve the image, for a receptive field of 16, 34, 70, 142 or
    286 pixels a side; 0: the pixel discriminator, with 1×1 convolutions. norm: of all layers but the first and last.
    san: SAN's last layer (`layers.direction`), whose direction is the last filter.
    6 channels, 3 layers, batch norm: 2,768,705 parameters; 3 channels, instance norm: 2,764,737. Raises ConfigError for
    images that are too small for their layers.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        *,
        ch: int = 64,
        layers: int = 3,
        norm: image_norms.Kind = "batch",
        san: bool = False,
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "pix2pix")
        if not 0 <= layers <= MOST:
            raise ConfigError(f"model.D.layers={layers}: 1 to {MOST}, or 0 for the pixel discriminator")
        self.layers, self.san = layers, san
        short, most = min(height, width), 0
        while most < MOST and (short >> (most + 1)) > 2:  # the two following convolutions take a pixel each
            most += 1
        if layers > most:
            raise ConfigError(
                f"model.D.layers={layers} needs images of at least {3 << layers} pixels a side, not {height}x{width}:"
                f" set model.D.layers={most} or less"
            )
        bias = norm == "instance"  # batch norm has its own
        widths = [ch * min(2**level, WIDEST) for level in range(layers + 1)]
        parts = [nn.Sequential(nn.Conv2d(channels, ch, 4, 2, 1) if layers else nn.Conv2d(channels, ch, 1))]
        for level in range(1, layers + 1):
            stride = 2 if level < layers else 1
            convolution = nn.Conv2d(widths[level - 1], widths[level], 4, stride, 1, bias=bias)
            parts.append(nn.Sequential(convolution, image_norms.norm(norm, widths[level])))
        if not layers:
            parts.append(nn.Sequential(nn.Conv2d(ch, 2 * ch, 1, bias=bias), image_norms.norm(norm, 2 * ch)))
        self.body = nn.ModuleList(nn.Sequential(*part, nn.LeakyReLU(LEAK, True)) for part in parts)
        self.head = nn.Conv2d(widths[-1], 1, 4, 1, 1) if layers else nn.Conv2d(2 * ch, 1, 1, bias=bias)
        dcgan_(self)
        renormalise(self)

    def forward(self, *columns: Tensor) -> Verdict:
        """Images [B, C, H, W] of one size -> logits, and the features of each layer."""
        x = torch.cat(columns, 1) if len(columns) > 1 else columns[0]
        features = []
        for layer in self.body:
            x = layer(x)
            features.append(x)
        if self.san:
            return sliced_maps(x, self.head, features=features)
        return Verdict(self.head(x), features=features)

    def freezable(self) -> list[Block]:
        """The layers but for the last."""
        return each(self.body)

    def directions(self) -> list[Tensor]:
        """The last filter."""
        return [self.head.weight]
