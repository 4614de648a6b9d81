"""StyleGAN 2: weight demodulation, an image summed over all sizes, and a residual discriminator (Karras et al. 2020).

The constants are those of the authors' PyTorch code. Nothing grows: all sizes are trained from the start.
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.nets.freezing import Block as Frozen
from gancli.nets.growth import plan
from gancli.nets.layers.condition import need_classes, shares
from gancli.nets.layers.direction import renormalise, sliced
from gancli.nets.layers.equalized import GAIN, LEAK, EqualizedConv, EqualizedLinear, pixel_norm
from gancli.nets.layers.filters import downsampled, smoothed, upsampled
from gancli.nets.layers.minibatch import MinibatchDeviation
from gancli.nets.layers.modulated import Modulated, StyledConv, ToImage, limited
from gancli.nets.layers.spectral import full_precision
from gancli.nets.shapes import positive
from gancli.nets.styles import StyleGenerator
from gancli.nets.verdict import Verdict

Architecture = Literal["resnet", "orig", "skip"]


def activated(x: Tensor, gain: float = GAIN) -> Tensor:
    """LeakyReLU with slope 0.2, times the gain."""
    return limited(F.leaky_relu(x, LEAK) * gain)


class Mapping(nn.Module):
    """Latents [B, latent_dim] -> styles w [B, w_dim]: normalisation of z, then dense layers with LeakyReLU.

    classes: of labels, whose embedding is normalised and joined to z; 0: none. latent_dim 0: of labels only. rate:
    factor of the layers' learning rate. mean: the moving average of w, for truncation.
    """

    mean: Tensor

    def __init__(self, latent_dim: int, w_dim: int, layers: int, rate: float = 0.01, classes: int = 0):
        super().__init__()
        self.classes = classes
        self.embed = EqualizedLinear(classes, w_dim, gain=1.0) if classes else None
        inputs = [latent_dim + (w_dim if classes else 0)] + [w_dim] * (layers - 1)
        self.layers = nn.ModuleList(EqualizedLinear(n, w_dim, gain=1.0, rate=rate) for n in inputs)
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, z: Tensor | None, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, w_dim]."""
        with full_precision(self.mean):  # also where the other layers have half precision
            parts = [] if z is None else [pixel_norm(z)]
            if self.embed is not None:
                assert y is not None, "a conditional mapping without labels"
                parts.append(pixel_norm(self.embed(shares(y, self.classes, self.embed.weight if z is None else z))))
            x = torch.cat(parts, 1)
            for layer in self.layers:
                x = activated(layer(x))
            return x


class Block(nn.Module):
    """The layers of one size: the first has one styled convolution of a learned constant, the others two."""

    def __init__(self, outputs: int, channels: int, w_dim: int, *, inputs: int = 0, base: tuple[int, int] = (4, 4)):
        super().__init__()
        self.constant = None if inputs else nn.Parameter(torch.randn(1, outputs, *base))
        self.up = StyledConv(inputs, outputs, w_dim, up=True) if inputs else None
        self.conv = StyledConv(outputs, outputs, w_dim)
        self.to_image = ToImage(outputs, channels, w_dim)

    def forward(self, x: Tensor | None, image: Tensor | None, w: Tensor) -> tuple[Tensor, Tensor]:
        """Features and image of half the size (None for the first), w [B, 2 or 3, w_dim] -> both at this size."""
        if self.up is None:
            assert self.constant is not None
            x = self.constant.to(w.dtype).expand(w.shape[0], -1, -1, -1)  # no len(): an export would fix it
        else:
            x = self.up(x, w[:, 0])
        x = self.conv(x, w[:, -2])
        made = self.to_image(x, w[:, -1])
        return x, made if image is None else upsampled(image) + made


