"""Points on a line or in the plane with a known distribution, so that the modes a GAN misses can be counted."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gancli.compute.rng import key
from gancli.config.settings import Signed
from gancli.data.source import Modes, Source, check_limit, check_split, limit_notes, table
from gancli.errors import ConfigError

POINTS = 100_000


def ring_modes(scale: float = 1.0) -> Modes:
    """Eight Gaussians of σ 0.01 on the unit circle, times `scale`. Source: Lin et al. 2018, PacGAN, and its code.

    WGAN-GP's eight Gaussians, of σ 0.02 at a radius of 2 and divided by 1.414, are these times 2 / 1.414.
    """
    angle = 2 * np.pi * np.arange(8) / 8
    return Modes(scale * np.stack([np.cos(angle), np.sin(angle)], axis=1), scale * 0.01)


def grid_modes(scale: float = 1.0) -> Modes:
    """25 Gaussians of σ 0.05 on a 5x5 grid of pitch 2, times `scale`. Source: Lin et al. 2018, PacGAN, and its code.

    WGAN-GP's 25 Gaussians are these divided by 2.828, their standard deviation.
    """
    side = np.arange(-4.0, 5.0, 2.0)
    return Modes(scale * np.stack(np.meshgrid(side, side, indexing="ij"), axis=-1).reshape(-1, 2), scale * 0.05)


def ring(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    n: int = POINTS,
    seed: int = 0,
    scale: float = 1.0,
) -> Source:
    """n points float32 [2] of `ring_modes`, all modes equally likely; `test` is another draw. Raises ConfigError."""
    _check_scale(scale)
    return _mixture("ring", ring_modes(scale), size, limit, split, flip, dequantize, n, seed)


def grid(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    n: int = POINTS,
    seed: int = 0,
    scale: float = 1.0,
) -> Source:
    """n points float32 [2] of `grid_modes`, all modes equally likely; `test` is another draw. Raises ConfigError."""
    _check_scale(scale)
    return _mixture("grid", grid_modes(scale), size, limit, split, flip, dequantize, n, seed)


def gauss1d(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    n: int = POINTS,
    seed: int = 0,
    means: tuple[Signed, ...] = (-2.0, 2.0),
    sigma: float = 0.5,
) -> Source:
    """n points float32 [1] of Gaussians of one σ, all equally likely; `test` is another draw. Raises ConfigError."""
    if not means or not sigma > 0:
        raise ConfigError(f"dataset.means={list(means)} dataset.sigma={sigma:g}: give means, and sigma above 0")
    modes = Modes(np.asarray(means, np.float64)[:, None], sigma)
    return _mixture("gauss1d", modes, size, limit, split, flip, dequantize, n, seed)


def swissroll(
    size: list[int] | None = None,
    limit: int | None = None,
    split: str = "train",
    flip: bool = False,
    dequantize: bool = False,
    n: int = POINTS,
    seed: int = 0,
) -> Source:
    """n points float32 [2] of a spiral: (t cos t, t sin t) for t uniform in [1.5π, 4.5π], plus N(0, 0.25²), over 7.5.

    `test` is another draw. Raises ConfigError. Source: Gulrajani et al. 2017, arXiv:1704.00028, and its published code.
    """
    generator = _generator("swissroll", size, split, flip, dequantize, n, seed)
    t = 1.5 * np.pi * (1 + 2 * generator.random(n))
    points = np.stack([t * np.cos(t), t * np.sin(t)], axis=1) + 0.25 * generator.standard_normal((n, 2))
    return _source("swissroll", points / 7.5, limit)


def _mixture(
    name: str,
    modes: Modes,
    size: list[int] | None,
    limit: int | None,
    split: str,
    flip: bool,
    dequantize: bool,
    n: int,
    seed: int,
) -> Source:
    generator = _generator(name, size, split, flip, dequantize, n, seed)
    mean = modes.means[generator.integers(len(modes.means), size=n)]
    return _source(name, mean + modes.sigma * generator.standard_normal(mean.shape), limit, modes)


def _check_scale(scale: float) -> None:
    if not 1e-6 <= scale <= 1e6:  # beyond, float32 would lose the points
        raise ConfigError(f"dataset.scale={scale:g}: type a factor from 1e-6 to 1e6, such as 1")


def _generator(
    name: str, size: Sequence[int] | None, split: str, flip: bool, dequantize: bool, n: int, seed: int
) -> np.random.Generator:
    check_split(name, split, ["train", "test"])
    dims = 1 if name == "gauss1d" else 2
    if size is not None and list(size) != [dims]:
        raise ConfigError(
            f"dataset.size={list(size)}: dataset={name} has points of {dims} numbers; type dataset.size=null"
        )
    for option, asked in (("flip", flip), ("dequantize", dequantize)):
        if asked:
            raise ConfigError(
                f"dataset.{option}=true: dataset={name} has points, not images; type dataset.{option}=false"
            )
    if n < 1:
        raise ConfigError(f"dataset.n={n}: dataset={name} needs at least one point; type dataset.n={POINTS}")
    return np.random.Generator(np.random.Philox(key=key(name, split, seed)))


def _source(name: str, points: NDArray[np.float64], limit: int | None, modes: Modes | None = None) -> Source:
    check_limit(limit)
    notes = limit_notes(len(points), limit, None, ())
    return table(name, points[:limit].astype(np.float32), modes=modes, notes=notes)
