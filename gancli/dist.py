"""Ranks: who computes which rows, and the sums over all of them. With one rank everything here does nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor


@dataclass(frozen=True)
class World:
    """This process among its equals: rank 0 writes, all compute."""

    rank: int = 0
    size: int = 1

    @staticmethod
    def of_group() -> World:
        """The world of torch's process group, or a world of one where there is none."""
        return World(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else World()

    def rows(self, total: int) -> tuple[int, int]:
        """This rank's rows [start, stop) of a global batch; uneven shares differ by one row.

        >>> [World(rank, 3).rows(10) for rank in range(3)]
        [(0, 3), (3, 6), (6, 10)]
        """
        return total * self.rank // self.size, total * (self.rank + 1) // self.size

    @torch.no_grad()
    def sum(self, tensors: Iterable[Tensor]) -> None:
        """Sum tensors of one dtype over all ranks, in place, in one flat all-reduce."""
        if self.size == 1:
            return
        parts = list(tensors)
        flat = torch.cat([p.reshape(-1) for p in parts])
        dist.all_reduce(flat)
        torch._foreach_copy_([p.reshape(-1) for p in parts], list(torch.split(flat, [p.numel() for p in parts])))

    @torch.no_grad()
    def copy_from_first(self, tensors: Iterable[Tensor]) -> None:
        """Every rank starts from rank 0's values."""
        if self.size > 1:
            for tensor in tensors:
                dist.broadcast(tensor, 0)
