"""Penalties: what a player pays beside its objective. A new one is a class of one method and a file in conf/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.rng import Rng


@dataclass(frozen=True)
class Context:
    """What a penalty may look at, in the parameters' dtype and outside autocast.

    nets: the game's networks by player. judge: (images, labels) -> D's logits [B]. real, fake: [B, ...], without a
    graph (None for G's penalties; fake also where it is not needed). y, y_fake: int64 [B] or None. rng: numbers for
    this micro-batch.
    """

    nets: Mapping[str, nn.Module]
    judge: Callable[[Tensor, Tensor | None], Tensor]
    real: Tensor | None
    fake: Tensor | None
    y: Tensor | None
    y_fake: Tensor | None
    rng: Rng


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Base of all penalties.

    weight: λ. every: pay each `every` steps only, `every` times as much (lazy regularisation, Karras et al. 2020,
    section 3.1). player: who pays. per_sample: built on each sample's own gradient, which batch statistics in D would
    falsify. lipschitz: bounds D's slope. needs_fake: looks at fakes. undone_by_spectral: bounds a
    size that spectral norm divides away. Raises ConfigError for a weight below 0 or `every` below 1.
    """

    weight: float = 1.0
    every: int = 1

    player: ClassVar[str] = "D"
    per_sample: ClassVar[bool] = False
    lipschitz: ClassVar[bool] = False
    needs_fake: ClassVar[bool] = False
    undone_by_spectral: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf") or self.every < 1:
            raise ConfigError(
                f"a penalty has weight >= 0 and every >= 1, not weight={self.weight:g} every={self.every}"
            )

    def __call__(self, context: Context) -> Tensor | None:
        """The penalty of this micro-batch, unweighted, as a scalar mean; None where there is none to differentiate."""
        return None

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Move the player's weights back into the allowed set, after its optimizer step."""


def input_gradient(judge: Callable[[Tensor, Tensor | None], Tensor], x: Tensor, y: Tensor | None) -> Tensor:
    """∂ judge(x) / ∂x for each sample, flattened to [B, -1], itself differentiable."""
    x = x.detach().requires_grad_(True)
    (gradient,) = torch.autograd.grad(judge(x, y).sum(), x, create_graph=True)
    return gradient.flatten(1)


@dataclass(frozen=True, kw_only=True)
class WganGp(Penalty):
    """E (‖∇l(x̂)‖ - 1)^2 at points x̂ between real and fake (Gulrajani et al. 2017, eq. 3; λ = 10).

    >>> judge, zeros = (lambda x, y: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> context = Context({}, judge, zeros, zeros, None, None, Rng(0, total=2))
    >>> WganGp()(context).item()  # (5 - 1)^2: a linear critic's slope is the same everywhere
    16.0
    """

    weight: float = 10.0
    per_sample = True
    lipschitz = True
    needs_fake = True

    def __call__(self, context: Context) -> Tensor:
        """(‖∇‖₂ - 1)² over all non-batch dimensions, mean over the batch."""
        assert context.real is not None
        assert context.fake is not None  # needs_fake
        rows = (len(context.real),) + (1,) * (context.real.dim() - 1)
        share = context.rng.uniform("wgan_gp").to(context.real.dtype).view(rows)
        between = torch.lerp(context.fake.to(context.real.dtype), context.real, share)
        slopes: Tensor = torch.linalg.vector_norm(input_gradient(context.judge, between, context.y), dim=1)
        return (slopes - 1).square().mean()


@dataclass(frozen=True, kw_only=True)
class R1(Penalty):
    """(γ/2) E ‖∇l(x)‖^2 at real images (Mescheder et al. 2018, eq. 9); `weight` is γ.

    >>> judge, zeros = (lambda x, y: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> R1()(Context({}, judge, zeros, zeros, None, None, Rng(0, total=2))).item()  # 25 / 2
    12.5
    """

    weight: float = 10.0
    per_sample = True
    lipschitz = True

    def __call__(self, context: Context) -> Tensor:
        """Half of the squared gradient norm, mean over the batch."""
        assert context.real is not None
        return input_gradient(context.judge, context.real, context.y).square().sum(1).mean() / 2


@dataclass(frozen=True, kw_only=True)
class Orthogonal(Penalty):
    """β Σ ‖WWᵀ ⊙ (1 - I)‖² over G's weights as matrices [outputs, rest] (Brock et al. 2019, eq. 3; β = 1e-4).

    diagonal: ‖WWᵀ - I‖² instead (eq. 2), which holds every filter's length at 1, too. Weights are raw, not divided
    by their singular value; tables of classes are left out, as in the released code.

    >>> net = nn.Linear(2, 2); _ = net.weight.data.copy_(torch.tensor([[2.0, 0.0], [3.0, 1.0]]))
    >>> context = Context({"G": net}, lambda x, y: x, None, None, None, None, Rng(0, total=1))
    >>> Orthogonal()(context).item()  # 6^2, twice
    72.0
    >>> Orthogonal(diagonal=True)(context).item()  # and (4 - 1)^2 + (10 - 1)^2
    162.0
    """

    weight: float = 1e-4
    diagonal: bool = False
    player = "G"

    def __call__(self, context: Context) -> Tensor:
        """The sum over all weights; the same for every micro-batch."""
        net = context.nets[self.player]
        tables = {id(p) for m in net.modules() if getattr(m, "lookup", False) for p in m.parameters()}
        weights = [w for w in net.parameters() if w.dim() > 1 and id(w) not in tables]
        with torch.autocast(weights[0].device.type, enabled=False):
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
    """Every weight of D into [-value, value] after each of its steps (Arjovsky et al. 2017, algorithm 1; 0.01).

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
        """Clamp every parameter in place."""
        torch._foreach_clamp_min_(list(net.parameters()), -self.value)
        torch._foreach_clamp_max_(list(net.parameters()), self.value)
