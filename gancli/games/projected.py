"""The game of Projected GAN: G takes a move, then D (Sauer et al. 2021, released code)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.games.game import Batch
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.train.ramp import Ramp


class ProjectedGame(NoiseGame):
    """The noise game with G's move first; the labels of all fakes are those of the step's real images."""

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        *,
        ramp: Ramp | None = None,
    ):
        if self._labelled(nets, "D") and not self._labelled(nets, "G"):
            raise ConfigError(
                "model.conditioning: D takes labels, and this generator does not: type model.generator=fastgan_lite, or"
                " model.conditioning=none"
            )
        super().__init__(nets, loss, penalties, latent, classes, augment, ramp=ramp)
        of_d, *lazy, of_g = self._moves
        g_first = bool(of_g.feeds) or self.labelled  # G's move takes the step's real images, and D's the same
        self._moves = (
            replace(of_g, feeds=("real",) if g_first else ()),
            replace(of_d, shared=g_first),
            *(replace(move, shared=bool(move.feeds)) for move in lazy),
        )

    @staticmethod
    def _labelled(nets: Mapping[str, nn.Module], name: str) -> bool:
        return bool(getattr(nets[name], "conditional", False))

    def _classes(self, rng: Rng, batch: Batch | None, graph: bool) -> Tensor | None:
        """The classes of the step's real images, if there are some."""
        return batch["y"] if self.labelled and batch and "y" in batch else super()._classes(rng, batch, graph)
