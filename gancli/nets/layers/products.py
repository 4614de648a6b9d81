"""Convolutions on a CPU as matrix products, where that is faster than the library's own kernels.

Those kernels first bring every weight into an order of their own, forward and backward. Where a layer has many weights
and few pixels (1024 channels at 4×4) that costs more than the convolution. A product of patches and weights needs no
other order than the one that channels-last weights have anyway: outputs, taps, inputs. For the weights' gradient the
product pays sooner, since the library accumulates it slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of patches, in multiples of the outputs, up to which products are faster: for whole convolutions and for the
# weights' gradient. Measured; with AVX-512 the library's own gradients are quicker than without.
WHOLE, GRADIENT = (1, 4) if torch.backends.cpu.get_cpu_capability() == "AVX512" else (2, 32)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int = 1) -> Tensor:
    """F.conv2d with padding 1: x [B, I, H, W], kernel [O, I, k, k] -> [B, O, H / stride, W / stride]."""
    if not _pays(x, kernel):
        return F.conv2d(x, kernel, bias, stride, 1)
    out: Tensor = _Convolution.apply(x, kernel, bias, stride)
    return out


def convolve_up(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """F.conv_transpose2d with stride 2 and padding 1, of a kernel [O, I, 4, 4]: outputs first, unlike torch's."""
    if not _pays(x, kernel):
        return F.conv_transpose2d(x, _inputs_first(kernel), bias, 2, 1)
    out: Tensor = _Upward.apply(x, kernel, bias)
    return out


def pointwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """F.conv2d of a 1×1 kernel [O, I, 1, 1]; on channels-last images a product without any copy."""
    if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, kernel, bias)
    return F.linear(x.permute(0, 2, 3, 1), kernel.flatten(1), bias).permute(0, 3, 1, 2)


def by_hand(x: Tensor) -> bool:
    """Whether kernels of ours may be taken: on a CPU, where nobody writes the network down in another form.

    A compiler has kernels of its own, and an export cannot choose by the batch size.
    """
    compiled = torch.compiler.is_compiling() or exporting()
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not compiled


def _pays(x: Tensor, kernel: Tensor) -> bool:
    """Whether products may pay at all: weights in channels-last order, of the images' kind."""
    return by_hand(x) and kernel.is_contiguous(memory_format=torch.channels_last) and x.dtype == kernel.dtype


def exporting() -> bool:
    """Whether a network is being written down for another program (torch.export), not run."""
    return bool(getattr(torch.compiler, "is_exporting", bool)())


