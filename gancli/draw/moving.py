"""Paths along which samples move or rotate while their latents stay: the input column `transform` of their frames."""

from __future__ import annotations

import torch
from torch import Tensor

STRENGTHS = {"translate": 0.25, "rotate": 360.0}  # default reach of each axis: fractions of the shorter side, degrees
WHOLE = 360.0  # degrees


def loops(axis: str, strength: float) -> bool:
    """Whether the frame after the last would be the first: of whole turns.

    >>> loops("rotate", 720.0), loops("rotate", 90.0), loops("translate", 360.0)
    (True, False, False)
    """
    return axis == "rotate" and strength % WHOLE == 0


def places(axis: str, strength: float, frames: int) -> Tensor:
    """Return the frames' places, [frames, 3]: right, down, degrees (`gancli.games.drawing.TRANSFORM`).

    translate: from -strength to strength, to the right. rotate: from 0 to strength, without the end if that is the
    start again.

    >>> places("translate", 0.5, 3)[:, 0].tolist(), places("rotate", 90.0, 3)[:, 2].tolist()
    ([-0.5, 0.0, 0.5], [0.0, 45.0, 90.0])
    >>> places("rotate", 360.0, 4)[:, 2].tolist()
    [0.0, 90.0, 180.0, 270.0]
    """
    found = torch.zeros(frames, 3)
    if axis == "translate":
        found[:, 0] = torch.tensor([strength * (2 * k - frames + 1) / (frames - 1) for k in range(frames)])
    else:
        parts = frames if loops(axis, strength) else frames - 1
        found[:, 2] = torch.tensor([strength * k / parts for k in range(frames)])
    return found
