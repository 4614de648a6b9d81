"""Adaptive augmentation: geometry and colour of images with probability p, which follows how sure D is of real ones."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.augment.augment import Augment
from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.nets.layers.spectral import full_precision

# The symlet of six vanishing moments, a low-pass filter for twice the resolution (Karras et al. 2020, appendix B).
SYM6 = (
    0.015404109327027373, 0.0034907120842174702, -0.11799011114819057, -0.048311742585633,
    0.4910559419267466, 0.787641141030194, 0.3379294217276218, -0.07263752278646252,
    -0.021060292512300564, 0.04472490177066578, 0.0017677118642428036, -0.007800708325034148,
)  # fmt: skip
MARGIN = len(SYM6) // 4  # pixels around the output that the filter reads
SHIFT, SCALE, TURN = 0.125, 0.2, math.pi  # of sides; log2 σ; largest angle
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # σ; log2 σ; log2 σ
HOLE = 0.5  # of sides

GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
BGC = dict.fromkeys((*GEOMETRY, *COLOUR), 1.0) | {"cutout": 0.0}  # shares of p that StyleGAN2-ADA's default has


class Ada(Augment):
    """Each transformation with its share of the probability p; as they are "bgc" (Karras et al. 2020, appendix B).

    xflip to cutout: shares of p, from 0 (never) to 1, named as StyleGAN2-ADA's code names them. p moves by one
    direction's step after every `interval` moves of D: up while the mean sign of its logits of real images is above
    `target`, down otherwise, from 0 to 1 in `images` real images. p: where it starts; target null: where it stays.
    Images alone; hue and saturation need three channels, of others the rest of colour changes. Raises ConfigError for
    values that are none.

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

    def __init__(
        self,
        *,
        p: float = 0.0,
        target: float | None = 0.6,
        interval: int = 4,
        images: int = 500_000,
        xflip: float = 1.0,
        rotate90: float = 1.0,
        xint: float = 1.0,
        scale: float = 1.0,
        rotate: float = 1.0,
        aniso: float = 1.0,
        xfrac: float = 1.0,
        brightness: float = 1.0,
        contrast: float = 1.0,
        lumaflip: float = 1.0,
        hue: float = 1.0,
        saturation: float = 1.0,
        cutout: float = 0.0,
    ):
        super().__init__()
        if not 0 <= p <= 1 or interval < 1 or images < 1 or (target is not None and not 0 < target < 1):
            raise ConfigError("augment has p from 0 to 1, target between 0 and 1 or null, interval and images from 1")
        geometric = (xflip, rotate90, xint, scale, rotate, aniso, xfrac)
        colours = (brightness, contrast, lumaflip, hue, saturation)
        self.shares = dict(zip(BGC, (*geometric, *colours, cutout), strict=True))
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"augment.{name}={share:g}: a share of p, from 0 (never) to 1")
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
        """Geometry first, then colour, then a hole; in float32 at least, whatever the networks compute in."""
        with full_precision(images):
            wide = torch.promote_types(images.dtype, torch.float32)
            return self._changed(images.to(wide), rng, purpose).to(images.dtype)

    def _changed(self, images: Tensor, rng: Rng, purpose: str) -> Tensor:
        sides, p = images.shape[2:], self.p.to(images.dtype)
        draw = Draw(rng, purpose, p, images.dtype, self.shares)
        if any(self.shares[name] for name in GEOMETRY):
            # Mirrored as far as the whole batch needs it, whatever part of it this is.
            everyone = geometry(Draw(rng.cut(0, rng.total), purpose, p, images.dtype, self.shares), sides)
            inverse = everyone[rng.start : rng.stop]
            images = resampled(images, inverse, self.taps.to(images.dtype), margins(everyone, sides))
        if any(self.shares[name] for name in COLOUR):
            images = coloured(draw, images)
        return holed(draw, images) if self.shares["cutout"] else images


