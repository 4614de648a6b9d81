"""Stand-ins for a trained game, of arithmetic that can be done by hand."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from torch import Tensor

from gancli.data.fields import Image, Label
from gancli.games.drawing import Path
from gancli.games.latent import Latent


class Drawn:
    """Images (3, side, side) of normal latents of 3 · side² numbers; `image` says which."""

    direction, column, truncation = "", "x", None

    def __init__(self, side: int, classes: int = 0, dim: int | None = None):
        self.field = Image(3, side, side)
        self.label = {"y": Label(tuple(map(str, range(classes))))} if classes else {}
        self.dim, self.law = dim or 3 * side * side, "normal"
        self.game = SimpleNamespace(
            interpolation_paths=lambda direction: {"z": Path("z", "sphere", Latent(dim=self.dim, kind=self.law))},
            input_fields=lambda direction: self.label,
        )
        self.asked: list[Tensor] = []

    def image(self, z: Tensor) -> Tensor:
        """Ready images [n, 3, side, side] of latents."""
        raise NotImplementedError

    def generate(self, inputs: dict[str, Tensor], pairs: Any = None) -> dict[str, Tensor]:
        """As a sampler does."""
        self.asked += [inputs["y"]] if "y" in inputs else []
        return {"x": self.image(inputs["z"])}
