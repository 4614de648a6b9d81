"""Metrics of pairs: L1, PSNR and SSIM between outputs and targets; L1 between inputs and cycle reconstructions."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from gancli.errors import MetricError
from gancli.metrics.images import Shown
from gancli.metrics.metric import Better, PairMetric

RANGE = 1.0  # of a saved pixel, for any bit depth
WINDOW = 11  # side of SSIM's window in pixels; edges are padded by reflection


def truth_of(shown: Shown) -> Tensor:
    """Return the targets, which are there for a metric with wants="truth"."""
    assert shown.truth is not None
    return shown.truth


@dataclass(frozen=True)
class L1(PairMetric):
    """Mean absolute pixel difference of outputs and targets, both as saved, in [0, 1]."""

    name: ClassVar[str] = "l1"
    better: ClassVar[Mapping[str, Better]] = {"l1": "low"}

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The unit."""
        return {"unit": "pixels in [0, 1], as saved; times 255 in levels of 8 bits"}

    def see(self, shown: Shown) -> Tensor:
        """Each image's mean."""
        return (shown.made - truth_of(shown)).abs().flatten(1).mean(1, keepdim=True)


@dataclass(frozen=True)
class Psnr(PairMetric):
    """Peak signal-to-noise ratio of each image over all channels, in dB, by torchmetrics; mean over images.

    The ratio of an image equal to its target is infinite; it counts as one that differs by one level in one value.
    """

    name: ClassVar[str] = "psnr"
    better: ClassVar[Mapping[str, Better]] = {"psnr": "high"}

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Range, unit, and the rule for equal images."""
        return {
            "data_range": RANGE,
            "unit": "dB, mean of each image's",
            "equal": "as one level off at one value",
            "torchmetrics": version(),
        }

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raises MetricError if torchmetrics is missing."""
        library(self.name)

    def see(self, shown: Shown) -> Tensor:
        """Return each image's ratio."""
        image = library(self.name)
        made, truth = shown.made.flatten(1), truth_of(shown).flatten(1).clone()
        equal = (made == truth).all(1)
        truth[equal, 0] += torch.where(made[equal, 0] > 0.5, -1.0, 1.0).to(made) / shown.levels
        found: Tensor = image.peak_signal_noise_ratio(made, truth, data_range=RANGE, reduction="none", dim=1)
        return found[:, None]


@dataclass(frozen=True)
class Ssim(PairMetric):
    """Mean structural similarity by torchmetrics: a Gaussian window of 11 pixels, σ 1.5, k1 0.01, k2 0.03.

    Edges are padded by reflection; mean over pixels and channels. Source: Wang et al. 2004, eq. 13.
    """

    name: ClassVar[str] = "ssim"
    better: ClassVar[Mapping[str, Better]] = {"ssim": "high"}

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Range, window and precision."""
        window = {"window": WINDOW, "sigma": 1.5, "edges": "mirrored", "in": "float32"}
        return {"data_range": RANGE, **window, "torchmetrics": version()}

    def refuse(self, shape: tuple[int, ...], given: tuple[int, ...]) -> None:
        """Raises MetricError for images too small for reflection padding, or if torchmetrics is missing."""
        library(self.name)
        if min(shape[1:]) <= WINDOW // 2:
            raise MetricError(
                f"metrics=ssim needs sides of at least {WINDOW // 2 + 1} pixels, and these images are"
                f" {shape[1]}x{shape[2]}: leave it out of metrics"
            )

    def see(self, shown: Shown) -> Tensor:
        """Return each image's similarity."""
        compute: Callable[..., Tensor] = library(self.name).structural_similarity_index_measure
        # In float32, the library's usual precision: float64 takes sixteen times as long.
        found = compute(shown.made.float(), truth_of(shown).float(), data_range=RANGE, reduction="none")
        return found.reshape(-1, 1).double()


@dataclass(frozen=True)
class Cycle(PairMetric):
    """Mean absolute pixel difference of inputs and cycle reconstructions F(G(x)), both as saved, in [0, 1]."""

    name: ClassVar[str] = "cycle"
    better: ClassVar[Mapping[str, Better]] = {"cycle": "low"}
    wants = "back"

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """The unit."""
        return {"unit": "pixels in [0, 1], as saved; times 255 in levels of 8 bits"}

    def see(self, shown: Shown) -> Tensor:
        """Each image's mean."""
        assert shown.back is not None
        return (shown.given - shown.back).abs().flatten(1).mean(1, keepdim=True)


def library(metric: str) -> Any:
    """Import torchmetrics' image functions. Raises MetricError if it is missing."""
    try:
        from torchmetrics.functional import image
    except ImportError:
        raise MetricError(
            f"metrics={metric} is computed by torchmetrics, which is not installed: type pip install 'gancli[pairs]'"
        ) from None
    return image


def version() -> str:
    """Return torchmetrics' version, for protocols."""
    from importlib.metadata import version

    return version("torchmetrics")
