"""Convolutions with reflection padding, with the fastest CPU kernel for their size."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import few_channels, winograd
from gancli.nets.layers.matmul import by_hand


class ReflectConv2d(nn.Conv2d):
    """A convolution with reflection padding that keeps the size of images."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True):
        super().__init__(inputs, outputs, kernel, bias=bias)
        self._shared: list[Tensor] | None = None  # the transformed weight U, inside `once`

    def arrange(self) -> None:
        """Store the weight with its taps first if forward needs that order, which avoids a copy in each pass."""
        if self.weight.device.type == "cpu" and winograd.pays(self.weight):
            self.weight.data = self.weight.data.permute(2, 3, 0, 1).contiguous().permute(2, 3, 0, 1)

    def forward(self, input: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W]."""
        k = self.kernel_size[0]
        padded = F.pad(input, [k // 2] * 4, mode="reflect")
        ordered = padded.is_contiguous(memory_format=torch.channels_last) and padded.dtype == self.weight.dtype
        ours = ordered and by_hand(padded)
        if ours and few_channels.pays(self.weight):
            out = few_channels.convolve(padded, self.weight)
        elif ours and winograd.pays(self.weight) and winograd.whole(padded):
            out = winograd.tiled(padded, self._factor())
        else:
            return F.conv2d(padded, self.weight, self.bias)
        return out if self.bias is None else out + self.bias[:, None, None]

    def _factor(self) -> Tensor:
        if self._shared is None:
            return winograd.factor(self.weight)
        if not self._shared:
            self._shared.append(winograd.factor(self.weight))
        return self._shared[0]


@contextmanager
def once(*nets: nn.Module) -> Iterator[None]:
    """In this context, each layer transforms its weight only once for all passes; weights must not change inside.

    The transform's gradient is computed once, for the sum of all passes.
    """
    layers = [module for net in nets for module in net.modules() if isinstance(module, ReflectConv2d)]
    for layer in layers:
        layer._shared = []
    try:
        yield
    finally:
        for layer in layers:
            layer._shared = None
