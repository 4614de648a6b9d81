"""Gradient penalties, and the base of all penalties: a new one is a class of one method and a file in conf/penalty/."""

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
from gancli.nets.layers.noise import rewound
from gancli.nets.verdict import Verdict

Judge = Callable[..., Tensor]
Side = Literal["discriminator", "generator"]  # of a critic: its own network, or the one whose samples it judges
Beside = Tensor | None | tuple[Tensor | None, ...]  # the columns judged with a sample; no tuple for a single one


@dataclass(frozen=True)
class Context:
    """The input of a penalty, in the parameters' dtype and outside autocast.

    nets: the critic's networks by side. judge: (images, labels[, source]) -> D's logits [B], with D's noise,
    augmentation and packing for that source. real, fake: [B, ...], without a graph in D's moves; real is None in G's
    (and fake, if it is not needed). y, y_fake: the columns judged with them: labels, int64 [B], or None; a tuple if
    there are several. rng: random numbers for this micro-batch. verdicts: D's output for "real" and "fake" in this
    move, as far as it was computed. z: the fakes' latents [B, dim]. generate: (latents, labels) -> images. draw: other
    latents of the same distribution, by their purpose. memory: this penalty's state. magnified: gradients are those of
    images whose sides are larger by this number, made by repeating pixels (Karras et al. 2018, released code). styles:
    of the fakes, [B, layers, w_dim], in their graph. stats: scalar means that penalties add, logged and remembered.
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
    magnified: int = 1
    styles: Tensor | None = None
    stats: dict[str, Tensor] = field(default_factory=dict)

    def gradient(self, x: Tensor, y: Beside, source: str = "penalty") -> Tensor:
        """`input_gradient` of D at samples x, with their norm at the magnified size."""
        found = input_gradient(self.judge, x, y, source)
        # Each pixel's gradient is spread over magnified² copies, whose norm is smaller by magnified.
        return found if self.magnified == 1 else found / self.magnified

    def difference(self, x: Tensor, y: Beside, source: str, step: Tensor) -> Tensor:
        """D's logits at x + step minus those at x, [B]; the step is that of the magnified images.

        D's noise, augmentation and layers that draw numbers have the same numbers in both passes. These are separate,
        since D may compare the samples of a batch.
        """
        # A step in each of magnified² copies, of which D sees the mean, is smaller by magnified.
        x, step = x.detach(), step.to(x.dtype) / self.magnified
        with rewound({side: net for side, net in self.nets.items() if side == "discriminator"}):
            before = self.judge(x, y, source)
        return self.judge(x + step, y, source) - before

    def logits(self, source: Literal["real", "fake"]) -> Tensor:
        """D's logits [B] of a source: those of this move, or computed now."""
        if source in self.verdicts:
            return self.verdicts[source].scores()
        images, labels = (self.real, self.y) if source == "real" else (self.fake, self.y_fake)
        assert images is not None
        return self.judge(images, labels, source)


@dataclass(frozen=True, kw_only=True)
class Penalty:
    """Base of all penalties.

    weight: λ. every: applied every `every` steps, multiplied by `every` (lazy regularisation, Karras et al. 2020,
    section 3.1). side: whose loss it is part of, and whose weights it may use. per_sample: uses each sample's own
    gradient, which batch statistics in D would make wrong. by_difference: estimates that gradient from differences of
    logits, so that D is not differentiated twice. lipschitz: bounds D's slope. needs_fake: uses fakes.
    needs_real: on G's side, uses D's output for real images. needs_images: does not apply to points. needs_features:
    uses D's features, in the move that makes the fakes. needs_latents: compares samples of other latents.
    needs_styles: uses the styles of fakes. undone_by_spectral: bounds a norm that spectral norm rescales. couples: how
    many samples a value depends on. Each critic has it. reports: names of its statistics (`Context.stats`). Raises
    ConfigError for a weight below 0 or `every` below 1.
    """

    weight: float = 1.0
    every: int = 1

    side: ClassVar[Side] = "discriminator"
    per_sample: ClassVar[bool] = False
    by_difference: ClassVar[bool] = False
    lipschitz: ClassVar[bool] = False
    needs_fake: ClassVar[bool] = False
    needs_real: ClassVar[bool] = False
    needs_images: ClassVar[bool] = False
    needs_features: ClassVar[bool] = False
    needs_latents: ClassVar[bool] = False
    needs_styles: ClassVar[bool] = False
    reports: ClassVar[tuple[str, ...]] = ()
    undone_by_spectral: ClassVar[bool] = False
    couples: ClassVar[Couples] = 1

    def __post_init__(self) -> None:
        if not 0 <= self.weight < float("inf") or self.every < 1:
            raise ConfigError(
                f"penalty.*.weight must be at least 0 and penalty.*.every at least 1, not {self.weight:g} and"
                f" {self.every}"
            )

    def __call__(self, context: Context) -> Tensor | None:
        """The penalty of this micro-batch, unweighted, as a scalar mean; None if there is nothing to differentiate."""
        return None

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """The initial state that the penalty keeps between steps; checkpoints contain it. net: its side's."""
        return {}

    @torch.no_grad()
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Update the state, in place, after its side's optimizer step.

        stats: the move's mean logits, D_real and D_fake, if it has them, and what it reported.
        """

    def rows_share(self) -> float:
        """The rows of a lazy penalty's move, as a share of the batch."""
        return 1.0

    @torch.no_grad()
    def project(self, net: nn.Module) -> None:
        """Project its side's weights onto the allowed set, after its optimizer step."""


