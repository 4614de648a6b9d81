"""Images moved by resampling: the operators of StyleGAN 3's equivariance metrics (Karras et al. 2021, appendix E).

Each takes an image [C, H, W] and returns the moved image and a mask [H, W] of 0 and 1: the pixels that are made of the
image alone, and not of the zeros around it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

LOBES = 3  # half-width of Lanczos' window, in pixels (E.2, E.3)
RADIUS = 2 * LOBES  # of the filters for rotation, in pixels: two windows are convolved
PERIOD, WINDOW = 64, 8  # half of the periods, in pixels, of the convolutions of low-pass filters and of windows
FINE = 4  # positions per pixel that a rotation is interpolated from
SMALLEST = 16  # side in pixels from which some pixels of a rotated image are in its mask at any angle


def by_pixels(x: Tensor, right: int, down: int) -> tuple[Tensor, Tensor]:
    """Move by whole pixels (E.1).

    >>> by_pixels(torch.tensor([[[1.0, 2.0, 3.0]]]), 1, 0)
    (tensor([[[0., 1., 2.]]]), tensor([[0., 1., 1.]]))
    """
    mask = torch.ones_like(x[0])
    return _shifted(_shifted(x, right, 2), down, 1), _shifted(_shifted(mask, right, 1), down, 0)


def by_fractions(x: Tensor, right: float, down: float) -> tuple[Tensor, Tensor]:
    """Move by fractions of pixels, interpolated with Lanczos' filter of 6 taps, whose sum is made 1 (E.2)."""
    mask = torch.ones_like(x[0])
    for dim, move in ((2, right), (1, down)):
        whole = math.floor(move)
        taps = torch.arange(1 - LOBES, LOBES + 1, dtype=torch.float64)
        away = taps - (move - whole)
        weights = torch.sinc(away) * torch.sinc(away / LOBES)
        shares = (weights / weights.sum()).tolist()
        steps = [whole + int(tap) for tap in taps]
        x = torch.stack([_shifted(x, k, dim) * share for k, share in zip(steps, shares, strict=True)]).sum(0)
        mask = _shifted(mask, steps[0], dim - 1) * _shifted(mask, steps[-1], dim - 1)
    return x, mask


def rotated(x: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Rotate counter-clockwise about the centre, limited to the frequencies of both grids, the old and the new (E.3).

    The image is filtered at 4 positions per pixel and interpolated linearly between them.
    """
    height, width = x.shape[1:]
    kernel = band_limit(degrees, FINE).to(x) * FINE**2
    fine = F.conv_transpose2d(x[:, None], kernel[None, None], stride=FINE)[:, 0]
    margin = len(kernel) // 2  # fine positions before the centre of the first pixel
    places = [margin + FINE * place for place in _sources(height, width, degrees, x.device)]
    sizes = fine.shape[2], fine.shape[1]
    grid = torch.stack([2 * place / (size - 1) - 1 for place, size in zip(places, sizes, strict=True)], -1)
    found = F.grid_sample(fine[None], grid[None].to(x), "bilinear", "zeros", align_corners=True)[0]
    # The released code's mask: two margins inside of the filtered image, whose last column and row it leaves out.
    near = [place.round() for place in places]
    inside = [(2 * margin - 1 <= k) & (k < size - 2 * margin) for k, size in zip(near, sizes, strict=True)]
    return found, (inside[0] & inside[1]).to(x.dtype)


def as_if_rotated(x: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """Limit an image to the frequencies that `rotated` leaves of one, without rotating it (E.3, pseudo-rotation)."""
    kernel = band_limit(-degrees, 1).to(x)
    margin = len(kernel) // 2
    found = F.conv2d(x[:, None], kernel.flip(0, 1)[None, None], padding=margin)[:, 0]
    mask = torch.zeros_like(x[0])
    mask[margin:-margin, margin:-margin] = 1
    return found, mask


def band_limit(degrees: float, fine: int) -> Tensor:
    """Return the filter for an image that is rotated counter-clockwise, float64 [12·fine - 1, 12·fine - 1] (E.3).

    The product of the ideal low-pass filters of the image's grid and of the rotated grid, times the convolution of
    Lanczos' windows along both. fine: taps per pixel; those of one position in a pixel add up to 1 / fine².
    """
    passes = _convolved(torch.sinc, degrees, PERIOD, fine)
    kernel = passes * _convolved(_lanczos, degrees, WINDOW, fine)
    each = F.pad(kernel, (0, 1, 0, 1)).view(2 * RADIUS, fine, 2 * RADIUS, fine)
    each = each / each.sum((0, 2), keepdim=True) / fine**2
    return each.reshape(2 * RADIUS * fine, -1)[:-1, :-1]


def _shifted(x: Tensor, steps: int, dim: int) -> Tensor:
    """Move by whole pixels along a dimension; zeros come in."""
    found = torch.zeros_like(x)
    left = x.shape[dim] - abs(steps)
    if left > 0:
        found.narrow(dim, max(steps, 0), left).copy_(x.narrow(dim, max(-steps, 0), left))
    return found


def _sources(height: int, width: int, degrees: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Return from where each pixel of a rotated image comes, column and row, float64 [height, width] each."""
    down, right = (torch.arange(n, dtype=torch.float64, device=device) - (n - 1) / 2 for n in (height, width))
    y, x = torch.meshgrid(down, right, indexing="ij")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return cos * x - sin * y + (width - 1) / 2, sin * x + cos * y + (height - 1) / 2


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x.abs() < LOBES, torch.sinc(x / LOBES), 0.0)


def _convolved(shape: Callable[[Tensor], Tensor], degrees: float, half: int, fine: int) -> Tensor:
    """Convolve the product of a function along both axes with the same along rotated axes.

    half: half of the period of the convolution, in pixels. Returns float64 [12·fine - 1, 12·fine - 1] around 0.
    """
    count = 2 * half * fine - 1
    taps = torch.fft.fftfreq(count, dtype=torch.float64) * count / fine
    y, x = torch.meshgrid(taps, taps, indexing="ij")
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    straight = torch.outer(shape(taps), shape(taps))
    turned = shape(cos * x + sin * y) * shape(cos * y - sin * x)
    whole = torch.fft.irfft2(torch.fft.rfft2(straight) * torch.fft.rfft2(turned), s=(count, count))
    edge = (half - RADIUS) * fine
    found: Tensor = torch.fft.fftshift(whole)[edge : count - edge, edge : count - edge]
    return found
