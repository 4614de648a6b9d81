"""What generators with styles have in common: a mapping to styles w, their mean, and truncation towards it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Any

import torch
from torch import Tensor, nn


class StyleGenerator(nn.Module, ABC):
    """Base of generators that map latents to styles w, and make images of one w per layer.

    `mapping` takes (z, y) and has the buffer `mean`, the moving average of w.
    """

    mapping: Any

    @property
    @abstractmethod
    def styles(self) -> int:
        """The number of layers that take a style."""

    @abstractmethod
    def side_of(self, layer: int) -> int:
        """How often the base is doubled at a layer."""

    @abstractmethod
    def style_weights(self) -> list[Tensor]:
        """The weights [outputs, w_dim] of each layer's affine map of w, in the order of layers."""

    @abstractmethod
    def synthesis(self, w: Tensor) -> Tensor:
        """Styles [B, styles, w_dim] -> images [B, C, H, W]."""

    def forward(self, z: Tensor | None, y: Tensor | None = None, w: Tensor | None = None) -> Tensor:
        """[B, latent_dim] and labels [B], or styles w [B, w_dim] or [B, styles, w_dim] -> [B, C, H, W]."""
        if w is None:
            assert z is not None, "neither latents nor styles"
            w = self.mapping(z, y)
        return self.synthesis(self.each(w))

    def each(self, w: Tensor) -> Tensor:
        """The style of each layer, [B, styles, w_dim], of one style for all or of theirs."""
        return w if w.dim() == 3 else w[:, None].expand(-1, self.styles, -1)

    def truncated(self, w: Tensor, psi: Tensor) -> Tensor:
        """Styles moved towards their mean: by ψ of each layer, [B, styles] (Karras et al. 2019, appendix B)."""
        w = self.each(w)
        return torch.lerp(self.mapping.mean.to(w.dtype), w, psi[:, :, None].to(w.dtype))
