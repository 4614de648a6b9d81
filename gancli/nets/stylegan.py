"""StyleGAN: a mapping to styles, and a synthesis from a constant, styled at every layer (Karras et al. 2019).

As ProGAN, it grows: all blocks exist from the start. The discriminator is ProGAN's with a blur before each halving.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Literal

import torch
from torch import Tensor, nn

from gancli.nets.freezing import Block as Frozen
from gancli.nets.freezing import each
from gancli.nets.growth import Growth, plan
from gancli.nets.layers.blur import blurred
from gancli.nets.layers.condition import need_classes, shares
from gancli.nets.layers.equalized import EqualizedConv, EqualizedLinear, activated, pixel_norm
from gancli.nets.layers.instance import instance_norm
from gancli.nets.layers.noise import NoiseMap
from gancli.nets.progan import rgb
from gancli.nets.shapes import positive
from gancli.nets.styles import StyleGenerator

NORM_EPS = 1e-8


class Mapping(nn.Module):
    """Latents [B, latent_dim] -> styles w [B, w_dim]: dense layers of w_dim with LeakyReLU, after normalisation of z.

    rate: factor of the layers' learning rate. classes: of labels whose embedding is concatenated to z; 0: none.
    mean: the moving average of w, for truncation.
    """

    mean: Tensor

    def __init__(self, latent_dim: int, w_dim: int, layers: int, rate: float, classes: int = 0):
        super().__init__()
        self.embed = nn.Parameter(torch.randn(classes, latent_dim)) if classes else None
        inputs = [2 * latent_dim if classes else latent_dim] + [w_dim] * (layers - 1)
        self.layers = nn.ModuleList(EqualizedLinear(n, w_dim, rate=rate) for n in inputs)
        self.register_buffer("mean", torch.zeros(w_dim))

    def forward(self, z: Tensor, y: Tensor | None = None) -> Tensor:
        """[B, latent_dim], labels [B] or a mixture of classes [B, classes] -> [B, w_dim]."""
        if self.embed is not None:
            assert y is not None, "a conditional mapping without labels"
            z = torch.cat([z, shares(y, len(self.embed), z) @ self.embed.to(z.dtype)], 1)
        x = pixel_norm(z)
        for layer in self.layers:
            x = activated(layer(x))
        return x


class Styled(nn.Module):
    """What follows each convolution: noise, bias, LeakyReLU, instance norm, and the style's scale and shift (AdaIN).

    The scale is 1 plus a dense function of w. The noise is one map per image, times a scale per channel that starts
    at 0.
    """

    def __init__(self, channels: int, w_dim: int):
        super().__init__()
        self.noise = NoiseMap(channels)
        self.bias = nn.Parameter(torch.zeros(channels))
        self.style = EqualizedLinear(w_dim, 2 * channels, gain=1.0)

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """[B, C, H, W] and w [B, w_dim] -> [B, C, H, W]."""
        x = instance_norm(activated(self.noise(x) + self.bias[:, None, None].to(x.dtype)), NORM_EPS)
        scale, shift = self.style(w)[:, :, None, None].chunk(2, 1)
        return torch.addcmul(shift, x, scale + 1)


class Block(nn.Module):
    """Two styled 3×3 convolutions; with `inputs`, the first comes after upsampling and before the blur.

    Without, the first layer is a learned constant, [channels, *base].
    """

    def __init__(self, channels: int, w_dim: int, *, inputs: int = 0, base: tuple[int, int] = (4, 4)):
        super().__init__()
        self.constant = None if inputs else nn.Parameter(torch.ones(1, channels, *base))
        self.up = EqualizedConv(inputs, channels, resample="up", bias=False) if inputs else None
        self.conv = EqualizedConv(channels, channels, bias=False)
        self.styled = nn.ModuleList(Styled(channels, w_dim) for _ in range(2))

    def forward(self, x: Tensor | None, w: Tensor) -> Tensor:
        """[B, inputs, H, W] (None for the constant) and w [B, 2, w_dim] -> [B, channels, 2H, 2W]."""
        if self.up is None:
            assert self.constant is not None
            x = self.constant.to(w.dtype).expand(w.shape[0], -1, -1, -1)  # no len(): an export would fix it
        else:
            x = blurred(self.up(x))
        x = self.styled[0](x, w[:, 0])
        out: Tensor = self.styled[1](self.conv(x), w[:, 1])
        return out


class Generator(StyleGenerator):
    """Latents or styles -> images [B, C, H, W] at the size that it has grown to, unbounded.

    ch_base, ch_max: channels at a size are ch_base / side, at most ch_max. w_dim: width of w and of
    the mapping's layers. mapping_layers, mapping_rate: their number, and the factor of their learning rate.
    conditioning: "projection" concatenates an embedding of the label to z. 1024×1024×3, latent_dim 512: 26,219,627
    parameters. Raises ConfigError for points and sides that do not halve.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        ch_base: int = 16384,
        ch_max: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        mapping_rate: float = 0.01,
        conditioning: Literal["none", "projection"] = "none",
    ):
        super().__init__()
        positive("model.G.w_dim", w_dim)
        positive("model.mapping_layers", mapping_layers)
        channels, base, wide = plan(shape, "stylegan", ch_base, ch_max)
        self.conditional = need_classes(conditioning, classes)
        self.growth = Growth(len(wide) - 1)
        self.mapping = Mapping(latent_dim, w_dim, mapping_layers, mapping_rate, classes if self.conditional else 0)
        later = (Block(b, w_dim, inputs=a) for a, b in pairwise(wide))
        self.blocks = nn.ModuleList([Block(wide[0], w_dim, base=base), *later])
        self.to_rgb = nn.ModuleList(EqualizedConv(w, channels, 1, gain=1.0) for w in wide)

    @property
    def styles(self) -> int:
        """The number of styled layers of the complete network."""
        return 2 * len(self.blocks)

    def side_of(self, layer: int) -> int:
        """How often the base is doubled at a layer."""
        return layer // 2

    def style_weights(self) -> list[Tensor]:
        """The weights [outputs, w_dim] of each layer's affine map of w, in the order of layers."""
        return [m.style.weight for m in self.blocks.modules() if isinstance(m, Styled)]

    def synthesis(self, w: Tensor) -> Tensor:
        """Styles [B, styles, w_dim] -> images [B, C, H, W]."""
        x = before = None
        for k in range(self.growth.doublings + 1):
            before, x = x, self.blocks[k](x, w[:, 2 * k : 2 * k + 2])
        assert x is not None
        return rgb(self.growth, self.to_rgb, x, x if before is None else before)

    def freezable(self) -> list[Frozen]:
        """The mapping, then the blocks of each size from the constant up, without layers to the image."""
        return each([self.mapping, *self.blocks])
