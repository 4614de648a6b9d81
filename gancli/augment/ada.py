"""Adaptive augmentation: geometry and colour of images with probability p, which follows how sure D is of real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.augment.augment import Augment
from gancli.errors import ConfigError
from gancli.rng import Rng

# The symlet of six vanishing moments, a low-pass filter for twice the resolution (Karras et al. 2020, appendix B.3).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
MARGIN = len(SYM6) // 4  # pixels around the output that the filter reads
SHIFT, SCALE, TURN = 0.125, 0.2, math.pi  # of sides; log2 σ; largest angle
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # σ; log2 σ; log2 σ


class Ada(Augment):
    """Every transformation of "bgc" with probability p (Karras et al. 2020, section 3.1 and appendix B).

    p moves by one direction's step after every `interval` moves of D: up while the mean sign of its logits of real
    images is above `target`, down otherwise, from 0 to 1 in `images` real images. p: where it starts; target null:
    where it stays. Images alone; hue and saturation need three channels, of others the rest of colour changes.
    Raises ConfigError for values that are none.

    >>> ada = Ada(interval=1, images=1000)
    >>> for sign in (1.0, 1.0, 0.0):
    ...     ada.feedback({"D_sign": torch.tensor(sign)}, 64)
    >>> round(ada.p.item(), 3)  # up, up, down
    0.064
    """

    p: Tensor
    signs: Tensor
    moves: Tensor
    seen: Tensor
    taps: Tensor

    def __init__(self, *, p: float = 0.0, target: float | None = 0.6, interval: int = 4, images: int = 500_000):
        super().__init__()
        if not 0 <= p <= 1 or interval < 1 or images < 1 or (target is not None and not 0 < target < 1):
            raise ConfigError("augment has p from 0 to 1, target between 0 and 1 or null, interval and images from 1")
        self.first, self.target, self.interval, self.images = p, target, interval, images
        self.register_buffer("p", torch.tensor(p))
        for name in ("signs", "moves", "seen"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("taps", torch.tensor(SYM6) / sum(SYM6), persistent=False)

    @torch.no_grad()
    def feedback(self, stats: Mapping[str, Tensor], images: int) -> None:
        """Count a move of D, and move p when the interval is over; without waiting for the device."""
        if self.target is None:
            return
        self.signs += stats["D_sign"].to(self.signs)
        self.moves += 1
        self.seen += images
        over = self.moves >= self.interval
        step = torch.sign(self.signs / self.moves - self.target) * self.seen / self.images
        self.p.copy_(torch.where(over, self.p + step, self.p).clamp(0, 1))
        for counter in (self.signs, self.moves, self.seen):
            counter.copy_(torch.where(over, 0.0, counter))

    def forward(self, images: Tensor, rng: Rng, purpose: str) -> Tensor:
        """Geometry first, then colour."""
        draw = Draw(rng, purpose, self.p.to(images.dtype), images.dtype)
        images = resampled(images, geometry(draw, images.shape[2:]), self.taps.to(images.dtype))
        return coloured(draw, images)


class Draw:
    """Numbers of one use, each for all samples, replaced by what changes nothing where a transformation is off."""

    def __init__(self, rng: Rng, purpose: str, p: Tensor, dtype: torch.dtype):
        self.rng, self.purpose, self.p, self.dtype = rng, purpose, p, dtype

    def uniform(self, what: str) -> Tensor:
        """[B] in [0, 1)."""
        return self.rng.uniform(f"{self.purpose} {what}").to(self.dtype)

    def normal(self, what: str) -> Tensor:
        """[B], standard normal."""
        return self.rng.normal(f"{self.purpose} {what}").to(self.dtype)

    def gated(self, what: str, value: Tensor, idle: float, p: Tensor | None = None) -> Tensor:
        """The value with probability p, else `idle`."""
        return torch.where(self.uniform(f"{what}?") < (self.p if p is None else p), value, idle)


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """3×3 matrices [B, 3, 3] of numbers [B] or constants."""
    return torch.stack([torch.stack([like * 0 + entry for entry in row], 1) for row in rows], 1)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """[B, 3, 3] that moves by (x, y)."""
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """[B, 3, 3] that scales by x and y."""
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], x)


def rotation(angle: Tensor) -> Tensor:
    """[B, 3, 3] that turns by an angle."""
    sine, cosine = angle.sin(), angle.cos()
    return _matrix([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], angle)


def geometry(draw: Draw, sides: torch.Size) -> Tensor:
    """Where each output pixel is read from: [B, 3, 3], in pixels around the middle (appendix B.2, algorithm 1)."""
    height, width = sides
    mirror = draw.gated("mirror", (draw.uniform("mirrored") * 2).floor(), 0.0)
    inverse = scaling(1 - 2 * mirror, mirror * 0 + 1)
    turns = draw.gated("quarter", (draw.uniform("quarters") * 4).floor(), 0.0)
    inverse = inverse @ rotation(turns * (math.pi / 2))
    across, down = (draw.gated("blit", (draw.uniform(f"blit {k}") * 2 - 1) * SHIFT, 0.0) for k in "xy")
    inverse = inverse @ translation(-(across * width).round(), -(down * height).round())
    size = draw.gated("scale", torch.exp2(draw.normal("scaled") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / size, 1 / size)
    # Before and after the stretch, so that at least one of the two happens with probability p.
    rare = 1 - (1 - draw.p).clamp_min(0).sqrt()
    inverse = inverse @ rotation(draw.gated("turn", (draw.uniform("turned") * 2 - 1) * TURN, 0.0, rare))
    stretch = draw.gated("stretch", torch.exp2(draw.normal("stretched") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / stretch, stretch)
    inverse = inverse @ rotation(draw.gated("turn 2", (draw.uniform("turned 2") * 2 - 1) * TURN, 0.0, rare))
    across, down = (draw.gated("move", draw.normal(f"moved {k}") * SHIFT, 0.0) for k in "xy")
    return inverse @ translation(-across * width, -down * height)


def resampled(images: Tensor, inverse: Tensor, taps: Tensor) -> Tensor:
    """Images read through `inverse`, mirrored at their edges, at twice the resolution and filtered both ways."""
    batch, channels, height, width = images.shape
    pads = [min(side - 1, side // 2 + 2 * MARGIN) for side in (height, width)]
    x = F.pad(images, [pads[1], pads[1], pads[0], pads[0]], mode="reflect")
    x = _filtered(x, taps, up=True)
    ones = inverse.new_ones(batch)
    # Twice the size, and the half pixel by which an even filter moves its output.
    inverse = scaling(2 * ones, 2 * ones) @ inverse @ scaling(ones / 2, ones / 2)
    inverse = translation(-ones / 2, -ones / 2) @ inverse @ translation(ones / 2, ones / 2)
    shape = [batch, channels, 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN)]
    # From pixels to the sampler's units, which run from -1 to 1 over input and output.
    inverse = scaling(ones * 2 / x.shape[3], ones * 2 / x.shape[2]) @ inverse
    inverse = inverse @ scaling(ones * shape[3] / 2, ones * shape[2] / 2)
    grid = F.affine_grid(inverse[:, :2], shape, align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return _filtered(x[:, :, 1:-1, 1:-1], taps, up=False)


def _filtered(x: Tensor, taps: Tensor, up: bool) -> Tensor:
    """Twice or half the size, by the taps in both directions."""
    channels = x.shape[1]
    for shape, stride in (((1, 1, 1, -1), (1, 2)), ((1, 1, -1, 1), (2, 1))):
        kernel = taps.view(shape).expand(channels, 1, *taps.view(shape).shape[2:])
        along = [len(taps) // 2 - 1 if s == 2 else 0 for s in stride]
        if up:
            x = F.conv_transpose2d(x, 2 * kernel, None, stride, along, groups=channels)
        else:
            x = F.conv2d(x, kernel, None, stride, groups=channels)
    return x


def coloured(draw: Draw, images: Tensor) -> Tensor:
    """Brightness, contrast, luma flip, hue and saturation (appendix B.2), the last two of three channels.

    The luma flip turns a grey image into its negative.
    """
    bright = draw.gated("brightness", draw.normal("bright") * BRIGHTNESS, 0.0)
    hard = draw.gated("contrast", torch.exp2(draw.normal("hard") * CONTRAST), 1.0)
    images = (images + bright.view(-1, 1, 1, 1)) * hard.view(-1, 1, 1, 1)
    inverted = draw.gated("luma", (draw.uniform("inverted") * 2).floor(), 0.0).view(-1, 1, 1)
    if images.shape[1] != 3:
        return images * (1 - 2 * inverted.unsqueeze(3))
    # Everything else keeps or turns the component along grey, (1, 1, 1) / √3.
    ones = images.new_ones(3, 3) / 3
    eye = torch.eye(3, dtype=images.dtype, device=images.device)
    matrix = eye - 2 * ones * inverted
    angle = draw.gated("hue", (draw.uniform("hued") * 2 - 1) * math.pi, 0.0).view(-1, 1, 1)
    cross = images.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    matrix = (eye * angle.cos() + cross * angle.sin() + ones * (1 - angle.cos())) @ matrix
    vivid = draw.gated("saturation", torch.exp2(draw.normal("vivid") * SATURATION), 1.0).view(-1, 1, 1)
    matrix = (ones + (eye - ones) * vivid) @ matrix
    return torch.einsum("bij,bjhw->bihw", matrix, images)
