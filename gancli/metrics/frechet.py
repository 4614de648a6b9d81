"""Confidence intervals of FID and KID, by a bootstrap of each image's first-order influence.

With features A [n, d] and B [m, d], centred and divided by √(n-1) and √(m-1), the covariances are AᵀA and BᵀB, and the
trace of the root of their product is the sum of the singular values of A Bᵀ [n, m], which is cheap for n, m < d. The
reported FID is torch-fidelity's: with fewer images than features, its root of a singular matrix differs by about 1e-6.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

RESAMPLES, LEVEL, SEED = 2000, 0.95, 0
METHOD = "percentile bootstrap of each image's influence (first order)"


def _centred(features: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean [d], and the centred rows divided by √(n-1), float64 [n, d]."""
    x = features.double()
    mean = x.mean(0)
    return mean, (x - mean) / (len(x) - 1) ** 0.5


def _product(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the singular values of a bᵀ and the diagonals of U S Uᵀ [n] and V S Vᵀ [m]; uses QR for over d rows."""
    left, right = (torch.linalg.qr(x) if len(x) > x.shape[1] else (None, x) for x in (a, b))
    u, s, vh = torch.linalg.svd(left[1] @ right[1].T, full_matrices=False)
    u = u if left[0] is None else left[0] @ u
    v = vh.T if right[0] is None else right[0] @ vh.T
    return s, (u.square() * s).sum(1), (v.square() * s).sum(1)


def frechet_influences(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's first-order influence on the Fréchet distance, float64 [n] and [m], each of mean 0.

    The derivative in the image's weight w: 2 δ·a + (|a|² - tr AᵀA) - ((U S Uᵀ)ᵢᵢ n - tr S), with δ the difference of
    the means; the last because |√w A Bᵀ| in the nuclear norm has the derivative (U S Uᵀ)ᵢᵢ / 2 in wᵢ.
    """
    (mean, a), (other, b) = _centred(fake), _centred(real)
    s, left, right = _product(a, b)
    found = []
    for x, gap, root in ((a, mean - other, left), (b, other - mean, right)):
        n = len(x)
        shift = 2 * (n - 1) ** 0.5 * x @ gap
        found.append(shift + n * x.square().sum(1) - x.square().sum() - (n * root - s.sum()))
    return found[0], found[1]


def kernel_influences(fake: Tensor, real: Tensor) -> tuple[Tensor, Tensor]:
    """Return each image's first-order influence on the MMD with KID's cubic kernel, float64 [n] and [m], of mean 0."""
    x, y = fake.double(), real.double()
    across = (x @ y.T / x.shape[1] + 1) ** 3
    found = []
    for one, cross in ((x, across.mean(1)), (y, across.mean(0))):
        within = (one @ one.T / one.shape[1] + 1) ** 3
        witness = (within.sum(1) - within.diagonal()) / (len(one) - 1) - cross
        found.append(2 * (witness - witness.mean()))
    return found[0], found[1]


def interval(value: float, influences: Sequence[Tensor]) -> list[float]:
    """Return the central LEVEL interval of `value` over RESAMPLES bootstrap draws of each set of images, keyed by SEED.

    Resampling features and recomputing the distance would shift it: repeated images lower the rank of the covariance.
    The influences, whose mean is 0, are resampled instead. The interval covers sampling noise at these counts, not the
    bias of small samples.
    """
    rng = np.random.default_rng(SEED)
    moves: NDArray[np.float64] = np.zeros(RESAMPLES)
    for one in influences:
        row, n = one.numpy(), len(one)
        moves += np.array([row[rng.integers(0, n, n)].mean() for _ in range(RESAMPLES)])
    tail = (1 - LEVEL) / 2
    low, high = np.quantile(moves, [tail, 1 - tail])
    return [value + float(low), value + float(high)]
