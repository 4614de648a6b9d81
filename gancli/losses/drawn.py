"""The hinge loss of FastGAN, whose margin is drawn anew for each logit (Liu et al. 2021, released code)."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor
from torch.nn.functional import relu

from gancli.errors import ConfigError
from gancli.losses.adversarial import AdversarialLoss, Judged
from gancli.nets.verdict import mean_over_scales


@dataclass(frozen=True, kw_only=True)
class DrawnHinge(AdversarialLoss):
    """Hinge loss whose margin is drawn from U(margin, 1) for each logit (Liu et al. 2021, released code).

    It is a smoothing of labels: D's loss of a logit ends at a random value. Raises ConfigError for a margin outside
    [0, 1].

    >>> import torch
    >>> DrawnHinge().discriminator(torch.tensor([2.0, 0.0]), torch.tensor([-3.0, 0.5])).item()  # with margins of 1
    1.25
    """

    margin: float = 0.8

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.margin <= 1:
            raise ConfigError(f"loss.margin={self.margin:g}: the smallest margin, from 0 to 1, such as 0.8")

    def of_discriminator(self, judged: Judged) -> Tensor:
        """The mean over D's scales of E max(0, m - l(x)) + E max(0, m + l(G(z))), with a margin m for each logit."""
        draw = judged.draw
        assert draw is not None, "an objective with drawn margins, outside D's move"

        def gap(source: str, k: int, logits: Tensor) -> Tensor:
            return (1 - self.margin) * (1 - draw(f"margin {source} {k}", logits))

        pairs = zip(judged.verdicts["real"].scales(), judged.verdicts["fake"].scales(), strict=True)
        return mean_over_scales(
            [self.discriminator(r + gap("real", k, r), f - gap("fake", k, f)) for k, (r, f) in enumerate(pairs)]
        )

    def discriminator(self, real: Tensor, fake: Tensor) -> Tensor:
        """E max(0, 1 - l(x)) + E max(0, 1 + l(G(z)))."""
        return relu(1 - real).mean() + relu(1 + fake).mean()

    def generator(self, fake: Tensor, real: Tensor | None = None) -> Tensor:
        """-E l(G(z))."""
        return -fake.mean()
