"""Preprocessing of images for pretrained networks, as in their training; differentiable."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch.nn.functional as F
from torch import Tensor

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


class Prepare(ABC):
    """Conversion of levels, numbers in 0 ... 255 of shape [B, C, H, W], C 1 or 3, to a network's input.

    size: side of the output in pixels; None: that of the input.
    """

    size: int | None

    @abstractmethod
    def __call__(self, levels: Tensor, cut: bool = True, resize: bool = True) -> Tensor:
        """Convert. cut: clamp values to the range of images, where the gradient is then 0. resize: to `size`."""

    def protocol(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values."""
        return {}


@dataclass(frozen=True)
class Preparation(Prepare):
    """Resize by an antialiased bicubic filter, ignoring the aspect as FID's extractor does, and normalise.

    mean, std: of the channels, for values in [0, 1].
    """

    size: int | None
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]

    def __call__(self, levels: Tensor, cut: bool = True, resize: bool = True) -> Tensor:
        """[B, 1 or 3, H, W] -> [B, 3, size, size].

        >>> import torch
        >>> Preparation(2, [0.5] * 3, [0.5] * 3)(torch.zeros(1, 3, 4, 4, dtype=torch.uint8)).unique().tolist()
        [-1.0]
        """
        x = floating(levels).expand(-1, 3, -1, -1)
        if resize and self.size is not None and x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, [self.size, self.size], mode="bicubic", antialias=True, align_corners=False)
            x = x.clamp(0, 255) if cut else x  # the filter overshoots
        mean, std = (x.new_tensor(list(v)).view(3, 1, 1) for v in (self.mean, self.std))
        return (x / 255 - mean) / std

    def protocol(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values."""
        resize = "none" if self.size is None else f"antialiased bicubic, to {self.size}x{self.size}"
        return {"resize": resize, "normalisation": {"mean": list(self.mean), "std": list(self.std)}}


@dataclass(frozen=True)
class AsTensorFlow(Prepare):
    """Resize as TensorFlow 1 does, bilinear without half-pixel shift, by torch-fidelity's code, and normalise.

    shares: divide levels by 255 before the mean is subtracted; otherwise, multiply mean and std by 255.
    """

    size: int
    mean: Sequence[float] = IMAGENET[0]
    std: Sequence[float] = IMAGENET[1]
    shares: bool = False

    def __call__(self, levels: Tensor, cut: bool = True, resize: bool = True) -> Tensor:
        """[B, 1 or 3, H, W] -> [B, 3, size, size]."""
        from torch_fidelity.interpolate_compat_tensorflow import interpolate_bilinear_2d_like_tensorflow1x

        x: Tensor = floating(levels).expand(-1, 3, -1, -1)
        if resize:
            x = interpolate_bilinear_2d_like_tensorflow1x(x, size=(self.size, self.size), align_corners=False)
        scale = 1 if self.shares else 255
        mean, std = (x.new_tensor([scale * each for each in v]).view(3, 1, 1) for v in (self.mean, self.std))
        return ((x / 255 if self.shares else x) - mean) / std

    def protocol(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values."""
        return {
            "resize": f"bilinear as in TensorFlow 1, to {self.size}x{self.size}",
            "normalisation": {"mean": list(self.mean), "std": list(self.std)},
        }


@dataclass(frozen=True)
class Bare(Prepare):
    """No preprocessing: the network does its own."""

    size: int | None
    resize: str

    def __call__(self, levels: Tensor, cut: bool = True, resize: bool = True) -> Tensor:
        """Return the same numbers as floating point."""
        return floating(levels)

    def protocol(self) -> dict[str, Any]:
        """Return the protocol as plain JSON values."""
        return {"resize": self.resize}


def floating(x: Tensor) -> Tensor:
    """Return the same numbers as floating point; float64 stays float64."""
    return x if x.is_floating_point() else x.float()
