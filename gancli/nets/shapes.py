"""Checks of a network's input shape and options."""

from __future__ import annotations

from gancli.errors import ConfigError


def image(shape: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """Return (C, H, W). Raises ConfigError if the data are points."""
    if len(shape) != 3:
        raise ConfigError(
            f"model={model} generates images, but this data set has points of {shape[0]} numbers: use model=mlp"
        )
    channels, height, width = shape
    return channels, height, width


def positive(key: str, value: int) -> None:
    """Raise a ConfigError for a count below 1.

    >>> positive("model.ch", 0)
    Traceback (most recent call last):
    gancli.errors.ConfigError: model.ch=0: a whole number from 1
    """
    if value < 1:
        raise ConfigError(f"{key}={value}: a whole number from 1")


def share(key: str, value: float) -> None:
    """Raise a ConfigError for a value outside [0, 1), such as a dropout rate.

    >>> share("model.G.dropout", 1.0)
    Traceback (most recent call last):
    gancli.errors.ConfigError: model.G.dropout=1: a share from 0 to below 1
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{key}={value:g}: a share from 0 to below 1")


def halvings(side: int) -> int:
    """How often a side halves until it has 4 to 7 pixels; 0 for one that has fewer than 8.

    >>> [halvings(side) for side in (4, 28, 64)]
    [0, 2, 4]
    """
    return max(0, side.bit_length() - 3)


def base(height: int, width: int) -> tuple[int, int] | None:
    """The size of which an image is a power of two, with a shorter side of 4 to 7 pixels; None if there is none.

    >>> base(64, 64), base(28, 28), base(256, 192), base(30, 30)
    ((4, 4), (7, 7), (8, 6), None)
    """
    step = 1 << halvings(min(height, width))
    return None if min(height, width) < 4 or height % step or width % step else (height // step, width // step)
