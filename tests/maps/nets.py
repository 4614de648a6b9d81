"""Images to images."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate

from gancli.nets.layers.noise import Noisy


class Grain(Noisy):
    """Adds noise, at test time too."""

    def __init__(self, sigma: float):
        super().__init__()
        self.sigma = sigma

    def forward(self, x: Tensor) -> Tensor:
        return x + self.sigma * self.numbers("normal", x).to(x.dtype)


class Map(nn.Module):
    """[B, C, H, W] to another C, H and W, by means of `multiple`² pixels and by each image's own mean."""

    def __init__(
        self, source: tuple[int, ...], target: tuple[int, ...], classes: int, *, multiple: int = 4, sigma: float = 0.0
    ):
        super().__init__()
        self.multiple, self.scale = multiple, target[1] / source[1]
        self.down = nn.Conv2d(source[0], 4, multiple, multiple)
        self.grain = Grain(sigma) if sigma else nn.Identity()
        self.kinds = nn.Embedding(classes, 4) if classes else None
        self.out = nn.Conv2d(4 + source[0], target[0], 3, padding=1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        coarse = self.grain(self.down(x))
        if self.kinds is not None and y is not None:
            coarse = coarse + self.kinds(y)[:, :, None, None]
        fine = torch.cat([interpolate(coarse, scale_factor=self.multiple), x - x.mean((1, 2, 3), keepdim=True)], 1)
        return torch.tanh(interpolate(self.out(fine), scale_factor=self.scale))
