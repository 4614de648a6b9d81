"""Perceptual distances: differences of images in the layers of a frozen network."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from gancli.losses.terms import Distance
from gancli.pretrained.pretrained import Pretrained

EPS = 1e-10  # of a squared norm


def features_distance(
    net: Pretrained,
    a: Tensor,
    b: Tensor,
    layers: Sequence[str] | None = None,
    distance: Literal["l1", "l2", "unit"] = "l2",
) -> Tensor:
    """The mean of |φ(a) - φ(b)| (l1) or its square (l2) over all numbers of a layer φ, summed over layers, a scalar.

    "unit": the mean over pixels of the squared distance of φ's channels as vectors of length 1, as in LPIPS with all
    weights 1 (Zhang et al. 2018, eq. 1).

    a, b: images [B, C, H, W] in [-1, 1]; the gradient goes only to a. layers: None: the configured ones; if there are
    none, φ is the final features. Raises ConfigError for a missing layer. Sources: Johnson et al. 2016, eq. 2; Ledig et
    al. 2017, eq. 5 (both l2, one layer).

    >>> from gancli.pretrained.tiny import random
    >>> net, a = random(layers=["0", "2"]), torch.zeros(2, 3, 8, 8, requires_grad=True)
    >>> features_distance(net, a, a).item()
    0.0
    >>> far = features_distance(net, a, torch.ones(2, 3, 8, 8), distance="l1")
    >>> far.backward()
    >>> bool(far > 0), bool(a.grad.abs().sum() > 0)
    (True, True)
    """
    made = _seen(net, a, layers)
    with torch.no_grad():
        wanted = _seen(net, b, layers)
    terms = []
    for name, x in made.items():
        if distance == "unit":
            terms.append((unit(x) - unit(wanted[name])).square().sum(1).mean())
            continue
        difference = x - wanted[name]
        terms.append(difference.abs().mean() if distance == "l1" else difference.square().mean())
    return torch.stack(terms).sum()


def feature_distances(net: Pretrained | None) -> dict[str, Distance]:
    """Return the distances `features` (l1), `features_l2` and `features_unit` for loss terms; none without `net`."""
    if net is None:
        return {}

    def of(distance: Literal["l1", "l2", "unit"]) -> Distance:
        return lambda a, b: features_distance(net, a, b, distance=distance)

    return {"features": of("l1"), "features_l2": of("l2"), "features_unit": of("unit")}


def unit(x: Tensor) -> Tensor:
    """Each pixel's channels [B, C, ...] divided by their norm.

    >>> unit(torch.tensor([[3.0, 4.0]])).tolist()
    [[0.6000000238418579, 0.800000011920929]]
    """
    return x / (x.square().sum(1, keepdim=True) + EPS).sqrt()


def _seen(net: Pretrained, x: Tensor, layers: Sequence[str] | None) -> dict[str, Tensor]:
    """Return the outputs of layers, or the final features if there are no layers."""
    return net.maps(x, layers=layers) if layers or net.layers else {"features": net(x)}
