"""A tiny network of random weights, for trials and tests: no file, no download, fixed by its seed."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import torch
from torch import Tensor, nn

from gancli.compute.rng import key
from gancli.config.settings import LARGEST, at_least, at_most
from gancli.pretrained.prepare import Preparation
from gancli.pretrained.pretrained import Pretrained

STAGES = 4
MOST_CH = 256  # that of the last layer is 8 times as much


class Stages(nn.Sequential):
    """Four convolutions of stride 2, averaged over pixels at the end; layers 0 to 3."""

    def __init__(self, ch: int):
        widths = [3, ch, 2 * ch, 4 * ch, 8 * ch]
        super().__init__(*(nn.Sequential(nn.Conv2d(a, b, 3, 2, 1), nn.LeakyReLU(0.2)) for a, b in pairwise(widths)))

    def forward(self, x: Tensor) -> Tensor:
        """[B, 3, H, W] -> [B, 8 · ch]."""
        for stage in self:
            x = stage(x)
        return x.mean((2, 3))


def random(
    seed: int = 0, ch: int = 4, layers: list[str] | None = None, size: int | None = None, where: str = "pretrained"
) -> Pretrained:
    """Four convolutions of random weights: features [B, 8 · ch], and layers 0 to 3 of ch, 2, 4 and 8 times ch channels.

    size: side in pixels that images are resized to; None: they keep their size. where: the requesting config group.

    >>> net = random(layers=["1", "3"])
    >>> net(torch.zeros(2, 1, 16, 16)).shape, net.channels
    (torch.Size([2, 32]), {'1': 8, '3': 32})
    """
    at_least(1, **{f"{where}.ch": ch, f"{where}.size": size})
    at_most(MOST_CH, **{f"{where}.ch": ch})
    at_most(LARGEST, **{f"{where}.size": size})
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(key(seed, "pretrained"))
        net = Stages(ch)
    content = hashlib.sha256()
    for name, value in net.state_dict().items():
        content.update(name.encode() + value.numpy().tobytes())
    return Pretrained(
        "random",
        net,
        8 * ch,
        content.hexdigest(),
        prepare=Preparation(size, [0.5] * 3, [0.5] * 3),
        layers=layers or (),
        says="last, averaged over pixels",
        where=where,
    )
