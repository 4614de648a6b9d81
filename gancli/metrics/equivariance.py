"""How well a generator's samples follow a translation or rotation of its input: EQ-T, EQ-T_frac and EQ-R of StyleGAN 3.

Source: Karras et al. 2021, "Alias-Free Generative Adversarial Networks", section 3 and appendix E. Other than in the
released code each sample has a move of its own, not each batch, so that results do not depend on the size of batches.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.compute.rng import RowRng
from gancli.config.settings import at_least
from gancli.data.fields import Image
from gancli.errors import ConfigError, MetricError
from gancli.games.drawing import TRANSFORM
from gancli.metrics import moved_images
from gancli.metrics.images import Progress
from gancli.metrics.metric import Better
from gancli.metrics.run_metric import Findings, RunMetric

if TYPE_CHECKING:
    from gancli.draw.sampling import Pair, Sampler

BATCH = 32  # samples at a time, a multiple of the sampler's own batches
FLOOR = 2.0**-46  # of the mean squared error: float32's rounding; results are at most 144.5 dB


def decibels(errors: float, count: float) -> float:
    """PSNR for images in [-1, 1], of a sum of squared differences of so many values.

    >>> round(decibels(4e-6, 4.0), 2)
    66.02
    """
    return 20 * math.log10(2) - 10 * math.log10(max(errors / count, FLOOR))


@dataclass(frozen=True)
class Equivariance(RunMetric):
    """Base: PSNR in dB between G's samples of a moved input, and its samples moved as images.

    PSNR = 20 log10(2) - 10 log10(MSE) for images in [-1, 1]; the mean is over all channels of all pixels in the masks
    of all samples. reach: the largest move. Both passes of G have the same latents, classes and noise.
    """

    most: ClassVar[float]  # of `reach`
    unit: ClassVar[str]  # of `reach`
    smallest: ClassVar[int] = 8  # side of images, in pixels
    reach: float

    def __post_init__(self) -> None:
        if not 0 < self.reach <= self.most:
            raise ConfigError(
                f"metrics.{self.name}.reach={self.reach:g}: type a number above 0 and at most {self.most:g} {self.unit}"
            )

    @abstractmethod
    def drawn(self, share: Tensor, height: int, width: int) -> Tensor:
        """Return moves, float64 [B, 3]: right and down in pixels, degrees. share: uniform in [-1, 1), [B, 2]."""

    @abstractmethod
    def compared(self, plain: Tensor, made: Tensor, move: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return a sample moved as an image, the sample of a moved input, and the mask of pixels to compare.

        plain, made: the sample and that of a moved input, [C, H, W]. move: [3].
        """

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The number of samples, the largest move, and where the formula is from."""
        return {
            "samples": n_fake,
            "reach": self.reach,
            "unit": self.unit,
            "moves": "one per sample",
            "definition": "Karras et al. 2021, appendix E",
        }

    def refuse(self, sampler: Sampler) -> None:
        """Raises MetricError for samples that cannot be moved, and for images that are too small."""
        if not sampler.game.moves_samples(sampler.direction):
            raise MetricError(
                f"metrics={self.name} moves samples, which the generator of {sampler.run.name} cannot: train one with"
                " model=stylegan3, or leave it out of metrics"
            )
        field = sampler.field
        if not isinstance(field, Image) or min(field.height, field.width) < self.smallest:
            raise MetricError(
                f"metrics={self.name} needs images of at least {self.smallest} pixels per side: leave it out of metrics"
            )

    @torch.no_grad()
    def measure(self, sampler: Sampler, n: int, seed: int, progress: Progress) -> Findings:
        """Return the PSNR over n samples, in dB. Raises MetricError for images that are not finite."""
        self.refuse(sampler)
        at_least(1, n=n)
        world, sampler = World.of_group(), sampler.alone()
        start, stop = world.rows(n, BATCH)
        sums = torch.zeros(n, 2, dtype=torch.float64)  # of each sample, so that a sum over ranks changes no bit
        for first in range(start, stop, BATCH):
            last = min(first + BATCH, stop)
            sums[first:last] = self._sums(sampler, [(seed, k) for k in range(first, last)])
            progress(f"{self.name}: samples", last - start, stop - start)
        world.sum([sums])
        errors, count = sums.sum(0).tolist()
        if not math.isfinite(errors):
            raise MetricError(
                f"metrics={self.name}: samples of {sampler.run.name} are not finite numbers: type checkpoint= of an"
                " earlier step"
            )
        if not count:
            raise MetricError(f"metrics={self.name}: moves leave no pixel to compare: type a smaller reach")
        return Findings({self.name: decibels(errors, count)}, {f"{self.name}_samples": n})

    def _sums(self, sampler: Sampler, pairs: Sequence[Pair]) -> Tensor:
        """Return the sum of squared differences and the number of values compared, of each sample, [B, 2]."""
        inputs = sampler.inputs(pairs)
        plain = sampler.generate_here(inputs, pairs)[sampler.column]
        height, width = plain.shape[2:]
        rng = RowRng([(seed, self.name, number) for seed, number in pairs], dtype=torch.float64)
        moves = self.drawn(2 * rng.uniform("move", 2) - 1, height, width)
        side = min(height, width)  # the unit of the column
        column = (moves / torch.tensor([side, side, 1])).float()
        made = sampler.generate_here({**inputs, TRANSFORM: column}, pairs)[sampler.column]
        # Sums are in float64, which MPS does not have.
        device, found = "cpu" if sampler.compute.device.type == "mps" else sampler.compute.device, []
        for one, other, move in zip(plain.to(device), made.to(device), moves, strict=True):
            found.append(self.errors(one, other, move))
        return torch.stack(found).cpu()

    def errors(self, plain: Tensor, made: Tensor, move: Tensor) -> Tensor:
        """Return the sum of squared differences and the number of values compared; arguments as for `compared`."""
        wanted, own, mask = self.compared(plain, made, move)
        return torch.stack([((wanted - own).double().square() * mask).sum(), mask.double().sum() * len(plain)])


@dataclass(frozen=True)
class Translation(Equivariance):
    """Base: translation to at most `reach` of each side of the image, drawn uniformly."""

    most: ClassVar[float] = 0.5
    unit: ClassVar[str] = "of each side"
    reach: float = 0.125

    def drawn(self, share: Tensor, height: int, width: int) -> Tensor:
        """Uniform."""
        pixels = share * self.reach * torch.tensor([width, height], dtype=share.dtype)
        return torch.cat([pixels, torch.zeros_like(share[:, :1])], 1)


@dataclass(frozen=True)
class EqT(Translation):
    """EQ-T: translation by whole pixels (E.1)."""

    name: ClassVar[str] = "eq_t"
    better: ClassVar[Mapping[str, Better]] = {"eq_t": "high"}

    def drawn(self, share: Tensor, height: int, width: int) -> Tensor:
        """Uniform, rounded to pixels."""
        return super().drawn(share, height, width).round()

    def compared(self, plain: Tensor, made: Tensor, move: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sample moved by copying pixels."""
        wanted, mask = moved_images.by_pixels(plain, int(move[0]), int(move[1]))
        return wanted, made, mask


