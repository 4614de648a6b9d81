"""Penalties on the networks' outputs: drift, LeCam, consistency, feature matching, diversity."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from gancli.augment.transforms import jitter
from gancli.compute.dist import gathered
from gancli.errors import ConfigError
from gancli.losses.penalties import Context, Penalty


@dataclass(frozen=True, kw_only=True)
class Drift(Penalty):
    """ε E l(x)^2 keeps a critic's logits near 0 (Karras et al. 2018, appendix A.1; ε = 0.001).

    >>> from gancli.compute.rng import Rng
    >>> judge = lambda x, *_: x.sum(1)
    >>> context = Context({}, judge, torch.tensor([[1.0], [3.0]]), None, None, None, Rng(0, total=2))
    >>> Drift()(context).item()  # (1 + 9) / 2
    5.0
    """

    weight: float = 0.001

    def __call__(self, context: Context) -> Tensor:
        """The squared logit of real images, mean over the batch."""
        return context.logits("real").square().mean()


@dataclass(frozen=True, kw_only=True)
class LeCam(Penalty):
    """E max(0, l(x) - α_F)^2 + E max(0, α_R - l(G(z)))^2 for little data (Tseng et al. 2021, eq. 4, released code).

    α_R and α_F are exponential moving averages, with `decay` per move, of D's mean logits of real images and fakes.
    Checkpoints contain them. after: moves of D before the penalty starts, while the averages converge.

    >>> from gancli.compute.rng import Rng
    >>> penalty = LeCam(after=0)
    >>> memory = {"real": torch.tensor(1.0), "fake": torch.tensor(-1.0), "moves": torch.tensor(1)}
    >>> one = torch.tensor([[0.5]])
    >>> penalty(Context({}, lambda x, *_: x.sum(1), one, -one, None, None, Rng(0, total=1), memory=memory)).item()
    4.5
    """

    weight: float = 0.1
    decay: float = 0.99
    after: int = 1000
    needs_fake = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay < 1 or self.after < 0:
            raise ConfigError("penalty.lecam.decay must be in [0, 1) and penalty.lecam.after at least 0")

    def __call__(self, context: Context) -> Tensor:
        """Both terms, mean over the batch; 0 during the first `after` moves."""
        begun = (context.memory["moves"] > self.after).to(context.memory["real"].dtype)
        above = torch.relu(context.logits("real") - context.memory["fake"]).square().mean()
        below = torch.relu(context.memory["real"] - context.logits("fake")).square().mean()
        return (above + below) * begun

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """Both averages, and the number of moves that they cover."""
        dtype = next(net.parameters()).dtype
        zeros = {name: torch.zeros((), dtype=dtype) for name in ("real", "fake")}
        return zeros | {"moves": torch.zeros((), dtype=torch.int64)}

    @torch.no_grad()
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Update the averages with a move's mean logits; the first move sets them."""
        if "D_real" not in stats:
            return
        share = torch.where(memory["moves"] > 0, 1 - self.decay, 1.0).to(memory["real"].dtype)
        for name in ("real", "fake"):
            memory[name].add_((stats[f"D_{name}"].to(memory[name].dtype) - memory[name]) * share)
        memory["moves"].add_(1)


@dataclass(frozen=True, kw_only=True)
class Consistency(Penalty):
    """λ E (l(x) - l(T(x)))^2, T a random flip and shift (Zhang et al. 2020, eq. 3; λ = 10).

    shift: the largest shift as a share of the side. fakes: also for fakes (bCR, Zhao et al. 2021, eq. 2).

    >>> from gancli.compute.rng import Rng
    >>> corner, images = (lambda x, *_: x[:, 0, 0, 0]), torch.arange(4.0).repeat(8, 1, 1, 1)
    >>> context = Context({}, corner, images, None, None, None, Rng(0, total=8))
    >>> flipped = (context.rng.uniform("real flip") < 0.5).float().mean()
    >>> bool(Consistency(shift=0.0)(context) == 9 * flipped)  # (0 - 3)^2 for each flipped one
    True
    """

    weight: float = 10.0
    shift: float = 0.125
    fakes: bool = False
    needs_images = True
    needs_fake = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.shift < 1:
            raise ConfigError(f"penalty.*.shift={self.shift:g}: must be a share of the side, from 0 to below 1")

    def __call__(self, context: Context) -> Tensor:
        """The squared difference of logits, mean over the batch."""
        assert context.real is not None
        moved = jitter(context.real, context.rng, "real", self.shift)
        cost = (context.logits("real") - context.judge(moved, context.y, "real")).square().mean()
        if self.fakes:
            assert context.fake is not None  # needs_fake
            moved = jitter(context.fake, context.rng, "fake", self.shift)
            cost = cost + (context.logits("fake") - context.judge(moved, context.y_fake, "fake")).square().mean()
        return cost


