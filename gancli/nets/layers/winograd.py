"""3×3 convolutions of many channels with 2.25 times fewer multiplications (Winograd F(2×2, 3×3): Lavin and Gray 2016).

A tile of 4×4 inputs gives 2×2 outputs: y = Aᵀ [(G w Gᵀ) ⊙ (Bᵀ x B)] A for each pair of channels, so that all tiles and
channels together are 16 matrix products. The entries of A, B and G are 0, ±1 and ±1/2, so it is as accurate as a direct
convolution.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

NARROWEST = 256  # channels from which it is faster; measured
AT_ONCE = 128  # tiles; measured


def _square(line: list[list[float]]) -> Tensor:
    """The transform along both sides, from that along one side."""
    return torch.kron(torch.tensor(line), torch.tensor(line))


_WEIGHTS = _square([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # G, along both sides
_INPUTS = _square([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, 1, 0, -1]])  # Bᵀ
_OUTPUTS = _square([[1.0, 1, 1, 0], [0, 1, -1, -1]])  # Aᵀ


def pays(weight: Tensor) -> bool:
    """Whether this is faster than the library's kernels."""
    outputs, inputs, k, _ = weight.shape
    return k == 3 and min(outputs, inputs) >= NARROWEST


def whole(x: Tensor) -> bool:
    """Whether images, including their padding, consist of whole tiles."""
    return x.shape[-1] % 2 == x.shape[-2] % 2 == 0


def tiled(x: Tensor, u: Tensor) -> Tensor:
    """Convolve x [B, I, H, W] with a transformed weight U [16, O, I]."""
    out: Tensor = _Tiles.apply(x, u)
    return out


def convolve(x: Tensor, weight: Tensor) -> Tensor:
    """F.conv2d without padding and bias: x [B, I, H, W] with even sides, weight [O, I, 3, 3]."""
    return tiled(x, factor(weight))


def factor(weight: Tensor) -> Tensor:
    """Transform a kernel [O, I, 3, 3] to U, [16, O, I]."""
    outputs, inputs = weight.shape[:2]
    taps = weight.permute(2, 3, 0, 1).reshape(9, outputs * inputs)
    return (_WEIGHTS.to(weight) @ taps).view(16, outputs, inputs)


class _Tiles(torch.autograd.Function):
    """The products of x [B, I, H, W] and U [16, O, I]: [B, O, H - 2, W - 2]. Differentiable any number of times."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor) -> Tensor:
        ctx.save_for_backward(x, u)  # tiles are four times as large; recomputing them in backward is no slower
        outs = [_assembled(torch.bmm(_tiles(part), u.transpose(1, 2)), part.shape) for part in _parts(x)]
        return outs[0] if len(outs) == 1 else torch.cat(outs)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, Tensor | None]:
        x, u = ctx.saved_tensors
        if torch.is_grad_enabled():  # higher-order gradients are requested
            both: tuple[Tensor, Tensor] = _TilesBackward.apply(x, u, grad)
            return both
        return _gradients(x, u, grad, ctx.needs_input_grad)


def _gradients(x: Tensor, u: Tensor, grad: Tensor, needed: tuple[bool, bool]) -> tuple[Tensor | None, Tensor | None]:
    found, gu = [], torch.zeros_like(u) if needed[1] else None
    for part, g in zip(_parts(x), torch.split(grad, len(_parts(x)[0])), strict=True):
        spread = _spread(g)
        if needed[0]:
            found.append(_untiled(torch.bmm(spread, u), part.shape))
        if gu is not None:
            gu.baddbmm_(spread.transpose(1, 2), _tiles(part))
    return (torch.cat(found) if len(found) > 1 else found[0]) if found else None, gu


def _parts(x: Tensor) -> tuple[Tensor, ...]:
    """Split images into parts whose tiles fit a core's cache."""
    _, down, across = _counts(x.shape)
    return torch.split(x, max(1, AT_ONCE // (down * across)))


class _TilesBackward(torch.autograd.Function):
    """Both gradients; each is bilinear in x or U and the output gradient, so their gradients are the same products."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, u: Tensor, grad: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x, u, grad)
        gx, gu = _gradients(x, u, grad, (True, True))
        assert gx is not None
        assert gu is not None
        return gx, gu

    @staticmethod
    def backward(ctx: Any, ggx: Tensor, ggu: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """⟨gx, a⟩ + ⟨gu, b⟩ = ⟨g, conv(a, U)⟩ + ⟨g, conv(x, b)⟩, differentiated with respect to x, U and g."""
        x, u, grad = ctx.saved_tensors
        by_x: Tensor = _TilesBackward.apply(x, ggu, grad)[0]
        by_u: Tensor = _TilesBackward.apply(ggx, u, grad)[1]
        return by_x, by_u, tiled(ggx, u) + tiled(x, ggu)


def _counts(shape: torch.Size) -> tuple[int, int, int]:
    """The number of images, of tiles per column and of tiles per row."""
    return shape[0], shape[2] // 2 - 1, shape[3] // 2 - 1


def _tiles(x: Tensor) -> Tensor:
    """Bᵀ d B of each 4×4 tile d, two pixels apart: [B, C, H, W] -> [16, tiles, C]."""
    tiles = x.permute(0, 2, 3, 1).unfold(1, 4, 2).unfold(2, 4, 2).permute(4, 5, 0, 1, 2, 3)
    return (_INPUTS.to(x) @ tiles.reshape(16, -1)).view(16, -1, x.shape[1])


def _untiled(tiles: Tensor, shape: torch.Size) -> Tensor:
    """The adjoint of `_tiles`: adds tiles at their positions, each as four blocks of 2×2 pixels."""
    (b, down, across), channels = _counts(shape), shape[1]
    blocks = (_INPUTS.to(tiles).t() @ tiles.view(16, -1)).view(2, 2, 2, 2, b, down, across, channels)
    found = tiles.new_zeros(b, down + 1, 2, across + 1, 2, channels)
    for i in range(2):
        for j in range(2):
            found[:, i : i + down, :, j : j + across] += blocks[i, :, j].permute(2, 3, 0, 4, 1, 5)
    return found.view(b, shape[2], shape[3], channels).permute(0, 3, 1, 2)


def _assembled(products: Tensor, shape: torch.Size) -> Tensor:
    """Aᵀ m A of each tile of products [16, tiles, O], assembled to [B, O, H - 2, W - 2]."""
    (b, down, across), outputs = _counts(shape), products.shape[-1]
    tiles = (_OUTPUTS.to(products) @ products.view(16, -1)).view(2, 2, b, down, across, outputs)
    return tiles.permute(2, 3, 0, 4, 1, 5).reshape(b, 2 * down, 2 * across, outputs).permute(0, 3, 1, 2)


def _spread(grad: Tensor) -> Tensor:
    """The adjoint of `_assembled`: [B, O, H - 2, W - 2] -> [16, tiles, O]."""
    b, outputs, height, width = grad.shape
    tiles = grad.permute(0, 2, 3, 1).reshape(b, height // 2, 2, width // 2, 2, outputs).permute(2, 4, 0, 1, 3, 5)
    return (_OUTPUTS.to(grad).t() @ tiles.reshape(4, -1)).view(16, -1, outputs)
