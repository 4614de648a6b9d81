"""Differentiable image transformations, random for each sample, with numbers keyed by purpose."""

from __future__ import annotations

import torch
from torch import Tensor

from gancli.compute.rng import Rng


def shift(images: Tensor, down: Tensor, right: Tensor, fill: float = 0.0) -> Tensor:
    """Shift each image [B, C, H, W] by whole pixels, int64 [B] each; `fill` comes in.

    >>> shift(torch.arange(1.0, 4.0).view(1, 1, 1, 3), torch.tensor([0]), torch.tensor([1])).flatten().tolist()
    [0.0, 1.0, 2.0]
    """
    height, width = images.shape[2:]
    rows = torch.arange(height, device=images.device) - down[:, None]
    columns = torch.arange(width, device=images.device) - right[:, None]
    inside = ((rows >= 0) & (rows < height))[:, :, None] & ((columns >= 0) & (columns < width))[:, None, :]
    batch = torch.arange(len(images), device=images.device)[:, None, None]
    # Indexed with pixels before channels, so that one gather moves all channels.
    pixels = images.permute(0, 2, 3, 1)
    moved = pixels[batch, rows.clamp(0, height - 1)[:, :, None], columns.clamp(0, width - 1)[:, None, :]]
    return torch.where(inside[..., None], moved, fill).permute(0, 3, 1, 2)


def flip(images: Tensor, chosen: Tensor) -> Tensor:
    """Mirror the chosen images, bool [B], left to right.

    >>> flip(torch.tensor([1.0, 2.0]).view(1, 1, 1, 2), torch.tensor([True])).flatten().tolist()
    [2.0, 1.0]
    """
    return torch.where(chosen.view(-1, 1, 1, 1), images.flip(3), images)


def jitter(images: Tensor, rng: Rng, purpose: str, reach: float) -> Tensor:
    """Apply a random flip and a shift by up to `reach` of each side (Zhang et al. 2020, section 3.1)."""
    chosen = rng.uniform(f"{purpose} flip") < 0.5
    spans = [int(reach * side + 0.5) for side in images.shape[2:]]
    moves = [rng.integers(f"{purpose} shift {k}", 2 * span + 1) - span for k, span in enumerate(spans)]
    return shift(flip(images, chosen), moves[0], moves[1])


def brightness(images: Tensor, amount: Tensor) -> Tensor:
    """Add each image's amount [B].

    >>> brightness(torch.zeros(1, 1, 1, 2), torch.tensor([0.5])).flatten().tolist()
    [0.5, 0.5]
    """
    return images + amount.view(-1, 1, 1, 1)


def saturation(images: Tensor, factor: Tensor) -> Tensor:
    """Scale each pixel's distance to the mean of its channels by the image's factor [B].

    >>> saturation(torch.tensor([1.0, 3.0]).view(1, 2, 1, 1), torch.tensor([2.0])).flatten().tolist()
    [0.0, 4.0]
    """
    grey = images.mean(1, keepdim=True)
    return grey + (images - grey) * factor.view(-1, 1, 1, 1)


def contrast(images: Tensor, factor: Tensor) -> Tensor:
    """Scale each value's distance to the mean of its image by the image's factor [B].

    >>> contrast(torch.tensor([0.0, 2.0]).view(1, 1, 1, 2), torch.tensor([0.5])).flatten().tolist()
    [0.5, 1.5]
    """
    level = images.mean((1, 2, 3), keepdim=True)
    return level + (images - level) * factor.view(-1, 1, 1, 1)


def cutout(images: Tensor, share: float, down: Tensor, right: Tensor) -> Tensor:
    """Set a rectangle of `share` of each side to 0, its centre at (down, right), int64 [B] each.

    >>> cutout(torch.ones(1, 1, 1, 4), 0.5, torch.tensor([0]), torch.tensor([3])).flatten().tolist()
    [1.0, 1.0, 0.0, 0.0]
    """
    height, width = images.shape[2:]
    spans = (int(height * share + 0.5), int(width * share + 0.5))
    rows = torch.arange(height, device=images.device) - (down[:, None] - spans[0] // 2)
    columns = torch.arange(width, device=images.device) - (right[:, None] - spans[1] // 2)
    hole = ((rows >= 0) & (rows < spans[0]))[:, :, None] & ((columns >= 0) & (columns < spans[1]))[:, None, :]
    return images.masked_fill(hole[:, None], 0.0)