@dataclass(frozen=True, kw_only=True)
class LatentConsistencyD(Penalty):
    """λ E (l(G(z)) - l(G(z + δ)))^2, δ ~ N(0, σ²) (zCR, Zhao et al. 2021, eq. 4; λ_dis = 5, σ = 0.03).

    >>> from gancli.compute.rng import Rng
    >>> z, twice = torch.zeros(2, 1), lambda x, *_: 2 * x.sum(1)
    >>> context = Context({}, twice, z, z, None, None, Rng(0, total=2), z=z, generate=lambda z, y: z)
    >>> delta = Rng(0, total=2).normal("zcr", 1)
    >>> bool(LatentConsistencyD(sigma=1.0)(context).isclose((2 * delta).square().mean()))
    True
    """

    weight: float = 5.0
    sigma: float = 0.03
    needs_fake = True
    needs_latents = True

    def __call__(self, context: Context) -> Tensor:
        """The squared difference of logits, mean over the batch."""
        with torch.no_grad():
            near = _near(context, self.sigma)
        return (context.logits("fake") - context.judge(near, context.y_fake, "fake")).square().mean()


@dataclass(frozen=True, kw_only=True)
class LatentConsistencyG(Penalty):
    """-λ E ‖G(z) - G(z + δ)‖^2: makes G sensitive to z (zCR, Zhao et al. 2021, eq. 5; λ_gen = 0.5, σ = 0.03).

    The mean over pixels, as in the released code.

    >>> from gancli.compute.rng import Rng
    >>> z = torch.zeros(2, 1)
    >>> context = Context({}, lambda x, *_: x, None, z, None, None, Rng(0, total=2), z=z, generate=lambda z, y: 3 * z)
    >>> delta = Rng(0, total=2).normal("zcr", 1)
    >>> bool(LatentConsistencyG(sigma=1.0)(context).isclose(-(3 * delta).square().mean()))
    True
    """

    weight: float = 0.5
    sigma: float = 0.03
    side = "generator"
    needs_fake = True
    needs_latents = True

    def __call__(self, context: Context) -> Tensor:
        """The negative squared difference of images, mean over batch and pixels."""
        assert context.fake is not None  # needs_fake
        return -(context.fake - _near(context, self.sigma).to(context.fake.dtype)).square().mean()


def _near(context: Context, sigma: float) -> Tensor:
    """G(z + δ)."""
    assert context.z is not None
    assert context.generate is not None
    delta = context.rng.normal("zcr", *context.z.shape[1:]).to(context.z.dtype)
    return context.generate(context.z + sigma * delta, context.y_fake)


@dataclass(frozen=True, kw_only=True)
class ModeSeeking(Penalty):
    """E d(z, z') / d(G(z), G(z')), d the mean absolute difference (Mao et al. 2019, eq. 5; λ = 1).

    Each latent is paired with a newly drawn one and the same label. The ratio is computed per pair, as in the paper;
    the released code divides the batch's mean distances.

    >>> from gancli.compute.rng import Rng
    >>> z = torch.zeros(2, 1)
    >>> keys = {"z": z, "generate": lambda z, y: 4 * z, "draw": lambda purpose: torch.ones(2, 1)}
    >>> round(ModeSeeking()(Context({}, lambda x, *_: x, None, z, None, None, Rng(0, total=2), **keys)).item(), 3)
    0.25
    """

    weight: float = 1.0
    side = "generator"
    needs_fake = True
    needs_latents = True

    def __call__(self, context: Context) -> Tensor:
        """The ratio of distances, mean over the batch; equal images cost 1e5 times the latents' distance."""
        z, fake = context.z, context.fake
        assert z is not None
        assert fake is not None
        assert context.generate is not None
        assert context.draw is not None
        other = context.draw("mode seeking").to(z.dtype)
        drawn = context.generate(other, context.y_fake).to(fake.dtype)
        images = (fake - drawn).abs().flatten(1).mean(1)
        return ((z - other).abs().flatten(1).mean(1) / (images + 1e-5)).mean()