class Draw:
    """Numbers of one use, each for all samples, replaced by what changes nothing where a transformation is off.

    p: the probability; shares: of it, by transformation.
    """

    def __init__(self, rng: Rng, purpose: str, p: Tensor, dtype: torch.dtype, shares: Mapping[str, float] = BGC):
        self.rng, self.purpose, self.p, self.dtype, self.shares = rng, purpose, p, dtype, shares

    def uniform(self, what: str) -> Tensor:
        """[B] in [0, 1)."""
        return self.rng.uniform(f"{self.purpose} {what}").to(self.dtype)

    def normal(self, what: str) -> Tensor:
        """[B], standard normal."""
        return self.rng.normal(f"{self.purpose} {what}").to(self.dtype)

    def gated(self, what: str, name: str, value: Tensor, idle: float, twice: bool = False) -> Tensor:
        """The value with the probability that `name` has, else `idle`; twice: of this or another draw as rare."""
        p = self.p * self.shares[name]
        if twice:
            p = 1 - (1 - p).clamp_min(0).sqrt()
        return torch.where(self.uniform(f"{what}?") < p, value, idle)


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
    """Where each output pixel is read from: [B, 3, 3], in pixels around the middle (Karras et al. 2020, appendix B)."""
    height, width = sides
    mirror = draw.gated("mirror", "xflip", (draw.uniform("mirrored") * 2).floor(), 0.0)
    inverse = scaling(1 - 2 * mirror, mirror * 0 + 1)
    turns = draw.gated("quarter", "rotate90", (draw.uniform("quarters") * 4).floor(), 0.0)
    inverse = inverse @ rotation(turns * (math.pi / 2))
    across, down = (draw.gated("blit", "xint", (draw.uniform(f"blit {k}") * 2 - 1) * SHIFT, 0.0) for k in "xy")
    inverse = inverse @ translation(-(across * width).round(), -(down * height).round())
    size = draw.gated("scale", "scale", torch.exp2(draw.normal("scaled") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / size, 1 / size)
    # Before and after the stretch, so that at least one of the two happens with the probability of a turn.
    inverse = inverse @ rotation(draw.gated("turn", "rotate", (draw.uniform("turned") * 2 - 1) * TURN, 0.0, twice=True))
    stretch = draw.gated("stretch", "aniso", torch.exp2(draw.normal("stretched") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / stretch, stretch)
    again = draw.gated("turn 2", "rotate", (draw.uniform("turned 2") * 2 - 1) * TURN, 0.0, twice=True)
    inverse = inverse @ rotation(again)
    across, down = (draw.gated("move", "xfrac", draw.normal(f"moved {k}") * SHIFT, 0.0) for k in "xy")
    return inverse @ translation(-across * width, -down * height)


def margins(inverse: Tensor, sides: torch.Size) -> Tensor:
    """Pixels left, top, right and bottom of the images that reading through `inverse` needs: int64 [4].

    As released: as far as any image's corners reach, and the filter's both ways, but less than a side, which is where
    a mirror image ends.
    """
    height, width = sides
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, x, x, -x], [-y, -y, y, y], [1.0, 1.0, 1.0, 1.0]])
    reached = (inverse @ corners)[:, :2].transpose(0, 1).flatten(1)  # [2, B · 4]
    beyond = torch.cat([-reached, reached]).amax(1) - inverse.new_tensor([x, y, x, y]) + 2 * MARGIN
    most = inverse.new_tensor([width - 1, height - 1] * 2)
    return beyond.clamp_min(0).minimum(most).ceil().long()


