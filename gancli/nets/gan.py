"""The original GAN's networks for MNIST (Goodfellow et al. 2014), with the constants of the released code."""

from __future__ import annotations

import math
from itertools import pairwise
from math import prod

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, in_blocks
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.init import uniform
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.noise import Dropout
from gancli.nets.mlp import Maxout
from gancli.nets.shapes import positive
from gancli.nets.verdict import Verdict

FIT_NUMBERS = 2**26  # pixels that the mean image is computed from, at most: 256 MiB


class Generator(nn.Module):
    """z -> images: ReLU layers, then sigmoids scaled to [-1, 1] whose bias starts at the mean image.

    hidden: widths of the hidden layers. Without this start, pixels that are black in all data keep noise that training
    does not remove. Raises ConfigError for points.
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, classes: int = 0, *, hidden: tuple[int, ...] = (1200, 1200)
    ):
        super().__init__()
        _images(shape)
        self.shape = tuple(shape)
        self.fit_rows = min(50_000, FIT_NUMBERS // prod(shape))  # images for `fit`: the paper's whole training set
        layers: list[nn.Module] = []
        for a, b in pairwise((latent_dim, *hidden)):
            positive("model.G.hidden", b)
            layers += [Linear(a, b, init=uniform(0.05)), nn.ReLU()]
        self.body = nn.Sequential(*layers)
        self.head = Linear((latent_dim, *hidden)[-1], prod(self.shape), init=uniform(0.05))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], uniform on [-1, 1] -> [B, *shape]; the labels are ignored."""
        out: Tensor = self.head(self.body(z * math.sqrt(3)))  # of variance 1
        return (out / 2).tanh().view(z.shape[0], *self.shape)  # 2 sigmoid(a) - 1

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(self.body)

    @torch.no_grad()
    def fit(self, x: Tensor) -> None:
        """Set the bias so that the output starts at the mean of these images, clamped to [1e-7, 1 - 1e-7]."""
        assert self.head.bias is not None
        self.head.bias.copy_(((x.flatten(1).mean(0) + 1) / 2).double().clamp(1e-7, 1 - 1e-7).logit())


class Discriminator(nn.Module):
    """Images -> logits [B]: two maxout layers, with dropout of the image and of each layer's outputs.

    hidden: widths of the maxout layers. pieces: of each unit. dropout, input_dropout: rates of dropout of a layer's
    outputs and of the image's pixels in [0, 1]. san: SAN's last layer (`layers.direction`). Raises ConfigError for
    points.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        hidden: tuple[int, ...] = (240, 240),
        pieces: int = 5,
        dropout: float = 0.5,
        input_dropout: float = 0.2,
        san: bool = False,
    ):
        super().__init__()
        _images(shape)
        for name, share in (("dropout", dropout), ("input_dropout", input_dropout)):
            if not 0 <= share < 1:
                raise ConfigError(f"model.D.{name}={share:g}: a share from 0 to below 1")
        positive("model.D.pieces", pieces)
        self.input_dropout = Dropout(input_dropout)
        widths, layers = (prod(shape), *hidden), list[nn.Module]()
        for a, b in pairwise(widths):
            positive("model.D.hidden", b)
            layers += [Linear(a, b * pieces, init=uniform(0.005)), Maxout(pieces), Dropout(dropout)]
        self.body = nn.Sequential(*layers)
        self.head, self.san = Linear(widths[-1], 1, init=uniform(0.005)), san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, *shape] -> logits [B]; the labels are ignored."""
        features = self.body(self.input_dropout((x.flatten(1) + 1) / 2))
        if self.san:
            return sliced(features, self.head.weight, self.head.bias, features=[features])
        return Verdict(self.head(features).squeeze(1), features=[features])

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(self.body)

    def directions(self) -> list[Tensor]:
        """The head's weight."""
        return [self.head.weight]


def _images(shape: tuple[int, ...]) -> None:
    if len(shape) != 3:
        raise ConfigError("model=gan generates images; for points use model=mlp")
