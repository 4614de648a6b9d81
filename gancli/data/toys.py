"""Points on a line or in the plane whose distribution is known: what a GAN misses can be counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gancli.data.source import Modes, Source, check_limit, check_split
from gancli.errors import ConfigError
from gancli.rng import key
from gancli.settings import Signed

POINTS = 100_000


def ring_modes() -> Modes:
    """Eight Gaussians of σ 0.01 on the unit circle. Source: Lin et al. 2018, PacGAN, arXiv:1712.04086, 4.1."""
    angle = 2 * np.pi * np.arange(8) / 8
    return Modes(np.stack([np.cos(angle), np.sin(angle)], axis=1), 0.01)


def grid_modes() -> Modes:
    """25 Gaussians of σ 0.05 on a 5x5 grid of pitch 2. Source: Lin et al. 2018, PacGAN, arXiv:1712.04086, 4.1."""
    side = np.arange(-4.0, 5.0, 2.0)
    return Modes(np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2), 0.05)


def ring(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    n: int = POINTS,
    seed: int = 0,
) -> Source:
    """n points float32 [2] of `ring_modes`, each mode as likely as any; `test` is another draw. Raises ConfigError."""
    return _mixture("ring", ring_modes(), size, limit, split, flip, n, seed)


def grid(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    n: int = POINTS,
    seed: int = 0,
) -> Source:
    """n points float32 [2] of `grid_modes`, each mode as likely as any; `test` is another draw. Raises ConfigError."""
    return _mixture("grid", grid_modes(), size, limit, split, flip, n, seed)


def gauss1d(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    n: int = POINTS,
    seed: int = 0,
    means: tuple[Signed, ...] = (-2.0, 2.0),
    sigma: float = 0.5,
) -> Source:
    """n points float32 [1] of Gaussians of one σ, each as likely as any; `test` is another draw. Raises ConfigError."""
    if not means or not sigma > 0:
        raise ConfigError(f"dataset.means={list(means)} dataset.sigma={sigma:g}: one mean at least, and sigma above 0")
    modes = Modes(np.asarray(means, np.float64)[:, None], sigma)
    return _mixture("gauss1d", modes, size, limit, split, flip, n, seed)


def swissroll(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    n: int = POINTS,
    seed: int = 0,
) -> Source:
    """n points float32 [2] of a spiral: (t cos t, t sin t) for t uniform in [1.5π, 4.5π], plus N(0, 0.25²), over 7.5.

    `test` is another draw. Raises ConfigError. Source: Gulrajani et al. 2017, arXiv:1704.00028, and its published code.
    """
    generator = _generator("swissroll", size, split, flip, n, seed)
    t = 1.5 * np.pi * (1 + 2 * generator.random(n))
    points = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) + 0.25 * generator.standard_normal((n, 2))
    return _source("swissroll", points / 7.5, limit)


def _mixture(
    name: str, modes: Modes, size: list[int] | None, limit: int | None, split: str, flip: bool, n: int, seed: int
) -> Source:
    generator = _generator(name, size, split, flip, n, seed)
    mean = modes.means[generator.integers(len(modes.means), size=n)]
    return _source(name, mean + modes.sigma * generator.standard_normal(mean.shape), limit, modes)


def _generator(name: str, size: Sequence[int] | None, split: str, flip: bool, n: int, seed: int) -> np.random.Generator:
    check_split(name, split, ["train", "test"])
    dims = 1 if name == "gauss1d" else 2
    if size is not None and list(size) != [dims]:
        raise ConfigError(
            f"dataset.size={list(size)}: dataset={name} has points of {dims} numbers; type dataset.size=null"
        )
    if flip:
        raise ConfigError(f"dataset.flip=true: dataset={name} has points, not images; type dataset.flip=false")
    if n < 1:
        raise ConfigError(f"dataset.n={n}: dataset={name} needs at least one point; type dataset.n={POINTS}")
    return np.random.Generator(np.random.Philox(key=key(name, split, seed)))


def _source(name: str, points: NDArray[np.float64], limit: int | None, modes: Modes | None = None) -> Source:
    check_limit(limit)
    return Source(name, points[:limit].astype(np.float32), modes=modes)
