"""A factory of weighted layers with common spectral norm and initialisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from gancli.nets.layers.attention import Attention
from gancli.nets.layers.conv import Conv, Resample
from gancli.nets.layers.init import RELU_GAIN, Init, normal, orthogonal, xavier
from gancli.nets.layers.linear import Embedding, Linear

InitKind = Literal["sngan", "xavier", "normal", "orthogonal"]


@dataclass(frozen=True)
class Recipe:
    """A factory of layers with common options.

    spectral, eps: spectral norm of every weight, and its eps. init: "sngan" is Xavier with a gain of √2 for the 3×3
    convolutions of blocks, "xavier" the same without the gain (SAGAN), "normal" N(0, 0.02²), "orthogonal" BigGAN's.
    """

    spectral: bool = False
    eps: float = 1e-12
    init: InitKind = "sngan"

    def conv(
        self, inputs: int, outputs: int, kernel: int = 3, *, resample: Resample = None, hidden: bool = False
    ) -> Conv:
        """A convolution; hidden: one in a block's body, before or after a ReLU."""
        init = xavier(RELU_GAIN) if hidden and self.init == "sngan" else self._init()
        return Conv(inputs, outputs, kernel, resample=resample, init=init, spectral=self.spectral, eps=self.eps)

    def linear(self, inputs: int, outputs: int, *, bias: bool = True) -> Linear:
        """A dense layer."""
        return Linear(inputs, outputs, bias=bias, init=self._init(), spectral=self.spectral, eps=self.eps)

    def embedding(self, classes: int, width: int) -> Embedding:
        """A lookup table with a row per class."""
        return Embedding(classes, width, init=self._init(), spectral=self.spectral, eps=self.eps)

    def attention(self, channels: int) -> Attention:
        """Self-attention over pixels."""
        return Attention(channels, init=self._init(), spectral=self.spectral, eps=self.eps)

    def _init(self) -> Init:
        return {"sngan": xavier(), "xavier": xavier(), "normal": normal(0.02), "orthogonal": orthogonal()}[self.init]
