"""A CycleGAN step here beside the released step's form, alternating in one process.

    python -m tests.bench.translation [ROUNDS] [BATCH ...]

64 pixels, 6 blocks, ch 64 (CH=32 for half). The released form: one network a pass, both D frozen while the generators
move (or not: `unfrozen`), torch's default order of memory, torch's Adam. Ratios are of the median times of short turns.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable

import torch

from gancli.compute.device import keep_freed_memory
from tests import released
from tests.bench.turns import timed
from tests.contract.cast import engine_of

CH = int(os.environ.get("CH", "64"))


def theirs(batch: int, frozen: bool) -> Callable[[], None]:
    """The released form on data that are at hand."""
    torch.manual_seed(0)
    generators = {name: released.resnet(3, 3, CH, 6) for name in ("G_A2B", "G_B2A")}
    critics = {name: released.patches(3, CH, kind="instance") for name in ("D_A", "D_B")}
    pools = {domain: released.Remembered(50, lambda k: k % 50 if k % 2 else None) for domain in "AB"}
    game = released.CycleGAN(**generators, **critics, pools=pools, frozen=frozen)
    a, b = torch.rand(2, batch, 3, 64, 64) * 2 - 1
    return lambda: game.step(a, b)


def ours(batch: int) -> Callable[[], object]:
    """The engine's step, with its data."""
    keys = ["model=cyclegan", f"model.ch={CH}", "dataset=random", "dataset.size=64", f"batch_size={batch}"]
    return engine_of([*keys, "steps=10000"]).step


def main(rounds: int = 7, batches: tuple[int, ...] = (1, 4)) -> None:
    """Print the times and ratios for each batch size."""
    keep_freed_memory()  # for all of them, as `gan train` does
    for batch in batches:
        steps = {"ours": ours(batch), "frozen": theirs(batch, True), "unfrozen": theirs(batch, False)}
        taken = timed(steps, rounds)
        middle = {name: statistics.median(times) for name, times in taken.items()}
        ratios = " ".join(f"{name} / ours {middle[name] / middle['ours']:.3f}" for name in ("frozen", "unfrozen"))
        print(f"batch {batch}: ours {middle['ours']:.3f} s · {ratios}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]), *([tuple(map(int, sys.argv[2:]))] if sys.argv[2:] else []))
