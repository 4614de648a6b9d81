"""Convolutions with built-in doubling or halving of the image, in exact fused form.

Nearest-neighbour upsampling ×2 followed by a 3×3 convolution weights every input pixel by the sum of the taps that
cover it: one 4×4 transposed convolution of stride 2. A 3×3 convolution followed by 2×2 average pooling is one 4×4
convolution of stride 2. Both kernels are the 3×3 kernel convolved with a 2×2 box (÷ 4 for the mean). Parameters and
function are the same, with 2.25 times fewer multiplications. A 1×1 convolution commutes with both resamplings and runs
on the smaller image, at a quarter of the cost.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers import matmul
from gancli.nets.layers.init import Init, xavier
from gancli.nets.layers.spectral import Weighted, full_precision

Resample = Literal["up", "down"] | None


class Conv(Weighted):
    """A 1×1 or 3×3 convolution that keeps the image's size, with optional spectral norm and resampling.

    resample: "up" is nearest ×2 before the convolution, "down" a 2×2 mean after it. The bias starts at 0.
    """

    box: Tensor

    def __init__(
        self,
        inputs: int,
        outputs: int,
        kernel: int = 3,
        *,
        resample: Resample = None,
        bias: bool = True,
        init: Init | None = None,
        spectral: bool = False,
        eps: float = 1e-12,
    ):
        if kernel not in (1, 3):
            raise ValueError(f"kernel={kernel}: must be 1 or 3")
        super().__init__((outputs, inputs, kernel, kernel), init=init or xavier(), spectral=spectral, eps=eps)
        self.kernel, self.resample = kernel, resample
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None
        if kernel == 3 and resample:
            self.register_buffer("box", _box(resample), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H, W], doubled for "up", halved (floor) for "down"."""
        if self.kernel == 1:
            return self._pointwise(x)
        if self.resample is None:
            return matmul.convolve(x, self.normalised(), self.bias)
        if self.resample == "up":
            return matmul.convolve_up(x, self.fused(), self.bias)
        return matmul.convolve(x, self.fused(), self.bias, stride=2)

    def fused(self) -> Tensor:
        """The 4×4 kernel, [outputs, inputs, 4, 4] in channels-last order."""
        with full_precision(self.weight):
            weight = self.normalised().permute(0, 2, 3, 1).flatten(1, 2)
            kernel: Tensor = torch.matmul(self.box, weight)
            return kernel.view(len(kernel), 4, 4, -1).permute(0, 3, 1, 2)

    def _pointwise(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            x = F.avg_pool2d(x, 2)
        x = matmul.pointwise(x, self.normalised(), self.bias)
        return F.interpolate(x, scale_factor=2.0) if self.resample == "up" else x

    def extra_repr(self) -> str:
        """The text for `print(net)`."""
        outputs, inputs = self.weight.shape[:2]
        return (
            f"{inputs}, {outputs}, {self.kernel}x{self.kernel}, resample={self.resample}, spectral={self.u is not None}"
        )


def _box(resample: Literal["up", "down"]) -> Tensor:
    """The matrix [16, 9] from 9 taps to 16: full convolution with a 2×2 box.

    A transposed convolution writes tap k of the kernel to pixel 2i - 1 + k, so its kernel is reversed.
    """
    line = torch.tensor([[1.0, 0.0, 0.0], [1.0, 1.0, 0.0], [0.0, 1.0, 1.0], [0.0, 0.0, 1.0]])
    line = line.flip(0) if resample == "up" else line / 2
    return torch.kron(line, line)
