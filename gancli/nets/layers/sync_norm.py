"""Batch norm with statistics of the whole batch over all ranks; torch's SyncBatchNorm does not support CPUs."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from gancli.compute.dist import World, all_reduce


def ranks() -> int:
    """The number of ranks."""
    return World.of_group().size


def normalise(x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """(x - mean) / sqrt(var + eps) per channel over all ranks' batches, [B, C, ...], which may differ in size.

    Computed in float32 at least. Also returns, without gradients, the mean and (biased) variance, [C], and the number
    of values per channel, a scalar.
    """
    normed, mean, var, count = _Normalise.apply(x if x.dtype == torch.float64 else x.float(), eps)
    return normed, mean, var, count


class _Normalise(torch.autograd.Function):
    """The normalisation: two small all-reduces forward (means, then squared deviations) and one backward."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        axes = _all_but_channels(x)
        own = x.new_tensor(float(x.numel() // x.shape[1]))
        mean = x.mean(axes) if x.numel() else x.new_zeros(x.shape[1])
        # Squared deviations from a rank's own mean, combined by Chan's formula: no difference of large numbers.
        spread = (x - _to(mean, x)).square().sum(axes)
        packed = torch.cat([own.view(1), own * mean])
        all_reduce(packed)
        count, joint = packed[0], packed[1:] / packed[0]
        spread = spread + own * (mean - joint).square()
        all_reduce(spread)
        var = spread / count
        scale = (var + eps).rsqrt()
        normed = (x - _to(joint, x)) * _to(scale, x)
        ctx.save_for_backward(normed, scale, count)
        ctx.mark_non_differentiable(joint, var, count)
        return normed, joint, var, count

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor, *_: Any) -> tuple[Tensor, None]:
        normed, scale, count = ctx.saved_tensors
        axes = _all_but_channels(grad)
        sums = torch.cat([grad.sum(axes), (grad * normed).sum(axes)])
        all_reduce(sums)
        along, across = (sums / count).chunk(2)
        return _to(scale, grad) * (grad - _to(along, grad) - normed * _to(across, grad)), None


def _all_but_channels(x: Tensor) -> list[int]:
    return [0, *range(2, x.dim())]


def _to(channels: Tensor, like: Tensor) -> Tensor:
    """Reshape [C] to broadcast over [B, C, ...]."""
    return channels.view(1, -1, *[1] * (like.dim() - 2))
