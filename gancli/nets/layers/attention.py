"""Self-attention over the pixels of a feature map (Zhang et al. 2019, section 3; pooled as in the released code)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.conv import Conv
from gancli.nets.layers.init import Init
from gancli.nets.layers.matmul import exporting


class Attention(nn.Module):
    """x + γ · o(softmax(θ(x)ᵀ φ(x)) g(x)): every pixel attends to all; γ starts at 0 (eq. 1 to 3).

    θ and φ have an eighth of the channels, g a half; φ and g are max-pooled 2×2, so keys are a quarter of the pixels.
    128 channels: 20,481 parameters (1×1 convolutions without bias, and γ).
    """

    def __init__(self, channels: int, *, init: Init | None = None, spectral: bool = False, eps: float = 1e-12):
        super().__init__()
        narrow, half = max(1, channels // 8), max(1, channels // 2)

        def point(inputs: int, outputs: int) -> Conv:
            return Conv(inputs, outputs, 1, bias=False, init=init, spectral=spectral, eps=eps)

        self.theta, self.phi = point(channels, narrow), point(channels, narrow)
        self.g, self.o = point(channels, half), point(half, channels)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        """[B, C, H, W] -> the same shape; H and W are even."""
        height, width = x.shape[2:]
        query, key = self._pixels(self.theta(x)), self._pixels(F.max_pool2d(self.phi(x), 2))
        value = self._pixels(F.max_pool2d(self.g(x), 2))
        # The paper's scores are plain dot products, not divided by the root of their length.
        if exporting():  # ONNX has no operator for the fused kernel
            mixed = torch.softmax(query @ key.transpose(1, 2), dim=-1) @ value
        else:
            mixed = F.scaled_dot_product_attention(query, key, value, scale=1.0)
        return torch.addcmul(x, self.gamma, self.o(mixed.transpose(1, 2).reshape(x.shape[0], -1, height, width)))

    def maps(self, x: Tensor) -> Tensor:
        """The attention maps: [B, H·W, (H/2)·(W/2)], every row with sum 1."""
        query, key = self._pixels(self.theta(x)), self._pixels(F.max_pool2d(self.phi(x), 2))
        return torch.softmax(query @ key.transpose(1, 2), dim=-1)

    @staticmethod
    def _pixels(x: Tensor) -> Tensor:
        """[B, C, H, W] -> [B, H·W, C]; without a copy in channels_last."""
        return x.flatten(2).transpose(1, 2)
