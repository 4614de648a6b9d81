"""Networks and data of a few numbers, for tests that assert exact things."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.data.facts import DataFacts
from gancli.data.fields import Field, Image, Label, Points
from gancli.data.loader import Stream
from gancli.data.source import Source, table
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import AdversarialLoss, Hinge
from gancli.losses.penalties import Penalty
from gancli.nets.verdict import Verdict
from gancli.train.averages import Average
from gancli.train.engine import Engine

SHAPE = (1, 8, 8)


class TinyG(nn.Module):
    """Latents [B, 4] to images [B, 1, 8, 8]."""

    def __init__(self, norm: bool = False):
        super().__init__()
        self.dense = nn.Linear(4, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.out = nn.Linear(16, 64)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        return torch.tanh(self.out(torch.relu(self.norm(self.dense(z))))).view(-1, *SHAPE)


class TinyD(nn.Module):
    """Images [B, 1, 8, 8] to logits [B]."""

    def __init__(self, norm: bool = False, dropout: float = 0.0):
        super().__init__()
        self.dense = nn.Linear(64, 16)
        self.norm = nn.BatchNorm1d(16) if norm else nn.Identity()
        self.dropout = nn.Dropout(dropout)
        self.out = nn.Linear(16, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        hidden = torch.tanh(self.norm(self.dense(x.flatten(1))))
        return Verdict(self.out(self.dropout(hidden)).squeeze(1))


def facts_of(shape: tuple[int, ...], classes: tuple[str, ...] = ()) -> DataFacts:
    """What is known of images or points of this shape, with labels where there are classes."""
    columns: dict[str, Field] = {"x": Points(*shape) if len(shape) == 1 else Image(*shape)}
    return DataFacts("x", columns | ({"y": Label(classes)} if classes else {}), {"": 1}, "")


def source(n: int = 50) -> Source:
    """Noise images without labels."""
    return table("tiny", np.random.default_rng(0).integers(0, 256, (n, *SHAPE), dtype=np.uint8))


def game(
    loss: AdversarialLoss | None = None,
    penalties: dict[str, Penalty] | None = None,
    d_norm: bool = False,
    g_norm: bool = False,
    dropout: float = 0.0,
    **keys: int,
) -> NoiseGame:
    """A noise game of tiny networks, always with the same weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        nets = {"G": TinyG(g_norm), "D": TinyD(d_norm, dropout)}
    built = NoiseGame(nets, loss or Hinge(), penalties or {}, Latent(dim=4), **keys)
    built.fields = {"x": Image(*SHAPE)}
    return built


def engine(
    built: NoiseGame | None = None,
    *,
    dtype: torch.dtype = torch.float32,
    sgd: bool = False,
    batch_size: int = 8,
    micro_batch: int | None = None,
    seed: int = 0,
    decay: float = 0.5,
    **options: object,
) -> Engine:
    """An engine for a tiny game."""
    built = (built or game()).to(dtype)
    kind = torch.optim.SGD if sgd else torch.optim.Adam
    optimizers = {name: kind(net.parameters(), lr=0.01) for name, net in built.nets.items()}
    return Engine(
        built,
        {"real": Stream(source(), seed, "real")},
        optimizers,
        compute=Compute(),
        batch_size=batch_size,
        micro_batch=micro_batch,
        seed=seed,
        average=Average(decay=decay, warmup=False),
        **options,  # type: ignore[arg-type]
    )


def weights(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.detach().reshape(-1).clone() for p in net.parameters()])
