"""Multilayer perceptrons for points and small images, and the toy networks of WGAN-GP and PacGAN."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.freezing import Block, in_blocks
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.init import RELU_GAIN, Init, he, normal, xavier
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.minibatch import MinibatchDiscrimination, Referenced, unwrapped
from gancli.nets.layers.noise import Dropout
from gancli.nets.layers.norms import Kind, Norm, norm
from gancli.nets.shapes import positive, share
from gancli.nets.verdict import Verdict

Activation = Literal["relu", "leaky_relu", "tanh", "softplus", "maxout"]
Start = Literal["xavier", "he", "normal"]

LEAK = 0.2
GAINS = {
    "relu": RELU_GAIN,
    "leaky_relu": RELU_GAIN / (1 + LEAK**2) ** 0.5,
    "tanh": 5 / 3,
    "softplus": 1.229,  # preserves the second moment of a normal input, as the first two do
    "maxout": 1.0,
}


class Maxout(nn.Module):
    """The maximum of `pieces` values: [B, width × pieces] -> [B, width] (Goodfellow et al. 2013)."""

    def __init__(self, pieces: int):
        super().__init__()
        self.pieces = pieces

    def forward(self, x: Tensor) -> Tensor:
        """[B, width × pieces] -> [B, width]."""
        return x.view(x.shape[0], -1, self.pieces).amax(2)


class Softplus(nn.Module):
    """softplus(2x + 2) / 2 - 1, about x above 0 and -1 far below (Gulrajani et al. 2017, table 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Any shape -> the same."""
        return F.softplus(2 * x + 2) / 2 - 1


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1), or unbounded points [B, D].

    hidden: widths of the hidden layers. norm: after each of them; `bn_eps`: eps of batch norm. pieces: of a maxout
    unit. init: of the weights: "xavier" with the activation's gain, without it for the head; "he" before activations
    and Xavier for the head, as in WGAN-GP's toys; "normal" N(0, 0.02²), as in PacGAN.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        hidden: tuple[int, ...] = (512, 512, 512),
        activation: Activation = "relu",
        norm: Kind = "none",
        bn_eps: float = 1e-5,
        pieces: int = 5,
        init: Start = "xavier",
    ):
        super().__init__()
        self.shape = tuple(shape)
        norms = [_norm(norm, bn_eps)] * len(hidden)
        body, width = _hidden(latent_dim, hidden, activation, norms, pieces=pieces, init=init)
        self.body: nn.Module = Referenced(body, (latent_dim,)) if norm == "virtual" else body
        self.head = Linear(width, prod(self.shape), init=_start(init))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim] -> [B, *shape]; the labels are ignored."""
        out: Tensor = self.head(self.body(z))
        return out if len(self.shape) == 1 else out.tanh().view(z.shape[0], *self.shape)

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(unwrapped(self.body))


class Discriminator(nn.Module):
    """Images or points, flattened -> one logit each.

    norm: after each hidden layer but the first. dropout: rate for each hidden layer's outputs. input_dropout: rate for
    the data, where dropped values become -1 (black) and the others' distance from -1 is scaled. pieces: of a maxout
    unit. minibatch: kernels of minibatch discrimination before the head. init: as for G. san: SAN's last layer
    (`layers.direction`).
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        hidden: tuple[int, ...] = (512, 512, 512),
        activation: Activation = "leaky_relu",
        norm: Kind = "none",
        dropout: float = 0.0,
        input_dropout: float = 0.0,
        pieces: int = 5,
        minibatch: int = 0,
        init: Start = "xavier",
        san: bool = False,
    ):
        super().__init__()
        share("model.D.dropout", dropout)
        share("model.D.input_dropout", input_dropout)
        self.input_dropout = Dropout(input_dropout)
        positive("model.D.pieces", pieces)
        norms = [_norm("none"), *[_norm(norm)] * (len(hidden) - 1)][: len(hidden)]
        body, width = _hidden(prod(shape), hidden, activation, norms, dropout, pieces, init)
        self.body: nn.Module = Referenced(body, (prod(shape),)) if norm == "virtual" else body
        self.minibatch = MinibatchDiscrimination(width, minibatch) if minibatch else None
        self.head, self.san = Linear(width + minibatch, 1, init=_start(init)), san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, *shape] -> logits [B]; the labels are ignored."""
        flat = x.flatten(1)
        if self.input_dropout.p:
            flat = self.input_dropout(flat + 1) - 1
        features = self.body(flat)
        joined = features if self.minibatch is None else self.minibatch(features)
        if self.san:
            return sliced(joined, self.head.weight, self.head.bias, features=[features])
        return Verdict(self.head(joined).squeeze(1), features=[features])

    def freezable(self) -> list[Block]:
        """The hidden layers."""
        return in_blocks(unwrapped(self.body))

    def directions(self) -> list[Tensor]:
        """The head's weight."""
        return [self.head.weight]


def _norm(kind: Kind, eps: float = 1e-5) -> Norm:
    return norm(kind, flat=True, eps=eps)


def _start(kind: Start, gain: float | None = None) -> Init:
    """The init of a layer before an activation with this gain, or of the head (None)."""
    if kind == "normal":
        return normal(0.02)
    if gain is None:
        return xavier()
    return he(gain) if kind == "he" else xavier(gain)


def _hidden(
    inputs: int,
    hidden: Sequence[int],
    activation: Activation,
    norms: Sequence[Norm],
    dropout: float = 0.0,
    pieces: int = 5,
    init: Start = "xavier",
) -> tuple[nn.Sequential, int]:
    """Build dense layer, norm, activation and dropout for each width; also return the last width."""
    layers: list[nn.Module] = []
    for width, build in zip(hidden, norms, strict=True):
        positive("model.hidden", width)
        outputs = width * pieces if activation == "maxout" else width
        layers += [
            Linear(inputs, outputs, init=_start(init, GAINS[activation])),
            build(outputs),
            _activation(activation, pieces),
        ]
        if dropout:
            layers.append(Dropout(dropout))
        inputs = width
    return nn.Sequential(*layers), inputs


def _activation(name: Activation, pieces: int) -> nn.Module:
    if name == "maxout":
        return Maxout(pieces)
    plain: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "softplus": Softplus, "relu": nn.ReLU}
    return plain[name]() if name in plain else nn.LeakyReLU(LEAK)
