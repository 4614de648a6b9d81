"""Convolutions on a CPU as matrix products, if that is faster than the library's kernels.

Those kernels first reorder every weight, forward and backward. In layers with many weights and few pixels (1024
channels at 4×4) that costs more than the convolution. A product of patches and weights needs no reordering: its order,
outputs, taps, inputs, is that of channels-last weights. For the weights' gradient the product is faster in more cases,
since the library accumulates it slowly.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

# Rows of patches, in multiples of the outputs, up to which products are faster: for whole convolutions and for the
# weights' gradient. Measured; with AVX-512 the library's gradients are faster.
WHOLE, GRADIENT = (1, 4) if torch.backends.cpu.get_cpu_capability() == "AVX512" else (2, 32)


def convolve(x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int = 1, pad: int = 1) -> Tensor:
    """F.conv2d: x [B, I, H, W], kernel [O, I, k, k] -> [B, O, h, w], with h = (H + 2·pad - k) // stride + 1."""
    if not _pays(x, kernel):
        return F.conv2d(x, kernel, bias, stride, pad)
    out: Tensor = _Convolution.apply(x, kernel, bias, stride, pad)
    return out


def convolve_up(x: Tensor, kernel: Tensor, bias: Tensor | None, pad: int = 1) -> Tensor:
    """F.conv_transpose2d with stride 2 and a kernel [O, I, k, k]: outputs first, unlike torch's."""
    if not _pays(x, kernel):
        return F.conv_transpose2d(x, _inputs_first(kernel), bias, 2, pad)
    out: Tensor = _Upward.apply(x, kernel, bias, pad)
    return out


def pointwise(x: Tensor, kernel: Tensor, bias: Tensor | None) -> Tensor:
    """F.conv2d with a 1×1 kernel [O, I, 1, 1]; on channels-last images a product without a copy."""
    if x.device.type != "cpu" or not x.is_contiguous(memory_format=torch.channels_last):
        return F.conv2d(x, kernel, bias)
    return F.linear(x.permute(0, 2, 3, 1), kernel.flatten(1), bias).permute(0, 3, 1, 2)


def by_hand(x: Tensor) -> bool:
    """Whether this package's kernels may be used: on a CPU, unless the network is compiled or exported.

    A compiler generates its own kernels, and an export cannot choose by the batch size.
    """
    compiled = torch.compiler.is_compiling() or exporting()
    return x.device.type == "cpu" and not torch.is_autocast_enabled("cpu") and not compiled


def _pays(x: Tensor, kernel: Tensor) -> bool:
    """Whether products can be faster: channels-last weights of the images' dtype."""
    return by_hand(x) and kernel.is_contiguous(memory_format=torch.channels_last) and x.dtype == kernel.dtype


def exporting() -> bool:
    """Whether a network is being exported (torch.export), not run."""
    return bool(getattr(torch.compiler, "is_exporting", bool)())


def _images(like: Tensor, shape: Sequence[int]) -> Tensor:
    """Uninitialised images in channels-last format."""
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


def _sides(shape: Sequence[int], k: int, stride: int, pad: int) -> tuple[int, int]:
    """The output sides of a convolution of images of this shape."""
    height, width = shape[2:]
    return (height + 2 * pad - k) // stride + 1, (width + 2 * pad - k) // stride + 1


def _patches(x: Tensor, k: int, stride: int, pad: int) -> Tensor:
    """The input patch of each output pixel of a padded convolution: [B, C, H, W] -> [B·h·w, k·k·C]."""
    b, c = x.shape[:2]
    h, w = _sides(x.shape, k, stride, pad)
    padded = F.pad(x, [pad] * 4).permute(0, 2, 3, 1)
    taps = [padded[:, i : i + stride * h : stride, j : j + stride * w : stride] for i in range(k) for j in range(k)]
    return torch.stack(taps, 3).view(b * h * w, k * k * c)


def _unpatched(patches: Tensor, shape: torch.Size, k: int, stride: int, pad: int) -> Tensor:
    """The adjoint of `_patches`: adds every patch at its position, [B·h·w, k·k·C] -> [B, C, H, W]."""
    b, c, height, width = shape
    h, w = _sides(shape, k, stride, pad)
    taps = patches.view(b, h, w, k, k, c)
    padded = patches.new_zeros(b, height + 2 * pad, width + 2 * pad, c)
    for i in range(k):
        for j in range(k):
            padded[:, i : i + stride * h : stride, j : j + stride * w : stride] += taps[:, :, :, i, j]
    return padded[:, pad : height + pad, pad : width + pad].permute(0, 3, 1, 2)


