"""A ProGAN step here beside the textbook form, alternating in one process: `python -m tests.bench.growth [ROUNDS]`.

64 pixels, full width, batch 8, the last stage. The textbook form upsamples and averages in separate operations, runs
every pass by itself and in torch's own order of memory; D is frozen while G moves. Ratios are of median times.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable

import torch

from gancli.compute.device import keep_freed_memory
from gancli.train.engine import Engine
from tests import growing
from tests.bench.turns import timed
from tests.contract.cast import engine_of

BATCH, SIDE, LATENT = int(os.environ.get("BATCH", "8")), int(os.environ.get("SIDE", "64")), 512
BASE, MOST = int(os.environ.get("BASE", "16384")), int(os.environ.get("MOST", "512"))


def ours() -> Engine:
    """The engine in its last stage, with its data."""
    keys = ["model=progan", "dataset=random", f"dataset.size=[3,{SIDE},{SIDE}]", f"batch_size={BATCH}", "steps=10000"]
    widths = [f"model.ch_base={BASE}", f"model.ch_max={MOST}"]
    return engine_of([*keys, *widths, f"game.first_side={SIDE}"])


def theirs(engine: Engine) -> Callable[[], None]:
    """The textbook step on copies of the engine's weights."""
    nets = engine.game.nets
    most = nets["G"].growth.most
    g, d = (growing.weights_of(nets[name]) for name in "GD")
    for weights in (g, d):
        for name, p in weights.items():
            weights[name] = p.detach().contiguous().requires_grad_(True)
    G, D = growing.ProGenerator(g, most), growing.Critic(d, most)
    optimizers = [torch.optim.Adam(w.values(), 1e-3, (0.0, 0.99), fused=True) for w in (g, d)]
    real = torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1

    def step() -> None:
        with torch.no_grad():
            fake = G(torch.randn(BATCH, LATENT), 0.0)
        a, b = D(real, 0.0), D(fake, 0.0)
        mixed = torch.lerp(real, fake, torch.rand(BATCH, 1, 1, 1))
        gp = (growing.slopes(lambda x: D(x, 0.0), mixed).sqrt() - 1).square().mean()
        (b.mean() - a.mean() + 10 * gp + 0.001 * a.square().mean()).backward()
        optimizers[1].step()
        optimizers[1].zero_grad()
        for p in d.values():
            p.requires_grad_(False)
        (-D(G(torch.randn(BATCH, LATENT), 0.0), 0.0).mean()).backward()
        optimizers[0].step()
        optimizers[0].zero_grad()
        for p in d.values():
            p.requires_grad_(True)

    return step


def main(rounds: int = 7) -> None:
    """Print both times and their ratio."""
    keep_freed_memory()  # for both, as `gan train` does
    engine = ours()
    steps: dict[str, Callable[[], object]] = {"ours": engine.step, "textbook": theirs(engine)}
    taken = timed(steps, rounds)
    middle = {name: statistics.median(times) for name, times in taken.items()}
    each = statistics.median(b / a for a, b in zip(taken["ours"], taken["textbook"], strict=True))
    print(f"ours {middle['ours']:.3f} s · textbook {middle['textbook']:.3f} s · ratio {each:.3f}")


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