def input_gradient(judge: Judge, x: Tensor, y: Beside, source: str = "penalty") -> Tensor:
    """∂ judge(x) / ∂x for each logit, flattened to [B, -1], itself differentiable.

    If D judges several samples as one (packing), a row is the gradient with respect to all of them.
    """
    x = x.detach().requires_grad_(True)
    logits = judge(x, y, source)
    (gradient,) = torch.autograd.grad(logits.sum(), x, create_graph=True)
    return gradient.reshape(len(logits), -1)


def as_factor(numbers: Tensor, images: Tensor) -> Tensor:
    """Reshape numbers [B, ...] to broadcast over images [B, ...], in the images' dtype."""
    return numbers.to(images.dtype).view(*numbers.shape, *[1] * (images.dim() - numbers.dim()))


def between(context: Context) -> Tensor:
    """Points drawn uniformly on the lines from each fake to a real image, [B, ...]."""
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
        slopes = torch.linalg.vector_norm(context.gradient(between(context), context.y), dim=1)
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
        return context.gradient(context.real, context.y, "real").square().sum(1).mean() / 2


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
        return context.gradient(context.fake, context.y_fake, "fake").square().sum(1).mean() / 2


@dataclass(frozen=True, kw_only=True)
class ApproximateR1(Penalty):
    """(γ/2) E (l(x + σn) - l(x))^2 / σ^2 at real images, n ~ N(0, I): R1 without a second derivative.

    For small σ its mean is R1's, so that `weight` is R1's γ. Lin et al. 2025 (Diffusion Adversarial Post-Training,
    approximated R1) do not divide by σ^2: their λ = 100 with σ = 0.01 for images is γ = 2 λ σ^2 = 0.02 here.

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(20_000, 2)
    >>> cost = ApproximateR1()(Context({}, judge, zeros, zeros, None, None, Rng(0, total=20_000))).item()
    >>> 12.3 < cost < 12.7  # 25 / 2
    True
    """

    weight: float = 10.0
    sigma: float = 0.01
    per_sample = True
    by_difference = True
    lipschitz = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.sigma < float("inf"):
            raise ConfigError(f"penalty.*.sigma={self.sigma:g}: a standard deviation above 0, such as 0.01")

    def __call__(self, context: Context) -> Tensor:
        """Half of the squared difference of logits over σ², mean over the batch."""
        assert context.real is not None
        return self._cost(context, context.real, context.y, "real")

    def _cost(self, context: Context, x: Tensor, y: Beside, source: str) -> Tensor:
        step = self.sigma * context.rng.normal(f"difference {source}", *x.shape[1:])
        return (context.difference(x, y, source, step) / self.sigma).square().mean() / 2


@dataclass(frozen=True, kw_only=True)
class ApproximateR2(ApproximateR1):
    """As `ApproximateR1` at fakes: R2 without a second derivative.

    >>> judge, zeros = (lambda x, *_: x @ torch.tensor([3.0, 4.0])), torch.zeros(20_000, 2)
    >>> cost = ApproximateR2()(Context({}, judge, None, zeros, None, None, Rng(0, total=20_000))).item()
    >>> 12.3 < cost < 12.7  # 25 / 2
    True
    """

    needs_fake = True

    def __call__(self, context: Context) -> Tensor:
        """Half of the squared difference of logits over σ², mean over the batch."""
        assert context.fake is not None  # needs_fake
        return self._cost(context, context.fake, context.y_fake, "fake")


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
        return context.gradient(between(context), context.y).square().sum(1).mean()


@dataclass(frozen=True, kw_only=True)
class Dragan(Penalty):
    """E (‖∇l(x + δ)‖ - 1)^2 around real images (Kodali et al. 2017, algorithm 1; λ = 10).

    As in the released code, δ = u · v with u uniform in [0, 1) and v uniform in [0, `reach` × the batch's standard
    deviation).

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
            context.gradient(real + share * self.reach * spread * noise, context.y), dim=1
        )
        result: Tensor = (slopes - 1).square().mean()
        return result
