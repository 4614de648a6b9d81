"""Fast convolutions with large kernels and few output channels, such as a generator's last: 7×7 from 64 to 3.

The library's kernels vectorise over output channels, of which there are too few here. Multiplying each input pixel with
all taps, and summing those of each output pixel, takes 0.6 of the time (7×7, 64 channels to 3).
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from gancli.nets.layers.matmul import rows


def pays(weight: Tensor) -> bool:
    """Whether this is faster than the library's kernels (measured)."""
    outputs, inputs, k, _ = weight.shape
    return outputs <= 4 and inputs >= 64 and k >= 5


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """F.conv2d without padding and bias: x [B, I, H, W], weight [O, I, k, k] -> [B, O, H - k + 1, W - k + 1]."""
    out: Tensor = _Few.apply(x, weight)
    return out


class _Few(torch.autograd.Function):
    """The convolution; differentiable any number of times, with the library's gradients from the second order on."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor) -> Tensor:
        ctx.save_for_backward(x, weight)
        b, inputs, height, width = x.shape
        outputs, _, k, _ = weight.shape
        each, row = k * k * outputs, width * k * k * outputs
        products = rows(x) @ weight.permute(1, 2, 3, 0).reshape(inputs, each)
        shape = (b, height - k + 1, width - k + 1, outputs, k, k)
        # Tap (u, v) of output pixel (i, j) is the product of input pixel (i + u, j + v).
        taps = products.as_strided(shape, (height * row, row, each, 1, row + k * outputs, each + outputs))
        return taps.sum((-1, -2)).permute(0, 3, 1, 2)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        b, inputs, height, width = x.shape
        outputs, _, k, _ = weight.shape
        if torch.is_grad_enabled():  # higher-order gradients are requested
            with torch.enable_grad():
                gx = F.conv_transpose2d(grad, weight) if ctx.needs_input_grad[0] else None
                gw = conv2d_weight(x, weight.shape, grad) if ctx.needs_input_grad[1] else None  # type: ignore[no-untyped-call]
            return gx, gw
        # The outputs that depend on each input pixel, starting with that of the last tap.
        wide = F.pad(grad, [k - 1] * 4).permute(0, 2, 3, 1).contiguous()
        line, row = wide.shape[2] * outputs, outputs
        shape, strides = (b, height, width, k, k, outputs), (wide.stride(0), line, row, line, row, 1)
        around = wide.as_strided(shape, strides).reshape(b * height * width, -1)
        turned = weight.flip(2, 3).permute(2, 3, 0, 1).reshape(-1, inputs)
        gx = (around @ turned).view(b, height, width, inputs).permute(0, 3, 1, 2) if ctx.needs_input_grad[0] else None
        if not ctx.needs_input_grad[1]:
            return gx, None
        return gx, (around.t() @ rows(x)).view(k, k, outputs, inputs).permute(2, 3, 0, 1).flip(2, 3)
