"""Augmentation of the images that D is shown, differentiable for G: DiffAugment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from gancli.augment.transforms import brightness, contrast, cutout, saturation, shift
from gancli.compute.rng import Rng
from gancli.errors import ConfigError

Policy = Literal["color", "translation", "cutout"]


class Augment(nn.Module):
    """Base class: changes images [B, C, H, W] before D sees them. Persistent state is in buffers."""

    def forward(self, images: Tensor, rng: Rng, purpose: str) -> Tensor:
        """Return the changed images; random numbers are keyed by `purpose` (real, fake), however a batch is split."""
        raise NotImplementedError

    @torch.no_grad()
    def feedback(self, stats: Mapping[str, Tensor], images: int) -> None:
        """Called after each move of D with its statistics and the number of real images it saw."""


class DiffAugment(Augment):
    """Colour, translation and cutout of every image, real and fake (Zhao et al. 2020, section 4 and appendix A).

    policy: which of the three. reach: of the translation, as a fraction of the side. hole: of the cutout. Raises
    ConfigError for values that are not fractions.

    >>> ones, rng = torch.ones(2, 1, 4, 4), Rng(0, total=2)
    >>> holes = DiffAugment(("cutout",))(ones, rng, "real")
    >>> bool(((16 - holes.flatten(1).sum(1)) <= 4).all())  # at most a square of half the side is gone
    True
    """

    def __init__(
        self,
        policy: tuple[Policy, ...] = ("color", "translation", "cutout"),
        *,
        reach: float = 0.125,
        hole: float = 0.5,
    ):
        super().__init__()
        if not 0 <= reach < 1 or not 0 <= hole <= 1:
            raise ConfigError("augment.reach and augment.hole are fractions of the side, such as 0.125 and 0.5")
        self.policy, self.reach, self.hole = tuple(policy), reach, hole

    def forward(self, images: Tensor, rng: Rng, purpose: str) -> Tensor:
        """Apply brightness ± 0.5, saturation 0 to 2, contrast 0.5 to 1.5; a shift; a cutout."""
        sides = images.shape[2:]
        if "color" in self.policy:
            images = brightness(images, rng.uniform(f"{purpose} brightness").to(images.dtype) - 0.5)
            images = saturation(images, rng.uniform(f"{purpose} saturation").to(images.dtype) * 2)
            images = contrast(images, rng.uniform(f"{purpose} contrast").to(images.dtype) + 0.5)
        if "translation" in self.policy:
            spans = [int(self.reach * side + 0.5) for side in sides]
            moves = [rng.integers(f"{purpose} shift {k}", 2 * span + 1) - span for k, span in enumerate(spans)]
            images = shift(images, moves[0], moves[1])
        if "cutout" in self.policy:
            # The centre may be on the image's edge, and for a hole of even size one pixel beyond it.
            ends = [side + 1 - int(side * self.hole + 0.5) % 2 for side in sides]
            at = [rng.integers(f"{purpose} hole {k}", end) for k, end in enumerate(ends)]
            images = cutout(images, self.hole, at[0], at[1])
        return images
