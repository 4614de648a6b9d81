"""Convolutions of kernel 4 that halve or double an image, as in DCGAN and pix2pix."""

from __future__ import annotations

from torch import Tensor, nn

from gancli.nets.layers import matmul
from gancli.nets.layers.init import Init
from gancli.nets.layers.spectral import Weighted


class Patchwise(nn.Conv2d):
    """A convolution of kernel 4 and padding 1, [B, I, H, W] -> [B, O, H / stride, W / stride] for even sides.

    With stride 1 both sides shrink by one pixel.
    """

    def __init__(self, inputs: int, outputs: int, *, stride: int = 2, bias: bool = True):
        super().__init__(inputs, outputs, 4, stride, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Computed as a product of patches if that is faster."""
        return matmul.convolve(input, self.weight, self.bias, self.stride[0])


class Double(nn.Conv2d):
    """A transposed convolution of kernel 4, stride 2 and padding 1, [B, I, H, W] -> [B, O, 2H, 2W].

    Its weight is [O, I, 4, 4], outputs first, unlike torch's.
    """

    def __init__(self, inputs: int, outputs: int, *, bias: bool = True):
        super().__init__(inputs, outputs, 4, 2, 1, bias=bias)

    def forward(self, input: Tensor) -> Tensor:
        """Computed as a product of patches if that is faster."""
        return matmul.convolve_up(input, self.weight, self.bias)


class Spectral4(Weighted):
    """A convolution of kernel 4 with spectral norm and without bias, [B, I, H, W] -> [B, O, H / 2, W / 2].

    halve False: stride 1 without padding, so that both sides shrink by three pixels.
    """

    def __init__(self, inputs: int, outputs: int, *, halve: bool = True, init: Init):
        super().__init__((outputs, inputs, 4, 4), init=init, spectral=True)
        self.halve = halve

    def forward(self, x: Tensor) -> Tensor:
        """Computed as a product of patches if that is faster."""
        return matmul.convolve(x, self.normalised(), None, 2 if self.halve else 1, int(self.halve))
