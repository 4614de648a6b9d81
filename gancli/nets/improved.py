"""Dense networks for semi-supervised MNIST, with weight norm and Gaussian noise layers (Salimans et al. 2016)."""

from __future__ import annotations

from itertools import pairwise
from math import prod
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, in_blocks
from gancli.nets.layers.direction import refuse_direction
from gancli.nets.layers.init import Init, normal, xavier
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.noise import GaussianNoise
from gancli.nets.layers.norms import BatchNorm1d
from gancli.nets.shapes import positive
from gancli.nets.verdict import Verdict


class WeightNormLinear(nn.Module):
    """x (g V / ‖V‖)ᵀ + b, a norm for each output (Salimans and Kingma 2016, eq. 2): [B, inputs] -> [B, outputs].

    scale: whether g is trained. g starts at 1; `fit` sets it so that outputs on a batch have mean 0 and deviation 1.

    >>> layer = WeightNormLinear(2, 1); _ = layer.v.data.copy_(torch.tensor([[30.0, 40.0]]))
    >>> round(layer(torch.tensor([[5.0, 0.0]])).item(), 6)  # 5 · 3/5
    3.0
    """

    def __init__(self, inputs: int, outputs: int, *, scale: bool = False, init: Init | None = None):
        super().__init__()
        self.v = nn.Parameter((init or normal(0.1))(torch.empty(outputs, inputs)))
        self.bias = nn.Parameter(torch.zeros(outputs))
        if scale:
            self.g = nn.Parameter(torch.ones(outputs))
        else:
            self.register_buffer("g", torch.ones(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        # Scales the outputs, not the weights: there are fewer of them.
        return torch.addcmul(self.bias, F.linear(x, self.v), self.g / self.v.norm(dim=1))

    @torch.no_grad()
    def fit(self, x: Tensor) -> Tensor:
        """Initialise g and b from a batch (section 3), and return the output."""
        out = self(x)
        mean, scale = out.mean(0), out.std(0, correction=0) + 1e-8
        self.g.div_(scale)
        self.bias.copy_((self.bias - mean) / scale)
        result: Tensor = self(x)
        return result


class Bias(nn.Module):
    """x + b: [B, width] -> [B, width]; torch's batch norm has a bias only together with a gain."""

    def __init__(self, width: int):
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        """[B, width] -> [B, width]."""
        return x + self.bias


class Generator(nn.Module):
    """z -> images: dense layers with batch norm and softplus, a weight-normed layer, sigmoids scaled to [-1, 1].

    hidden: widths of the hidden layers.
    """

    def __init__(
        self, shape: tuple[int, ...], latent_dim: int, classes: int = 0, *, hidden: tuple[int, ...] = (500, 500)
    ):
        super().__init__()
        self.shape = tuple(shape)
        layers: list[nn.Module] = []
        for a, b in pairwise((latent_dim, *hidden)):
            positive("model.G.hidden", b)
            # The released code normalises before the softplus, with a bias but no gain.
            layers += [Linear(a, b, bias=False), BatchNorm1d(b, eps=1e-6, affine=False), Bias(b), nn.Softplus()]
        self.body = nn.Sequential(*layers)
        self.head = WeightNormLinear((latent_dim, *hidden)[-1], prod(self.shape), scale=True, init=xavier())

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim] -> [B, *shape]; the labels are ignored."""
        out: Tensor = (self.head(self.body(z)) / 2).tanh()  # 2 sigmoid(a) - 1
        return out.view(z.shape[0], *self.shape)

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(self.body)


class Discriminator(nn.Module):
    """Images -> logits of K classes; the real/fake logit is their log-sum-exp, with the fake class's logit fixed to 0.

    That is D(x) = Z / (Z + 1) with Z the sum of exponentials (section 5). hidden: widths of the hidden layers.
    noise: σ of Gaussian noise on each hidden layer's output in training; input_noise: on images in [0, 1].
    Raises ConfigError for data with fewer than two classes, CombinationError for `san`, since the last layer has an
    output for each class.

    >>> D = Discriminator((1, 2, 2), 3, hidden=(4,))
    >>> _ = torch.nn.init.zeros_(D.head.g), torch.nn.init.zeros_(D.head.bias)
    >>> round(D(torch.zeros(1, 1, 2, 2)).logits.sigmoid().item(), 4)  # three logits of 0 and the fake class's
    0.75
    """

    names_classes: ClassVar[bool] = True  # game=semisup requires it
    fit_rows: ClassVar[int] = 500  # images for `fit`

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        hidden: tuple[int, ...] = (1000, 500, 250, 250, 250),
        input_noise: float = 0.3,
        noise: float = 0.5,
        san: bool = False,
    ):
        super().__init__()
        refuse_direction(san, "the logit of this classifier is the log-sum-exp of those of classes")
        if classes < 2:
            raise ConfigError("this discriminator classifies, but the data set has fewer than two classes: use another")
        widths = (prod(shape), *hidden)
        for width in hidden:
            positive("model.D.hidden", width)
        self.noises = nn.ModuleList(GaussianNoise(sigma) for sigma in (input_noise, *[noise] * len(hidden)))
        self.layers = nn.ModuleList([WeightNormLinear(a, b) for a, b in pairwise(widths)])
        self.head = WeightNormLinear(widths[-1], classes, scale=True)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, *shape] -> logits [B], classes [B, K], features [B, last hidden]; the labels are ignored."""
        h = (x.flatten(1) + 1) / 2
        for layer, noise in zip(self.layers, self.noises, strict=False):
            h = F.relu(layer(noise(h)))
        classes: Tensor = self.head(self.noises[-1](h))
        return Verdict(classes.logsumexp(1), classes, [h])

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(self.layers)

    def fit(self, x: Tensor) -> None:
        """Initialise the layers' scales and biases from a batch of images, before the first step."""
        h = (x.flatten(1) + 1) / 2
        for layer, noise in zip(self.layers, self.noises, strict=False):
            assert isinstance(layer, WeightNormLinear)
            h = F.relu(layer.fit(noise(h)))
        self.head.fit(self.noises[-1](h))
