"""A last layer of unit norm that is trained by a term of its own (SAN, Takida et al. 2024).

A logit is f(x) = ⟨ω, h(x)⟩ + b with features h and a direction ω of norm 1. D's objective and penalties train h and b
with ω constant; the direction's term trains ω with h and b constant (`AdversarialLoss.direction`). The bias thus
belongs to the features, as in the released code, which adds a vector to h. Spectral norm is left out of the layer,
since it would not change ω. The weights' norm has no effect; it is set to 1 after D's steps, as in the released code.
That code also multiplies logits by a trained scale, which starts at the weights' norm; here, as in the paper, none is.

A discriminator offers this with three lines (`Sliced`): it takes `san` and keeps it as an attribute, its `forward`
returns `sliced(h, weight, bias)` instead of a Verdict of its logits, and `directions` returns the weights that are
directions. A logit may depend on labels: `weight` then has a row for each sample. If the last layer's output is
multiplied with an embedding of the label (R3GAN, StyleGAN2), the embedding is the direction and the output is h, as in
StyleSAN-XL; if the embedding is added to the weight (projection), their sum is.
"""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import CombinationError
from gancli.nets.verdict import Verdict

EPS = 1e-12  # of a norm


@runtime_checkable
class Sliced(Protocol):
    """A discriminator that offers SAN. san: whether it is used."""

    san: bool

    def directions(self) -> list[Tensor]:
        """The stored weights of which each row is a direction, [rows, ...]; none if directions are sums of weights."""
        ...


def has_direction(net: nn.Module) -> bool:
    """Whether a discriminator's last layer is a direction with a term of its own."""
    return isinstance(net, Sliced) and net.san


def unit(weight: Tensor) -> Tensor:
    """Rows [N, ...] divided by their norm, in float32 at least.

    >>> unit(torch.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
    norms = torch.linalg.vector_norm(weight.flatten(1), dim=1).clamp_min(EPS)
    result: Tensor = weight / norms.view(-1, *[1] * (weight.dim() - 1))
    return result


def sliced(h: Tensor, weight: Tensor, bias: Tensor | None = None, **told: Any) -> Verdict:
    """The verdict of features h [B, width] along the directions of `weight`, [1, width] or one for each sample.

    bias: [1] or [B]. told: the verdict's other parts.

    >>> h, w = torch.tensor([[5.0, 0.0]], requires_grad=True), torch.tensor([[3.0, 4.0]], requires_grad=True)
    >>> verdict = sliced(h, w)
    >>> round(verdict.logits.item(), 6), verdict.direction.equal(verdict.logits)  # 5 · 3/5
    (3.0, True)
    >>> torch.autograd.grad(verdict.direction, (h, w), allow_unused=True)[0] is None
    True
    >>> torch.autograd.grad(verdict.logits, (h, w), allow_unused=True)[1] is None
    True
    """
    omega = unit(weight)

    def along(h: Tensor, omega: Tensor) -> Tensor:
        return F.linear(h, omega).squeeze(1) if len(omega) == 1 else (h * omega).sum(1)

    return _verdict(along(h, omega.detach()), along(h.detach(), omega), bias, told)


def sliced_maps(x: Tensor, conv: nn.Conv2d, **told: Any) -> Verdict:
    """As `sliced`, for a convolution: its direction is the filter [1, C, h, w], its features are patches of x."""
    omega = unit(conv.weight)

    def along(x: Tensor, omega: Tensor) -> Tensor:
        return F.conv2d(x, omega, None, conv.stride, conv.padding)

    bias = None if conv.bias is None else conv.bias.view(1, -1, 1, 1)
    return _verdict(along(x, omega.detach()), along(x.detach(), omega), bias, told)


def _verdict(logits: Tensor, direction: Tensor, bias: Tensor | None, told: dict[str, Any]) -> Verdict:
    if bias is not None:
        logits, direction = logits + bias, direction + bias.detach()
    return Verdict(logits, direction=direction, **told)


@torch.no_grad()
def renormalise(net: nn.Module) -> None:
    """Set the norm of a discriminator's stored directions to 1, in place; without SAN nothing changes.

    The gradient of a direction is orthogonal to its weights, so that their norm would grow with every step and the
    steps of Adam would turn the direction less and less.
    """
    if isinstance(net, Sliced) and net.san:
        for weight in net.directions():
            weight.copy_(unit(weight))


def refuse_direction(san: bool, why: str) -> None:
    """Raise CombinationError if SAN is asked of a discriminator without a linear last layer."""
    if san:
        raise CombinationError(
            f"model.D.san=true needs a last layer that is linear, but {why}:"
            " set model.D.san=false, or use another model"
        )
