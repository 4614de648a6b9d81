"""Convolutions of kernel 4 that halve or double an image, as DCGAN, pix2pix and their kin have them."""

from __future__ import annotations

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
