"""How far D's logits of training and held-out images part, with and without ADA: `python -m tests.bench.held_out`.

StyleGAN 2 at 32 pixels, narrow, on 200 emoji; held out are the 200 of the split test. A line each 100 steps; their
number is the argument.
"""

from __future__ import annotations

import statistics
import sys

import torch
from torch import Tensor

from gancli.compute.device import Compute
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.train import assemble, streams
from gancli.train.engine import Engine

KEYS = [
    "model=stylegan2", "model.ch_base=1024", "model.ch_max=64", "model.latent.dim=64", "model.G.w_dim=64",
    "model.mapping_layers=2", "model.D.group=4", "penalty.r1.weight=0.02", "dataset=emoji", "dataset.size=32",
    "batch_size=16", "device=cpu",
]  # fmt: skip
IMAGES = 200


def engine_of(*keys: str) -> Engine:
    """The engine of a command."""
    config = compose("train", [*KEYS, *keys])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    return assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())


@torch.no_grad()
def mean_logit(engine: Engine, images: Tensor) -> float:
    """D's mean logit, in batches of 8."""
    D = engine.game.nets["D"].eval()
    found = torch.cat([D(x).logits for x in images.split(8)]).mean().item()
    D.train()
    return float(found)


def main(steps: int = 800) -> None:
    """Print p and both mean logits every 100 steps, and the mean of their differences."""
    held = engine_of("dataset.split=test").main.batch(0, IMAGES, 0, IMAGES)["x"]
    for keys in (["augment=ada", "augment.images=20000"], ["augment=none"]):
        engine = engine_of("dataset.split=train", f"dataset.limit={IMAGES}", *keys)
        seen = engine.main.batch(0, IMAGES, 0, IMAGES)["x"]
        apart = []
        for step in range(1, steps + 1):
            engine.step()
            if step % 100 == 0:
                own, other = mean_logit(engine, seen), mean_logit(engine, held)
                apart.append(own - other)
                (p,) = [float(b) for name, b in engine.game.named_buffers() if name.endswith("augment.p")] or [0.0]
                print(f"{keys[0]} step {step}: p {p:.3f} · training {own:.3f} · held out {other:.3f}", flush=True)
        print(f"{keys[0]}: training and held-out images differ by {statistics.mean(apart):.3f}", flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
