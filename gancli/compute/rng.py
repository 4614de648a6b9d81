"""Random numbers keyed by their purpose, independent of the number of ranks and micro-batches."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

Draw = Callable[[int, torch.Generator], Tensor]  # rows -> numbers [rows, ...]


def key(*parts: object) -> int:
    """A 63-bit seed from the purpose of the numbers, the same on every machine and in every process.

    >>> key(0, "init", "G") == key(0, "init", "G") != key(0, "init", "D")
    True
    """
    digest = hashlib.blake2b("\x1f".join(map(str, parts)).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1


class Rng:
    """Random numbers for one move, keyed (seed, step, move, repeat).

    Every draw is made for the move's whole global batch of `total` rows and sliced to the rows [start, stop) of this
    rank and micro-batch, so a step does not depend on how its batch is split. Within a move, the same purpose always
    returns the same numbers.
    """

    def __init__(
        self, *parts: object, total: int, device: torch.device | str = "cpu", dtype: torch.dtype | None = None
    ):
        self.parts = parts
        self.total = total
        self.start, self.stop = 0, total
        self.device = torch.device(device)
        self.dtype = dtype or torch.get_default_dtype()
        self._generator = torch.Generator()
        self._drawn: dict[tuple[object, ...], Tensor] = {}

    @property
    def rows(self) -> int:
        """The number of rows of a draw."""
        return self.stop - self.start

    @property
    def drawn(self) -> int:
        """Bytes of the numbers drawn so far."""
        return sum(numbers.nbytes for numbers in self._drawn.values())

    def cut(self, start: int, stop: int) -> Rng:
        """The same numbers, sliced to rows [start, stop) of the global batch."""
        piece = Rng.__new__(Rng)
        piece.__dict__.update(self.__dict__)
        piece.start, piece.stop = start, stop
        return piece

    def beside(self, *parts: object, total: int) -> Rng:
        """Numbers with another key, for all of `total` rows; their memory counts in `drawn` here."""
        other = self.cut(0, total)
        other.parts, other.total = parts, total
        return other

    def seed(self, *purpose: object) -> int:
        """A seed for noise drawn elsewhere, such as inside a network."""
        return key(*self.parts, *purpose)

    def normal(self, purpose: str, *shape: int) -> Tensor:
        """Standard normal numbers, [rows, *shape]."""
        return self._draw(
            ("normal", purpose, *shape), lambda rows, g: torch.randn(rows, *shape, generator=g, dtype=self.dtype)
        )

    def uniform(self, purpose: str, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1), [rows, *shape]."""
        return self._draw(
            ("uniform", purpose, *shape), lambda rows, g: torch.rand(rows, *shape, generator=g, dtype=self.dtype)
        )

    def integers(self, purpose: str, high: int, *shape: int) -> Tensor:
        """Uniform integers in [0, high), int64, [rows, *shape]."""
        return self._draw(
            ("integers", purpose, high, *shape), lambda rows, g: torch.randint(high, (rows, *shape), generator=g)
        )

    def _draw(self, what: tuple[object, ...], draw: Draw) -> Tensor:
        place = (self.parts, self.total, *what)
        numbers = self._drawn.get(place)
        if numbers is None:
            # Always drawn on the CPU, so that a run can move between devices.
            numbers = self._whole(what, draw).to(self.device, non_blocking=True)
            self._drawn[place] = numbers
        return numbers[self.start : self.stop]

    def _whole(self, what: tuple[object, ...], draw: Draw) -> Tensor:
        """All rows of a draw."""
        return draw(self.total, self._generator.manual_seed(self.seed(*what)))


class RowRng(Rng):
    """Random numbers with a key for each row, so that a row's numbers do not depend on the others drawn with it.

    >>> both = RowRng([(3, "sample", 0), (3, "sample", 1)]).normal("z", 2)
    >>> bool((both[1:] == Rng(3, "sample", 1, total=1).normal("z", 2)).all())
    True
    """

    def __init__(
        self,
        rows: Sequence[Sequence[object]],
        *,
        device: torch.device | str = "cpu",
        dtype: torch.dtype | None = None,
    ):
        super().__init__(*rows, total=len(rows), device=device, dtype=dtype)

    def _whole(self, what: tuple[object, ...], draw: Draw) -> Tensor:
        seeds = (key(*row, *what) for row in self.parts)  # type: ignore[misc]
        return torch.cat([draw(1, self._generator.manual_seed(seed)) for seed in seeds])
