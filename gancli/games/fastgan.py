"""FastGAN: D judges images of two sizes, and learns to reconstruct real ones from its features (Liu et al. 2021)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.errors import CombinationError
from gancli.games.critic import Columns, Critic
from gancli.games.game import Batch, Outcome
from gancli.games.latent import Latent
from gancli.games.noise import Fakes, NoiseGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Beside, Penalty
from gancli.losses.terms import Term, Terms
from gancli.nets.fastgan import Discriminator, Generator, quarters
from gancli.pretrained.perceptual import feature_distances
from gancli.pretrained.pretrained import Pretrained
from gancli.train.ramp import Ramp

DECODED = ("full", "small", "quarter")
TARGETS = ("real", "real_quarter")


class TwoSizes(Critic):
    """A critic of images and smaller ones beside them; where these are None, they are made of the shown images.

    Both are augmented, each by its own draws. Penalties see full images, and D makes the smaller ones of them.
    """

    def __init__(self, *args: Any, **options: Any):
        super().__init__(*args, columns=("x", "y", "small"), images=("x", "small"), sample="x", **options)

    def shown(self, columns: Columns, rng: Rng, source: str) -> Columns:
        """Return a source's columns as D's input: the images, labels, and the smaller images."""
        x, y, small = columns
        image, *_ = super().shown((x, y, None), rng, source)
        if small is not None:
            *_, small = super().shown((None, None, small), rng, f"{source} small")
        elif image is not None:
            small = self.net.reduced(image)  # type: ignore[operator]
        return image, y, small

    def _sample(self, columns: Columns | None, dtype: torch.dtype) -> tuple[Tensor | None, Beside]:
        return super()._sample(None if columns is None else columns[:2], dtype)

    def _columns(self, sample: Tensor, beside: Beside) -> Columns:
        assert not isinstance(beside, tuple)
        return sample, beside, None


class FastGANGame(NoiseGame):
    """D's move on pairs of full and smaller images, with its reconstructions of real ones; then G's.

    terms: in D's loss, over the columns full, small and quarter, reconstructions at the smaller size from the last
    features of both branches and from a random quarter of those at twice their side, and real and real_quarter: the
    augmented real images, and the same quarters of them, at that size. As in the released code sizes change by nearest
    pixels; there all images of a batch have the same quarter, and the distance is LPIPS summed over the batch.
    `NoiseGame` documents the rest. Raises CombinationError for the networks of another model.
    """

    judges: ClassVar[type[Critic]] = TwoSizes

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        terms: Mapping[str, Term] | None = None,
        pretrained: Pretrained | None = None,
        *,
        d_steps: int = 1,
        adversarial: float = 1.0,
        ramp: Ramp | None = None,
    ):
        G, D = nets.get("G"), nets.get("D")
        if not isinstance(G, Generator) or not isinstance(D, Discriminator):
            raise CombinationError("game=fastgan needs the networks of model=fastgan: use it, or game=noise")
        super().__init__(
            nets, loss, penalties, latent, classes, augment, d_steps=d_steps, adversarial=adversarial, ramp=ramp
        )
        self.terms = Terms(
            terms or {}, columns=DECODED + TARGETS, players=("D",), distances=feature_distances(pretrained)
        )

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """D's objective on real images and new fakes, penalties, and the terms of its reconstructions."""
        critic, real, made = self.critic, self._real(batch), self._fakes(rng, batch)
        fake = made.columns
        verdicts = critic.judge(rng, real=real, fake=fake)
        losses = critic.discriminator_losses(verdicts, rng, real=real, fake=fake)
        losses |= critic.due("discriminator", self._context(rng, verdicts, real, fake))
        if self.terms.wanted("D"):
            features, shown = verdicts["real"].features, critic.shown(real, rng, "real")[0]
            assert features is not None
            assert shown is not None
            losses |= self.terms.costs("D", self._reconstructions(features, shown.detach(), rng))
        return Outcome(losses, critic.stats(verdicts), means=made.means)

    def _reconstructions(self, features: Sequence[Tensor], shown: Tensor, rng: Rng) -> dict[str, Tensor]:
        """The columns of terms. shown: D's full real images."""
        D: Any = self.nets["D"]
        which = rng.integers("quarter", 4)
        found = dict(zip(DECODED, D.reconstructed(features, which), strict=True))
        return found | {"real": D.reduced(shown), "real_quarter": D.reduced(quarters(shown, which))}

    def _real(self, batch: Batch) -> Columns:
        return *super()._real(batch), None

    def _fakes(self, rng: Rng, batch: Batch | None = None, graph: bool = False) -> Fakes:
        y = self._classes(rng, batch, graph)
        with torch.set_grad_enabled(graph):
            full, small = self.nets["G"](self.latent.draw(rng), y, both=True)
        return Fakes((full, y, small))
