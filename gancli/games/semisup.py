"""Semi-supervised learning with a GAN: D classifies real images (Salimans et al. 2016)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import nn
from torch.nn.functional import cross_entropy

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.config.settings import at_least
from gancli.data.source import DataSet, Source, lone, order
from gancli.errors import CombinationError, ConfigError
from gancli.games.game import Batch, Outcome
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.train.ramp import Ramp


class SemiSupervisedGame(NoiseGame):
    """The noise game with a K-class D that learns from `labels` labelled images, the same number of each class.

    D's loss is `supervised` times its cross entropy on these, plus half of the objective on all images and on fakes
    (Salimans et al. 2016, section 5). G's loss is the noise game's: game.adversarial=0 penalty=feature_matching is the
    paper's. label_seed: selects the labelled images. Raises CombinationError if D is no classifier.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        *,
        d_steps: int = 1,
        adversarial: float = 0.0,
        labels: int = 100,
        label_seed: int = 0,
        supervised: float = 1.0,
        ramp: Ramp | None = None,
    ):
        super().__init__(
            nets, loss, penalties, latent, classes, augment, d_steps=d_steps, adversarial=adversarial, ramp=ramp
        )
        at_least(1, **{"game.labels": labels})
        at_least(0, **{"game.supervised": supervised, "game.label_seed": label_seed})
        self.labels, self.label_seed, self.supervised = labels, label_seed, supervised
        if self.labelled or not getattr(nets["D"], "names_classes", False):
            raise CombinationError(
                "game=semisup needs a D that classifies images without being given labels: use model=improved"
            )

    def averaged(self) -> tuple[str, ...]:
        """G and D: the averaged D is the classifier."""
        return ("G", "D")

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """All images, and those with labels. Raises CombinationError for several tables."""
        source = lone(data)
        return {"real": source, "labelled": source.only(self.labelled_rows(source))}

    def reads(self) -> tuple[str, ...]:
        """Images, and the classes of the labelled ones."""
        return ("x", "labelled.y")

    def labelled_rows(self, source: Source) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
        """Indices of the labelled images: the first of each class in a shuffled order. Raises ConfigError."""
        shuffled = order(len(source), "labels", self.label_seed)
        each, rest = divmod(self.labels, len(source.classes))
        rows = [shuffled[source.labels[shuffled] == k][:each] for k in range(len(source.classes))]
        if rest or any(len(found) < each for found in rows):
            raise ConfigError(
                f"game.labels={self.labels}: a multiple of the {len(source.classes)} classes, at most"
                f" {len(source.classes)} times the images of the smallest class"
            )
        return np.concatenate(rows)

    def discriminator_feeds(self) -> tuple[str, ...]:
        """D's moves also get labelled images."""
        return ("real", "labelled")

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """Half of the objective on images and fakes, and the cross entropy on labelled images."""
        critic, real, fake = self.critic, (batch["real.x"], None), self._fakes(rng).columns
        verdicts = critic.judge(rng, real=real, fake=fake, labelled=(batch["labelled.x"], None))
        named = verdicts["labelled"].classes
        assert named is not None
        losses = {"loss_D": critic.objective(verdicts, rng, real=real, fake=fake) / 2}
        losses["class_D"] = self.supervised * cross_entropy(named.float(), batch["labelled.y"])
        losses |= critic.due("discriminator", self._context(rng, verdicts, real, fake))
        wrong = (named.argmax(1) != batch["labelled.y"]).float().mean()
        return Outcome(losses, critic.stats(verdicts) | {"errors": wrong.detach()})
