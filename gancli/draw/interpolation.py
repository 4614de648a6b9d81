"""Interpolation between latents: spherical and linear."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

Mode = Literal["slerp", "lerp"]


def slerp(a: Tensor, b: Tensor, share: float) -> Tensor:
    """Interpolate spherically from a to b, [..., D], at `share` of the way (White 2016, section 2.1).

    >>> slerp(torch.tensor([1.0, 0.0]), torch.tensor([0.0, 1.0]), 0.5).tolist()
    [0.7071067690849304, 0.7071067690849304]
    """
    cosine = nn.functional.cosine_similarity(a.double(), b.double(), dim=-1).clamp(-1, 1).unsqueeze(-1)
    angle = torch.acos(cosine)
    flat = angle.sin().abs() < 1e-6  # parallel latents define no great circle: interpolate linearly
    sine = torch.where(flat, torch.ones_like(angle), angle.sin())
    first = torch.where(flat, torch.full_like(angle, 1 - share), ((1 - share) * angle).sin() / sine)
    second = torch.where(flat, torch.full_like(angle, share), (share * angle).sin() / sine)
    return (first * a + second * b).to(a.dtype)


def walk(a: Tensor, b: Tensor, frames: int, mode: Mode) -> Tensor:
    """Return `frames` latents from a to b, both included, [frames, D]."""
    shares = [k / (frames - 1) for k in range(frames)]
    return torch.stack([slerp(a, b, s) if mode == "slerp" else torch.lerp(a, b, s) for s in shares])
