"""VGG-16 with random weights, for distances that no training data of a network influence."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch
from torch import Tensor, nn

from gancli.compute.rng import key
from gancli.config.settings import at_least, at_most
from gancli.pretrained.prepare import Preparation
from gancli.pretrained.pretrained import Pretrained

STAGES = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))  # channels; a max-pool after each
DIM, GRID = 64, 2


class Vgg16(nn.Sequential):
    """VGG-16's convolutions, averaged to a grid of 2x2, and one dense layer in place of its three."""

    def __init__(self, generator: torch.Generator):
        layers: list[nn.Module] = []
        for before, stage in pairwise(((3,), *STAGES)):
            for a, b in pairwise((before[-1], *stage)):
                layers += [nn.Conv2d(a, b, 3, 1, 1), nn.ReLU(inplace=True)]
            layers.append(nn.MaxPool2d(2))
        layers += [nn.AdaptiveAvgPool2d(GRID), nn.Flatten(), nn.Linear(STAGES[-1][-1] * GRID**2, DIM)]
        super().__init__(*layers)
        for layer in self:
            if isinstance(layer, (nn.Conv2d, nn.Linear)):
                # Variance 2 / fan-in before a ReLU (He et al. 2015), else 1 / fan-in.
                gain = 6 if isinstance(layer, nn.Conv2d) else 3
                _draw(layer.weight, (gain / layer.weight[0].numel()) ** 0.5, generator)
                nn.init.zeros_(layer.bias) if layer.bias is not None else None


@torch.no_grad()
def _draw(weight: Tensor, bound: float, generator: torch.Generator) -> None:
    """Fill with a uniform draw from -bound to bound.

    Uniform numbers of a CPU generator are whole multiples of 2⁻²⁴, exactly; normal ones depend on the machine's code
    for logarithms.
    """
    weight.copy_((torch.rand(weight.shape, generator=generator) - 0.5) * (2 * bound))


def random_vgg16(seed: int = 0, size: int = 64, where: str = "pretrained") -> Pretrained:
    """VGG-16 with random weights up to 64 features, the same bits on every machine.

    seed: of the weights. size: side in pixels that images are resized to. where: the requesting config group. Raises
    ConfigError for an impossible size. Source: Naeem et al. 2020 (random embeddings of VGG-16 for data unlike
    ImageNet's; 64 features, so that covariances of few images have full rank); Simonyan, Zisserman 2015.
    """
    at_least(32, **{f"{where}.size": size})
    at_most(512, **{f"{where}.size": size})
    at_least(0, **{f"{where}.seed": seed})
    with torch.random.fork_rng(devices=[]):
        net = Vgg16(torch.Generator().manual_seed(key(seed, "random vgg16")))
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.numpy().tobytes())
    return Pretrained(
        "random",
        net,
        DIM,
        content.hexdigest(),
        prepare=Preparation(size, [0.5] * 3, [0.5] * 3),
        says="of the dense layer, random weights",
        where=where,
    )
