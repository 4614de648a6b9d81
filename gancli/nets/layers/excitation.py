"""The blocks of FastGAN: skip-layer excitation, and doubling blocks of batch norm and GLU (Liu et al. 2021, 3.1).

Every weight has spectral norm. GLU is the first half of the channels times the sigmoid of the second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.init import Init, he, uniform
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.noise import NoiseMap
from gancli.nets.layers.norms import BatchNorm2d, Norm, modulate
from gancli.nets.layers.spectral import Weighted
from gancli.nets.shapes import base, halvings, image, positive

POOLED = 4  # side of the map that excitation is computed from
REACH = 4  # doublings between the map that excites and the excited one, in a generator
LAST_EXCITED = 7  # doublings of the base, 512 pixels
MULTIPLES = (16, 8, 4, 2, 2, 1, 1 / 2, 1 / 4, 1 / 8)  # of the width ch, by the doublings of the base: 4 to 1024 pixels


def plan(shape: tuple[int, ...], model: str, ch: int, least: int = 1) -> tuple[int, tuple[int, int], list[int]]:
    """The image's channels, the size of the base, and the features' channels at each size from the base up.

    least: doublings of the base that the model needs. Raises ConfigError for points, sides that do not halve, fewer
    or more than 8 doublings, and ch below 1.

    >>> plan((3, 64, 64), "fastgan", 128)
    (3, (4, 4), [2048, 1024, 512, 256, 256])
    """
    channels, height, width = image(shape, model)
    positive("model.ch", ch)
    small, doublings = base(height, width), halvings(min(height, width))
    if small is None or not least <= doublings < len(MULTIPLES):
        raise ConfigError(
            f"model={model} generates images whose sides halve exactly, {least} to {len(MULTIPLES) - 1} times, until"
            f" the shorter one has 4 to 7 pixels, not {height}x{width}: set dataset.size=[C,SIDE,SIDE] with SIDE such"
            " as 64, 256 or 1024, or use model=dcgan"
        )
    return channels, small, [max(1, int(m * ch)) for m in MULTIPLES[: doublings + 1]]


def fan(inputs: int) -> Init:
    """U(±1 / √inputs), torch's own initialisation of a layer whose outputs are sums of so many inputs."""
    return uniform(1 / math.sqrt(inputs))


torch_default = he(1 / math.sqrt(3))  # U(±1 / √fan in)


class First(Weighted):
    """Latents [B, inputs] -> [B, outputs, *base]: a transposed convolution of one pixel, as a matrix product."""

    def __init__(self, inputs: int, outputs: int, base: tuple[int, int], init: Init):
        super().__init__((outputs, inputs, *base), init=init, spectral=True)

    def forward(self, z: Tensor) -> Tensor:
        """[B, inputs] -> [B, outputs, *base]."""
        outputs, inputs, height, width = self.weight.shape
        weight = self.normalised().permute(0, 2, 3, 1).reshape(-1, inputs)
        return F.linear(z, weight).view(-1, outputs, height, width)


class Whole(Weighted):
    """[B, inputs, 4, 4] -> [B, outputs]: a convolution whose kernel covers its input, as a matrix product."""

    def __init__(self, inputs: int, outputs: int, init: Init):
        super().__init__((outputs, inputs, POOLED, POOLED), init=init, spectral=True)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, 4, 4] -> [B, outputs]."""
        weight = self.normalised().permute(0, 2, 3, 1).flatten(1)
        return F.linear(x.permute(0, 2, 3, 1).flatten(1), weight)


def averaged(x: Tensor) -> Tensor:
    """[B, C, h, w] -> [B, C, 4, 4], the means of adaptive pooling, on every device.

    MPS has adaptive pooling for multiples of 4 alone; other sides are averaged part by part, one side after the other.
    """
    if x.shape[2:] == (POOLED, POOLED):
        return x
    if not any(side % POOLED for side in x.shape[2:]):
        return F.adaptive_avg_pool2d(x, POOLED)
    for dim in (2, 3):
        n = x.shape[dim]
        parts = [(k * n // POOLED, -(-(k + 1) * n // POOLED)) for k in range(POOLED)]  # overlap by a pixel
        x = torch.stack([x.narrow(dim, a, b - a).mean(dim) for a, b in parts], dim)
    return x


class Excitation(nn.Module):
    """Skip-layer excitation: a map's channels are multiplied by factors in (0, 1) that a smaller map gives (eq. 1).

    The other map is averaged to 4×4 pixels; a convolution to one pixel, SiLU, a dense layer and a sigmoid follow.
    """

    def __init__(self, inputs: int, outputs: int, init: Init = torch_default):
        super().__init__()
        self.squeeze = Whole(inputs, outputs, init)
        self.excite = Linear(outputs, outputs, bias=False, init=init, spectral=True)

    def forward(self, source: Tensor, x: Tensor) -> Tensor:
        """source [B, inputs, h, w] and x [B, outputs, H, W] -> [B, outputs, H, W]."""
        factors: Tensor = self.excite(F.silu(self.squeeze(averaged(source)))).sigmoid()
        return x * factors[:, :, None, None]


class ConditionedNorm(BatchNorm2d):
    """Batch norm whose gain, 1 + Ac + a, and bias, Bc + b, are affine in a condition c; A and B have spectral norm.

    2 · (condition + 1) · channels parameters.
    """

    def __init__(self, channels: int, condition: int):
        super().__init__(channels, affine=False)
        self.gain = Linear(condition, channels, init=torch_default, spectral=True)
        self.shift = Linear(condition, channels, init=torch_default, spectral=True)
        for layer in (self.gain, self.shift):
            fan(condition)(layer.bias)  # type: ignore[arg-type]

    def forward(self, input: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, C, H, W] and conditions [B, condition]."""
        assert y is not None, "a conditional norm without a condition"
        return modulate(super().forward(input), 1 + self.gain(y), self.shift(y))


