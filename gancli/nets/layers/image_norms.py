"""Norms that in evaluation use only the image's own statistics, so that its output is independent of the batch."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from gancli.nets.layers.instance import instance_norm
from gancli.nets.layers.norms import BatchNorm2d

Kind = Literal["batch", "instance"]


class InstanceNorm2d(nn.Module):
    """Normalises each channel of each image to mean 0 and variance 1, without gain and bias (Ulyanov et al. 2016)."""

    def __init__(self, channels: int, eps: float = 1e-5):
        super().__init__()
        self.channels, self.eps = channels, eps

    def forward(self, input: Tensor) -> Tensor:
        """[B, channels, H, W] -> the same."""
        return instance_norm(input, self.eps)

    def extra_repr(self) -> str:
        """The text for `print(net)`."""
        return f"{self.channels}, eps={self.eps:g}"


class ImageBatchNorm2d(BatchNorm2d):
    """Batch norm in training; in evaluation each image is normalised by its own statistics, as in a batch of one.

    No running statistics: pix2pix is trained and tested on single images (Isola et al. 2017, section 3.3).
    """

    def __init__(self, channels: int):
        super().__init__(channels, track_running_stats=False)

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, channels, H, W] -> the same; the labels are ignored."""
        if self.training:
            return super().forward(input)
        return torch.addcmul(self.bias[:, None, None], instance_norm(input, self.eps), self.weight[:, None, None])


def norm(kind: Kind, channels: int) -> nn.Module:
    """Build a norm of this kind: batch norm has a gain and a bias, instance norm has neither."""
    return InstanceNorm2d(channels) if kind == "instance" else ImageBatchNorm2d(channels)
