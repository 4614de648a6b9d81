"""Distances between images for projections: features of the run's discriminator with pixels, or LPIPS."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.draw.directions import styles_of
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError

PIXELS = 0.1  # weight of the pixel term
SMALLEST = 4  # smaller side of the coarsest pixels
LARGEST = 256  # sides that LPIPS sees at most
EPS = 1e-8


class Distance(Protocol):
    """A distance between images [B, C, H, W] in [-1, 1]: `to` takes the one image that others are compared with."""

    @property
    def told(self) -> dict[str, Any]:
        """The definition, as plain values."""

    def to(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """Return a function of images that gives each one's distance to the target [1, C, H, W], [B]."""


class Own:
    """Features of the run's own discriminator, and pixels.

    d(a, b) = Σ_l mean_p ‖φ_l(a)_p - φ_l(b)_p‖² + 0.1 · mean_s mean (a_s - b_s)². φ_l are the outputs of the
    discriminator's blocks, each position p scaled to norm 1 over channels as in LPIPS (Zhang et al. 2018, eq. 1),
    without its learned weights; a_s are the images at full size and halved by averaging down to sides of 4. Raises
    ConfigError for a file that holds the generator only.
    """

    def __init__(self, sampler: Sampler):
        styles = styles_of(sampler, "project=")
        if styles.judge not in sampler.nets:
            raise ConfigError(
                f"project= compares images by the run's discriminator, which {sampler.run.name} does not hold: give the"
                " run's directory, or project_lpips=FILE"
            )
        self._seen, self._nets = styles.seen, sampler.nets

    @property
    def told(self) -> dict[str, Any]:
        """The definition."""
        return {"features": "the run's discriminator's blocks, norm 1 at each position", "pixels": PIXELS}

    def to(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Distance`."""
        wanted = [normalised(x).detach() for x in self._seen(self._nets, target)]
        sizes = pyramid(target)

        def distance(images: Tensor) -> Tensor:
            found = zip(self._seen(self._nets, images), wanted, strict=True)
            features = [(normalised(x) - y).square().sum(1).mean((1, 2)) for x, y in found]
            pixels = [(x - y).square().mean((1, 2, 3)) for x, y in zip(pyramid(images), sizes, strict=True)]
            return torch.stack([*features, PIXELS * torch.stack(pixels).mean(0)]).sum(0)

        return distance


class Perceptual:
    """LPIPS (Zhang et al. 2018) by its network; images with sides above 256 are averaged down first.

    sha256: of the backbone's file.
    """

    def __init__(self, net: nn.Module, sha256: str):
        self._net, self._sha256 = net, sha256

    @property
    def told(self) -> dict[str, Any]:
        """The definition."""
        return {"features": "LPIPS, vgg16", "weights_sha256": self._sha256}

    def to(self, target: Tensor) -> Callable[[Tensor], Tensor]:
        """See `Distance`."""
        wanted = _small(target)

        def distance(images: Tensor) -> Tensor:
            found: Tensor = self._net(_small(images), wanted.expand(len(images), -1, -1, -1))
            return found.flatten(1).mean(1)

        return distance


def normalised(features: Tensor) -> Tensor:
    """Scale features [B, C, H, W] to norm 1 over channels at each position."""
    return features * (features.square().sum(1, keepdim=True) + EPS).rsqrt()


def pyramid(images: Tensor) -> list[Tensor]:
    """Return images at full size, and averaged over 2×2 pixels repeatedly, down to SMALLEST.

    >>> [list(x.shape[2:]) for x in pyramid(torch.zeros(1, 3, 16, 24))]
    [[16, 24], [8, 12], [4, 6]]
    """
    found = [images]
    while min(found[-1].shape[2:]) >= 2 * SMALLEST:
        found.append(F.avg_pool2d(found[-1], 2))
    return found


def _small(images: Tensor) -> Tensor:
    """Three channels, and sides of at most LARGEST."""
    times = -(-max(images.shape[2:]) // LARGEST)
    images = F.avg_pool2d(images, times) if times > 1 else images
    return images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
