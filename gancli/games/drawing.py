"""Types by which a game describes its samples: sampling options, interpolation paths, scores, diagnostics."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor, nn

from gancli.games.latent import Latent

Made = Callable[[Mapping[str, nn.Module], dict[str, Tensor]], Tensor]

TRANSFORM = "transform"  # the input column of `Game.moves_samples`


@dataclass(frozen=True)
class Option:
    """A numeric sampling option. what: its help text."""

    what: str


@dataclass(frozen=True)
class Path:
    """One way to interpolate between samples.

    column: of the inputs. kind: along the great circle, along the straight line, or between classes, whose column then
    contains weights [B, classes]. latent: the distribution of the column, if it is drawn. made: computes the column
    from the other inputs, with the given networks, if it is not drawn.
    """

    column: str
    kind: Literal["sphere", "line", "classes"]
    latent: Latent | None = None
    made: Made | None = None


@dataclass(frozen=True)
class Styles:
    """The styles that a generator takes at each of its layers, and what edits and projections need of its networks.

    column: of the inputs, [B, width], or [B, layers, width] with a style for each layer. sides: of each layer, the
    shorter side of its features. made: computes the column [B, width] from the other inputs; moved: computes what the
    layers take, [B, layers, width], after truncation. weights: each layer's affine map of styles, [outputs, width].
    maps: the shapes [1, H, W] of the noise maps that layers take as further inputs, by column. seen: features of images
    in the layers of another network, `judge`, each [B, C, H, W].
    """

    column: str
    sides: tuple[int, ...]
    made: Made
    moved: Made
    weights: Callable[[Mapping[str, nn.Module]], list[Tensor]]
    maps: Callable[[Mapping[str, nn.Module]], dict[str, tuple[int, ...]]]
    judge: str
    seen: Callable[[Mapping[str, nn.Module], Tensor], list[Tensor]]


@dataclass(frozen=True)
class Opinion:
    """A critic's scores [B], larger for real samples; probabilities: whether the scores are probabilities."""

    scores: Tensor
    probabilities: bool


@dataclass(frozen=True)
class Diagnostics:
    """What alarms monitor, besides the variety of samples.

    learner: the player that makes samples, whose gradient may vanish. real, fake: names of the statistics with its
    opponent's mean logit of real and of generated samples. sure: the difference of these from which the opponent is too
    confident, or None. shown: the losses of the progress line; empty: those whose names begin with loss_, else all.
    """

    learner: str | None = None
    real: str = ""
    fake: str = ""
    sure: float | None = None
    shown: tuple[str, ...] = ()
