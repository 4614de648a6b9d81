"""How far two right computations may differ, from the arithmetic: what tolerances of the tests are made of."""

from __future__ import annotations

import math

FLOAT32, FLOAT64 = 2.0**-24, 2.0**-53  # half the distance of 1 to the next number
INCEPTION = (94, 2048)  # convolutions, and products in most of their sums


def network(layers: int, products: int) -> float:
    """The share of its length by which a network's float32 output differs between kernels that sum in other orders.

    Each layer rounds sums of so many products; the roundings add up as a random walk.
    """
    return math.sqrt(layers * products) * FLOAT32


def frechet(distance: float, length: float, deviation: float, dim: int, share: float) -> float:
    """The tolerance of a Fréchet distance of features whose length is off by `share`.

    Its root is a metric, so that it moves by no more than the features of either side do. The root of a singular
    product of covariances, of largest deviation², has up to dim eigenvalues that should be 0 and are off by float64's
    rounding of the largest, under a root, and twice.
    """
    move = 2 * share * length
    return 2 * math.sqrt(max(0.0, distance)) * move + move**2 + singular(deviation, dim)


def singular(deviation: float, dim: int) -> float:
    """The last part of `frechet`: what is left where the features are the same."""
    return 2 * dim * math.sqrt(2 * FLOAT64) * deviation**2


def kernel(length: float, dim: int, share: float) -> float:
    """The tolerance of a KID of features of this length: two means of (x·y/d + 1)³, each moved by both of x and y."""
    value = length**2 / dim + 1
    return 2 * (3 * value**2 * 2 * share * length**2 / dim + 8 * FLOAT32 * value**3)
