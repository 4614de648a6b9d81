"""A 'trained generator' of waves: sums of sinusoids in the plane, which can be moved and rotated exactly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace

import torch
from torch import Tensor

from gancli.compute.rng import RowRng
from gancli.data.fields import Image

COUNT = 3  # waves of each image


def waves(z: Tensor, height: int, width: int, transform: Tensor | None = None, highest: float = 0.12) -> Tensor:
    """Images [B, 1, height, width] in [-1, 1] of numbers z [B, COUNT, 3]: cycles per pixel, up to `highest`, and phase.

    transform: dx, dy, degrees, as a game takes it.
    """
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64), torch.arange(width, dtype=torch.float64), indexing="ij"
    )
    x, y = (each.expand(len(z), -1, -1) for each in (x, y))
    if transform is not None:
        dx, dy, degrees = (column[:, None, None] for column in transform.double().unbind(1))
        side, angle = min(height, width), torch.deg2rad(degrees)
        right, down = x - (width - 1) / 2 - dx * side, y - (height - 1) / 2 - dy * side
        x = angle.cos() * right - angle.sin() * down + (width - 1) / 2
        y = angle.sin() * right + angle.cos() * down + (height - 1) / 2
    slow, fast, phase = (2 * z.double() - 1).unbind(2)
    total = torch.zeros_like(x)
    for k in range(z.shape[1]):
        turns = highest * (slow[:, k, None, None] * x + fast[:, k, None, None] * y) + phase[:, k, None, None]
        total = total + torch.sin(2 * torch.pi * turns) / z.shape[1]
    return total[:, None].float()


class Waves:
    """The sampler. follows: whether samples follow the transform; else it is ignored."""

    direction, column, truncation, run = "", "x", None, Path("outputs/waves")

    def __init__(self, height: int, width: int, follows: bool = True, moves: bool = True):
        self.field, self.follows = Image(1, height, width), follows
        self.compute = SimpleNamespace(device=torch.device("cpu"))
        self.game = SimpleNamespace(moves_samples=lambda direction: moves)
        self.transforms: list[Tensor] = []

    def alone(self) -> Waves:
        return self

    def inputs(self, pairs: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        return {"z": RowRng([(s, "sample", k) for s, k in pairs]).uniform("z", COUNT, 3)}

    def generate_here(self, inputs: dict[str, Tensor], pairs: Sequence[tuple[int, int]]) -> dict[str, Tensor]:
        assert len(inputs["z"]) == len(pairs)
        transform = inputs.get("transform")
        self.transforms += [] if transform is None else [transform]
        height, width = self.field.height, self.field.width
        return {"x": waves(inputs["z"], height, width, transform if self.follows else None)}
