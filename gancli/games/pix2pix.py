"""pix2pix: paired translation; D judges the input and the output image together (Isola et al. 2017)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.config.settings import at_least, at_most
from gancli.data.fields import Field
from gancli.data.source import DataSet, Source, lone
from gancli.games.critic import Critic
from gancli.games.critic_losses import discriminator_side, generator_side
from gancli.games.game import Batch, Move, Outcome
from gancli.games.stages import Moment
from gancli.games.translation import Route, Translation, refuse_sizes
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.losses.terms import Term, Terms
from gancli.pretrained.perceptual import feature_distances
from gancli.pretrained.pretrained import Pretrained
from gancli.train.ramp import Ramp

COLUMNS = ("condition", "target", "fake")


class Pix2PixGame(Translation):
    """D's move, then G's on the same images: D(A, B) against D(A, G(A)), and terms such as ‖B - G(A)‖₁ (eq. 4).

    terms: over the columns condition, target and fake. reverse: G translates B to A. d_weight: weight of the objective
    in D's loss; below 1 it slows D relative to G. mismatched: weight of pairs of a real target with the condition of
    another row in D's loss on fakes, so that D learns to compare both (Reed et al. 2016, section 4.2). Raises
    ConfigError for numbers out of range.
    """

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        terms: Mapping[str, Term] | None = None,
        augment: Augment | None = None,
        pretrained: Pretrained | None = None,
        *,
        reverse: bool = False,
        adversarial: float = 1.0,
        d_weight: float = 0.5,
        mismatched: float = 0.0,
        ramp: Ramp | None = None,
    ):
        super().__init__()
        at_least(0, **{"game.d_weight": d_weight, "game.mismatched": mismatched})
        at_most(1, **{"game.mismatched": mismatched})
        self.nets, self.d_weight, self.mismatched = nn.ModuleDict(nets), d_weight, mismatched
        self.condition, self.target = ("B", "A") if reverse else ("A", "B")
        columns = (self.condition, self.target)
        self.routes = {"2".join(columns): Route("G", *columns)}
        self.critic = Critic(
            "D",
            self.nets,
            loss,
            penalties,
            augment,
            columns=columns,
            images=columns,
            adversarial=adversarial,
            ramp=ramp,
        )
        self.terms = Terms(terms or {}, columns=COLUMNS, distances=feature_distances(pretrained))
        self._moves = (
            Move("D", self.discriminator_loss, ("pairs", "others") if mismatched else ("pairs",)),
            Move("G", self.generator_loss, ("pairs",), shared=True),
        )

    @classmethod
    def players(cls, networks: Sequence[str]) -> dict[str, tuple[str, ...]]:
        """G and D."""
        return {"G": ("G",), "D": ("D",)}

    @classmethod
    def told(
        cls, network: str, fields: Mapping[str, Field], latent_dim: int, options: Mapping[str, Any]
    ) -> dict[str, Any]:
        """G gets the condition's shape and the target's channels; D gets both, joined in their channels."""
        columns = [fields[name] for name in (("B", "A") if options.get("reverse") else ("A", "B"))]
        refuse_sizes("pix2pix takes pairs", columns)
        shapes = [field.shape for field in columns]
        channels = shapes[1][0]
        shape = (shapes[0][0] + channels, *shapes[0][1:]) if network == "D" else shapes[0]
        return {"shape": shape, "out_channels": channels, "latent_dim": latent_dim, "classes": 0}

    @classmethod
    def columns(cls, options: Mapping[str, Any]) -> dict[str, str]:
        """Two image columns."""
        return {"A": "image", "B": "image"}

    def feeds(self, data: DataSet) -> dict[str, Source]:
        """One table of pairs, and again in another order if D gets mismatched pairs.

        Raises CombinationError for several tables.
        """
        table = lone(data, "pix2pix")
        return {"pairs": table, "others": table} if self.mismatched else {"pairs": table}

    def reads(self) -> tuple[str, ...]:
        """Both images."""
        return "A", "B"

    def moves(self, at: Moment) -> Sequence[Move]:
        """D, then G on the same rows."""
        return self._moves

    def discriminator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """D's objective on each condition's real and generated pair, and on mismatched pairs."""
        own = "pairs." if self.mismatched else ""  # batches of several feeds name columns FEED.COLUMN
        condition, target = batch[own + self.condition], batch[own + self.target]
        with torch.no_grad():
            fake = self.nets["G"](condition)
        real, share = (condition, target), self.d_weight * (1 - self.mismatched)
        found = discriminator_side(self.critic, rng, real=real, fake=(condition, fake), weight=share)
        if not self.mismatched:
            return found
        wrong = batch[f"others.{self.condition}"], target
        verdicts = self.critic.judge(rng, real=real, fake=wrong)
        costs = self.critic.discriminator_losses(verdicts, rng, real=real, fake=wrong)
        share = self.d_weight * self.mismatched
        wrongs = {f"{name}_mismatched": share * cost for name, cost in costs.items()}
        return Outcome(found.losses | wrongs, found.stats)

    def generator_loss(self, batch: Batch, rng: Rng) -> Outcome:
        """G's objective and the terms, on the same fakes as in D's move, since dropout's draws are the same."""
        condition, target = batch[self.condition], batch[self.target]
        fake = self.nets["G"](condition)
        losses = generator_side(self.critic, rng, real=(condition, target), fake=(condition, fake))
        return Outcome(losses | self.terms.costs("G", {"condition": condition, "target": target, "fake": fake}))
