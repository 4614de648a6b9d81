"""Ranks: who computes which rows, and how they meet. With one rank everything here does nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from gancli.errors import RankError

T = TypeVar("T")


def not_met(error: BaseException) -> RankError:
    """The error of a collective call, where nobody knows more."""
    return RankError(f"the ranks did not come together ({' '.join(str(error).split())[:120]})")


@dataclass
class Meetings:
    """How often this process has met the others, and whether it waits for them now: what tells who hangs.

    explain: puts the error of a collective call in words.
    """

    begun: int = 0
    waiting: bool = False
    explain: Callable[[BaseException], RankError] = not_met


meetings = Meetings()  # of the one process group that torch has


@dataclass(frozen=True)
class World:
    """This process among its equals: rank 0 writes, all compute.

    Every method that lets ranks meet has to be called by all of them, in the same order. Raises RankError where another
    rank fails, is gone or does not come in time.
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def of_group() -> World:
        """The world of torch's process group, or a world of one where there is none."""
        return World(dist.get_rank(), dist.get_world_size()) if grouped() else World()

    @property
    def first(self) -> bool:
        """Whether this rank writes and speaks."""
        return self.rank == 0

    def rows(self, total: int, unit: int = 1) -> tuple[int, int]:
        """This rank's rows [start, stop) of a global batch; shares differ by `unit` rows, which stay together, at most.

        >>> [World(rank, 3).rows(10) for rank in range(3)], [World(rank, 2).rows(10, 4) for rank in range(2)]
        ([(0, 3), (3, 6), (6, 10)], [(0, 4), (4, 10)])
        """
        units = -(-total // unit)
        return tuple(min(total, units * n // self.size * unit) for n in (self.rank, self.rank + 1))  # type: ignore[return-value]

    @torch.no_grad()
    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Sum tensors of one dtype over all ranks, in place, in one flat all-reduce."""
        parts = list(tensors) if self.size > 1 else []
        if not parts:
            return
        flat = torch.cat([p.reshape(-1) for p in parts])
        all_reduce(flat)
        _spread(flat, parts)

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Every rank starts from rank 0's values."""
        kinds: dict[torch.dtype, list[Tensor]] = {}
        for tensor in tensors if self.size > 1 else ():
            kinds.setdefault(tensor.dtype, []).append(tensor)
        for parts in kinds.values():
            flat = torch.cat([p.reshape(-1) for p in parts])
            meet(dist.broadcast, flat, 0)
            _spread(flat, parts)

    def highest(self, *flags: int) -> list[int]:
        """The largest of each flag over all ranks: one small all-reduce on the CPU."""
        if self.size == 1:
            return [int(flag) for flag in flags]
        known = torch.tensor([int(flag) for flag in flags])
        meet(dist.all_reduce, known, dist.ReduceOp.MAX)
        return [int(flag) for flag in known.tolist()]

    def from_first(self, work: Callable[[], T]) -> T:
        """What `work` returns on rank 0, the only one to do it, for every rank."""
        if self.size == 1:
            return work()
        box: list[Any] = [work() if self.first else None]
        meet(dist.broadcast_object_list, box, 0, device=torch.device("cpu"))
        return box[0]  # type: ignore[no-any-return]

    def everyone(self, value: T) -> list[T]:
        """Each rank's value, in order, for every rank."""
        values = []
        for rank in range(self.size):
            box: list[Any] = [value if rank == self.rank else None]
            if self.size > 1:
                meet(dist.broadcast_object_list, box, rank, device=torch.device("cpu"))
            values.append(box[0])
        return values

    def joined(self, own: Tensor, total: int, unit: int = 1) -> Tensor:
        """All `total` rows on every rank, each having given its own as `rows` deals them; on the CPU."""
        if self.size == 1:
            return own
        spans = [World(rank, self.size).rows(total, unit) for rank in range(self.size)]
        return _collected(own, [stop - start for start, stop in spans])


def grouped() -> bool:
    """Whether this process belongs to a group."""
    return dist.is_available() and dist.is_initialized()


def meet(call: Callable[..., Any], *args: Any, **keys: Any) -> None:
    """Let a collective call of torch happen. Raises RankError, in words, where the ranks do not come together."""
    meetings.begun += 1
    meetings.waiting = True
    try:
        call(*args, **keys)
    except RuntimeError as error:
        raise meetings.explain(error) from error
    finally:
        meetings.waiting = False


def all_reduce(tensor: Tensor) -> None:
    """Sum over all ranks, in place."""
    meet(dist.all_reduce, tensor)


def gathered(x: Tensor) -> Tensor:
    """The rows of all ranks, [B of each, ...] -> [B of all, ...], differentiable any number of times; x on one rank.

    For what depends on a whole batch. The gradient of a rank's rows is the sum of what all ranks make of them.
    """
    world = World.of_group()
    if world.size == 1:
        return x
    counts = torch.zeros(world.size, dtype=torch.int64)
    counts[world.rank] = len(x)
    all_reduce(counts)
    rows: Tensor = _Gathered.apply(x, counts.tolist(), world.rank)
    return rows


class _Gathered(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        return _collected(x, counts)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Own.apply(grad, ctx.counts, ctx.rank), None, None


class _Own(torch.autograd.Function):
    """The adjoint of gathering: a rank's rows of the sum over all ranks."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: list[int], rank: int) -> Tensor:
        ctx.counts, ctx.rank = counts, rank
        total = rows.contiguous().clone()
        all_reduce(total)
        start = sum(counts[:rank])
        return total[start : start + counts[rank]].clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return _Gathered.apply(grad, ctx.counts, ctx.rank), None, None


def _collected(own: Tensor, counts: Sequence[int]) -> Tensor:
    """Rows of all ranks one after another; collectives want equal shapes, so that shorter shares are filled up."""
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    meet(dist.all_gather, parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _spread(flat: Tensor, parts: Sequence[Tensor]) -> None:
    """Copy a flat vector back into the tensors that it was made of."""
    pieces = torch.split(flat, [p.numel() for p in parts])
    # Viewed in each tensor's own shape: a tensor that lies channels-last has no flat view to be written to.
    torch._foreach_copy_(list(parts), [piece.view(p.shape) for piece, p in zip(pieces, parts, strict=True)])
