"""Layers with an equalised learning rate: weights start as N(0, 1) and are scaled whenever they are used.

The scale gain / sqrt(fan in) is He's initialisation applied at run time, so that Adam, whose steps do not depend on the
gradient's scale, trains all layers at the same relative speed (Karras et al. 2018, section 4.1).
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import matmul
from gancli.nets.layers.conv import Conv, Resample
from gancli.nets.layers.init import normal

GAIN = math.sqrt(2)  # of layers before a LeakyReLU
LEAK = 0.2
PIXEL_EPS = 1e-8
BATCH = 8  # rows for which scaling the input costs less than scaling the weight


class EqualizedConv(Conv):
    """A convolution that keeps, doubles or halves the image, with weights scaled by gain / sqrt(fan in).

    As `Conv`: "up" is nearest ×2 before the convolution, "down" a 2×2 mean after it, before the bias.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        resample: Resample = None,
        gain: float = GAIN,
        bias: bool = True,
    ):
        super().__init__(inputs, outputs, kernel, resample=resample, init=normal(1.0), bias=bias)
        self.scale = gain / math.sqrt(inputs * kernel**2)

    def normalised(self) -> Tensor:
        """The scaled weight."""
        return self.weight * self.scale

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], doubled for "up", halved for "down"."""
        return super().forward(x) if self.resample is not None or self.kernel == 1 else self.convolved(x)

    def convolved(self, x: Tensor, stride: int = 1, pad: int = 1) -> Tensor:
        """A 3×3 convolution of this stride and padding."""
        if x[0].numel() * BATCH > self.weight.numel():
            return matmul.convolve(x, self.normalised(), self.bias, stride, pad)
        return matmul.convolve(x * self.scale, self.weight, self.bias, stride, pad)  # few pixels, many weights


class EqualizedLinear(nn.Module):
    """x Wᵀ + b with weights scaled by gain / sqrt(inputs): [B, inputs] -> [B, outputs].

    rate: factor of the learning rate: weights start as N(0, 1 / rate²), and weights and bias are multiplied by it.
    bias: number of biases, each of which serves outputs / bias consecutive outputs; None: one per output; 0: none.
    """

    def __init__(self, inputs: int, outputs: int, *, gain: float = GAIN, rate: float = 1.0, bias: int | None = None):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, inputs) / rate)
        count = outputs if bias is None else bias
        self.bias = nn.Parameter(torch.zeros(count)) if count else None
        self.scale, self.rate = gain / math.sqrt(inputs) * rate, rate

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        out = F.linear(x * self.scale, self.weight)
        if self.bias is None:
            return out
        bias = self.bias if self.rate == 1 else self.bias * self.rate
        shared = out.shape[1] // len(bias)
        return out + (bias if shared == 1 else bias.repeat_interleave(shared)).to(out.dtype)


def pixel_norm(x: Tensor) -> Tensor:
    """Scale the vector of channels, at each pixel, to mean square 1 (Karras et al. 2018, section 4.2).

    >>> pixel_norm(torch.tensor([[3.0, 4.0]])).square().mean().item()
    1.0
    """
    return x * (x.square().mean(1, keepdim=True) + PIXEL_EPS).rsqrt()


def activated(x: Tensor) -> Tensor:
    """LeakyReLU with slope 0.2."""
    return F.leaky_relu(x, LEAK)
