"""The game of growing networks: the noise game in stages, one size after another (Karras et al. 2018, section 2)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, TypedDict

from torch import Tensor, nn

from gancli.augment.augment import Augment
from gancli.config.settings import at_least
from gancli.errors import CombinationError, ConfigError
from gancli.games.critic import Columns
from gancli.games.game import Batch
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.games.stages import Moment, Stage
from gancli.losses.adversarial import AdversarialLoss
from gancli.losses.penalties import Penalty
from gancli.nets.growth import Growth, doubled, faded, growth_of, halved
from gancli.train.ramp import Ramp

FADE = " fade"  # ends the name of a stage that fades a size in


class GrowthOptions(TypedDict):
    """Keys of every growing game, as in `GrowingGame`."""

    d_steps: int
    first: int
    fade: int
    hold: int
    first_side: int
    batches: Sequence[int]
    rates: Sequence[float]


class GrowingGame(NoiseGame):
    """The noise game, in which G and D grow: `hold` images at each size, then `fade` images to fade the next one in.

    first: images at the first size, the smallest whose shorter side is at least first_side. batches, rates: batch size
    (if batch_size=null) and factor of the learning rates at each size from the smallest that G has (4×4) up; the last
    of each serves all larger ones. The optimizers are reset at both ends of each fade. While a size is faded in, real
    images are mixed with their halved and doubled selves in the same proportion as fakes. As in the released code
    penalties see images that are doubled to the last size, which scales gradients at the smaller ones, and D's fakes
    have the labels of its real images. `NoiseGame` documents the rest. Raises CombinationError for networks that do not
    grow, ConfigError for numbers out of range.
    """

    same_classes: ClassVar[bool] = True

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
        class_weight: float = 1.0,
        class_fakes: bool = True,
        first: int = 600_000,
        fade: int = 600_000,
        hold: int = 600_000,
        first_side: int = 4,
        batches: Sequence[int],
        rates: Sequence[float],
        ramp: Ramp | None = None,
    ):
        super().__init__(
            nets,
            loss,
            penalties,
            latent,
            classes,
            augment,
            d_steps=d_steps,
            class_weight=class_weight,
            class_fakes=class_fakes,
            ramp=ramp,
        )
        at_least(1, **{"game.first": first, "game.fade": fade, "game.hold": hold, "game.first_side": first_side})
        for name, table in (("batches", batches), ("rates", rates)):
            if not table or not all(0 < value < float("inf") for value in table):
                raise ConfigError(f"game.{name}={list(table)}: one or more numbers above 0, for the sizes from 4×4 up")
        found = {name: growth_of(net) for name, net in nets.items()}
        missing = next((name for name, growth in found.items() if growth is None), None)
        if missing is not None:
            raise CombinationError(
                f"this game grows its networks, but {missing} does not grow: use model=progan or model=stylegan, or"
                " game=noise"
            )
        self._growths: list[Growth] = [growth for growth in found.values() if growth is not None]
        self.first, self.fade, self.hold, self.first_side = first, fade, hold, first_side
        self.batches, self.rates = tuple(batches), tuple(rates)

    @property
    def growth(self) -> Growth:
        """How far the networks have grown."""
        return self._growths[0]

    def side(self, doublings: int) -> tuple[int, int]:
        """Height and width after some doublings of the base."""
        _, height, width = self.fields["x"].shape
        level = self.growth.most - doublings
        return height >> level, width >> level

    def sizes(self) -> list[int]:
        """The numbers of doublings that the run goes through, in order."""
        most = self.growth.most
        start = next((k for k in range(most) if min(self.side(k)) >= self.first_side), most)
        return list(range(start, most + 1))

    def stages(self) -> Sequence[Stage]:
        """The first size, then for each size a fade and a hold."""
        found, at = list[Stage](), 0
        for doublings in self.sizes():
            name = "x".join(map(str, self.side(doublings)))
            parts = ((name, self.first),) if not found else ((name + FADE, self.fade), (name, self.hold))
            for title, length in parts:
                found.append(
                    Stage(
                        name=title,
                        start=at,
                        batch_size=self.batches[min(doublings, len(self.batches) - 1)],
                        reset=("G", "D") if found else (),
                        level=self.growth.most - doublings,
                        rates=self.rates[min(doublings, len(self.rates) - 1)],
                        end=at + length if doublings == self.growth.most and title == name else None,
                        as_before=title == name and bool(found),
                    )
                )
                at += length
        return found

    def enter(self, at: Moment) -> None:
        """Grow the networks to the moment's size, and set the share of its newest blocks."""
        super().enter(at)
        fading = at.stage.name.endswith(FADE)
        share = (at.seen - at.stage.start) / self.fade if fading else 1.0
        for growth in self._growths:
            growth.set(growth.most - at.stage.level, share)

    def _real(self, batch: Batch) -> Columns:
        x, y = super()._real(batch)
        assert x is not None
        if self.growth.fading:
            x = faded(doubled(halved(x)), x, self.growth.share)
        return x, y

    @property
    def eager(self) -> Mapping[str, str]:
        """Both: each size would be compiled anew, and torch gives up after some."""
        return dict.fromkeys(self.nets, "it grows, and each of its sizes would be compiled anew") | dict(super().eager)

    def magnified(self) -> int:
        """By how much the sides of a step's images are smaller than those of the last ones."""
        return 1 << (self.growth.most - self.growth.doublings)

    def active_size(self, direction: str = "") -> tuple[int, int]:
        """The size that G has grown to."""
        return self.side(self.growth.doublings)

    def generate(self, nets: Mapping[str, nn.Module], inputs: Batch, direction: str = "") -> dict[str, Tensor]:
        """G's images, enlarged to the data's size."""
        return {"x": self.enlarged(nets, super().generate(nets, inputs, direction)["x"])}

    @staticmethod
    def enlarged(nets: Mapping[str, nn.Module], images: Tensor) -> Tensor:
        """The images of G, by repeated pixels, at the size of the complete network."""
        growth = growth_of(nets["G"])
        assert growth is not None
        return doubled(images, growth.most - growth.doublings)
