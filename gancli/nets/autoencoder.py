"""EBGAN's discriminator: an auto-encoder whose reconstruction error is an image's energy (Zhao et al. 2017)."""

from __future__ import annotations

from itertools import pairwise
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from gancli.nets.dcgan import LEAK, ladder
from gancli.nets.freezing import Block, in_blocks
from gancli.nets.layers.direction import refuse_direction
from gancli.nets.layers.init import dcgan_
from gancli.nets.layers.norms import norm as norms
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict


class Discriminator(nn.Module):
    """Images -> minus the norm of the reconstruction error, ‖Dec(Enc(x)) - x‖, as the logit (section 2.3).

    Strided convolutions down to the base and transposed ones back, as in a DCGAN (section 4.3: 64 channels, doubled at
    each stage). ch: channels of the first stage. norm: of every stage but the first. The features are the code, which
    G's pulling-away term uses. Raises ConfigError for points and sides below 8, CombinationError for `san`, since there
    is no linear last layer.
    """

    energy: ClassVar[bool] = True  # loss=energy requires it

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch: int = 64,
        norm: Literal["batch", "layer", "none"] = "batch",
        san: bool = False,
    ):
        super().__init__()
        refuse_direction(san, "the logit of this auto-encoder is minus a reconstruction error")
        positive("model.ch", ch)
        channels, height, width = image(shape, "ebgan")
        sizes = ladder(height, width)
        build = norms(norm)
        widths = [ch << k for k in range(len(sizes) - 1)]
        encoder: list[nn.Module] = [nn.Conv2d(channels, ch, 4, 2, 1), nn.LeakyReLU(LEAK, True)]
        for a, b in pairwise(widths):
            encoder += [nn.Conv2d(a, b, 4, 2, 1, bias=norm == "none"), build(b), nn.LeakyReLU(LEAK, True)]
        decoder: list[nn.Module] = []
        outputs = [*widths[:-1][::-1], channels]
        for k, (a, b) in enumerate(zip(widths[::-1], outputs, strict=True)):
            small, large = sizes[-1 - k], sizes[-2 - k]
            odd = (large[0] - 2 * small[0], large[1] - 2 * small[1])
            last = k == len(outputs) - 1
            bias = last or norm == "none"
            decoder.append(nn.ConvTranspose2d(a, b, 4, 2, 1, output_padding=odd, bias=bias))
            decoder += [] if last else [build(b), nn.LeakyReLU(LEAK, True)]
        self.encoder, self.decoder = nn.Sequential(*encoder), nn.Sequential(*decoder)
        dcgan_(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B], at most 0; the labels are ignored."""
        code = self.encoder(x)
        error = torch.linalg.vector_norm((self.decoder(code) - x).flatten(1), dim=1)
        return Verdict(-error, features=[code.flatten(1)])

    def freezable(self) -> list[Block]:
        """The encoder's stages, and the decoder's but for the last."""
        return [*in_blocks(self.encoder), *in_blocks(self.decoder)[:-1]]
