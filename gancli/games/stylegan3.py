"""The game of StyleGAN 3: StyleGAN 2's without mixing, with averages of magnitudes, and a blur at the start for R."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.augment.blur import Blur
from gancli.compute.rng import Rng
from gancli.config.settings import at_least, at_most
from gancli.errors import CombinationError, ConfigError
from gancli.games.drawing import TRANSFORM
from gancli.games.game import Batch, Move, Result
from gancli.games.latent import Latent
from gancli.games.stages import Moment
from gancli.games.stylegan2 import StyleGame2
from gancli.games.styles import styled
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.nets.stylegan3 import Generator
from gancli.train.ramp import Ramp

MOST_BLURRED = 1000  # pixels of the blur's σ


class StyleGame3(StyleGame2):
    """As `StyleGame2`; only D's pass over fakes updates the averages, of w and of magnitudes (Karras et al. 2021).

    magnitude_images: half-life, in images, of the averages of the layers' magnitudes. blur_sigma: of the Gaussian by
    which all images that D sees are blurred at the start (appendix E.2); it falls to 0 over `blur_images` real images.
    None: 10 pixels with model.variant=R, else no blur, and 200,000 images. Raises CombinationError.
    """

    title: ClassVar[str] = "stylegan3"

    def __init__(
        self,
        nets: Mapping[str, nn.Module],
        loss: AdversarialLoss,
        penalties: Mapping[str, Penalty],
        latent: Latent,
        classes: int = 0,
        augment: Augment | None = None,
        *,
        mixing: float = 0.0,
        w_decay: float = 0.998,
        magnitude_images: int = 20_000,
        blur_sigma: float | None = None,
        blur_images: int | None = None,
        ramp: Ramp | None = None,
    ):
        at_least(1, **{"game.magnitude_images": magnitude_images, "game.blur_images": blur_images})
        at_least(0, **{"game.blur_sigma": blur_sigma})
        at_most(MOST_BLURRED, **{"game.blur_sigma": blur_sigma})
        if not isinstance(nets.get("G"), Generator | None):
            raise CombinationError("game=stylegan3 needs the generator of model=stylegan3: use game=stylegan2")
        super().__init__(nets, loss, penalties, latent, classes, augment, mixing=mixing, w_decay=w_decay, ramp=ramp)
        self.magnitude_images = magnitude_images
        sigma = (10.0 if self.generator.variant == "R" else 0.0) if blur_sigma is None else blur_sigma
        if blur_images is not None and not sigma:
            raise ConfigError(
                f"game.blur_images={blur_images} has no effect without a blur: add game.blur_sigma=10, or leave it out"
            )
        self.critic.blur = Blur(sigma, blur_images or 200_000) if sigma else None

    @property
    def generator(self) -> Generator:
        """G, as it is trained."""
        G = self.nets["G"]
        assert isinstance(G, Generator)
        return G

    def _keep(self, images: int) -> float:
        """The decay of the averages of magnitudes in a move of so many images."""
        return float(0.5 ** (images / self.magnitude_images))

    def _drawn(self, w: Tensor, mean: Tensor, rng: Rng, graph: bool) -> tuple[Tensor, dict[str, Tensor]]:
        if graph:
            return self.nets["G"](None, w=w), {}
        images, magnitudes = self.nets["G"](None, w=w, keep=self._keep(rng.total))
        return images, {"w": mean, "magnitudes": magnitudes}

    def after(self, move: Move, result: Result, rng: Rng, at: Moment) -> Mapping[str, Tensor] | None:
        """Update the averages of magnitudes too."""
        if "magnitudes" in result.means:
            self.generator.update(result.means["magnitudes"], self._keep(rng.total))
        return super().after(move, result, rng, at)

    # -- for code that samples, exports or monitors --------------------------------------------------------------------

    def moves_samples(self, direction: str = "") -> bool:
        """Always."""
        return True

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """As for every generator with styles; a column `transform` [B, 3] moves the images' content."""
        if TRANSFORM not in inputs:
            return super().generate(nets, inputs, direction)
        return {"x": self.finished(nets, nets["G"](None, w=styled(nets, inputs), transform=inputs[TRANSFORM]))}
