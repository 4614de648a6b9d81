"""Normalisation layers behind one signature, forward(x, y), so that a class-conditional one can take their place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from torch import Tensor, nn

Kind = Literal["batch", "layer", "none"]
Norm = Callable[[int], nn.Module]


class BatchNorm2d(nn.BatchNorm2d):
    """Batch normalisation of images, [B, C, H, W]; the labels are ignored."""

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each channel over batch and pixels."""
        return super().forward(input)


class BatchNorm1d(nn.BatchNorm1d):
    """Batch normalisation of vectors, [B, C]; the labels are ignored."""

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each number over the batch."""
        return super().forward(input)


class LayerNorm(nn.GroupNorm):
    """Normalisation of each sample over all its numbers, gain and bias by channel (Gulrajani et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__(1, channels)

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each sample, [B, C, ...]."""
        return super().forward(input)


class NoNorm(nn.Module):
    """The input itself, not a copy."""

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the input."""
        return input


def norm(kind: Kind, *, flat: bool = False, eps: float = 1e-5, momentum: float = 0.1) -> Norm:
    """A factory of norms, channels -> module; `flat` for vectors.

    eps and momentum (the new batch's share in the running statistics) are batch norm's.
    """

    def build(channels: int) -> nn.Module:
        if kind == "none":
            return NoNorm()
        if kind == "layer":
            return LayerNorm(channels)
        return (BatchNorm1d if flat else BatchNorm2d)(channels, eps=eps, momentum=momentum)

    return build