@dataclass(frozen=True)
class EqTFrac(Translation):
    """EQ-T_frac: translation by fractions of pixels (E.2)."""

    name: ClassVar[str] = "eq_t_frac"
    better: ClassVar[Mapping[str, Better]] = {"eq_t_frac": "high"}

    def compared(self, plain: Tensor, made: Tensor, move: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sample moved with Lanczos' filter."""
        wanted, mask = moved_images.by_fractions(plain, float(move[0]), float(move[1]))
        return wanted, made, mask


@dataclass(frozen=True)
class EqR(Equivariance):
    """EQ-R: rotation about the centre by at most `reach` degrees to either side, drawn uniformly (E.3)."""

    name: ClassVar[str] = "eq_r"
    better: ClassVar[Mapping[str, Better]] = {"eq_r": "high"}
    most: ClassVar[float] = 180
    unit: ClassVar[str] = "degrees"
    smallest: ClassVar[int] = moved_images.SMALLEST
    reach: float = 180

    def drawn(self, share: Tensor, height: int, width: int) -> Tensor:
        """Uniform."""
        return torch.cat([torch.zeros_like(share), share[:, :1] * self.reach], 1)

    def compared(self, plain: Tensor, made: Tensor, move: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The sample rotated as an image; the other, limited to the frequencies that this leaves."""
        wanted, mask = moved_images.rotated(plain, float(move[2]))
        own, inner = moved_images.as_if_rotated(made, float(move[2]))
        return wanted, own, mask * inner
