"""The systems whose training cycle is timed, with their papers' widths, and our own cycle."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.layers.spectral import advance_spectral
from gancli.nets.resnet import Discriminator, Generator

SAGAN: dict[str, Any] = {"conditioning": "projection", "attention": [32], "spectral": True, "init": "xavier", "sn_eps": 1e-8}  # fmt: skip  # noqa: E501
BIGGAN: dict[str, Any] = {"conditioning": "projection", "attention": [32], "spectral": True, "init": "orthogonal", "sn_eps": 1e-6, "family": "biggan", "ch": 64}  # fmt: skip  # noqa: E501


@dataclass(frozen=True)
class System:
    """One row of the bench: size, latent, classes and the constructors' keys."""

    side: int
    latent: int
    classes: int = 0
    both: dict[str, Any] = field(default_factory=dict)
    g: dict[str, Any] = field(default_factory=dict)
    d: dict[str, Any] = field(default_factory=dict)

    def build(self, seed: int = 0) -> tuple[Generator, Discriminator]:
        """G and D; attention's γ is away from 0, where it would hide the layer."""
        torch.manual_seed(seed)
        shape = (3, self.side, self.side)
        G = Generator(shape, self.latent, self.classes, **self.both, **self.g)
        D = Discriminator(shape, self.classes, **self.both, **self.d)
        for net in (G, D):
            for layer in net.attention.values():
                nn.init.constant_(layer.gamma, 0.3)
        return G, D

    def batch(self, rows: int) -> tuple[Tensor, Tensor, Tensor | None]:
        """Images [rows, 3, side, side], latents [2, rows, latent] and labels."""
        x = torch.rand(rows, 3, self.side, self.side) * 2 - 1
        return x, torch.randn(2, rows, self.latent), torch.randint(self.classes, (rows,)) if self.classes else None


SYSTEMS = {
    "SNGAN-32": System(32, 128),
    "SAGAN-64": System(64, 128, 1000, SAGAN, {"bn_eps": 1e-5}, {"wide": True}),
    "BigGAN-64": System(64, 100, 1000, BIGGAN, {"bn_eps": 1e-5, "shared": 128, "skip_z": True}, {"wide": True}),
}


def our_cycle(
    G: nn.Module,
    D: nn.Module,
    g_optimizer: torch.optim.Optimizer,
    d_optimizer: torch.optim.Optimizer,
    x: Tensor,
    z: Tensor,
    y: Tensor | None = None,
) -> None:
    """What the engine does in a step: fakes without a graph, real and fake in one batch, D frozen while G moves."""
    d_optimizer.zero_grad()
    D.requires_grad_(True)
    advance_spectral(D)
    with torch.no_grad():
        fake = G(z[0], y)
    real_logits, fake_logits = D(torch.cat([x, fake]), None if y is None else torch.cat([y, y])).logits.chunk(2)
    (F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()).backward()
    d_optimizer.step()
    g_optimizer.zero_grad()
    D.requires_grad_(False)
    advance_spectral(G)
    (-D(G(z[1], y), y).logits.mean()).backward()
    g_optimizer.step()


def adam(net: nn.Module) -> torch.optim.Optimizer:
    """One optimizer for all, the fused kernel in both trainers."""
    return torch.optim.Adam(net.parameters(), lr=2e-4, betas=(0.0, 0.9), fused=True)
