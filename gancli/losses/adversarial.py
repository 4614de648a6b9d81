"""Adversarial objectives: pure functions of D's output. A new one is a class of two methods and a file in conf/loss/.

In every formula l is a logit, so that D(x) = sigmoid(l(x)), and both players minimise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn
from torch.nn.functional import relu, softplus

from gancli.compute.dist import gathered
from gancli.errors import ConfigError
from gancli.nets.verdict import Verdict, mean_over_scales

Couples = int | Literal["all"]  # how many samples a value depends on jointly
LOGISTIC_SURE = 9.2  # the difference between the logits of 0.99 and 0.01


@dataclass(frozen=True)
class Judged:
    """The input of an objective.

    verdicts: D's output for "fake", and for "real" in D's moves and if the objective `needs_real`. columns: D's input
    by source: samples and the columns judged with them, before noise, augmentation and packing; the k-th rows of both
    sources form a pair. memory: the objective's state. draw: (purpose, logits) -> uniform numbers in [0, 1) in their
    shape, in D's moves.
    """

    verdicts: Mapping[str, Verdict]
    columns: Mapping[str, Sequence[Tensor | None]] = field(default_factory=dict)
    memory: Mapping[str, Tensor] = field(default_factory=dict)
    draw: Callable[[str, Tensor], Tensor] | None = None


@dataclass(frozen=True, kw_only=True)
class AdversarialLoss(ABC):
    """An objective: the losses of D and of G, from logits [B, ...] to a scalar mean.

    noise: σ of Gaussian noise on all of D's input, real and fake (Sønderby et al. 2017, section 2.5); noise_until: real
    images after which it has decreased linearly to 0 (None: it is constant). flip: share of D's pairs of a real and a
    fake image whose labels are swapped. top: share of its images that G learns from, those with the largest logits
    (Sinha et al. 2020); top_until: real images over which that share decreases exponentially from 1 to `top` (0: `top`
    from the start). Raises ConfigError for values out of range.

    needs_real: G's loss uses D's logits of real images. paired: compares the k-th real with the k-th fake, which then
    gets the same class. lipschitz: requires that D's slope is bounded (by a penalty, clipping or spectral norm).
    couples: how many samples the value of one depends on. beyond_logits: uses more of D's output, or the images, so
    that `flip` and `top`, which swap and select logits, cannot be used.
    """

    noise: float = 0.0
    noise_until: int | None = None
    flip: float = 0.0
    top: float = 1.0
    top_until: int = 0

    needs_real: ClassVar[bool] = False
    paired: ClassVar[bool] = False
    lipschitz: ClassVar[bool] = False
    sure: ClassVar[float | None] = LOGISTIC_SURE  # the difference of mean logits from which D is too confident
    couples: ClassVar[Couples] = 1
    beyond_logits: ClassVar[bool] = False

    def __post_init__(self) -> None:
        if not 0 <= self.noise < float("inf") or (self.noise_until is not None and self.noise_until < 1):
            raise ConfigError(
                "loss.noise must be a standard deviation from 0, and loss.noise_until a number of images or null"
            )
        if not 0 <= self.flip <= 0.5:
            raise ConfigError(f"loss.flip={self.flip:g}: a share from 0 to 0.5, such as 0.05")
        if not 0 < self.top <= 1 or self.top_until < 0:
            raise ConfigError(
                "loss.top must be a share above 0 and at most 1, such as 0.5, and loss.top_until at least 0"
            )

    @property
    def logistic(self) -> bool:
        """Whether the sigmoid of a logit is a probability."""
        return self.sure == LOGISTIC_SURE

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """D's loss."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """G's loss."""

    def of_discriminator(self, judged: Judged) -> Tensor:
        """D's loss from its whole output; by default that of the logits, the mean over D's scales."""
        pairs = zip(judged.verdicts["real"].scales(), judged.verdicts["fake"].scales(), strict=True)
        return mean_over_scales([self.discriminator(real, fake) for real, fake in pairs])

    def of_generator(self, judged: Judged) -> Tensor:
        """G's loss from D's whole output; by default that of the logits, the mean over D's scales."""
        fakes = judged.verdicts["fake"].scales()
        reals = judged.verdicts["real"].scales() if self.needs_real else [None] * len(fakes)
        pairs = zip(fakes, reals, strict=True)
        return mean_over_scales([self.generator(fake, real) for fake, real in pairs])

    def of_direction(self, judged: Judged) -> Tensor:
        """The direction's loss (SAN) from the logits, the mean over D's scales."""
        pairs = zip(judged.verdicts["real"].scales(), judged.verdicts["fake"].scales(), strict=True)
        return mean_over_scales([self.direction(real, fake) for real, fake in pairs])

    def direction(self, real: Tensor, fake: Tensor) -> Tensor:
        """The loss of D's last direction: G's loss with real and fake exchanged, minus G's loss.

        The direction thus separates real from fake by what G minimises (Takida et al. 2024, section 6; Shibuya et al.
        2024, released code). It is the Wasserstein loss for `hinge`, `wasserstein` and `pairing`, and a multiple of it
        for `relativistic` of kind ns and lsgan. G's loss has to decrease in the logit of fakes.
        """
        return self.generator(real, fake) - self.generator(fake, real)

    def memory(self, net: nn.Module) -> dict[str, Tensor]:
        """The initial state that the objective keeps between steps; checkpoints contain it. net: D."""
        return {}

    @torch.no_grad()  # noqa: B027  # most objectives have no state
    def remember(self, memory: Mapping[str, Tensor], net: nn.Module, stats: Mapping[str, Tensor]) -> None:
        """Update the state, in place, after D's optimizer step.

        stats: the move's mean logits, D_real and D_fake, if it has them.
        """

    def noise_at(self, seen: int) -> float:
        """σ of the instance noise after `seen` real images.

        >>> Hinge(noise=0.2, noise_until=100).noise_at(75)
        0.05
        """
        return self.noise if self.noise_until is None else self.noise * max(0.0, 1 - seen / self.noise_until)

    def top_at(self, seen: int) -> float:
        """The share of images that G learns from after `seen` real ones.

        >>> Hinge(top=0.25, top_until=100).top_at(50)
        0.5
        """
        return float(self.top ** (min(1.0, seen / self.top_until) if self.top_until else 1.0))


