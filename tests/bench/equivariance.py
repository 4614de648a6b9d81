"""Equivariance of untrained StyleGAN 3 generators, right and with faults: `python -m tests.bench.equivariance [SEED]`.

64 pixels, ch_base 1024, ch_max 32, averages settled on 16 samples, samples scaled to deviation 0.5, 8 samples with a
move each. An untrained network tells right filters from wrong ones.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from gancli.metrics.equivariance import EqR, EqT, EqTFrac, Equivariance, decibels
from gancli.nets.stylegan3 import Generator

SETTINGS: dict[str, dict[str, Any]] = {
    "T": {},
    "R": {"variant": "R"},
    "T, nonlinearity not filtered": {"filtered": False},
    "T, no margin": {"margin": 0},
}
SAMPLES, SIDE, LATENT = 8, 64, 512


@torch.no_grad()
def settled(seed: int, options: Mapping[str, Any]) -> Generator:
    """An untrained generator whose averages are those of 16 samples."""
    torch.manual_seed(seed)
    G = Generator((3, SIDE, SIDE), LATENT, ch_base=1024, ch_max=32, **options).eval()
    _, magnitudes = G(torch.randn(16, LATENT), keep=0.0)
    G.update(magnitudes, 0.0)
    return G


@torch.no_grad()
def measured(G: Generator, metrics: Sequence[Equivariance], seed: int) -> dict[str, float]:
    """The metrics in dB, by name."""
    rng = torch.Generator().manual_seed(seed)
    w = G.mapping(torch.randn(SAMPLES, LATENT, generator=rng))
    plain = G(None, w=w)
    scale, found = 0.5 / plain.std(), {}
    for metric in metrics:
        shares = 2 * torch.rand(SAMPLES, 2, generator=rng, dtype=torch.float64) - 1
        moves = metric.drawn(shares, SIDE, SIDE)
        made: Tensor = G(None, w=w, transform=(moves / torch.tensor([SIDE, SIDE, 1])).float())
        sums = torch.zeros(2, dtype=torch.float64)
        for one, other, move in zip(plain * scale, made * scale, moves, strict=True):
            sums += metric.errors(one, other, move)
        found[metric.name] = decibels(*sums.tolist())
    return found


def main(seed: int = 4) -> None:
    """Print a row for each network."""
    for name, options in SETTINGS.items():
        found = measured(settled(seed, options), [EqT(), EqTFrac(), EqR()], seed)
        print(f"{name:30}", " · ".join(f"{key} {value:.1f} dB" for key, value in found.items()), flush=True)


if __name__ == "__main__":
    main(*(int(word) for word in sys.argv[1:2]))
