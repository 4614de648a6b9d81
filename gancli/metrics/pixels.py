"""Pixel metrics of the progressive-growing paper (Karras et al. 2018, section 5): SWD and MS-SSIM."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.compute.rng import key
from gancli.config.settings import at_least, at_most
from gancli.data.source import order
from gancli.errors import MetricError
from gancli.metrics.images import ImageSet, Progress, batches
from gancli.metrics.metric import Better, ImageMetric

PATCH, LEAST = 7, 16
MOST_DRAWN = 100_000  # upper limit of patches and of projections
REPEATS = 4  # the projections are drawn in this many parts
BINOMIAL = (1.0, 4.0, 6.0, 4.0, 1.0)

# Weights of five scales, window and constants of Wang et al. 2003, section 3.2.
WEIGHTS, WINDOW, SIGMA, K1, K2 = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333), 11, 1.5, 0.01, 0.03


def levels_of(height: int, width: int) -> int:
    """Return the levels of a Laplacian pyramid: the sides are halved while they are even and stay at 16 or more.

    >>> levels_of(64, 64), levels_of(28, 28), levels_of(96, 48)
    (3, 1, 2)
    """
    halves = min(height, width) >= 2 * LEAST and height % 2 == width % 2 == 0
    return 1 + levels_of(height // 2, width // 2) if halves else 1


def _blur(x: Tensor, gain: float) -> Tensor:
    """Apply the 5×5 binomial filter to [B, C, H, W], with reflection padding."""
    line = x.new_tensor(BINOMIAL) / 16
    kernel = (gain * line[:, None] * line).expand(x.shape[1], 1, 5, 5)
    return F.conv2d(F.pad(x, [2] * 4, mode="reflect"), kernel, groups=x.shape[1])


def pyramid(images: Tensor, levels: int) -> list[Tensor]:
    """Return the Laplacian pyramid of images [B, C, H, W], finest first, the low-pass rest last (Burt, Adelson 1983).

    >>> [part.abs().max().item() for part in pyramid(torch.full((1, 1, 32, 32), 3.0), 2)]
    [0.0, 3.0]
    """
    parts = [images.float()]
    for _ in range(levels - 1):
        small = _blur(parts[-1], 1)[:, :, ::2, ::2]
        spread = torch.zeros_like(parts[-1])
        spread[:, :, ::2, ::2] = small
        parts[-1] = parts[-1] - _blur(spread, 4)
        parts.append(small)
    return parts


def patches(images: Tensor, count: int, seed: int) -> Tensor:
    """Return `count` random 7×7 patches of each image [B, C, H, W]: [B · count, C, 7, 7]."""
    n, _, height, width = images.shape
    draw = torch.Generator().manual_seed(seed)
    top = torch.randint(height - PATCH + 1, (n, count, 1, 1), generator=draw)
    left = torch.randint(width - PATCH + 1, (n, count, 1, 1), generator=draw)
    rows = top + torch.arange(PATCH).view(1, 1, PATCH, 1)
    columns = left + torch.arange(PATCH).view(1, 1, 1, PATCH)
    image = torch.arange(n).view(n, 1, 1, 1)
    return images.permute(0, 2, 3, 1)[image, rows, columns].flatten(0, 1).permute(0, 3, 1, 2)


def normalised(descriptors: Tensor) -> Tensor:
    """Normalise patches [N, C, 7, 7] to mean 0 and standard deviation 1 per channel over all; rows [N, C · 49]."""
    mean, std = descriptors.mean((0, 2, 3), keepdim=True), descriptors.std((0, 2, 3), correction=0, keepdim=True)
    return ((descriptors - mean) / std.clamp_min(1e-8)).flatten(1)


def sliced_wasserstein(a: Tensor, b: Tensor, projections: int, seed: int) -> float:
    """Return the mean Wasserstein-1 distance of two sets of N rows [N, D] over random directions (Rabin et al. 2011).

    >>> x = torch.tensor([[1.0], [5.0], [2.0]])
    >>> sliced_wasserstein(x, x.flip(0), 4, 0), sliced_wasserstein(x, x + 2.5, 4, 0)
    (0.0, 2.5)
    """
    draw = torch.Generator().manual_seed(seed)
    parts = max(1, min(REPEATS, projections))
    total = torch.zeros((), dtype=torch.float64)
    for part in range(parts):
        count = projections // parts + (part < projections % parts)
        directions = torch.randn(a.shape[1], count, generator=draw)
        directions = directions / directions.norm(dim=0)
        sorted_a, sorted_b = ((x @ directions).sort(0).values for x in (a, b))
        total += (sorted_a - sorted_b).abs().mean(0).double().sum()
    return float(total) / projections


@dataclass(frozen=True)
class Swd(ImageMetric):
    """Multi-scale sliced Wasserstein distance of 7×7 patches of a Laplacian pyramid, times 1000.

    patches: of each image at each level. projections: random directions. The larger set is truncated to the size of
    the smaller. Source: Karras et al. 2018, section 5, with 128 patches, 512 projections and levels from 16 pixels up.
    """

    name: ClassVar[str] = "swd"
    better: ClassVar[Mapping[str, Better]] = {"swd": "low"}
    patches: int = 128
    projections: int = 512

    def __post_init__(self) -> None:
        counts = {"metrics.swd.patches": self.patches, "metrics.swd.projections": self.projections}
        at_least(1, **counts)
        at_most(MOST_DRAWN, **counts)

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """Patches, directions, and how many images of each set are compared."""
        return {"patches": self.patches, "projections": self.projections, "images": min(n_fake, n_real)}

    def look(
        self, fake: ImageSet, real: ImageSet | None, progress: Progress | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """swd: mean over the levels. swd_SIDE: each level's."""
        if real is None:
            raise MetricError("metrics=swd compares with real images: type reference=FOLDER")
        if fake.shape[1:] != real.shape[1:] or min(fake.shape[1:]) < LEAST:
            raise MetricError(
                f"metrics=swd compares images of one size of at least {LEAST} pixels, got "
                f"{fake.shape[1]}x{fake.shape[2]} and {real.shape[1]}x{real.shape[2]}: resize one set"
            )
        n, channels = min(fake.n, real.n), max(fake.shape[0], real.shape[0])
        sets = [self._descriptors(images, n, channels, progress) for images in (fake, real)]
        values: dict[str, float] = {}
        for level, (a, b) in enumerate(zip(*sets, strict=True)):
            seed = key("swd", "directions", level)
            values[f"swd_{fake.shape[1] >> level}"] = 1e3 * sliced_wasserstein(a, b, self.projections, seed)
        return {"swd": sum(values.values()) / len(values)} | values, {}

    def _descriptors(self, images: ImageSet, n: int, channels: int, progress: Progress | None) -> list[Tensor]:
        """Return normalised patches of each level, at the same positions in every set, so that equal sets give 0."""
        levels = levels_of(*images.shape[1:])
        found: list[list[Tensor]] = [[] for _ in range(levels)]
        done = 0
        for chunk in _batches(images, n):
            for level, part in enumerate(pyramid(chunk.expand(-1, channels, -1, -1), levels)):
                found[level].append(patches(part, self.patches, key("swd", "places", level, done)))
            done += len(chunk)
            if progress is not None:
                progress("swd: patches", done, n)
        return [normalised(torch.cat(level)) for level in found]