class _Convolution(torch.autograd.Function):
    """A padded convolution; each of its three products uses the faster method. Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, stride: int, pad: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.stride, ctx.pad, ctx.biased = stride, pad, bias is not None
        outputs, _, k, _ = kernel.shape
        h, w = _sides(x.shape, k, stride, pad)
        ctx.rows = len(x) * h * w
        if ctx.rows > WHOLE * outputs:
            return F.conv2d(x, kernel, bias, stride, pad)
        patches, matrix = _patches(x, k, stride, pad), _matrix(kernel).t()
        out = _images(x, (len(x), outputs, h, w))  # not a view of the product, since callers add to it in place
        rows = out.permute(0, 2, 3, 1).view(-1, outputs)
        torch.mm(patches, matrix, out=rows) if bias is None else torch.addmm(bias, patches, matrix, out=rows)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None, None]:
        x, kernel = ctx.saved_tensors
        stride, pad, k, outputs = ctx.stride, ctx.pad, kernel.shape[2], len(kernel)
        gx = gk = None
        if ctx.needs_input_grad[0]:
            if ctx.rows > WHOLE * outputs:
                gx = _conv_backward(grad, x, kernel, stride, pad, [True, False, False])[0]
            else:
                gx = _unpatched(rows(grad) @ _matrix(kernel), x.shape, k, stride, pad)
        if ctx.needs_input_grad[1]:
            if ctx.rows > GRADIENT * outputs:
                gk = _conv_backward(grad, x, kernel, stride, pad, [False, True, False])[1]
            else:
                gk = _kernel(rows(grad).t() @ _patches(x, k, stride, pad), kernel)
        return gx, gk, grad.sum((0, 2, 3)) if ctx.biased and ctx.needs_input_grad[2] else None, None, None


class _Upward(torch.autograd.Function):
    """A transposed convolution of stride 2: the adjoint of `_Convolution` in x."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, kernel: Tensor, bias: Tensor | None, pad: int) -> Tensor:
        ctx.save_for_backward(x, kernel)
        ctx.biased, ctx.pad = bias is not None, pad
        b, inputs, height, width = x.shape
        outputs, _, k, _ = kernel.shape
        ctx.rows = b * height * width
        if ctx.rows > WHOLE * outputs:
            return F.conv_transpose2d(x, _inputs_first(kernel), bias, 2, pad)
        # What each pixel adds to its k×k surroundings; patches are few here, so they are reordered, not the weights.
        patches = rows(x) @ _matrix(kernel).view(outputs * k * k, inputs).t()
        by_tap = patches.view(ctx.rows, outputs, k * k).transpose(1, 2).reshape(ctx.rows, -1)
        reach = k - 2 - 2 * pad
        shape = torch.Size((b, outputs, 2 * height + reach, 2 * width + reach))
        parts, out = _unpatched(by_tap, shape, k, 2, pad), _images(x, shape)
        return out.copy_(parts) if bias is None else torch.add(parts, bias[:, None, None], out=out)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, kernel = ctx.saved_tensors
        outputs, inputs, k, _ = kernel.shape
        pad, gx, gk = ctx.pad, None, None
        if ctx.rows <= WHOLE * outputs:
            patches = _patches(grad, k, 2, pad).view(ctx.rows, k * k, outputs).transpose(1, 2).reshape(ctx.rows, -1)
            if ctx.needs_input_grad[0]:
                gx = patches @ _matrix(kernel).view(outputs * k * k, inputs)
                gx = gx.view(len(x), *x.shape[2:], inputs).permute(0, 3, 1, 2)
            if ctx.needs_input_grad[1]:
                gk = _kernel(patches.t() @ rows(x), kernel)
        else:
            if ctx.needs_input_grad[0]:
                gx = F.conv2d(grad, _inputs_first(kernel), None, 2, pad)
            if ctx.needs_input_grad[1] and ctx.rows <= GRADIENT * outputs:
                gk = (_patches(grad, k, 2, pad).t() @ rows(x)).view(k, k, outputs, inputs).permute(2, 3, 0, 1)
            elif ctx.needs_input_grad[1]:
                mask = [False, True, False]
                gk = _conv_backward(grad, x, _inputs_first(kernel), 2, pad, mask, True)[1].transpose(0, 1)
        return gx, gk, grad.sum((0, 2, 3)) if ctx.biased and ctx.needs_input_grad[2] else None, None


def _inputs_first(kernel: Tensor) -> Tensor:
    """[O, I, k, k] as torch's transposed convolution expects it, [I, O, k, k] in channels-last."""
    return kernel.transpose(0, 1).contiguous(memory_format=torch.channels_last)


def _conv_backward(
    grad: Tensor, x: Tensor, kernel: Tensor, stride: int, pad: int, mask: list[bool], transposed: bool = False
) -> tuple[Tensor, Tensor, Tensor]:
    """The library's gradients of a padded convolution: of x, the kernel and the bias, those that `mask` selects."""
    found: tuple[Tensor, Tensor, Tensor] = torch.ops.aten.convolution_backward(
        grad, x, kernel, None, [stride] * 2, [pad] * 2, [1, 1], transposed, [0, 0], 1, mask
    )
    return found
