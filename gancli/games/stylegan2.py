"""The game of StyleGAN 2: G and its lazy path length penalty, then D and its lazy R1 (Karras et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar

from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.errors import CombinationError
from gancli.games.game import Batch, Move
from gancli.games.latent import Latent
from gancli.games.styles import StyledGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.nets.growth import growth_of
from gancli.train.ramp import Ramp


class StyleGame2(StyledGame):
    """G takes a move, then D; each lazy penalty has a move of its own after that of its player.

    Lazy moves correct their player's learning rate and betas (appendix B). As in the released code a penalty of G may
    use a part of the batch, and the labels of fakes are those of the data: of the step's real images. mixing: as in
    `StyledGame.take`. w_decay: of the moving average of w, updated by each move with fakes. Raises CombinationError for
    a generator without styles, or one that grows.
    """

    title: ClassVar[str] = "stylegan2"  # in messages

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        *,
        mixing: float = 0.9,
        w_decay: float = 0.995,
        ramp: Ramp | None = None,
    ):
        super().__init__(nets, loss, penalties, latent, classes, augment, ramp=ramp)
        self.take(self.title, mixing, w_decay)
        if growth_of(self.generator) is not None:
            raise CombinationError(
                f"game={self.title} does not grow its networks: use game=stylegan with model=stylegan"
            )
        lazy = self.critic.lazy()
        g_first = self.labelled or self.critic.compares()  # G's move takes the step's real images, and D's the same
        of_g, of_d = (
            [self._lazy_move(name, p) for name, p in lazy.items() if p.side == side]
            for side in ("generator", "discriminator")
        )
        self._moves = (
            Move("G", self.generator_loss, ("real",) if g_first else ()),
            *of_g,
            Move("D", self.discriminator_loss, shared=g_first),
            *of_d,
        )

    def _lazy_move(self, name: str, penalty: Penalty) -> Move:
        """A move whose loss is one penalty; it takes the step's real images again."""
        move = super()._lazy_move(name, penalty)
        if move.player == "G" and self.labelled:
            move = replace(move, feeds=("real",))
        return replace(move, shared=bool(move.feeds), corrects=True)

    def _classes(self, rng: Rng, batch: Batch | None, graph: bool) -> Tensor | None:
        """The classes of the step's real images, if there are some."""
        return batch["y"] if self.labelled and batch and "y" in batch else super()._classes(rng, batch, graph)
