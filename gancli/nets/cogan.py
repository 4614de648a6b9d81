"""CoGAN's networks for digits (Liu and Tuzel 2016, appendix A, table 4), extended to other sizes.

The paper's generator goes from a base of 4×4 by transposed convolutions of kernel 3 and stride 2 to 7, 13 and 25
pixels, and by one of kernel 6 to 28; its discriminator is a LeNet of two convolutions. Other sizes from 16 pixels up,
also non-square ones, have more or fewer stages: the generator's width halves at each stage, as in the paper's networks
of 128 pixels, and the discriminator's grows by 2.5, as LeNet's does. The networks of a player share their layer
`shared`: the first stages of generators, the last ones of discriminators.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from torch import Tensor, nn

from gancli.errors import CombinationError, ConfigError
from gancli.nets.dcgan import Project
from gancli.nets.freezing import Block, each
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.norms import BatchNorm2d
from gancli.nets.shapes import image, positive
from gancli.nets.verdict import Verdict

SMALLEST, BASE = 16, 4  # sides of an image, and of what the first stage makes, at least
LAST = 3  # pixels that the last stage adds to a side: a kernel of 6, a border of 1
KERNEL, GROWTH, DENSE = 5, 2.5, 500  # LeNet's


def ladder(height: int, width: int) -> list[tuple[int, int]]:
    """Sizes before the last stage of a generator, from the base up. Raises ConfigError for sides below 16.

    >>> ladder(28, 28)
    [(4, 4), (7, 7), (13, 13), (25, 25)]
    """
    if min(height, width) < SMALLEST:
        raise ConfigError(
            f"model=cogan generates images of at least {SMALLEST} pixels a side, not {height}x{width}:"
            f" set dataset.size=[C,{SMALLEST},{SMALLEST}] or larger"
        )
    sizes = [(height - LAST, width - LAST)]
    while min(sizes[-1]) > BASE:
        sizes.append(((sizes[-1][0] + 1) // 2, (sizes[-1][1] + 1) // 2))
    return sizes[::-1]


class Generator(nn.Module):
    """z [B, latent_dim] -> images [B, C, H, W] in (-1, 1): `shared` stages, then the others.

    ch: channels of the base, halved by each stage. shared: how many stages, from the first on, several generators of a
    game share; None: all but the last, as in the paper. Batch norm has no gain and no bias, and the slope of PReLU is
    one number, as in the released code; biases before a batch norm, which would have no effect, are omitted.
    28×28×1, latent_dim 100: 7,836,165 parameters, 4,609 of them in the last stage. Raises ConfigError.
    """

    def __init__(self, shape: tuple[int, ...], latent_dim: int, *, ch: int = 1024, shared: int | None = None):
        super().__init__()
        positive("model.ch", ch)
        channels, height, width = image(shape, "cogan")
        sizes = ladder(height, width)
        widths = [max(1, ch >> stage) for stage in range(len(sizes))]
        stages: list[nn.Module] = [_normed(Project(latent_dim, ch, sizes[0]), ch)]
        for (small, large), (wide, narrow) in zip(pairwise(sizes), pairwise(widths), strict=True):
            odd = (large[0] + 1 - 2 * small[0], large[1] + 1 - 2 * small[1])
            up = nn.ConvTranspose2d(wide, narrow, 3, 2, 1, output_padding=odd, bias=False)
            stages.append(_normed(up, narrow))
        stages.append(nn.ConvTranspose2d(widths[-1], channels, 6, 1, 1))
        first = _count("shared_g", shared, stages, "G")
        self.shared, self.own = nn.Sequential(*stages[:first]), nn.Sequential(*stages[first:])
        _init(self)

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim] -> [B, C, H, W]; the labels are ignored."""
        return self.rest(self.shared(z))

    def rest(self, features: Tensor) -> Tensor:
        """Features of the shared stages -> [B, C, H, W]."""
        out: Tensor = self.own(features)
        return (out / 2).tanh()  # 2 sigmoid(a) - 1

    def freezable(self) -> list[Block]:
        """The stages but for the last; a shared one is frozen for both networks."""
        return each([*self.shared, *self.own][:-1])


