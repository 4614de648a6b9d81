"""Instance norm that keeps the channels-last memory format.

torch's own converts images to the contiguous format, and the next convolution converts them back: a sixth of a
CycleGAN step on a CPU. Batch norm keeps the format, and instance norm is batch norm of each image by itself.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.nets.layers.matmul import by_hand


def instance_norm(x: Tensor, eps: float = 1e-5) -> Tensor:
    """Normalise each channel of each image [B, C, H, W] to mean 0 and variance 1, in the memory format of x."""
    ordered = x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous()
    if not (ordered and by_hand(x)):
        return F.instance_norm(x, eps=eps)
    out: Tensor = _PerImage.apply(x, eps)
    return out


class _PerImage(torch.autograd.Function):
    """Batch norm of each image by itself. Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, eps: float) -> Tensor:
        out, (means, scales) = torch.empty_like(x), x.new_empty(2, *x.shape[:2])
        for room in zip(torch.split(x, 1), torch.split(out, 1), means, scales, strict=True):
            torch.native_batch_norm(room[0], None, None, None, None, True, 0.0, eps, out=room[1:])
        ctx.save_for_backward(x, means, scales)
        ctx.eps = eps
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        x, means, scales = ctx.saved_tensors
        if torch.is_grad_enabled():  # higher-order gradients are requested
            return _gradient(x, grad, ctx.eps), None
        grad = grad.contiguous(memory_format=torch.channels_last)
        split = zip(torch.split(grad, 1), torch.split(x, 1), means, scales, strict=True)
        parts = [
            torch.ops.aten.native_batch_norm_backward(
                g, one, None, None, None, mean, scale, True, ctx.eps, [True, False, False]
            )[0]
            for g, one, mean, scale in split
        ]
        return (parts[0] if len(parts) == 1 else torch.cat(parts)), None


def _gradient(x: Tensor, grad: Tensor, eps: float) -> Tensor:
    """The norm's gradient with respect to x, from differentiable operations."""
    variance, mean = torch.var_mean(x, (2, 3), correction=0, keepdim=True)
    scale = (variance + eps).rsqrt()
    out = (x - mean) * scale
    along = (grad * out).mean((2, 3), keepdim=True)
    return scale * (grad - grad.mean((2, 3), keepdim=True) - out * along)