@dataclass(frozen=True, kw_only=True)
class LabelLoss(AdversarialLoss):
    """An objective with a label for each image, so that labels can be soft.

    smooth: the label of real images is 1 - smooth (one-sided, Salimans et al. 2016, section 3.4). smooth_fake: the
    label of fakes. An image's loss is the mixture of both labels' losses.

    >>> import torch
    >>> round(NonSaturating(smooth=0.1).discriminator(torch.tensor([2.1972]), torch.tensor([-99.0])).item(), 4)
    0.3251
    """

    smooth: float = 0.0
    smooth_fake: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("smooth", "smooth_fake"):
            if not 0 <= getattr(self, name) < 0.5:
                raise ConfigError(f"loss.{name}={getattr(self, name):g}: a share from 0 to below 0.5, such as 0.1")

    @abstractmethod
    def as_real(self, logits: Tensor) -> Tensor:
        """D's loss of each logit under the label of real images."""

    @abstractmethod
    def as_fake(self, logits: Tensor) -> Tensor:
        """D's loss of each logit under the label of fakes."""

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E as_real(l(x)) + E as_fake(l(G(z))), each mixed with the other if labels are soft."""
        loss = self.as_real(real).mean() * (1 - self.smooth) + self.as_fake(fake).mean() * (1 - self.smooth_fake)
        if self.smooth:
            loss = loss + self.as_fake(real).mean() * self.smooth
        if self.smooth_fake:
            loss = loss + self.as_real(fake).mean() * self.smooth_fake
        return loss


@dataclass(frozen=True, kw_only=True)
class NonSaturating(LabelLoss):
    """G maximises log D(G(z)), with strong gradients if D is confident (Goodfellow et al. 2014, section 3).

    >>> import torch
    >>> round(NonSaturating().generator(torch.tensor([0.0])).item(), 4)  # -log(1/2)
    0.6931
    """

    def as_real(self, logits: Tensor) -> Tensor:
        """-log D."""
        return softplus(-logits)

    def as_fake(self, logits: Tensor) -> Tensor:
        """-log(1 - D)."""
        return softplus(logits)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E log D(G(z))."""
        return softplus(-fake).mean()


@dataclass(frozen=True, kw_only=True)
class Minimax(NonSaturating):
    """Both players share one value function; G's gradient vanishes if D is confident (Goodfellow et al. 2014, eq. 1).

    >>> import torch
    >>> round(Minimax().generator(torch.tensor([0.0])).item(), 4)  # log(1/2)
    -0.6931
    """

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E log(1 - D(G(z)))."""
        return -softplus(fake).mean()


@dataclass(frozen=True, kw_only=True)
class Hinge(LabelLoss):
    """Hinge loss: D needs a margin of 1 on both sides (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17).

    >>> import torch
    >>> Hinge().discriminator(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])).item()
    1.25
    """

    def as_real(self, logits: Tensor) -> Tensor:
        """max(0, 1 - l)."""
        return relu(1 - logits)

    def as_fake(self, logits: Tensor) -> Tensor:
        """max(0, 1 + l)."""
        return relu(1 + logits)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E l(G(z))."""
        return -fake.mean()


@dataclass(frozen=True, kw_only=True)
class Wasserstein(AdversarialLoss):
    """The dual of the Wasserstein-1 distance, for a critic with bounded slope (Arjovsky et al. 2017, eq. 2).

    >>> import torch
    >>> Wasserstein().discriminator(torch.tensor([3.0]), torch.tensor([1.0])).item()
    -2.0
    """

    lipschitz = True
    sure = None

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E l(G(z)) - E l(x)."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E l(G(z))."""
        return -fake.mean()


