"""What a network asks of the shape of its data, and how it says so."""

from __future__ import annotations

from gancli.errors import ConfigError


def image(shape: tuple[int, ...], model: str) -> tuple[int, int, int]:
    """(C, H, W), or a ConfigError where the data are points."""
    if len(shape) != 3:
        raise ConfigError(
            f"model={model} draws images and this data set has points of {shape[0]} numbers: use model=mlp"
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
    """Raise a ConfigError for what is no share, such as of the numbers that dropout sets to 0.

    >>> share("model.G.dropout", 1.0)
    Traceback (most recent call last):
    gancli.errors.ConfigError: model.G.dropout=1: a share from 0 to below 1
    """
    if not 0 <= value < 1:
        raise ConfigError(f"{key}={value:g}: a share from 0 to below 1")