@dataclass(frozen=True, kw_only=True)
class FeatureMatching(Penalty):
    """‖E f(x) - E f(G(z))‖^2, f the last hidden features of D (Salimans et al. 2016, section 3.1).

    With game.adversarial=0 it is G's whole objective, as in the paper.

    >>> from gancli.nets.verdict import Verdict
    >>> from gancli.compute.rng import Rng
    >>> said = {"real": [[1.0, 2.0], [3.0, 4.0]], "fake": [[0.0, 0.0], [2.0, 2.0]]}
    >>> verdicts = {k: Verdict(torch.zeros(2), features=[torch.tensor(v)]) for k, v in said.items()}
    >>> context = Context({}, lambda x, *_: x, None, None, None, None, Rng(0, total=2), verdicts)
    >>> FeatureMatching()(context).item()  # (2 - 1)^2 + (3 - 1)^2
    5.0
    """

    side = "generator"
    needs_real = True
    needs_fake = True
    needs_features = True
    couples = "all"

    def __call__(self, context: Context) -> Tensor:
        """The squared distance of mean features, summed over features."""
        real, fake = (context.verdicts[name].features for name in ("real", "fake"))
        assert real is not None
        assert fake is not None
        return (gathered(real[-1].detach().float()).mean(0) - gathered(fake[-1].float()).mean(0)).square().sum()


@dataclass(frozen=True, kw_only=True)
class PullingAway(Penalty):
    """Mean squared cosine between D's features of different fakes (Zhao et al. 2017, section 2.4).

    >>> from gancli.nets.verdict import Verdict
    >>> from gancli.compute.rng import Rng
    >>> said = {"fake": Verdict(torch.zeros(2), features=[torch.tensor([[1.0, 0.0], [3.0, 3.0]])])}
    >>> context = Context({}, lambda x, *_: x, None, None, None, None, Rng(0, total=2), said)
    >>> round(PullingAway()(context).item(), 4)  # cos² 45°
    0.5
    """

    weight: float = 0.1
    side = "generator"
    needs_fake = True
    needs_features = True
    couples = "all"

    def __call__(self, context: Context) -> Tensor:
        """The mean over all ordered pairs of different rows."""
        features = context.verdicts["fake"].features
        assert features is not None  # needs_features
        rows = gathered(torch.nn.functional.normalize(features[-1].float().flatten(1), dim=1))
        cosines = (rows @ rows.t()).square()
        n = len(rows)
        return (cosines.sum() - cosines.diagonal().sum()) / max(1, n * (n - 1))


@dataclass(frozen=True, kw_only=True)
class PathLength(Penalty):
    """E (‖Jᵀ n‖ - a)^2, J = ∂G/∂w, n normal noise: a step in w changes the image by a constant amount a.

    Karras et al. 2020, eq. 4, as released: ‖·‖² is summed over w and averaged over layers, n is divided by the root of
    the number of pixels, and a is an exponential moving average with weight `decay` for the batch's mean, which the
    gradient passes. share: of the batch's rows, if the penalty is lazy.

    >>> from gancli.compute.rng import Rng
    >>> w = torch.ones(2, 1, 1, requires_grad=True)
    >>> told = {"memory": {"mean": torch.tensor(0.0)}, "styles": w}
    >>> context = Context({}, lambda x, *_: x, None, 3 * w[..., None], None, None, Rng(0, total=2), **told)
    >>> noise = 3 * context.rng.normal("path_length", 1, 1, 1).abs()
    >>> bool(PathLength(decay=0.0)(context).isclose(noise.square().mean()))
    True
    """

    weight: float = 2.0
    every: int = 4
    decay: float = 0.01
    share: float = 0.5
    side = "generator"
    needs_fake = True
    needs_styles = True
    needs_images = True
    couples = "all"
    reports = ("path_length",)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.decay <= 1 or not 0 < self.share <= 1:
            raise ConfigError("penalty.path_length needs decay from 0 to 1, and share above 0 and at most 1")

    def __call__(self, context: Context) -> Tensor:
        """The squared difference of each length and the mean, mean over the batch."""
        images, styles = context.fake, context.styles
        assert images is not None
        assert styles is not None
        noise = context.rng.normal("path_length", *images.shape[1:]).to(images.dtype)
        pushed = (images * noise).sum() / math.sqrt(images.shape[2] * images.shape[3])
        (slope,) = torch.autograd.grad(pushed, styles, create_graph=True)
        lengths = slope.square().sum(2).mean(1).sqrt()
        whole, before = gathered(lengths).mean(), context.memory["mean"].to(lengths.dtype)
        context.stats["path_length"] = whole.detach()
        return (lengths - torch.lerp(before, whole, self.decay)).square().mean()

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """The mean length."""
        return {"mean": torch.zeros((), dtype=next(net.parameters()).dtype)}

    @torch.no_grad()
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Move the mean towards a move's mean length."""
        if "path_length" in stats:
            memory["mean"].lerp_(stats["path_length"].to(memory["mean"].dtype), self.decay)

    def rows_share(self) -> float:
        """`share`."""
        return self.share
