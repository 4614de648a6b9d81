"""The game of StyleGAN: a growing game whose generator takes styles (Karras et al. 2019)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn
from typing_extensions import Unpack

from gancli.augment.augment import Augment
from gancli.games.latent import Latent
from gancli.games.progan import GrowingGame, GrowthOptions
from gancli.games.styles import StyledGame
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.train.ramp import Ramp


class StyleGame(StyledGame, GrowingGame):
    """The growing game with styles w between latents and images.

    mixing: as in `StyledGame.take`. w_decay: of the moving average of w, updated by each move with fakes.
    `GrowingGame` documents the rest. Raises CombinationError for a generator without styles.
    """

    layers_truncated: ClassVar[int | None] = 8  # Karras et al. 2019, appendix B

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
        **options: Unpack[GrowthOptions],
    ):
        super().__init__(nets, loss, penalties, latent, classes, augment, ramp=ramp, **options)
        self.take("stylegan", mixing, w_decay)

    def styles_in_use(self) -> int:
        """Two layers have each size that G has grown to."""
        return 2 * (self.growth.doublings + 1)

    def finished(self, nets: Mapping[str, nn.Module], images: Tensor) -> Tensor:
        """G's images, enlarged to the data's size."""
        return self.enlarged(nets, images)
