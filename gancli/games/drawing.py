"""What a game says of its samples, beside making them: the words between games and all that draws or watches them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from torch import Tensor

from gancli.games.latent import Latent


@dataclass(frozen=True)
class Option:
    """A number that samples may be drawn with. what: in words, for whoever types it."""

    what: str


@dataclass(frozen=True)
class Path:
    """What may be changed from one sample to another.

    column: of the inputs. kind: along the great circle, along the straight line, or between classes, whose column then
    holds their shares [B, classes]. latent: the law of the column, where it is drawn.
    """

    column: str
    kind: Literal["sphere", "line", "classes"]
    latent: Latent | None = None


@dataclass(frozen=True)
class Opinion:
    """What a critic says of rows: scores [B], larger for data; probabilities: whether they are these."""

    scores: Tensor
    probabilities: bool


@dataclass(frozen=True)
class Diagnostics:
    """What alarms watch, beside samples' variety.

    learner: the player that makes samples, whose gradient may vanish. real, fake: statistics that say what its
    opponent thinks of data and of samples. sure: their difference from which the opponent is too sure, or None.
    shown: the losses of the progress line; empty: those whose names begin with loss_, else all.
    """

    learner: str | None = None
    real: str = ""
    fake: str = ""
    sure: float | None = None
    shown: tuple[str, ...] = ()
