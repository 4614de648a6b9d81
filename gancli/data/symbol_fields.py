"""Fields of symbols, which have no values in between: labels, attributes, tokens, codes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from gancli.data.field import Field


@dataclass(frozen=True)
class Label(Field):
    """One of several classes per row, stored as int64 [N]."""

    kind: ClassVar[str] = "label"
    words: ClassVar[str] = "labels"
    dtype: ClassVar[str] = "int64"
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """()."""
        return ()

    @property
    def told(self) -> str:
        """Return a description with the number of classes."""
        return f"labels of {len(self.names)} classes"

    @property
    def largest(self) -> int | None:
        """The number of the last class."""
        return len(self.names) - 1

    def stored(self, ready: Tensor) -> Tensor:
        """Return the labels unchanged."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """Return the probability that two rows differ."""
        return _differ(ready[:, None])

    def text(self, stored: Tensor) -> list[str]:
        """Return each class's name."""
        return [self.names[k] for k in stored.tolist()]


@dataclass(frozen=True)
class Attributes(Field):
    """Several binary attributes per row, stored as uint8 [N, names]; networks get 0.0 and 1.0."""

    kind: ClassVar[str] = "attributes"
    words: ClassVar[str] = "attributes"
    dtype: ClassVar[str] = "uint8"
    names: tuple[str, ...]

    @property
    def shape(self) -> tuple[int, ...]:
        """(names,)."""
        return (len(self.names),)

    @property
    def largest(self) -> int | None:
        """1: the attribute holds."""
        return 1

    def ready(self, stored: Tensor) -> Tensor:
        """Convert to 0.0 and 1.0."""
        return stored.to(torch.float32)

    def stored(self, ready: Tensor) -> Tensor:
        """Return 1 from one half upwards, else 0."""
        return (ready >= 0.5).to(torch.uint8)

    def text(self, stored: Tensor) -> list[str]:
        """Return the names of the attributes that hold."""
        return [", ".join(n for n, yes in zip(self.names, row, strict=True) if yes) for row in stored.tolist()]


@dataclass(frozen=True)
class Tokens(Field):
    """Sequences of `length` tokens of `vocabulary`, int64 [N, length]; token 0 is padding and not shown in texts.

    between: what separates two tokens in a text.
    """

    kind: ClassVar[str] = "tokens"
    words: ClassVar[str] = "sequences"
    dtype: ClassVar[str] = "int64"
    length: int
    vocabulary: tuple[str, ...]
    between: str = " "

    @property
    def shape(self) -> tuple[int, ...]:
        """(length,)."""
        return (self.length,)

    @property
    def told(self) -> str:
        """Return a description with length and vocabulary size."""
        return f"sequences of {self.length} of {len(self.vocabulary)} tokens"

    @property
    def largest(self) -> int | None:
        """The number of the last token."""
        return len(self.vocabulary) - 1

    def stored(self, ready: Tensor) -> Tensor:
        """Return the tokens unchanged."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """Return the probability that two rows differ at a position, averaged over positions."""
        return _differ(ready)

    def text(self, stored: Tensor) -> list[str]:
        """Return the tokens' words, joined."""
        return [self.between.join(self.vocabulary[k] for k in row if k) for row in stored.tolist()]


@dataclass(frozen=True)
class Codes(Field):
    """Grids of indices into a codebook of `size` entries, int64 [N, H, W]."""

    kind: ClassVar[str] = "codes"
    words: ClassVar[str] = "codes"
    dtype: ClassVar[str] = "int64"
    height: int
    width: int
    size: int

    @property
    def shape(self) -> tuple[int, ...]:
        """(H, W)."""
        return self.height, self.width

    @property
    def largest(self) -> int | None:
        """The number of the last entry."""
        return self.size - 1

    def stored(self, ready: Tensor) -> Tensor:
        """Return the codes unchanged."""
        return ready

    def variety(self, ready: Tensor) -> float:
        """Return the probability that two rows differ at a position, averaged over positions."""
        return _differ(ready.flatten(1))


def _differ(symbols: Tensor) -> float:
    """Return the probability that two rows of [N, positions] differ at a position, averaged over positions.

    >>> _differ(torch.tensor([[1, 2], [1, 3]]))
    0.5
    """
    n = len(symbols)
    if n < 2:
        return 0.0
    same = sum(int((torch.unique(column, return_counts=True)[1] ** 2).sum()) - n for column in symbols.T)
    return 1 - same / (n * (n - 1)) / symbols.shape[1]
