"""Dense layers and lookup tables, with optional spectral norm."""

from __future__ import annotations

from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.init import Init, xavier
from gancli.nets.layers.spectral import Weighted


class Linear(Weighted):
    """x Wᵀ + b: [B, inputs] -> [B, outputs]; the bias starts at 0."""

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        bias: bool = True,
        init: Init | None = None,
        spectral: bool = False,
        eps: float = 1e-12,
    ):
        super().__init__((outputs, inputs), init=init or xavier(), spectral=spectral, eps=eps)
        self.bias = nn.Parameter(torch.zeros(outputs)) if bias else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs]."""
        return F.linear(x, self.normalised(), self.bias)


class Embedding(Weighted):
    """A row of W for each label, or the mean of rows for a mixture of classes.

    lookup: rows are no filters, so weight regularisers skip this layer.
    """

    lookup: ClassVar[bool] = True

    def __init__(
        self, classes: int, width: int, *, init: Init | None = None, spectral: bool = False, eps: float = 1e-12
    ):
        super().__init__((classes, width), init=init or xavier(), spectral=spectral, eps=eps)

    def forward(self, y: Tensor) -> Tensor:
        """[B] int64 labels, or [B, classes] weights with sum 1 -> [B, width]."""
        weight = self.normalised()
        return y.to(weight.dtype) @ weight if y.is_floating_point() else F.embedding(y, weight)