def _batches(images: ImageSet, n: int, size: int = 64) -> Iterator[Tensor]:
    """Yield the first n images of a set in batches of `size`, independent of its chunks."""
    done = 0
    for chunk in batches(images.chunks(), size):
        if done >= n:
            return
        yield chunk[: n - done]
        done += len(chunk)


def ms_ssim(a: Tensor, b: Tensor, weights: Sequence[float] = WEIGHTS) -> Tensor:
    """Return the multi-scale structural similarity of pairs of images [B, C, H, W] in 0 ... 255: [B], 1 if equal.

    Wang et al. 2003, eq. 7, as in the progressive-growing paper's released code: each level's similarity is the mean
    over channels and pixels; for an image smaller than 11 pixels the window has the image's side, and a proportionally
    smaller σ. An odd side, which that code does not accept, is halved with zero padding.

    >>> x = torch.arange(28 * 28.0).view(1, 1, 28, 28) % 256
    >>> ms_ssim(x, x).item(), ms_ssim(x, 255 - x).item()
    (1.0, 0.0)
    """
    a, b = a.double(), b.double()  # variances are differences of squares: float32 would keep only four digits
    value = a.new_ones(len(a))
    for level, weight in enumerate(weights):
        whole, contrast = _ssim(a, b)
        last = level == len(weights) - 1
        value = value * (whole if last else contrast).clamp_min(0) ** weight
        if not last and min(a.shape[2:]) > 1:
            pad = [side % 2 for side in a.shape[2:]]
            a, b = (F.avg_pool2d(x, 2, padding=pad) for x in (a, b))
    return value