def resampled(images: Tensor, inverse: Tensor, taps: Tensor, margin: Tensor | None = None) -> Tensor:
    """Images read through `inverse`, mirrored at their edges, at twice the resolution and filtered both ways.

    margin: how far they are mirrored, as `margins` says; beyond, all is 0.
    """
    batch, channels, height, width = images.shape
    margin = margins(inverse, images.shape[2:]) if margin is None else margin
    # Matrices for rows and columns: many times as fast as convolutions of few channels, and as exact.
    x = enlarging(height, taps, margin[1::2]) @ images @ enlarging(width, taps, margin[::2]).T
    ones = inverse.new_ones(batch)
    # Twice the size, and the half pixel by which an even filter moves its output.
    inverse = scaling(2 * ones, 2 * ones) @ inverse @ scaling(ones / 2, ones / 2)
    inverse = translation(-ones / 2, -ones / 2) @ inverse @ translation(ones / 2, ones / 2)
    shape = [batch, channels, 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN)]
    # From pixels to the sampler's units, which run from -1 to 1 over input and output.
    inverse = scaling(ones * 2 / x.shape[3], ones * 2 / x.shape[2]) @ inverse
    inverse = inverse @ scaling(ones * shape[3] / 2, ones * shape[2] / 2)
    grid = F.affine_grid(inverse[:, :2], shape, align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return shrinking(height, taps) @ x @ shrinking(width, taps).T


def enlarging(side: int, taps: Tensor, margin: Tensor) -> Tensor:
    """What mirrors `side` pixels at both ends and doubles them by the filter: [2 · (3 · side - 2), side].

    The mirrored part is a side less one long, the most that there can be, and 0 past the `margin` [low, high]: so its
    size does not depend on numbers of the device, which would have to be waited for.
    """
    most = side - 1
    mirrored = F.pad(torch.eye(side, dtype=taps.dtype, device=taps.device)[:, None], [most, most], mode="reflect")

    def cut(x: Tensor, times: int) -> Tensor:
        places, over = torch.arange(x.shape[2], device=x.device), times * (most - margin)
        return x * ((places >= over[0]) & (places < x.shape[2] - over[1]))

    doubled = F.conv_transpose1d(cut(mirrored, 1), 2 * taps.view(1, 1, -1), stride=2, padding=len(taps) // 2 - 1)
    return cut(doubled, 2)[:, 0].T


def shrinking(side: int, taps: Tensor) -> Tensor:
    """What halves pixels of the sampler by the filter, without its border: [side, 2 · (side + 2 · MARGIN)]."""
    every = torch.eye(2 * (side + 2 * MARGIN), dtype=taps.dtype, device=taps.device)[:, None, 1:-1]
    return F.conv1d(every, taps.view(1, 1, -1), stride=2)[:, 0].T


def coloured(draw: Draw, images: Tensor) -> Tensor:
    """Brightness, contrast, luma flip, and of three channels hue and saturation (Karras et al. 2020, appendix B).

    The luma flip turns a grey image into its negative.
    """
    bright = draw.gated("brightness", "brightness", draw.normal("bright") * BRIGHTNESS, 0.0)
    hard = draw.gated("contrast", "contrast", torch.exp2(draw.normal("hard") * CONTRAST), 1.0)
    images = (images + bright.view(-1, 1, 1, 1)) * hard.view(-1, 1, 1, 1)
    inverted = draw.gated("luma", "lumaflip", (draw.uniform("inverted") * 2).floor(), 0.0).view(-1, 1, 1)
    if images.shape[1] != 3:
        return images * (1 - 2 * inverted.unsqueeze(3))
    # Everything else keeps or turns the component along grey, (1, 1, 1) / √3.
    ones = images.new_ones(3, 3) / 3
    eye = torch.eye(3, dtype=images.dtype, device=images.device)
    matrix = eye - 2 * ones * inverted
    angle = draw.gated("hue", "hue", (draw.uniform("hued") * 2 - 1) * math.pi, 0.0).view(-1, 1, 1)
    cross = images.new_tensor([[0.0, -1.0, 1.0], [1.0, 0.0, -1.0], [-1.0, 1.0, 0.0]]) / math.sqrt(3)
    matrix = (eye * angle.cos() + cross * angle.sin() + ones * (1 - angle.cos())) @ matrix
    vivid = draw.gated("saturation", "saturation", torch.exp2(draw.normal("vivid") * SATURATION), 1.0).view(-1, 1, 1)
    matrix = (ones + (eye - ones) * vivid) @ matrix
    return torch.einsum("bij,bjhw->bihw", matrix, images)


def holed(draw: Draw, images: Tensor) -> Tensor:
    """A rectangle of half of each side set to 0, its centre anywhere in the image."""
    side = draw.gated("cutout", "cutout", torch.full_like(draw.uniform("hole x"), HOLE), 0.0)
    inside = []
    for length, axis in zip(images.shape[2:], "yx", strict=True):
        places = (torch.arange(length, device=images.device, dtype=images.dtype) + 0.5) / length
        inside.append((places - draw.uniform(f"hole {axis}")[:, None]).abs() < side[:, None] / 2)
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
