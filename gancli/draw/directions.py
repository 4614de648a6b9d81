"""Directions of styles that change images most, computed from a generator's weights alone."""

from __future__ import annotations

import torch
from torch import Tensor

from gancli.draw.sampling import Pair, Sampler
from gancli.errors import ConfigError, RunError
from gancli.games.drawing import Styles
from gancli.games.game import Batch

STRENGTH = 3.0  # default distance from the sample to either end, in units of w


def styles_of(sampler: Sampler, key: str) -> Styles:
    """Return the styles of a sampler's generator. key: that needs them. Raises RunError if it has none."""
    styles = sampler.game.styles(sampler.direction)
    if styles is None:
        raise RunError(
            f"{key}: {sampler.run.name} has no styles: train one with model=stylegan2 or stylegan, or leave it out"
        )
    return styles


def layers_in_use(sampler: Sampler, styles: Styles) -> int:
    """Return the number of layers that make images: of a growing generator, those of the sizes it has reached."""
    size = sampler.game.active_size(sampler.direction)
    return sum(side <= min(size) for side in styles.sides) if size is not None else len(styles.sides)


def factorised(weights: list[Tensor]) -> Tensor:
    """Return the directions of styles in the order of their effect, unit vectors [width, width] in float64.

    The rows are the eigenvectors of AᵀA, the largest eigenvalue first, where A stacks the weights [outputs, width] of
    the layers' affine maps: a step along the first changes what layers take from w most (Shen and Zhou 2021, section
    2.2). The largest component of each is positive. A run-time factor that all layers share has no effect on them. The
    released code scales each row of A to norm 1 before, which the paper does not.

    >>> factorised([torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, -2.0]])]).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    stacked = torch.cat([weight.detach().cpu().double() for weight in weights])
    found = torch.linalg.eigh(stacked.T @ stacked).eigenvectors.T.flip(0)
    largest = found.gather(1, found.abs().argmax(1, keepdim=True))
    return torch.where(largest < 0, -found, found)


def direction(sampler: Sampler, styles: Styles, number: int, layers: list[int]) -> Tensor:
    """Return a direction, counted from 1, of the weights of these layers, float32 [width]. Raises ConfigError."""
    weights = styles.weights(sampler.nets)
    width = weights[0].shape[1]
    if not 1 <= number <= width:
        raise ConfigError(f"axis=direction{number}: w has {width} dimensions: type direction1 to direction{width}")
    return factorised([weights[k] for k in layers])[number - 1].float()


def edited(w: Tensor, step: Tensor, layers: list[int]) -> Tensor:
    """Return styles w [n, layers, width] with `step` [n, width] added in some layers."""
    chosen = torch.isin(torch.arange(w.shape[1]), torch.tensor(layers))[None, :, None]
    return torch.where(chosen, w + step[:, None], w)


def styled(sampler: Sampler, styles: Styles, pairs: list[Pair], given: Batch | None = None) -> Tensor:
    """Return the styles that the layers of these samples take, after truncation, [n, layers, width]."""
    return sampler.computed(styles.moved, sampler.inputs(pairs, given))


def first(sampler: Sampler, count: int) -> Tensor | None:
    """Return the first directions of all layers in use, float32 [count, width]; None for a generator without styles."""
    styles = sampler.game.styles(sampler.direction)
    if styles is None:
        return None
    return factorised(styles.weights(sampler.nets)[: layers_in_use(sampler, styles)])[:count].float()


def moved(sampler: Sampler, pairs: list[Pair], given: Batch, step: Tensor) -> Batch:
    """Return the inputs of samples whose styles move by `step` [n, width] in all layers in use."""
    styles = styles_of(sampler, "directions")
    layers = list(range(layers_in_use(sampler, styles)))
    return {styles.column: edited(styled(sampler, styles, pairs, given), step, layers)}