def _ssim(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Return SSIM and its contrast-structure term, means over channels and pixels, [B] (Wang et al. 2003, eq. 1-5).

    The window is separable; the centre of an even one is between two pixels.
    """
    size = min(WINDOW, *a.shape[2:])
    at = torch.arange(size, dtype=a.dtype) - (size - 1) / 2
    line = torch.exp(-(at**2) / (2 * (SIGMA * size / WINDOW) ** 2))
    line = (line / line.sum()).expand(5 * a.shape[1], 1, 1, size)

    # All five local means in one convolution.
    stack = torch.cat([a, b, a * a, b * b, a * b], 1)
    blurred = F.conv2d(F.conv2d(stack, line, groups=len(line)), line.mT, groups=len(line))
    mu_a, mu_b, *squares = blurred.chunk(5, 1)
    c1, c2 = (K1 * 255) ** 2, (K2 * 255) ** 2
    var_a, var_b, both = squares[0] - mu_a**2, squares[1] - mu_b**2, squares[2] - mu_a * mu_b
    contrast = (2 * both + c2) / (var_a + var_b + c2)
    whole = contrast * (2 * mu_a * mu_b + c1) / (mu_a**2 + mu_b**2 + c1)
    return whole.mean((1, 2, 3)), contrast.mean((1, 2, 3))


@dataclass(frozen=True)
class MsSsim(ImageMetric):
    """Mean MS-SSIM of random pairs of samples: higher means less variety. The baseline is that of real images.

    Source: Odena et al. 2017, section 4.2; Karras et al. 2018, section 5.
    """

    name: ClassVar[str] = "ms_ssim"
    better: ClassVar[Mapping[str, Better]] = {"ms_ssim": "neither", "ms_ssim_real": "neither"}
    compares: ClassVar[bool] = False

    def settings(self, n_fake: int, n_real: int) -> dict[str, Any]:
        """How many pairs, and which variant, which changed between versions."""
        return {"pairs": n_fake // 2, "pairs_real": n_real // 2, "form": "progressive growing's released code"}

    def look(
        self, fake: ImageSet, real: ImageSet | None, progress: Progress | None = None
    ) -> tuple[dict[str, float], dict[str, Any]]:
        """Return ms_ssim, and ms_ssim_real if there are real images."""
        values = {"ms_ssim": self._mean(fake, progress)}
        if real is not None and real.n >= 2:
            values["ms_ssim_real"] = self._mean(real, progress)
        return values, {}

    def _mean(self, images: ImageSet, progress: Progress | None) -> float:
        """Return the mean over disjoint pairs of a shuffle, because a data set may be sorted by class."""
        everything = torch.cat(list(images.chunks()))
        pairs = torch.from_numpy(order(images.n, "ms_ssim"))[: images.n // 2 * 2].view(-1, 2)
        total = 0.0
        for done, part in enumerate(torch.split(pairs, 64)):
            total += float(ms_ssim(everything[part[:, 0]], everything[part[:, 1]]).double().sum())
            if progress is not None:
                progress("ms_ssim: pairs", 64 * done + len(part), len(pairs))
        return total / len(pairs)