class Discriminator(nn.Module):
    """Images -> logits [B]: its own stages, then the `shared` ones.

    ch: channels of the first stage. shared: how many stages, counted from the last, several discriminators of a game
    share; None: all but the first, as in the paper. A stage is a convolution and max pooling until the shorter side
    is below 8, then a dense layer with PReLU, then the logit; the paper has one logit, the released code the softmax of
    two. san: SAN's last layer (`layers.direction`).
    28×28×1: 426,572 parameters, 520 of them in the first stage. Raises ConfigError.
    """

    def __init__(
        self, shape: tuple[int, ...], classes: int = 0, *, ch: int = 20, shared: int | None = None, san: bool = False
    ):
        super().__init__()
        positive("model.ch", ch)
        channels, *sides = image(shape, "cogan")
        ladder(*sides)  # raises for small ones
        stages, wide = list[nn.Module](), ch
        while min(sides) >= 2 * BASE:
            stages.append(nn.Sequential(nn.Conv2d(channels, wide, KERNEL), nn.MaxPool2d(2)))
            sides = [(side - KERNEL + 1) // 2 for side in sides]
            channels, wide = wide, int(wide * GROWTH)
        dense = [nn.Flatten(), nn.Linear(channels * math.prod(sides), DENSE), nn.PReLU()]
        stages += [nn.Sequential(*dense), nn.Sequential(nn.Linear(DENSE, 1), nn.Flatten(0))]
        own = len(stages) - _count("shared_d", shared, stages, "D")
        self.own, self.shared = nn.Sequential(*stages[:own]), nn.Sequential(*stages[own:])
        self.san = san
        _init(self)
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W] -> logits [B]; the labels are ignored."""
        *body, head = (*self.own, *self.shared)
        features = (x + 1) / 2  # pixels in [0, 1], as the paper scales them
        for stage in body:
            features = stage(features)
        if self.san:
            return sliced(features, self._last.weight, self._last.bias, features=[features])
        return Verdict(head(features), features=[features])

    def freezable(self) -> list[Block]:
        """The stages but for the last; a shared one is frozen for both networks."""
        return each([*self.own, *self.shared][:-1])

    def directions(self) -> list[Tensor]:
        """The last stage's weight."""
        return [self._last.weight]

    @property
    def _last(self) -> nn.Linear:
        """The layer that makes the logit, which may be shared."""
        *_, head = (*self.own, *self.shared)
        assert isinstance(head, nn.Sequential)
        assert isinstance(head[0], nn.Linear)
        return head[0]


def tie(nets: nn.ModuleDict, first: str, second: str) -> None:
    """Tie the layers `shared` of two networks: the second gets the first's module.

    Raises ConfigError if a network or its layer is missing, CombinationError if the layers differ in size.
    """
    layers = list[nn.Module]()
    for name in (first, second):
        if name not in nets:
            raise ConfigError(f"missing key model.{name}: this game needs a network of that name")
        layer = getattr(nets[name], "shared", None)
        if not isinstance(layer, nn.Module):
            raise ConfigError(f"model.{name} has no layers to share with another network: use model=cogan")
        layers.append(layer)
    a, b = (layer.state_dict() for layer in layers)
    other = next((k for k in {**a, **b} if k not in a or k not in b or a[k].shape != b[k].shape), None)
    if other is not None:
        raise CombinationError(
            f"{first} and {second} cannot share their layers, since {other} differs in size: use images of one size in"
            " both domains and, if their channels differ, model.shared_g=null model.shared_d=null"
        )
    nets[second].shared = layers[0]


def pair(first: Any, second: Any, z: Tensor) -> tuple[Tensor, Tensor]:
    """Both generators' images for one latent [B, latent_dim]; a shared layer is run once."""
    features = first.shared(z)
    own = features if second.shared is first.shared else second.shared(z)
    return first.rest(features), second.rest(own)


def _normed(layer: nn.Module, channels: int) -> nn.Sequential:
    return nn.Sequential(layer, BatchNorm2d(channels, affine=False), nn.PReLU())


def _count(key: str, shared: int | None, stages: Sequence[nn.Module], network: str) -> int:
    """The number of shared stages. Raises ConfigError if there are fewer stages."""
    if shared is None:
        return len(stages) - 1
    if shared > len(stages):
        raise ConfigError(f"model.{key}={shared}: {network} has {len(stages)} stages for images of this size")
    return shared


def _init(net: nn.Module) -> None:
    """Initialise as the released code does: Xavier weights with a gain of √2, biases 0.1."""
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d, nn.Linear)):
            nn.init.xavier_uniform_(module.weight, math.sqrt(2))
            if module.bias is not None:
                nn.init.constant_(module.bias, 0.1)
