"""Two ranks on this machine, by gloo, for tests of what they come to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp


def _rank(number: int, folder: str, job: Callable[[], Any]) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save(job(), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


def on_two_ranks(folder: Path, job: Callable[[], Any]) -> list[Any]:
    """What `job`, a function of a module, returns on each of two ranks: tensors in plain containers."""
    mp.spawn(_rank, args=(str(folder), job), nprocs=2)
    return [torch.load(folder / f"{number}.pt", weights_only=True) for number in (0, 1)]