class UpBlock(nn.Module):
    """Doubles the image: nearest ×2, a 3×3 convolution, a norm and GLU.

    full: noise, whose scale starts at 0, after the convolution, and all of this again without doubling. norm: channels
    -> module, called as norm(x, condition). shared: both convolutions' noise has one scale.
    """

    def __init__(
        self,
        inputs: int,
        outputs: int,
        *,
        full: bool,
        norm: Norm = BatchNorm2d,
        shared: bool = False,
        init: Init = torch_default,
    ):
        super().__init__()
        self.conv1 = Conv(inputs, 2 * outputs, resample="up", bias=False, init=init, spectral=True)
        self.noise1 = NoiseMap(1) if full else None
        self.norm1 = norm(2 * outputs)
        self.conv2 = Conv(outputs, 2 * outputs, bias=False, init=init, spectral=True) if full else None
        self.noise2 = NoiseMap(1) if full and not shared else None
        self.norm2 = norm(2 * outputs) if full else None

    def forward(self, x: Tensor, condition: Tensor | None = None) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, 2H, 2W]."""
        x = self.conv1(x)
        if self.noise1 is not None:
            x = self.noise1(x)
        x = F.glu(self.norm1(x, condition), 1)
        if self.conv2 is None or self.norm2 is None or self.noise1 is None:
            return x
        noise = self.noise1 if self.noise2 is None else self.noise2
        return F.glu(self.norm2(noise(self.conv2(x)), condition), 1)


class Trunk(nn.Module):
    """A generator's features at each size: the base from the latent, then doubling blocks, excited by earlier features.

    widths: channels at each size from the base up. full: of each doubling block. The features after four to seven
    doublings are excited by those of four doublings before. condition: width of the condition of the blocks'
    norms, with which a block has one scale of noise; 0: none. first: initialisation of the layer of the latent.
    """

    def __init__(
        self,
        latent_dim: int,
        base: tuple[int, int],
        widths: Sequence[int],
        full: Sequence[bool],
        *,
        condition: int = 0,
        init: Init = torch_default,
        first: Init | None = None,
    ):
        super().__init__()
        self.first = First(latent_dim, 2 * widths[0], base, first or init)
        self.norm = BatchNorm2d(2 * widths[0])

        def norm(channels: int) -> nn.Module:
            return ConditionedNorm(channels, condition) if condition else BatchNorm2d(channels)

        self.blocks = nn.ModuleList(
            UpBlock(a, b, full=f, norm=norm, shared=bool(condition), init=init)
            for (a, b), f in zip(pairwise(widths), full, strict=True)
        )
        excited = range(REACH, min(len(widths), LAST_EXCITED + 1))
        self.excitations = nn.ModuleDict({str(k): Excitation(widths[k - REACH], widths[k], init) for k in excited})

    def forward(self, z: Tensor, condition: Tensor | None = None) -> list[Tensor]:
        """[B, latent_dim] -> the features of each size, from the base up."""
        found = [F.glu(self.norm(self.first(z)), 1)]
        for k, block in enumerate(self.blocks, start=1):
            x = block(found[-1], condition)
            found.append(self.excitations[str(k)](found[k - REACH], x) if str(k) in self.excitations else x)
        return found

    def freezable(self, *beside: nn.Module | None) -> list[Block]:
        """The base, with modules used beside it, then the blocks of each size with their excitation."""
        excited = dict(self.excitations.items())
        sizes: list[Block] = [[block, excited.get(str(k))] for k, block in enumerate(self.blocks, start=1)]
        return [[*beside, self.first, self.norm], *sizes]
