"""StyleGAN 3: a generator without aliasing, equivariant to translation (T) and rotation (R) (Karras et al. 2021).

The constants are those of the authors' code. The discriminator is StyleGAN 2's. A network has 14 layers for images of
any size, which differ in their sampling rates and bands.
"""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.freezing import Block, each, is_frozen
from gancli.nets.layers.alias_free import FASTER, AliasFree, FourierInput, Signal, ToImage
from gancli.nets.layers.condition import need_classes
from gancli.nets.shapes import image, positive
from gancli.nets.stylegan2 import Mapping
from gancli.nets.styles import StyleGenerator

Variant = Literal["T", "R"]

LAYERS, CRITICAL = 14, 2  # layers before the image, and how many of them are critically sampled
FIRST_CUTOFF, FIRST_STOPBAND = 2.0, 2**2.1  # of the first layer
LAST_STOPBAND = 2**0.3  # of the last layer, relative to its cutoff
MARGIN, WIDEST = 10, 100  # pixels around the image: as released, and at most
OUTPUT = 0.25  # factor of the image
SMALLEST = 16  # side in pixels below which the bands would shrink from layer to layer


def signals(shape: tuple[int, ...], ch_base: int, ch_max: int, margin: int = MARGIN) -> list[Signal]:
    """The features before each layer, and the image's last: 16 in all (Karras et al. 2021, appendix F).

    Rates are the image's shorter side, halved a whole number of times. ch_base / (2 · cutoff) channels, at most ch_max.
    Raises ConfigError for points and for images below 16 pixels.

    >>> [(s.rate, round(s.cutoff, 2), s.sides[0]) for s in signals((3, 64, 64), 2048, 128)][::4]
    [(16.0, 2.0, 36), (16.0, 4.0, 36), (32.0, 10.08, 52), (64.0, 25.4, 84)]
    """
    channels, *sides = image(shape, "stylegan3")
    side = min(sides)
    if side < SMALLEST:
        raise ConfigError(
            f"model=stylegan3 generates images of at least {SMALLEST} pixels, not {sides[0]}x{sides[1]}: set"
            f" dataset.size={SMALLEST} or larger, or use model=dcgan"
        )
    positive("model.ch_base", ch_base)
    positive("model.ch_max", ch_max)
    last_stopband = side / 2 * LAST_STOPBAND
    found = []
    for k in range(LAYERS + 1):
        share = min(k / (LAYERS - CRITICAL), 1.0)
        cutoff = FIRST_CUTOFF * (side / 2 / FIRST_CUTOFF) ** share
        stopband = FIRST_STOPBAND * (last_stopband / FIRST_STOPBAND) ** share
        # A hair's breadth keeps rounding from doubling a rate.
        rate = side * 2.0 ** math.ceil(math.log2(min(2 * stopband, side) / side) - 1e-9)
        extra = 0 if k >= LAYERS - 1 else 2 * margin
        height, width = (math.ceil(rate * n / side) + extra for n in sides)
        wide = channels if k == LAYERS else max(1, round(min(ch_base / 2 / cutoff, ch_max)))
        found.append(Signal(wide, (height, width), rate, cutoff, max(stopband, rate / 2) - cutoff))
    return [found[0], *found]


