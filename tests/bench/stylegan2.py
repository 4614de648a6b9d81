"""A StyleGAN 2 cycle here beside two other forms, in turns in one process: `python -m tests.bench.stylegan2 [ROUNDS]`.

64 pixels, full width, batch 8. A cycle is a move of each player, and the lazy terms at their share: each time is
(G + path length / 4 + D + R1 / 16). The other forms insert zeros, filter large images and run every pass by itself, in
torch's own order of memory; one has grouped weights of each sample, as rosinality's and lucidrains' code, the other
scales inputs and outputs, as NVIDIA's. Ratios are of median times.
"""

from __future__ import annotations

import os
import statistics
import sys
from collections.abc import Callable
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.device import keep_freed_memory
from gancli.train.engine import Engine
from tests import growing, styled2
from tests.bench.turns import timed
from tests.contract.cast import engine_of

BATCH, SIDE, LATENT = int(os.environ.get("BATCH", "8")), int(os.environ.get("SIDE", "64")), 512
BASE, MOST = int(os.environ.get("BASE", "32768")), int(os.environ.get("MOST", "512"))
SHARES = {"G": 1.0, "path_length": 1 / 4, "D": 1.0, "r1": 1 / 16}
Steps = dict[str, Callable[[], object]]


def ours() -> tuple[Engine, Steps]:
    """The engine, and its moves."""
    keys = [
        "model=stylegan2",
        "dataset=random",
        f"dataset.size=[3,{SIDE},{SIDE}]",
        f"batch_size={BATCH}",
        "steps=10000",
    ]
    engine = engine_of([*keys, f"model.ch_base={BASE}", f"model.ch_max={MOST}"])

    def play(name: str) -> None:
        move = next(move for move in engine.moves() if name in (move.name or move.player, move.name))
        engine.play(move, 0, {})

    _same(engine)
    engine.step()
    return engine, {name: partial(play, name) for name in SHARES}


def theirs(engine: Engine, form: Literal["grouped", "scaled"]) -> Steps:
    """The moves in another form, on copies of the engine's weights."""
    g, d = (growing.weights_of(engine.game.nets[name]) for name in "GD")
    for weights in (g, d):
        for name, p in weights.items():
            weights[name] = p.detach().contiguous().requires_grad_(True)
    G, D = styled2.Synthesis(g, lambda _, x: torch.randn_like(x[:, :1]), form), styled2.Critic(d, group=8)
    optimizers = {"G": torch.optim.Adam(g.values(), 2e-3, (0.0, 0.99), fused=True)}
    optimizers["D"] = torch.optim.Adam(d.values(), 2e-3, (0.0, 0.99), fused=True)
    real = torch.rand(BATCH, 3, SIDE, SIDE) * 2 - 1

    def styles(rows: int) -> Tensor:
        w, other = (styled2.mapped(g, torch.randn(rows, LATENT)) for _ in range(2))
        return torch.where(torch.arange(2 * G.blocks)[None, :, None] < 3, w[:, None], other[:, None])

    def update(player: str, loss: Tensor) -> None:
        loss.backward()
        optimizers[player].step()
        optimizers[player].zero_grad()

    def g_main() -> None:
        for p in d.values():
            p.requires_grad_(False)
        update("G", F.softplus(-D(G(styles(BATCH)))).mean())
        for p in d.values():
            p.requires_grad_(True)

    def g_path() -> None:
        w = styles(BATCH // 2)
        images = G(w)
        (slope,) = torch.autograd.grad((images * torch.randn_like(images) / SIDE).sum(), w, create_graph=True)
        update("G", (slope.square().sum(2).mean(1).sqrt() - 1).square().mean())

    def d_main() -> None:
        with torch.no_grad():
            fake = G(styles(BATCH))
        update("D", (F.softplus(D(fake)) + F.softplus(-D(real))).mean())

    def d_r1() -> None:
        update("D", growing.slopes(D, real).mean())

    return dict(zip(SHARES, (g_main, g_path, d_main, d_r1), strict=True))


def main(rounds: int = 5) -> None:
    """Print the times of a cycle, their ratios, and the times of each move."""
    keep_freed_memory()  # for all, as `gan train` does
    engine, own = ours()
    forms: dict[str, Steps] = {"ours": own, "grouped": theirs(engine, "grouped"), "scaled": theirs(engine, "scaled")}
    taken = {
        move: {
            form: statistics.median(times)
            for form, times in timed({f: s[move] for f, s in forms.items()}, rounds).items()
        }
        for move in SHARES
    }
    whole = {form: sum(share * taken[move][form] for move, share in SHARES.items()) for form in forms}
    for move, times in taken.items():
        print(move, " · ".join(f"{form} {seconds:.3f} s" for form, seconds in times.items()))
    print("cycle", " · ".join(f"{form} {seconds:.3f} s" for form, seconds in whole.items()))
    print(" · ".join(f"{form} / ours {whole[form] / whole['ours']:.3f}" for form in ("grouped", "scaled")))


@torch.no_grad()
def _same(engine: Engine) -> None:
    """Assert that all forms have the same outputs; noise has scale 0 at first."""
    G, D = engine.game.nets["G"], engine.game.nets["D"]
    w = torch.randn(2, 2 * len(G.blocks), LATENT)
    image = G(None, w=w)
    for form in ("grouped", "scaled"):
        other = styled2.Synthesis(growing.weights_of(G), lambda _, x: torch.zeros_like(x[:, :1]), form)(w)  # type: ignore[arg-type]
        torch.testing.assert_close(other, image, rtol=1e-3, atol=1e-3 * float(image.std()))
    logits = styled2.Critic(growing.weights_of(D), group=8)(image)
    torch.testing.assert_close(logits, D(image).logits, rtol=1e-3, atol=1e-3)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