def _images(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Room for images in channels-last order."""
    return torch.empty(shape, dtype=like.dtype, device=like.device, memory_format=torch.channels_last)


def rows(x: Tensor) -> Tensor:
    """[B, C, H, W] -> [B·H·W, C]; without a copy in channels-last."""
    return x.permute(0, 2, 3, 1).reshape(-1, x.shape[1])


def _matrix(kernel: Tensor) -> Tensor:
    """[O, I, k, k] -> [O, k·k·I], without a copy in channels-last."""
    return kernel.permute(0, 2, 3, 1).reshape(len(kernel), -1)


def _kernel(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `_matrix`."""
    outputs, inputs, k, _ = like.shape
    return matrix.view(outputs, k, k, inputs).permute(0, 3, 1, 2)


def _patches(x: Tensor, k: int, stride: int) -> Tensor:
    """What each output pixel of a padded convolution reads: [B, C, H, W] -> [B·h·w, k·k·C]."""
    b, c, height, width = x.shape
    h, w = (height + 2 - k) // stride + 1, (width + 2 - k) // stride + 1
    padded = F.pad(x, [1, 1, 1, 1]).permute(0, 2, 3, 1)
    taps = [padded[:, i : i + stride * h : stride, j : j + stride * w : stride] for i in range(k) for j in range(k)]
    return torch.stack(taps, 3).view(b * h * w, k * k * c)


def _unpatched(patches: Tensor, shape: torch.Size, k: int, stride: int) -> Tensor:
    """The adjoint of `_patches`: every patch is added where it was read, [B·h·w, k·k·C] -> [B, C, H, W]."""
    b, c, height, width = shape
    h, w = (height + 2 - k) // stride + 1, (width + 2 - k) // stride + 1
    taps = patches.view(b, h, w, k, k, c)
    padded = patches.new_zeros(b, height + 2, width + 2, c)
    for i in range(k):
        for j in range(k):
            padded[:, i : i + stride * h : stride, j : j + stride * w : stride] += taps[:, :, :, i, j]
    return padded[:, 1 : height + 1, 1 : width + 1].permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """A padded convolution, each of whose three products takes the faster way. Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.stride, ctx.biased = stride, bias is not None
        b, _, height, width = x.shape
        outputs, _, k, _ = kernel.shape
        h, w = (height + 2 - k) // stride + 1, (width + 2 - k) // stride + 1
        ctx.rows = b * h * w
        if ctx.rows > WHOLE * outputs:
            return F.conv2d(x, kernel, bias, stride, 1)
        patches, matrix = _patches(x, k, stride), _matrix(kernel).t()
        out = _images(x, (b, outputs, h, w))  # filled, not returned as a view of a product: callers add to it in place
        rows = out.permute(0, 2, 3, 1).view(-1, outputs)
        torch.mm(patches, matrix, out=rows) if bias is None else torch.addmm(bias, patches, matrix, out=rows)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        stride, k, outputs = ctx.stride, kernel.shape[2], len(kernel)
        gx = gk = None
        if ctx.needs_input_grad[0]:
            if ctx.rows > WHOLE * outputs:
                gx = _conv_backward(grad, x, kernel, stride, [True, False, False])[0]
            else:
                gx = _unpatched(rows(grad) @ _matrix(kernel), x.shape, k, stride)
        if ctx.needs_input_grad[1]:
            if ctx.rows > GRADIENT * outputs:
                gk = _conv_backward(grad, x, kernel, stride, [False, True, False])[1]
            else:
                gk = _kernel(rows(grad).t() @ _patches(x, k, stride), kernel)
        return gx, gk, grad.sum((0, 2, 3)) if ctx.biased and ctx.needs_input_grad[2] else None, None


class _Upward(torch.autograd.Function):
    """A transposed convolution of stride 2, kernel 4 and padding 1: the adjoint of `_Convolution` in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.biased = bias is not None
        b, inputs, height, width = x.shape
        outputs = len(kernel)
        ctx.rows = b * height * width
        if ctx.rows > WHOLE * outputs:
            return F.conv_transpose2d(x, _inputs_first(kernel), bias, 2, 1)
        # What each pixel adds to its 4×4 surroundings; patches are few here, so they change their order, not weights.
        patches = rows(x) @ _matrix(kernel).view(outputs * 16, inputs).t()
        by_tap = patches.view(ctx.rows, outputs, 16).transpose(1, 2).reshape(ctx.rows, -1)
        shape = torch.Size((b, outputs, 2 * height, 2 * width))
        parts, out = _unpatched(by_tap, shape, 4, 2), _images(x, shape)
        return out.copy_(parts) if bias is None else torch.add(parts, bias[:, None, None], out=out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, kernel = ctx.saved_tensors
        outputs, inputs = kernel.shape[:2]
        gx = gk = None
        if ctx.rows <= WHOLE * outputs:
            patches = _patches(grad, 4, 2).view(ctx.rows, 16, outputs).transpose(1, 2).reshape(ctx.rows, -1)
            if ctx.needs_input_grad[0]:
                gx = patches @ _matrix(kernel).view(outputs * 16, inputs)
                gx = gx.view(len(x), *x.shape[2:], inputs).permute(0, 3, 1, 2)
            if ctx.needs_input_grad[1]:
                gk = _kernel(patches.t() @ rows(x), kernel)
        else:
            if ctx.needs_input_grad[0]:
                gx = F.conv2d(grad, _inputs_first(kernel), None, 2, 1)
            if ctx.needs_input_grad[1] and ctx.rows <= GRADIENT * outputs:
                gk = (_patches(grad, 4, 2).t() @ rows(x)).view(4, 4, outputs, inputs).permute(2, 3, 0, 1)
            elif ctx.needs_input_grad[1]:
                gk = _conv_backward(grad, x, _inputs_first(kernel), 2, [False, True, False], True)[1].transpose(0, 1)
        return gx, gk, grad.sum((0, 2, 3)) if ctx.biased and ctx.needs_input_grad[2] else None


def _inputs_first(kernel: Tensor) -> Tensor:
    """[O, I, k, k] as torch's transposed convolution wants it, [I, O, k, k] in channels-last."""
    return kernel.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _conv_backward(
    grad: Tensor, x: Tensor, kernel: Tensor, stride: int, mask: list[bool], transposed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The library's own gradients of a padded convolution: of x and of the kernel, as the mask says."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [stride] * 2, [1, 1], [1, 1], transposed, [0, 0], 1, mask
    )
    return found
