"""Penalties on weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.losses.penalties import Context, Penalty
from gancli.nets.layers.spectral import full_precision


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Penalty):
    """β Σ ‖WWᵀ ⊙ (1 - I)‖² over G's weights as matrices [outputs, rest] (Brock et al. 2019, eq. 3; β = 1e-4).

    diagonal: ‖WWᵀ - I‖² instead (eq. 2), which also keeps every filter's norm at 1. Weights are used without spectral
    norm; class embeddings are omitted, as in the released code.

    >>> from gancli.compute.rng import Rng
    >>> net = nn.Linear(2, 2); _ = net.weight.data.copy_(torch.tensor([[2.0, 0.0], [3.0, 1.0]]))
    >>> context = Context({"generator": net}, lambda x, *_: x, None, None, None, None, Rng(0, total=1))
    >>> Orthogonal()(context).item()  # 6^2, twice
    72.0
    >>> Orthogonal(diagonal=True)(context).item()  # and (4 - 1)^2 + (10 - 1)^2
    162.0
    """

    weight: float = 1e-4
    diagonal: bool = False
    side = "generator"

    def __call__(self, context: Context) -> Tensor:
        """The sum over all trained weights; the same for every micro-batch."""
        net = context.nets[self.side]
        tables = {id(p) for m in net.modules() if getattr(m, "lookup", False) for p in m.parameters()}
        weights = [w for w in net.parameters() if w.requires_grad and w.dim() > 1 and id(w) not in tables]
        with full_precision(weights[0]):
            return torch.stack([self._cost(w.flatten(1)) for w in weights]).sum()

    def _cost(self, matrix: Tensor) -> Tensor:
        # WWᵀ and WᵀW have the same norm; the smaller is cheaper.
        wide = matrix.shape[0] <= matrix.shape[1]
        gram = matrix @ matrix.t() if wide else matrix.t() @ matrix
        lengths = matrix.square().sum(1)
        if self.diagonal:
            return gram.square().sum() - 2 * lengths.sum() + len(matrix)
        return gram.square().sum() - lengths.square().sum()


@dataclass(frozen=True, kw_only=True)
class Clip(Penalty):
    """Clips every weight of D to [-value, value] after each of its steps (Arjovsky et al. 2017, algorithm 1; 0.01).

    >>> net = nn.Linear(1, 1, bias=False); _ = nn.init.constant_(net.weight, 3.0)
    >>> Clip(value=0.5).project(net); net.weight.item()
    0.5
    """

    value: float = 0.01
    lipschitz = True
    undone_by_spectral = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.value > 0:
            raise ConfigError(
                f"penalty.clip.value={self.value:g}: weights are clipped to a range above 0, such as 0.01"
            )

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Clamp every trained parameter in place."""
        trained: list[Tensor] = [p for p in net.parameters() if p.requires_grad]
        torch._foreach_clamp_min_(trained, -self.value)
        torch._foreach_clamp_max_(trained, self.value)


@dataclass(frozen=True, kw_only=True)
class HistoricalD(Penalty):
    """‖θ - mean of D's θ over all steps so far‖^2 (Salimans et al. 2016, section 3.3).

    >>> from gancli.compute.rng import Rng
    >>> net, stats = nn.Linear(1, 1, bias=False), {}
    >>> penalty, memory = HistoricalD(), HistoricalD().memory(net)
    >>> for weight in (1.0, 3.0):
    ...     _ = nn.init.constant_(net.weight, weight)
    ...     penalty.remember(memory, net, stats)
    >>> nets, rng = {"discriminator": net}, Rng(0, total=1)
    >>> context = Context(nets, lambda x, *_: x, None, None, None, None, rng, memory=memory)
    >>> penalty(context).item()  # (3 - 2)^2
    1.0
    """

    def __call__(self, context: Context) -> Tensor | None:
        """The sum over all weights; the same for every micro-batch."""
        flat = _flat(context.nets[self.side])
        # Before the first step there is no history; the mean is then set to the weights.
        mean = torch.where(context.memory["steps"] > 0, context.memory["mean"], flat.detach())
        return (flat - mean).square().sum()

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """The mean of the weights and the number of steps that it covers."""
        flat = _flat(net).detach()
        return {"mean": torch.zeros_like(flat), "steps": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Update the mean with the weights."""
        flat = _flat(net)
        memory["steps"].add_(1)
        memory["mean"].add_((flat - memory["mean"]) / memory["steps"])


def _flat(net: nn.Module) -> Tensor:
    """All parameters as one vector."""
    return torch.cat([p.reshape(-1) for p in net.parameters()])


@dataclass(frozen=True, kw_only=True)
class HistoricalG(HistoricalD):
    """‖θ - mean of G's θ over all steps so far‖^2 (Salimans et al. 2016, section 3.3).

    >>> from gancli.compute.rng import Rng
    >>> net, penalty = nn.Linear(1, 1, bias=False), HistoricalG()
    >>> memory = {"mean": torch.tensor([1.0]), "steps": torch.tensor(4)}
    >>> _ = nn.init.constant_(net.weight, 1.5)
    >>> nets, rng = {"generator": net}, Rng(0, total=1)
    >>> penalty(Context(nets, lambda x, *_: x, None, None, None, None, rng, memory=memory)).item()
    0.25
    """

    side = "generator"
