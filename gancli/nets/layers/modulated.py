"""Modulated convolutions of StyleGAN 2: a style scales the input channels, demodulation normalises the output's.

Scaling the weights for each sample gives the same as scaling its input and output (Karras et al. 2020, section 2.2).
The latter needs one convolution for the whole batch instead of one per sample.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import matmul
from gancli.nets.layers.equalized import GAIN, LEAK, EqualizedLinear
from gancli.nets.layers.filters import smoothed
from gancli.nets.layers.noise import NoiseMap
from gancli.nets.layers.spectral import full_precision

EPS = 1e-8  # of the demodulation
LIMIT = 256.0  # of activations in float16


class Modulated(nn.Module):
    """A 3×3 convolution with demodulated weights, and the affine map from w to the input channels' scales.

    up: with doubling of the image: a transposed convolution, then the filter [1, 3, 3, 1].
    """

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, up: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs, 3, 3))
        self.style = EqualizedLinear(w_dim, inputs, gain=1.0)
        nn.init.ones_(self.style.bias)  # type: ignore[arg-type]
        self.up = up

    def forward(self, x: Tensor, w: Tensor) -> tuple[Tensor, Tensor]:
        """[B, inputs, H, W] and w [B, w_dim] -> [B, outputs, H, W] (doubled), and its demodulation [B, outputs].

        The caller multiplies both.
        """
        weight: Tensor = self.weight
        with full_precision(w):
            scale = self.style(w.to(torch.promote_types(w.dtype, torch.float32)))
            if x.dtype == torch.float16:  # demodulation undoes these factors, which prevent overflow
                scale = scale / scale.abs().amax(1, keepdim=True)
                largest = weight.abs().amax((1, 2, 3), keepdim=True).clamp_min(EPS)
                weight = weight / (largest * math.sqrt(weight[0].numel()))
            energy = weight.square().sum((2, 3)).to(scale.dtype)
            demodulation = (F.linear(scale.square(), energy) + EPS).rsqrt()
        x = x * scale[:, :, None, None].to(x.dtype)
        if self.up:
            return smoothed(matmul.convolve_up(x, weight, None, pad=0), 1, gain=4.0), demodulation
        return matmul.convolve(x, weight, None), demodulation


class StyledConv(nn.Module):
    """A modulated convolution, noise with one learned scale, bias and LeakyReLU with gain √2."""

    def __init__(self, inputs: int, outputs: int, w_dim: int, *, up: bool = False):
        super().__init__()
        self.conv = Modulated(inputs, outputs, w_dim, up=up)
        self.noise = NoiseMap(1)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[B, inputs, H, W] and w [B, w_dim] -> [B, outputs, H, W], doubled with `up`."""
        x, scale = self.conv(x, w)
        # LeakyReLU is homogeneous, so its gain scales the small tensors before it.
        scale, bias = (scale * GAIN).to(x.dtype), (self.bias * GAIN).to(x.dtype)
        x = torch.addcmul(bias[:, None, None], x, scale[:, :, None, None])
        return limited(F.leaky_relu(self.noise(x, GAIN), LEAK))


class ToImage(nn.Module):
    """Features to the image's channels: a modulated 1×1 convolution without demodulation, and a bias."""

    def __init__(self, inputs: int, channels: int, w_dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(channels, inputs, 1, 1))
        self.style = EqualizedLinear(w_dim, inputs, gain=1.0)
        nn.init.ones_(self.style.bias)  # type: ignore[arg-type]
        self.bias = nn.Parameter(torch.zeros(channels))
        self.gain = 1 / math.sqrt(inputs)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[B, inputs, H, W] and w [B, w_dim] -> [B, channels, H, W], in float32 at least: images are sums of them."""
        return self.scaled(x, w, 1.0)

    def scaled(self, x: Tensor, w: Tensor, factor: Tensor | float) -> Tensor:
        """The same of features times a factor."""
        # With so few outputs, weights for each sample cost less than scaling the features.
        weight = (self.style(w) * (self.gain * factor))[:, None] * self.weight.flatten(1)
        image = x.permute(0, 2, 3, 1).flatten(1, 2) @ weight.to(x.dtype).transpose(1, 2) + self.bias.to(x.dtype)
        wide: Tensor = limited(image).to(torch.promote_types(image.dtype, torch.float32))
        return wide.unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call, no-any-return]


def limited(x: Tensor) -> Tensor:
    """Activations within ±256 in float16, in which they could overflow; unchanged in other types."""
    return x.clamp(-LIMIT, LIMIT) if x.dtype == torch.float16 else x