class Generator(StyleGenerator):
    """Latents or styles -> images [B, C, H, W], unbounded, of which `transform` moves the content.

    variant: "T" has 3×3 convolutions; "R" has 1×1, twice the channels, and radially symmetric filters. ch_base, ch_max:
    channels of a layer are ch_base / (2 · cutoff), at most ch_max. w_dim: width of w and of the mapping's layers.
    mapping_layers, mapping_rate: their number, and the factor of their learning rate. conditioning: "projection" joins
    an embedding of the label to z. filtered: False leaves out the filters around the nonlinearity, but where the rate
    doubles; margin: pixels around the image; both for comparisons. 256×256×3, latent_dim 512: 28,472,133 parameters
    (T), 18,816,387 (R). Raises ConfigError for points and images below 16 pixels.
    """

    def __init__(
        self,
        shape: tuple[int, ...],
        latent_dim: int,
        classes: int = 0,
        *,
        variant: Variant = "T",
        ch_base: int = 32768,
        ch_max: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 2,
        mapping_rate: float = 0.01,
        conditioning: Literal["none", "projection"] = "none",
        filtered: bool = True,
        margin: int = MARGIN,
    ):
        super().__init__()
        positive("model.G.w_dim", w_dim)
        positive("model.mapping_layers", mapping_layers)
        if not 0 <= margin <= WIDEST:
            raise ConfigError(f"model.G.margin={margin}: a number of pixels from 0 to {WIDEST}, such as {MARGIN}")
        self.variant = variant
        more = 2 if variant == "R" else 1
        self.signals = signals(shape, ch_base * more, ch_max * more, margin)
        self.conditional = need_classes(conditioning, classes)
        self.mapping = Mapping(latent_dim, w_dim, mapping_layers, mapping_rate, classes if self.conditional else 0)
        self.input = FourierInput(self.signals[0], w_dim)
        made: list[AliasFree | ToImage] = []
        for k in range(LAYERS):
            radial, kernel = variant == "R" and k < LAYERS - CRITICAL, 1 if variant == "R" else 3
            before, after, faster = self.signals[k], self.signals[k + 1], FASTER if filtered else 1
            made.append(AliasFree(before, after, w_dim, kernel=kernel, radial=radial, faster=faster))
        made.append(ToImage(self.signals[-2].channels, self.signals[-1].channels, w_dim))
        self.layers = nn.ModuleList(made)

    @property
    def styles(self) -> int:
        """One for the input, one per layer, and one for the layer to the image."""
        return 1 + len(self.layers)

    def side_of(self, layer: int) -> int:
        """How often the first sampling rate is doubled where a layer begins."""
        return round(math.log2(self.signals[layer].rate / self.signals[0].rate))

    def style_weights(self) -> list[Tensor]:
        """The weights [outputs, w_dim] of each layer's affine map of w, in the order of layers."""
        found: list[Any] = [self.input.affine, *(layer.style for layer in self.layers)]
        return [affine.weight for affine in found]

    def forward(
        self,
        z: Tensor | None,
        y: Tensor | None = None,
        w: Tensor | None = None,
        transform: Tensor | None = None,
        keep: float | None = None,
    ) -> Any:
        """Images as of every generator with styles; transform: moves of them [B, 3] (`layers.alias_free.inverses`).

        keep: return also the mean square of each layer's input, [15], for `update` with this decay; the layers already
        use the averages as they will be.
        """
        if w is None:
            assert z is not None, "neither latents nor styles"
            w = self.mapping(z, y)
        images, found = self._made(self.each(w), transform, keep)
        return images if keep is None else (images, torch.stack(found))

    def synthesis(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """Styles [B, styles, w_dim] and moves [B, 3] -> images [B, C, H, W]."""
        return self._made(w, transform, None)[0]

    @torch.no_grad()
    def update(self, magnitudes: Tensor, keep: float) -> None:
        """Update the averages of the layers' mean squares, [15]."""
        for layer, now in zip(self.layers, magnitudes, strict=True):
            average: Tensor = layer.magnitude  # type: ignore[assignment]
            if not is_frozen(layer):
                average.copy_(now.to(average.dtype).lerp(average, keep))

    def freezable(self) -> list[Block]:
        """The mapping, the Fourier features, then each layer but for the last."""
        return [[self.mapping], [self.input], *each([*self.layers][:-1])]

    def _made(self, w: Tensor, transform: Tensor | None, keep: float | None) -> tuple[Tensor, list[Tensor]]:
        x, found = self.input(w[:, 0], transform), []
        for k, layer in enumerate(self.layers):
            x, now = layer(x, w[:, 1 + k], keep)
            if now is not None:
                found.append(now)
        return x * OUTPUT, found
