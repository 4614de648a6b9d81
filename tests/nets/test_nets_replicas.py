"""Batch norm over all ranks: two ranks with unequal shares are one process with the whole batch."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import Tensor, nn

from gancli.nets.layers.norms import BatchNorm2d, LabelBatchNorm2d, share_statistics

ROWS = ((0, 2), (2, 7))


def layers() -> list[nn.Module]:
    """A plain one, a conditional one, and one whose running statistics are plain means."""
    torch.manual_seed(0)
    found = [BatchNorm2d(3), LabelBatchNorm2d(3, 4), BatchNorm2d(3, momentum=None)]
    for layer in found:
        for p in layer.parameters():
            nn.init.normal_(p)
    return [layer.double() for layer in found]


def batch() -> tuple[Tensor, Tensor, Tensor]:
    """Images far from 0, labels, and what the gradient of the outputs is."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(7, 3, 4, 5, generator=generator, dtype=torch.float64) * 2 + 50
    return x, torch.randint(4, (7,), generator=generator), torch.randn(7, 3, 4, 5, generator=generator).double()


def play(start: int, stop: int, across: bool) -> list[dict[str, Tensor]]:
    """Two passes of every layer over these rows."""
    results = []
    for layer in layers():
        share_statistics(layer, across)
        for _ in range(2):
            x, y, slope = (part[start:stop] for part in batch())
            x.requires_grad_(True)
            layer.zero_grad()
            out = layer(x, y)
            (out * slope).sum().backward()
        results.append({"out": out.detach(), "gx": x.grad, "mean": layer.running_mean, "var": layer.running_var})
        results[-1] |= {f"g_{name}": p.grad for name, p in layer.named_parameters()}
    return results


def rank(number: int, folder: str) -> None:
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=number, world_size=2)
    torch.save(play(*ROWS[number], across=True), Path(folder) / f"{number}.pt")
    dist.destroy_process_group()


@pytest.mark.slow
def test_two_ranks_are_one_batch(tmp_path: Path) -> None:
    mp.spawn(rank, args=(str(tmp_path),), nprocs=2)
    shares = [torch.load(tmp_path / f"{n}.pt", weights_only=True) for n in (0, 1)]
    for whole, first, second in zip(play(0, 7, across=False), *shares, strict=True):
        for name in ("out", "gx"):
            torch.testing.assert_close(torch.cat([first[name], second[name]]), whole[name], rtol=1e-12, atol=1e-12)
        for name in ("mean", "var"):
            torch.testing.assert_close(first[name], whole[name], rtol=1e-12, atol=1e-12)
            assert torch.equal(first[name], second[name])
        for name in whole:
            if name.startswith("g_"):
                torch.testing.assert_close(first[name] + second[name], whole[name], rtol=1e-12, atol=1e-12)


def test_alone_it_is_torchs_own() -> None:
    for shared, own in zip(play(0, 7, across=True), play(0, 7, across=False), strict=True):
        assert all(torch.equal(shared[name], own[name]) for name in own)
