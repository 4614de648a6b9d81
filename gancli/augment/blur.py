"""A Gaussian blur of all images that D sees at the start of training (Karras et al. 2021, appendix E.2)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from gancli.nets.layers.resampling import Plan, resampled
from gancli.nets.layers.spectral import full_precision


@dataclass(frozen=True)
class Blur:
    """Blurs images with a width that falls to 0; like an augmentation it applies to real and generated images.

    sigma: at the start, in pixels; the filter is 2^(-x²/σ²), as in the released code, cut off at 3σ. images: real
    images over which σ falls linearly to 0.

    >>> blur = Blur(sigma=10.0, images=200)
    >>> blur.at(0), blur.at(50), blur.at(500)
    (10.0, 7.5, 0.0)
    """

    sigma: float
    images: int

    def at(self, seen: int) -> float:
        """σ after so many real images, in pixels."""
        return self.sigma * max(1 - seen / self.images, 0.0)

    def __call__(self, images: Tensor, seen: int) -> Tensor:
        """[B, C, H, W] after so many real images -> the same, blurred, in float32 at least; around them are zeros."""
        sigma = self.at(seen)
        reach = int(3 * sigma)
        if not reach:
            return images
        with full_precision(images):  # otherwise real images would be rounded, too
            images = images.to(torch.promote_types(images.dtype, torch.float32))
            at = torch.arange(-reach, reach + 1, device=images.device, dtype=images.dtype)
            taps = (at / sigma).square().neg().exp2()
            taps = taps / taps.sum()
            for side in (2, 3):
                plan = Plan(len(taps), 1, 1, reach, images.shape[side])
                images = resampled(images, plan, taps, side)
        return images
