"""The low-pass filter of StyleGAN 2, [1, 3, 3, 1] in both directions, alone and with resampling (Karras et al. 2020).

Zeros between pixels, filtered with [1, 1], are nearest-neighbour upsampling; so [1, 3, 3, 1] = [1, 1] * [1, 2, 1] after
inserting zeros is the binomial filter after nearest-neighbour upsampling.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.nets.layers.blur import blurred
from gancli.nets.layers.matmul import by_hand, exporting

TAPS = 4  # [1, 3, 3, 1]; its adjoint is itself


def smoothed(x: Tensor, pad: int, gain: float = 1.0) -> Tensor:
    """Filter each channel, zero-padded by `pad` on all sides: [B, C, H, W] -> [B, C, H + 2·pad - 3, W + 2·pad - 3].

    gain: the sum of the filter.

    >>> smoothed(torch.ones(1, 1, 4, 4), 0).item(), smoothed(torch.ones(1, 1, 1, 1), 3)[0, 0, 0].mul(64).tolist()
    (1.0, [1.0, 3.0, 3.0, 1.0])
    """
    if _traced():
        return _filter(x, pad, gain)
    out: Tensor = _Smoothed.apply(x, pad, gain)
    return out


def upsampled(x: Tensor) -> Tensor:
    """Double the sides: zeros between pixels, then the filter with sum 4. [B, C, H, W] -> [B, C, 2H, 2W].

    >>> upsampled(torch.ones(1, 1, 3, 3))[0, 0, 2].tolist()
    [0.75, 1.0, 1.0, 1.0, 1.0, 0.75]
    """
    if _traced():
        return _doubled(x)
    out: Tensor = _Resampled.apply(x, True)
    return out


def downsampled(x: Tensor) -> Tensor:
    """Filter, then keep every second pixel: [B, C, H, W] -> [B, C, H // 2, W // 2].

    >>> downsampled(torch.ones(1, 1, 6, 6))[0, 0, 1].tolist()
    [0.875, 1.0, 0.875]
    """
    if _traced() or x.shape[2] % 2 or x.shape[3] % 2:
        return _halved(x)
    out: Tensor = _Resampled.apply(x, False)
    return out


def _traced() -> bool:
    """Whether a network is being compiled or exported, which takes plain operations only."""
    return torch.compiler.is_compiling() or exporting()


def _doubled(x: Tensor) -> Tensor:
    return blurred(F.interpolate(x, scale_factor=2.0, mode="nearest"))


def _halved(x: Tensor) -> Tensor:
    # The pixels to keep are the mean of two of the image filtered with [1, 2, 1], so only these are computed.
    return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 2, 1), 2)


def _filter(x: Tensor, pad: int, gain: float) -> Tensor:
    if not by_hand(x):  # no tensor is made here, which on a GPU would wait for the device
        x = F.pad(x, [pad] * 4)
        return F.avg_pool2d(F.avg_pool2d(F.avg_pool2d(x, 2, 1), 2, 1), 2, 1) * gain
    line = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=x.dtype)
    kernel = (line[:, None] * line) * (gain / 64)
    channels = x.shape[1]
    return F.conv2d(x, kernel.expand(channels, 1, TAPS, TAPS), padding=pad, groups=channels)


# Gradients of all orders are filters again; the library's second derivatives take up to six times as long.


class _Smoothed(torch.autograd.Function):
    """The filter; its adjoint is the filter with the complementary padding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, pad: int, gain: float) -> Tensor:
        ctx.pad, ctx.gain = pad, gain
        return _filter(x, pad, gain)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Smoothed.apply(grad, TAPS - 1 - ctx.pad, ctx.gain), None, None


class _Resampled(torch.autograd.Function):
    """Doubling or, for even sides, halving: the adjoint of doubling is four times halving."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, up: bool) -> Tensor:
        ctx.up = up
        return _doubled(x) if up else _halved(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        out: Tensor = _Resampled.apply(grad, not ctx.up)
        return out * (4 if ctx.up else 1 / 4), None
