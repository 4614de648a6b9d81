"""Convolutions of image translation: of kernel 4 that halve or double an image, and with mirrored borders."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import products


class Patchwise(nn.Conv2d):
    """A convolution of kernel 4 and padding 1, [B, I, H, W] -> [B, O, H / stride, W / stride] for even sides.

    Of stride 1 it takes one pixel off each side.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 2, bias: bool = True):
        super().__init__(inputs, outputs, 4, stride, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """As a product of patches where that is faster."""
        return products.convolve(input, self.weight, self.bias, self.stride[0])


class Double(nn.Conv2d):
    """A transposed convolution of kernel 4, stride 2 and padding 1, [B, I, H, W] -> [B, O, 2H, 2W].

    Its weight is [O, I, 4, 4], outputs first, unlike torch's.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        super().__init__(inputs, outputs, 4, 2, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """As a product of patches where that is faster."""
        return products.convolve_up(input, self.weight, self.bias)


class Mirrored(nn.Conv2d):
    """A convolution that keeps the size of images, which are mirrored at their borders (reflection padding)."""

    def __init__(self, inputs: int, outputs: int, kernel: int, *, bias: bool = True):
        super().__init__(inputs, outputs, kernel, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """[B, I, H, W] -> [B, O, H, W]."""
        padded = F.pad(input, [self.kernel_size[0] // 2] * 4, mode="reflect")
        return products.convolve(padded, self.weight, self.bias, padding=0)