class Generator(StyleGenerator):
    """Latents or styles -> images [B, C, H, W], unbounded.

    ch_base, ch_max: channels at a size are ch_base / side, at most ch_max. w_dim: width of w and of the mapping's
    layers. mapping_layers, mapping_rate: their number, and the factor of their learning rate. conditioning:
    "projection" joins an embedding of the label to z. 1024×1024×3, latent_dim 512: 30,370,060 parameters. Raises
    ConfigError for points and sides that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch_base: int = 32768,
        ch_max: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        mapping_rate: float = 0.01,
        conditioning: Literal["none", "projection"] = "none",
    ):
        super().__init__()
        positive("model.G.w_dim", w_dim)
        positive("model.mapping_layers", mapping_layers)
        channels, base, wide = plan(shape, "stylegan2", ch_base, ch_max)
        self.conditional = need_classes(conditioning, classes)
        self.mapping = Mapping(latent_dim, w_dim, mapping_layers, mapping_rate, classes if self.conditional else 0)
        later = (Block(b, channels, w_dim, inputs=a) for a, b in pairwise(wide))
        self.blocks = nn.ModuleList([Block(wide[0], channels, w_dim, base=base), *later])

    @property
    def styles(self) -> int:
        """One per convolution, and one for the last layer to the image; the others share the next one's."""
        return 2 * len(self.blocks)

    def side_of(self, layer: int) -> int:
        """How often the base is doubled at a layer."""
        return min((layer + 1) // 2, len(self.blocks) - 1)

    def style_weights(self) -> list[Tensor]:
        """The weights [outputs, w_dim] of each layer's affine map of w, in the order of layers."""
        found = [m.style.weight for m in self.blocks.modules() if isinstance(m, Modulated)]
        return [*found, [m.style.weight for m in self.blocks.modules() if isinstance(m, ToImage)][-1]]

    def synthesis(self, w: Tensor) -> Tensor:
        """Styles [B, styles, w_dim] -> images [B, C, H, W]."""
        made: tuple[Tensor | None, Tensor | None] = (None, None)
        for k, block in enumerate(self.blocks):
            made = block(*made, w[:, max(0, 2 * k - 1) : 2 * k + 2])
        image = made[1]
        assert image is not None
        return image

    def freezable(self) -> list[Frozen]:
        """The mapping, then the blocks of each size from the constant up, but for the last layer to the image."""
        *small, last = self.blocks
        assert isinstance(last, Block)
        return [[self.mapping], *([block] for block in small), [last.constant, last.up, last.conv]]


class Down(nn.Module):
    """Two 3×3 convolutions with LeakyReLU, the second halving; with `residual` beside a halving 1×1 convolution.

    Both branches are scaled by √½. The filter comes before each halving.
    """

    def __init__(self, inputs: int, outputs: int, residual: bool):
        super().__init__()
        self.conv = EqualizedConv(inputs, inputs, gain=1.0)
        self.down = Halving(inputs, outputs)
        self.skip = EqualizedConv(inputs, outputs, 1, gain=math.sqrt(0.5), bias=False) if residual else None

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/2, W/2]."""
        out = self.down(activated(self.conv(x)))
        if self.skip is None:
            return activated(out)
        skipped: Tensor = self.skip(downsampled(x))
        return skipped + activated(out, GAIN * math.sqrt(0.5))


class Halving(EqualizedConv):
    """The filter, then a 3×3 convolution of stride 2."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__(inputs, outputs, gain=1.0)

    def forward(self, x: Tensor) -> Tensor:
        """[B, inputs, H, W] -> [B, outputs, H/2, W/2]."""
        return self.convolved(smoothed(x, 2), stride=2, pad=0)


class Discriminator(nn.Module):
    """Images -> one logit each, with the deviation of groups at the base.

    architecture: "resnet", "orig" without residuals, "skip" with the halved image at each size. ch_base, ch_max: as for
    the generator. conditioning: "projection" takes the inner product with a map of the label (Miyato and Koyama 2018)
    of `mapping_layers` dense layers. group: samples in a group of the minibatch deviation. san: `layers.direction`.
    1024×1024×3: 29,012,513 parameters. Raises ConfigError as the generator does.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        classes: int = 0,
        *,
        ch_base: int = 32768,
        ch_max: int = 512,
        architecture: Architecture = "resnet",
        conditioning: Literal["none", "projection"] = "none",
        mapping_layers: int = 8,
        group: int = 4,
        san: bool = False,
    ):
        super().__init__()
        positive("model.D.mapping_layers", mapping_layers)
        positive("model.D.group", group)
        channels, base, wide = plan(shape, "stylegan2", ch_base, ch_max)
        self.conditional, self.architecture = need_classes(conditioning, classes), architecture
        seen = wide if architecture == "skip" else wide[-1:]
        self.from_image = nn.ModuleList(EqualizedConv(channels, width, 1, gain=1.0) for width in seen)
        self.blocks = nn.ModuleList(Down(b, a, architecture == "resnet") for a, b in pairwise(wide))
        width = wide[0]
        self.deviation = MinibatchDeviation(group)
        self.conv = EqualizedConv(width + 1, width, gain=1.0)
        self.dense = EqualizedLinear(width * math.prod(base), width, gain=1.0)
        self.out = EqualizedLinear(width, width if self.conditional else 1, gain=1.0)
        self.mapping = Mapping(0, width, mapping_layers, classes=classes) if self.conditional else None
        self.san = san
        renormalise(self)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        """[B, C, H, W], labels [B] or a mixture [B, classes] -> logits [B]."""
        image, features = x, activated(self.from_image[-1](x))
        for k in range(len(self.blocks) - 1, -1, -1):
            features = self.blocks[k](features)
            if self.architecture == "skip":
                image = downsampled(image)
                features = features + activated(self.from_image[k](image))
        with full_precision(features):  # the last layers, also where the others have half precision
            features = features.to(torch.promote_types(features.dtype, torch.float32))
            features = activated(self.conv(self.deviation(features)))
            return self.judged(activated(self.dense(features.flatten(1))), y)

    def judged(self, features: Tensor, y: Tensor | None) -> Verdict:
        """The last features [B, width] and labels -> logits [B]."""
        if self.mapping is None:
            if self.san:
                return sliced(features, self.out.weight, self.out.bias, features=[features])
            return Verdict(self.out(features).squeeze(1), features=[features])
        out, embedded = self.out(features), self.mapping(None, y)
        if self.san:
            return sliced(out, embedded, features=[features])
        return Verdict((out * embedded).sum(1) / math.sqrt(out.shape[1]), features=[features])

    def freezable(self) -> list[Frozen]:
        """The blocks of each size from the largest down, each with its layer from the image; the last is the base's.

        The released code counts layers instead: its first 10, the default for transfer, are the first 3 blocks here.
        """
        first = [None] * (len(self.blocks) + 1 - len(self.from_image))
        seen: list[nn.Module | None] = [*first, *self.from_image]
        sizes: list[Frozen] = [[seen[k], self.blocks[k - 1]] for k in range(len(self.blocks), 0, -1)]
        return [*sizes, [seen[0], self.conv, self.dense]]

    def directions(self) -> list[Tensor]:
        """The last layer's weight; with labels none, as their map makes the directions."""
        return [self.out.weight] if self.mapping is None else []
