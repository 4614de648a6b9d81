"""Penalties on D's slope, and the base of all: a new one is a class of one method and a file in conf/penalty/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor, nn

from gancli.compute.dist import gathered
from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.losses.adversarial import Couples
from gancli.nets.verdict import Verdict

Judge = Callable[..., Tensor]
Side = Literal["discriminator", "generator"]  # of a critic: its own network, or that whose samples it judges
Beside = Tensor | None | tuple[Tensor | None, ...]  # the columns that are judged beside a sample; a lone one by itself


@dataclass(frozen=True)
class Context:
    """What a penalty may look at, in the parameters' dtype and outside autocast.

    nets: the critic's networks by side. judge: (images, labels[, source]) -> D's logits [B], of images as D is shown
    those of that source (noisy, augmented, packed). real, fake: [B, ...], without a graph in D's moves, real None in
    G's (and fake, where it is not needed). y, y_fake: what is judged beside them: labels, int64 [B], or None; where
    there are several columns beside the image, a tuple. rng: numbers for this micro-batch. verdicts:
    what D said of "real" and "fake" in this very move, if it did. z: the fakes' latents [B, dim]. generate: (latents,
    labels) -> images. draw: other latents of the same law, by their purpose. memory: what this penalty remembers.
    """

    nets: Mapping[Side, nn.Module]
    judge: Judge
    real: Tensor | None
    fake: Tensor | None
    y: Beside
    y_fake: Beside
    rng: Rng
    verdicts: Mapping[str, Verdict] = field(default_factory=dict)
    z: Tensor | None = None
    generate: Callable[[Tensor, Any], Tensor] | None = None
    draw: Callable[[str], Tensor] | None = None
    memory: Mapping[str, Tensor] = field(default_factory=dict)

    def logits(self, source: Literal["real", "fake"]) -> Tensor:
        """D's logits [B] of a source: those of this move, or asked for now."""
        if source in self.verdicts:
            return self.verdicts[source].scores()
        images, labels = (self.real, self.y) if source == "real" else (self.fake, self.y_fake)
        assert images is not None
        return self.judge(images, labels, source)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Base of all penalties.

    weight: λ. every: pay each `every` steps only, `every` times as much (lazy regularisation, Karras et al. 2020,
    section 3.1). side: who pays, and whose weights it may look at. per_sample: built on each sample's own gradient,
    which batch statistics in D would falsify. lipschitz: bounds D's slope. needs_fake: looks at fakes. needs_real: G's
    side looks at D's verdict on real images. needs_images: makes no sense for points. needs_features: of D, and in the
    move that draws the fakes. needs_latents: compares what is made of other latents. undone_by_spectral: bounds a size
    that spectral norm divides away. couples: how many samples a value depends on. Each critic pays it. Raises
    ConfigError for a weight below 0 or `every` below 1.
    """

    weight: float = 1.0
    every: int = 1

    side: ClassVar[Side] = "discriminator"
    per_sample: ClassVar[bool] = False
    lipschitz: ClassVar[bool] = False
    needs_fake: ClassVar[bool] = False
    needs_real: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    needs_latents: ClassVar[bool] = False
    undone_by_spectral: ClassVar[bool] = False
    couples: ClassVar[Couples] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf") or self.every < 1:
            raise ConfigError(
                f"penalty.*.weight is at least 0 and penalty.*.every at least 1, not {self.weight:g} and {self.every}"
            )

    def __call__(self, context: Context) -> Tensor | None:
        """The penalty of this micro-batch, unweighted, as a scalar mean; None where there is none to differentiate."""
        return None

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """What the penalty remembers between steps, as it is at the start; checkpoints hold it. net: its side's."""
        return {}

    @torch.no_grad()
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Bring the memory up to date, in place, after its side's optimizer step.

        stats: the move's mean logits, D_real and D_fake, where it has them.
        """

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Move its side's weights back into the allowed set, after its optimizer step."""


def input_gradient(judge: Judge, x: Tensor, y: Beside, source: str = "penalty") -> Tensor:
    """∂ judge(x) / ∂x for each logit, flattened to [B, -1], itself differentiable.

    Where D judges several samples as one (packing), a row is the gradient with respect to all of them.
    """
    x = x.detach().requires_grad_(True)
    logits = judge(x, y, source)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.reshape(len(logits), -1)


