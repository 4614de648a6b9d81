"""Adversarial objectives: pure functions of D's logits. A new one is a class of two methods and a file in conf/loss/.

In every formula l is a logit, so that D(x) = sigmoid(l(x)), and both players minimise.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import Tensor
from torch.nn.functional import relu, softplus


class AdversarialLoss(ABC):
    """An objective: what D minimises and what G minimises, from logits [B, ...] to a scalar mean.

    needs_real: G's side uses D's logits of real images (relativistic objectives).
    lipschitz: means nothing unless D's slope is bounded (by a penalty, clipping or spectral norm).
    """

    needs_real: ClassVar[bool] = False
    lipschitz: ClassVar[bool] = False

    @abstractmethod
    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """D's loss."""

    @abstractmethod
    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """G's loss."""


class NonSaturating(AdversarialLoss):
    """G maximises log D(G(z)): strong gradients where D is sure (Goodfellow et al. 2014, section 3).

    >>> import torch
    >>> round(NonSaturating().generator(torch.tensor([0.0])).item(), 4)  # -log(1/2)
    0.6931
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """-E log D(x) - E log(1 - D(G(z)))."""
        return softplus(-real).mean() + softplus(fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E log D(G(z))."""
        return softplus(-fake).mean()


class Minimax(NonSaturating):
    """Both players share one value function, so G's gradient vanishes where D is sure (Goodfellow et al. 2014, eq. 1).

    >>> import torch
    >>> round(Minimax().generator(torch.tensor([0.0])).item(), 4)  # log(1/2)
    -0.6931
    """

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E log(1 - D(G(z)))."""
        return -softplus(fake).mean()


class Hinge(AdversarialLoss):
    """D asks for a margin of 1 on both sides and no more (Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17).

    >>> import torch
    >>> Hinge().discriminator(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])).item()
    1.25
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E max(0, 1 - l(x)) + E max(0, 1 + l(G(z)))."""
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E l(G(z))."""
        return -fake.mean()


class Wasserstein(AdversarialLoss):
    """The dual of the Wasserstein-1 distance, for a critic of bounded slope (Arjovsky et al. 2017, eq. 2).

    >>> import torch
    >>> Wasserstein().discriminator(torch.tensor([3.0]), torch.tensor([1.0])).item()
    -2.0
    """

    lipschitz = True

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E l(G(z)) - E l(x)."""
        return fake.mean() - real.mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E l(G(z))."""
        return -fake.mean()


class LeastSquares(AdversarialLoss):
    """Regression to labels 1 for real and 0 for fake (Mao et al. 2017, eq. 9: a = 0, b = c = 1).

    >>> import torch
    >>> LeastSquares().discriminator(torch.tensor([0.0]), torch.tensor([2.0])).item()
    2.5
    """

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E (l(x) - 1)^2 / 2 + E l(G(z))^2 / 2."""
        return ((real - 1).square().mean() + fake.square().mean()) / 2

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """E (l(G(z)) - 1)^2 / 2."""
        return (fake - 1).square().mean() / 2
