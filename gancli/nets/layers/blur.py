"""The binomial filter [1, 2, 1] / 4 in both directions, a low-pass before or after resampling (Zhang 2019)."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def blurred(x: Tensor) -> Tensor:
    """Filter each channel with [1, 2, 1] ⊗ [1, 2, 1] / 16, zero-padded: [B, C, H, W] -> the same.

    >>> import torch
    >>> blurred(torch.ones(1, 1, 3, 3)).mul(16)[0, 0].tolist()
    [[9.0, 12.0, 9.0], [12.0, 16.0, 12.0], [9.0, 12.0, 9.0]]
    """
    # [1, 2, 1] is [1, 1] twice, and pooling is faster on a CPU than a convolution of single channels.
    return F.avg_pool2d(F.avg_pool2d(x, 2, 1, 1), 2, 1)
