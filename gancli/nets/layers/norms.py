"""Normalisation layers with one signature, forward(x, y), so that conditional ones are interchangeable with others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.nets.layers import sync_norm
from gancli.nets.layers.linear import Embedding
from gancli.nets.layers.minibatch import MinibatchDeviation, MinibatchDiscrimination, VirtualBatchNorm
from gancli.nets.layers.recipe import Recipe

Kind = Literal["batch", "layer", "virtual", "none"]
Norm = Callable[[int], nn.Module]


class AcrossRanks(_BatchNorm):
    """Batch norm with statistics over the batches of all ranks, if set by `share_statistics`."""

    across = False

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each channel over batch and pixels; the labels are ignored."""
        if not (self.across and self.training and sync_norm.ranks() > 1):
            return super().forward(input)
        out, mean, var, count = sync_norm.normalise(input, self.eps)
        self._track(mean, var * count / (count - 1))
        if self.weight is not None:
            shape = (-1, *[1] * (input.dim() - 2))
            out = torch.addcmul(self.bias.view(shape), out, self.weight.view(shape))
        return out.to(input.dtype)

    @torch.no_grad()
    def _track(self, mean: Tensor, var: Tensor) -> None:
        """Update the running statistics as torch does: by the momentum, or as a plain mean if it is None."""
        if self.running_mean is None or self.running_var is None or self.num_batches_tracked is None:
            return
        self.num_batches_tracked += 1
        share = 1 / self.num_batches_tracked.to(mean) if self.momentum is None else mean.new_tensor(self.momentum)
        self.running_mean.lerp_(mean, share)
        self.running_var.lerp_(var, share)


class BatchNorm2d(AcrossRanks, nn.BatchNorm2d):
    """Batch normalisation of images, [B, C, H, W]."""


class BatchNorm1d(AcrossRanks, nn.BatchNorm1d):
    """Batch normalisation of vectors, [B, C]."""


def share_statistics(net: nn.Module, across: bool = True) -> None:
    """Let every layer with batch statistics use the batch of all ranks in training, or only its own again."""
    for module in net.modules():
        if isinstance(module, (AcrossRanks, MinibatchDiscrimination, MinibatchDeviation)):
            module.across = across


class LabelBatchNorm2d(BatchNorm2d):
    """Batch norm with a gain and a bias per class, looked up by label (Dumoulin et al. 2017; Miyato and Koyama 2018).

    2 · classes · channels parameters; gains start at 1, biases at 0.
    """

    def __init__(self, channels: int, classes: int, *, eps: float = 1e-5, momentum: float | None = 0.1):
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)
        self.gain = Embedding(classes, channels, init=nn.init.ones_)
        self.shift = Embedding(classes, channels, init=nn.init.zeros_)

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, C, H, W] and labels [B] (or a mixture of classes [B, classes])."""
        assert y is not None, "a class-conditional norm without labels"
        return modulate(super().forward(input), self.gain(y), self.shift(y))


class LinearBatchNorm2d(BatchNorm2d):
    """Batch norm whose gain, 1 + Ac, and bias, Bc, are linear in a condition c, [B, condition] (Brock et al. 2019).

    2 · condition · channels parameters.
    """

    def __init__(
        self, channels: int, condition: int, recipe: Recipe, *, eps: float = 1e-5, momentum: float | None = 0.1
    ):
        super().__init__(channels, eps=eps, momentum=momentum, affine=False)
        self.gain = recipe.linear(condition, channels, bias=False)
        self.shift = recipe.linear(condition, channels, bias=False)

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, C, H, W] and conditions [B, condition]."""
        assert y is not None, "a conditional norm without a condition"
        return modulate(super().forward(input), 1 + self.gain(y), self.shift(y))


class LayerNorm(nn.GroupNorm):
    """Normalises each sample over all its values, with gain and bias per channel (Gulrajani et al. 2017)."""

    def __init__(self, channels: int):
        super().__init__(1, channels)

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Normalise each sample, [B, C, ...]."""
        return super().forward(input)


class NoNorm(nn.Module):
    """The identity; returns the input itself, not a copy."""

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """Return the input."""
        return input


def modulate(x: Tensor, gain: Tensor, shift: Tensor) -> Tensor:
    """gain · x + shift per sample and channel: x [B, C, H, W], gain and shift [B, C]."""
    return torch.addcmul(shift[:, :, None, None], x, gain[:, :, None, None])


def norm(kind: Kind, *, flat: bool = False, eps: float = 1e-5, momentum: float = 0.1) -> Norm:
    """A factory of norms, channels -> module; `flat` for vectors.

    eps and momentum (the new batch's weight in the running statistics) apply to batch norm.
    """

    def build(channels: int) -> nn.Module:
        if kind == "none":
            return NoNorm()
        if kind == "layer":
            return LayerNorm(channels)
        if kind == "virtual":
            return VirtualBatchNorm(channels)
        return (BatchNorm1d if flat else BatchNorm2d)(channels, eps=eps, momentum=momentum)

    return build
