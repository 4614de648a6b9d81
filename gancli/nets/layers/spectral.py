"""Spectral normalisation: a weight divided by its largest singular value (Miyato et al. 2018, algorithm 1).

The singular vectors are buffers. They are valid from construction on, and change only by one power iteration when the
engine calls `advance` (once per move of the layer's own player): a forward pass never changes them, in training or
evaluation, so the output does not depend on how a batch is split.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, TypeGuard

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.init import Init


class Weighted(nn.Module):
    """A layer with one weight, [outputs, ...], and optional spectral norm of the weight as a matrix.

    u: [outputs] left, v: [1, ...] right singular vector (stored in the weight's shape so that both change memory format
    together); None without spectral norm. eps: of their normalisation.
    """

    weight: nn.Parameter
    u: Tensor | None
    v: Tensor | None

    def __init__(self, shape: Sequence[int], *, init: Init, spectral: bool = False, eps: float = 1e-12):
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(*shape))
        with torch.no_grad():
            init(self.weight)
        self.register_buffer("u", F.normalize(torch.randn(shape[0]), dim=0, eps=eps) if spectral else None)
        self.register_buffer("v", torch.zeros(1, *shape[1:]) if spectral else None)
        if spectral and not self.weight.is_meta:
            self.advance()

    @torch.no_grad()
    def advance(self) -> None:
        """One power iteration: v ← Wᵀu / ‖Wᵀu‖, u ← Wv / ‖Wv‖ (algorithm 1). Does nothing without spectral norm."""
        if self.u is None or self.v is None:
            return
        with full_precision(self.weight):
            matrix = as_matrix(self.weight)
            v = F.normalize(matrix.t().mv(self.u), dim=0, eps=self.eps)
            self.v.copy_(as_weight(v, like=self.weight))
            self.u.copy_(F.normalize(matrix.mv(v), dim=0, eps=self.eps))

    def sigma(self) -> Tensor:
        """uᵀWv, the estimate of the largest singular value; differentiable in W, with u and v constant. A scalar."""
        assert self.u is not None, "a layer without spectral norm"
        assert self.v is not None
        right = as_matrix(self.v, like=self.weight).squeeze(0)
        return torch.dot(self.u, as_matrix(self.weight).mv(right))

    def normalised(self) -> Tensor:
        """W / uᵀWv with spectral norm, else W itself. Never in half precision, where σ would be off by up to 1 %."""
        if self.u is None or self.v is None:
            return self.weight
        with full_precision(self.weight):
            weight: Tensor = _Divided.apply(self.weight, self.u, self.v)
            return weight


class _Divided(torch.autograd.Function):
    """W / uᵀWv. With c = <G, W> / σ², W's gradient is G / σ - c uvᵀ: two passes over W instead of five.

    Differentiable any number of times.
    """

    @staticmethod
    def forward(ctx: Any, weight: Tensor, u: Tensor, v: Tensor) -> Tensor:
        right = as_matrix(v, like=weight).squeeze(0)
        sigma = torch.dot(u, as_matrix(weight).mv(right))
        # Copies: the vectors may advance before a later backward uses these.
        ctx.save_for_backward(weight, u.clone(), right.clone(), sigma)
        return weight / sigma

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        weight, u, right, sigma = ctx.saved_tensors
        matrix, slope = as_matrix(weight), as_matrix(grad, like=weight)
        if torch.is_grad_enabled():  # higher-order gradients: σ depends on the weight
            sigma = torch.dot(u, matrix.mv(right))
        share = (slope * matrix).sum() / sigma.square()
        return as_weights(torch.addr(slope / sigma, u * -share, right), like=weight), None, None


def as_matrix(weight: Tensor, like: Tensor | None = None) -> Tensor:
    """A weight [O, ...] as a matrix [O, rest], with columns in the memory order of `like` (or its own): no copy."""
    if _channels_last(weight if like is None else like):
        weight = weight.permute(0, 2, 3, 1)
    return weight.reshape(weight.shape[0], -1)


def as_weights(matrix: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix`: [O, rest] -> [O, ...] in the order of `like`."""
    if _channels_last(like):
        return matrix.view(-1, *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)
    return matrix.view(-1, *like.shape[1:])


def as_weight(row: Tensor, like: Tensor) -> Tensor:
    """The inverse of `as_matrix` for one row: [rest] -> [1, ...]."""
    if _channels_last(like):
        return row.view(1, *like.shape[2:], like.shape[1]).permute(0, 3, 1, 2)
    return row.view(1, *like.shape[1:])


def _channels_last(weight: Tensor) -> bool:
    return weight.dim() == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=torch.channels_last)


def full_precision(tensor: Tensor) -> AbstractContextManager[Any]:
    """A context without autocast on this tensor's device."""
    return nullcontext() if tensor.is_meta else torch.autocast(tensor.device.type, enabled=False)


def is_spectral(module: nn.Module) -> TypeGuard[Weighted]:
    """Whether this module itself is a layer with spectral norm."""
    return isinstance(module, Weighted) and module.u is not None


def advance_spectral(net: nn.Module) -> None:
    """Run one power iteration in every layer of a network with spectral norm."""
    for module in net.modules():
        if is_spectral(module):
            module.advance()
