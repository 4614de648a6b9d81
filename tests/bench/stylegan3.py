"""A StyleGAN 3 cycle here beside one with plain filters, in turns: `python -m tests.bench.stylegan3 [ROUNDS]`.

64 pixels, T, the widths of experiment=stylegan3_small, batch 4. A cycle is a move of each player, and R1 at its share:
each time is (G + D + R1 / 16). The other form inserts zeros and filters the large images with depthwise 2-D kernels, as
the released code does without its CUDA extensions; all else is the same. Ratios are of median times.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from unittest import mock

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.device import keep_freed_memory
from gancli.nets.layers.filtered import Filters
from gancli.train.engine import Engine
from tests import styled3
from tests.bench.turns import timed
from tests.contract.cast import engine_of

BATCH, SIDE = int(os.environ.get("BATCH", "4")), int(os.environ.get("SIDE", "64"))
VARIANT = os.environ.get("VARIANT", "T")
SHARES = {"G": 1.0, "D": 1.0, "r1": 1 / 16}
Steps = dict[str, Callable[[], object]]


def plain(x: Tensor, filters: Filters, up: Tensor, down: Tensor) -> Tensor:
    """`layers.filtered.filtered` with zeros inserted, and each filter a depthwise convolution."""
    rows, columns = filters.up
    sides = [(p.low, p.outputs + p.taps - 1 - p.low - p.up * n) for p, n in ((columns, x.shape[3]), (rows, x.shape[2]))]
    wide = F.pad(styled3.apart(x, rows.up), [*sides[0], *sides[1]])
    count = x.shape[1]
    high = F.conv2d(wide, torch.outer(up, up).expand(count, 1, -1, -1), groups=count)
    kernel = torch.einsum("rk,rl->kl", down[:, 0], down[:, 1])
    stride = filters.down[0].down
    return F.conv2d(F.leaky_relu(high, filters.slope), kernel.expand(count, 1, -1, -1), stride=stride, groups=count)


def plainly() -> mock._patch[Callable[..., Tensor]]:
    return mock.patch("gancli.nets.layers.alias_free.filtered", plain)


def moves(engine: Engine) -> Steps:
    """The moves of a cycle, by name."""

    def play(name: str) -> None:
        move = next(move for move in engine.moves() if name in (move.name or move.player, move.name))
        engine.play(move, 0, {})

    return {name: partial(play, name) for name in SHARES}


def with_plain_filters(step: Callable[[], object]) -> Callable[[], object]:
    """A move in the other form."""

    def other() -> None:
        with plainly():
            step()

    return other


@torch.no_grad()
def check(engine: Engine) -> None:
    """Assert that both forms have the same outputs, up to the rounding of 14 layers."""
    G = engine.game.nets["G"]
    w = torch.randn(2, G.mapping.mean.numel())  # type: ignore[operator, union-attr]
    image = G(None, w=w)
    with plainly():
        torch.testing.assert_close(G(None, w=w), image, rtol=1e-3, atol=1e-3 * float(image.std()))


def main(rounds: int = 5) -> None:
    """Print the times of a cycle, their ratio, and the times of each move."""
    keep_freed_memory()  # for both, as `gan train` does
    engine = engine_of([
        "experiment=stylegan3_small", f"model.variant={VARIANT}", "augment=none", "dataset=random",
        f"dataset.size=[3,{SIDE},{SIDE}]", f"batch_size={BATCH}", "steps=10000", "max_time=null",
    ])  # fmt: skip
    check(engine)
    engine.step()
    own = moves(engine)
    forms: dict[str, Steps] = {"ours": own, "plain": {name: with_plain_filters(step) for name, step in own.items()}}
    taken = {
        move: {
            form: statistics.median(times)
            for form, times in timed({f: s[move] for f, s in forms.items()}, rounds).items()
        }
        for move in SHARES
    }
    for move, times in taken.items():
        print(move, " · ".join(f"{form} {seconds:.3f} s" for form, seconds in times.items()))
    whole = {form: sum(share * taken[move][form] for move, share in SHARES.items()) for form in forms}
    print("cycle", " · ".join(f"{form} {seconds:.3f} s" for form, seconds in whole.items()))
    print(f"plain / ours {whole['plain'] / whole['ours']:.3f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
