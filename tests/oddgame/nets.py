"""Networks of words and of table rows."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class FromWords(nn.Module):
    """Sequences of words [B, length] to table rows [B, columns]."""

    def __init__(self, words: int, length: int, columns: int, *, width: int = 4):
        super().__init__()
        self.read = nn.Embedding(words, width)
        self.out = nn.Linear(length * width, columns)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(torch.tanh(self.read(x)).flatten(1))


class Judge(nn.Module):
    """Table rows [B, columns] to a number each."""

    def __init__(self, columns: int):
        super().__init__()
        self.out = nn.Linear(columns, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x).squeeze(1)


class Eye(nn.Module):
    """Table rows to features, by weights that stay as they are."""

    def __init__(self, columns: int, *, width: int = 4):
        super().__init__()
        self.look = nn.Linear(columns, width).requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.look(x))


class ToWords(nn.Module):
    """Features [B, width] to a logit of each word at each place, [B, length, words]."""

    def __init__(self, words: int, length: int, *, width: int = 4):
        super().__init__()
        self.shape = (length, words)
        self.out = nn.Linear(width, length * words)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(x).view(-1, *self.shape)
