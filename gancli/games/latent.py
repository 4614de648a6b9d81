"""The distribution of latents."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from gancli.compute.rng import Rng
from gancli.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Latent:
    """The distribution of z: `dim` independent numbers, standard normal or uniform on [-1, 1]."""

    dim: int = 128
    kind: Literal["normal", "uniform"] = "normal"

    def __post_init__(self) -> None:
        if self.dim < 1:
            raise ConfigError(f"model.latent.dim={self.dim}: a latent has at least 1 dimension")

    def draw(self, rng: Rng, truncation: float | None = None, purpose: str = "z") -> Tensor:
        """Draw latents, [rows, dim], each number within ± `truncation`; another `purpose` draws others.

        A normal number beyond the threshold is not redrawn: every number is mapped to its quantile in the truncated
        distribution, which gives the distribution of redrawing (Brock et al. 2019, section 3.1) and keeps images
        comparable between thresholds.
        """
        if self.kind == "uniform":
            return (rng.uniform(purpose, self.dim) * 2 - 1) * min(1.0, truncation or 1.0)
        z = rng.normal(purpose, self.dim)
        if truncation is None:
            return z
        share = torch.erf(z.double() / math.sqrt(2)) * math.erf(truncation / math.sqrt(2))
        return (torch.erfinv(share) * math.sqrt(2)).to(z.dtype)
