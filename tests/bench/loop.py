"""What the engine costs over a hand-written loop of the same networks, objective, tensors, optimizer and average.

    python -m tests.bench.loop [ROUNDS]

DCGAN on Fashion-MNIST, batch 64, non-saturating. The loop below is written as well as one can by hand: fakes for D
without a graph, D frozen while G moves, fused Adam, one fused operation for the average. The ratio is the engine's time
over its time, the median of many short turns.
"""

from __future__ import annotations

import copy
import statistics
import sys
import time

import torch
from torch.nn.functional import softplus

from gancli.compute.device import Compute
from gancli.data.embedded import fashion
from gancli.data.loader import Stream
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import NonSaturating
from gancli.nets.dcgan import Discriminator, Generator
from gancli.train.averages import Average
from gancli.train.engine import Engine

BATCH, TURN = 64, 4


def networks() -> dict[str, torch.nn.Module]:
    """The paper's DCGAN at 28 pixels, in the memory order the engine uses."""
    torch.manual_seed(0)
    shape = (1, 28, 28)
    nets = {"G": Generator(shape, 100), "D": Discriminator(shape)}
    return {name: Compute().place(net) for name, net in nets.items()}


def adam(net: torch.nn.Module) -> torch.optim.Adam:
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.5, 0.999), fused=True)


class ByHand:
    """The loop that one would write for this one system."""

    def __init__(self) -> None:
        nets = networks()
        self.G, self.D = nets["G"], nets["D"]
        self.average = copy.deepcopy(self.G).requires_grad_(False)
        self.adam = {"G": adam(self.G), "D": adam(self.D)}
        self.images = fashion().rows(torch.arange(10_000).numpy())["x"]
        self.order, self.at = torch.randperm(10_000), 0

    def step(self) -> None:
        G, D = self.G, self.D
        index = self.order[self.at : self.at + BATCH]
        self.at = (self.at + BATCH) % (10_000 - BATCH)
        x = self.images[index].float() / 127.5 - 1

        D.requires_grad_(True)
        with torch.no_grad():
            fake = G(torch.rand(BATCH, 100) * 2 - 1)
        loss = softplus(-D(x).logits).mean() + softplus(D(fake).logits).mean()
        loss.backward()
        self.adam["D"].step()
        self.adam["D"].zero_grad()

        D.requires_grad_(False)
        loss = softplus(-D(G(torch.rand(BATCH, 100) * 2 - 1)).logits).mean()
        loss.backward()
        self.adam["G"].step()
        self.adam["G"].zero_grad()
        with torch.no_grad():
            torch._foreach_lerp_(list(self.average.parameters()), list(G.parameters()), 1e-3)


def by_engine() -> Engine:
    nets = networks()
    game = NoiseGame(nets, NonSaturating(), {}, Latent(dim=100, kind="uniform"), classes=10)
    streams = {"real": Stream(fashion(), 0, "real")}
    optimizers = {name: adam(net) for name, net in nets.items()}
    return Engine(game, streams, optimizers, compute=Compute(), batch_size=BATCH, average=Average(decay=0.999))


def main(rounds: int = 40) -> float:
    """Print the medians and their ratio; return the ratio."""
    players = {"hand": ByHand(), "engine": by_engine()}
    times: dict[str, list[float]] = {name: [] for name in players}
    for turn in range(rounds + 2):
        for name, player in players.items() if turn % 2 else reversed(players.items()):
            began = time.perf_counter()
            for _ in range(TURN):
                player.step()
            if turn > 1:  # the first turns make kernels
                times[name].append((time.perf_counter() - began) / TURN)
    medians = {name: statistics.median(t) for name, t in times.items()}
    ratio = statistics.median(e / h for e, h in zip(times["engine"], times["hand"], strict=True))
    print(f"hand-written loop {medians['hand'] * 1e3:.1f} ms a step, engine {medians['engine'] * 1e3:.1f} ms")
    print(f"engine over hand: {ratio:.3f} (median of {rounds} alternating turns of {TURN} steps); the bar is 1.05")
    return ratio


if __name__ == "__main__":
    main(*map(int, sys.argv[1:2]))