@dataclass(frozen=True, kw_only=True)
class LeastSquares(LabelLoss):
    """Regression to labels 1 for real and 0 for fake (Mao et al. 2017, eq. 9: a = 0, b = c = 1).

    >>> import torch
    >>> LeastSquares().discriminator(torch.tensor([0.0]), torch.tensor([2.0])).item()
    2.5
    """

    sure = 0.98

    def as_real(self, logits: Tensor) -> Tensor:
        """(l - 1)^2 / 2."""
        return (logits - 1).square() / 2

    def as_fake(self, logits: Tensor) -> Tensor:
        """l^2 / 2."""
        return logits.square() / 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E (l(G(z)) - 1)^2 / 2."""
        return (fake - 1).square().mean() / 2

    def direction(self, real: Tensor, fake: Tensor) -> Tensor:
        """As for every objective, with softplus(1 - l)^2 / 2 for (1 - l)^2 / 2, which increases again above 1.

        BigVSAN (Shibuya et al. 2024) replaces 1 - l in D's and G's objective, too; here these remain as they are.
        """
        return (softplus(1 - real).square().mean() - softplus(1 - fake).square().mean()) / 2


@dataclass(frozen=True, kw_only=True)
class Energy(AdversarialLoss):
    """D assigns low energy to real images and energy up to the margin m to fakes (Zhao et al. 2017, eq. 1 and 2).

    plain: the energy is softplus(-l), for any D; otherwise D's logit is minus the energy (model=ebgan).

    >>> import torch
    >>> Energy(margin=2.0).discriminator(torch.tensor([-0.5]), torch.tensor([-1.25])).item()  # 0.5 + (2 - 1.25)
    1.25
    """

    margin: float = 10.0
    sure = None
    plain: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.margin > 0:
            raise ConfigError(f"loss.margin={self.margin:g}: the energy of fakes up to which D is trained, above 0")

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E C(x) + E max(0, m - C(G(z)))."""
        return self._energy(real).mean() + relu(self.margin - self._energy(fake)).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E C(G(z))."""
        return self._energy(fake).mean()

    def _energy(self, logits: Tensor) -> Tensor:
        return softplus(-logits) if self.plain else -logits


@dataclass(frozen=True, kw_only=True)
class RelativisticPairing(AdversarialLoss):
    """D decides which of a real and a fake is real (Jolicoeur-Martineau 2019, RSGAN; Huang et al. 2024, eq. 2).

    >>> import torch
    >>> round(RelativisticPairing().generator(torch.tensor([1.0]), torch.tensor([1.0])).item(), 4)  # log 2
    0.6931
    """

    needs_real = True
    paired = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-E log sigmoid(l(x) - l(G(z))), the k-th real with the k-th fake."""
        return softplus(fake - real).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E log sigmoid(l(G(z)) - l(x))."""
        assert real is not None  # needs_real
        return softplus(real - fake).mean()


@dataclass(frozen=True, kw_only=True)
class RelativisticAverage(AdversarialLoss):
    """Compares every image with the mean of the other kind (Jolicoeur-Martineau 2019, RaSGAN, RaLSGAN, RaHingeGAN).

    kind: the loss of the differences: ns, lsgan (labels 1 and -1) or hinge.

    >>> import torch
    >>> loss = RelativisticAverage(kind="hinge")
    >>> loss.discriminator(torch.tensor([1.0, 3.0]), torch.tensor([0.0, 1.0])).item()  # (.5 + 0)/2 + (0 + 0)/2
    0.25
    """

    kind: Literal["ns", "lsgan", "hinge"] = "ns"
    needs_real = True
    couples = "all"

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E f(l(x) - E l(G(z))) + E f(E l(x) - l(G(z)))."""
        real, fake = gathered(real), gathered(fake)
        return self._better(real - fake.mean()) + self._better(real.mean() - fake)

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """The same with real and fake swapped."""
        assert real is not None  # needs_real
        real, fake = gathered(real), gathered(fake)
        return self._better(fake - real.mean()) + self._better(fake.mean() - real)

    def _better(self, difference: Tensor) -> Tensor:
        if self.kind == "ns":
            return softplus(-difference).mean()
        return (difference - 1).square().mean() if self.kind == "lsgan" else relu(1 - difference).mean()


def exchanged(real: Tensor, fake: Tensor, chosen: Tensor) -> tuple[Tensor, Tensor]:
    """Swap real and fake logits [B, ...] in the chosen pairs, bool [B].

    >>> a, b = exchanged(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0]), torch.tensor([False, True]))
    >>> a.tolist(), b.tolist()
    ([1.0, -2.0], [-1.0, 2.0])
    """
    chosen = chosen.view(-1, *[1] * (real.dim() - 1))
    return torch.where(chosen, fake, real), torch.where(chosen, real, fake)
