"""Collective operations between ranks, and each rank's rows of a batch. With one rank they do nothing."""

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
    """The error of a failed collective call if its cause is unknown."""
    return RankError(f"a collective operation of the ranks failed ({' '.join(str(error).split())[:120]})")


@dataclass
class Collectives:
    """How many collective calls this process has begun, and whether it is waiting in one: shows which rank hangs.

    explain: converts the exception of a collective call.
    """

    begun: int = 0
    waiting: bool = False
    explain: Callable[[BaseException], RankError] = not_met


meetings = Collectives()  # of the one process group that torch has


@dataclass(frozen=True)
class World:
    """This process's rank and the number of ranks: rank 0 writes, all compute.

    All ranks must call the collective methods, in the same order. These raise RankError if another rank fails, is gone
    or times out.
    """

    rank: int = 0
    size: int = 1

    @staticmethod
    def of_group() -> World:
        """The world of torch's process group, or a world of one rank without a group."""
        return World(dist.get_rank(), dist.get_world_size()) if grouped() else World()

    @property
    def first(self) -> bool:
        """Whether this rank writes files and prints."""
        return self.rank == 0

    def rows(self, total: int, unit: int = 1) -> tuple[int, int]:
        """This rank's rows [start, stop) of a global batch, in units of `unit` rows; ranks differ by at most one unit.

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
        """Broadcast rank 0's values to every rank, in place."""
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
        """Run `work` on rank 0 only, and return its result on every rank."""
        if self.size == 1:
            return work()
        box: list[Any] = [work() if self.first else None]
        meet(dist.broadcast_object_list, box, 0, device=torch.device("cpu"))
        return box[0]  # type: ignore[no-any-return]

    def everyone(self, value: T) -> list[T]:
        """Return the values of all ranks, in order, on every rank."""
        values = []
        for rank in range(self.size):
            box: list[Any] = [value if rank == self.rank else None]
            if self.size > 1:
                meet(dist.broadcast_object_list, box, rank, device=torch.device("cpu"))
            values.append(box[0])
        return values

    def joined(self, own: Tensor, total: int, unit: int = 1) -> Tensor:
        """Gather all `total` rows on every rank from each rank's own (those of `rows`); on the CPU."""
        if self.size == 1:
            return own
        spans = [World(rank, self.size).rows(total, unit) for rank in range(self.size)]
        return _collected(own, [stop - start for start, stop in spans])


def grouped() -> bool:
    """Whether this process belongs to a process group."""
    return dist.is_available() and dist.is_initialized()


def meet(call: Callable[..., Any], *args: Any, **keys: Any) -> None:
    """Run a collective call of torch. Raises RankError, with an explanation, if it fails."""
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

    For functions of a whole batch. The gradient of a rank's rows is summed over all ranks.
    """
    return gathered_from(x)[0]


def gathered_from(x: Tensor) -> tuple[Tensor, int]:
    """As `gathered`, with the position of this rank's first row."""
    world = World.of_group()
    if world.size == 1:
        return x, 0
    counts = torch.zeros(world.size, dtype=torch.int64)
    counts[world.rank] = len(x)
    all_reduce(counts)
    each: list[int] = counts.tolist()
    rows: Tensor = _Gathered.apply(x, each, world.rank)
    return rows, sum(each[: world.rank])


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
    """Concatenate the rows of all ranks; collectives need equal shapes, so shorter parts are padded."""
    padded = own.new_zeros(max(counts), *own.shape[1:])
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in counts]
    meet(dist.all_gather, parts, padded)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def _spread(flat: Tensor, parts: Sequence[Tensor]) -> None:
    """Copy a flat vector back into the tensors that it was concatenated from."""
    pieces = torch.split(flat, [p.numel() for p in parts])
    # Viewed in each tensor's own shape: a channels-last tensor has no flat view to write to.
    torch._foreach_copy_(list(parts), [piece.view(p.shape) for piece, p in zip(pieces, parts, strict=True)])