def as_factor(numbers: Tensor, images: Tensor) -> Tensor:
    """Numbers [B, ...] in the images' dtype, with ones for the dimensions that images [B, ...] have beyond theirs."""
    return numbers.to(images.dtype).view(*numbers.shape, *[1] * (images.dim() - numbers.dim()))


def between(context: Context) -> Tensor:
    """A point of each line from a fake to a real image, uniformly drawn, [B, ...]."""
    assert context.real is not None
    assert context.fake is not None  # needs_fake
    share = as_factor(context.rng.uniform("wgan_gp"), context.real)
    return torch.lerp(context.fake.to(context.real.dtype), context.real, share)


@dataclass(frozen=True, kw_only=True)
class WganGp(Penalty):
    """E (‖∇l(x̂)‖ - 1)^2 at points x̂ between real and fake (Gulrajani et al. 2017, eq. 3; λ = 10).

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
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
        slopes = torch.linalg.vector_norm(input_gradient(context.judge, between(context), context.y), dim=1)
        result: Tensor = (slopes - 1).square().mean()
        return result


@dataclass(frozen=True, kw_only=True)
class R1(Penalty):
    """(γ/2) E ‖∇l(x)‖^2 at real images (Mescheder et al. 2018, eq. 9); `weight` is γ.

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> R1()(Context({}, judge, zeros, zeros, None, None, Rng(0, total=2))).item()  # 25 / 2
    12.5
    """

    weight: float = 10.0
    per_sample = True
    lipschitz = True

    def __call__(self, context: Context) -> Tensor:
        """Half of the squared gradient norm, mean over the batch."""
        assert context.real is not None
        return input_gradient(context.judge, context.real, context.y, "real").square().sum(1).mean() / 2


@dataclass(frozen=True, kw_only=True)
class R2(Penalty):
    """(γ/2) E ‖∇l(G(z))‖^2 at fakes (Mescheder et al. 2018, eq. 10); `weight` is γ.

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> R2()(Context({}, judge, None, zeros, None, None, Rng(0, total=2))).item()  # 25 / 2
    12.5
    """

    weight: float = 10.0
    per_sample = True
    lipschitz = True
    needs_fake = True

    def __call__(self, context: Context) -> Tensor:
        """Half of the squared gradient norm, mean over the batch."""
        assert context.fake is not None  # needs_fake
        return input_gradient(context.judge, context.fake, context.y_fake, "fake").square().sum(1).mean() / 2


@dataclass(frozen=True, kw_only=True)
class ZeroCentred(Penalty):
    """E ‖∇l(x̂)‖^2 at points x̂ between real and fake (Thanh-Tung et al. 2019, eq. 8; λ = 100).

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> ZeroCentred()(Context({}, judge, zeros, zeros, None, None, Rng(0, total=2))).item()
    25.0
    """

    weight: float = 100.0
    per_sample = True
    lipschitz = True
    needs_fake = True

    def __call__(self, context: Context) -> Tensor:
        """The squared gradient norm, mean over the batch."""
        return input_gradient(context.judge, between(context), context.y).square().sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class Dragan(Penalty):
    """E (‖∇l(x + δ)‖ - 1)^2 around real images (Kodali et al. 2017, algorithm 1; λ = 10).

    δ is, as in the released code, a uniform share of uniform noise in [0, `reach` × the batch's standard deviation).

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(2, 2)
    >>> Dragan()(Context({}, judge, zeros, None, None, None, Rng(0, total=2))).item()
    16.0
    """

    weight: float = 10.0
    reach: float = 0.5
    per_sample = True
    lipschitz = True
    couples = "all"

    def __call__(self, context: Context) -> Tensor:
        """(‖∇‖₂ - 1)² over all non-batch dimensions, mean over the batch."""
        real = context.real
        assert real is not None
        noise = as_factor(context.rng.uniform("dragan", *real.shape[1:]), real)
        share = as_factor(context.rng.uniform("dragan share"), real)
        spread = gathered(real).std(correction=0)
        slopes = torch.linalg.vector_norm(
            input_gradient(context.judge, real + share * self.reach * spread * noise, context.y), dim=1
        )
        result: Tensor = (slopes - 1).square().mean()
        return result
