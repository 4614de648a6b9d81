"""Adaptive augmentation (ADA): geometry and colour changes, with a probability that follows D's overfitting."""

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
SHIFT, SCALE, TURN = 0.125, 0.2, math.pi  # fraction of the sides; σ of the log2; largest angle
BRIGHTNESS, CONTRAST, SATURATION = 0.2, 0.5, 1.0  # σ; σ of the log2; σ of the log2
HOLE = 0.5  # fraction of the sides

GEOMETRY = ("xflip", "rotate90", "xint", "scale", "rotate", "aniso", "xfrac")
COLOUR = ("brightness", "contrast", "lumaflip", "hue", "saturation")
BGC = dict.fromkeys((*GEOMETRY, *COLOUR), 1.0) | {"cutout": 0.0}  # shares of p in StyleGAN2-ADA's default


class Ada(Augment):
    """Transformations, each with its share of the probability p; the default is "bgc" (Karras et al. 2020, app. B).

    xflip to cutout: shares of p, from 0 (never) to 1, named as in StyleGAN2-ADA's code. After every `interval` moves of
    D, p goes up if the mean sign of its logits of real images is above `target`, else down, at a rate of 0 to 1 in
    `images` real images. p: its initial value; target null: p is constant. For images only; hue and saturation need
    three channels and are skipped for others. Raises ConfigError for invalid values.

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
            raise ConfigError("augment needs p from 0 to 1, target between 0 and 1 or null, interval and images from 1")
        geometric = (xflip, rotate90, xint, scale, rotate, aniso, xfrac)
        colours = (brightness, contrast, lumaflip, hue, saturation)
        self.shares = dict(zip(BGC, (*geometric, *colours, cutout), strict=True))
        for name, share in self.shares.items():
            if not 0 <= share <= 1:
                raise ConfigError(f"augment.{name}={share:g}: type a share of p, from 0 (never) to 1")
        self.first, self.target, self.interval, self.images = p, target, interval, images
        self.register_buffer("p", torch.tensor(p))
        for name in ("signs", "moves", "seen"):
            self.register_buffer(name, torch.zeros(()))
        self.register_buffer("taps", torch.tensor(SYM6) / sum(SYM6), persistent=False)

    @torch.no_grad()
    def feedback(self, stats: Mapping[str, Tensor], images: int) -> None:
        """Count a move of D, and adapt p at the end of an interval, without synchronising with the device."""
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
        """Apply geometry, then colour, then cutout, in float32 at least, even if the networks use less."""
        with full_precision(images):
            wide = torch.promote_types(images.dtype, torch.float32)
            return self._changed(images.to(wide), rng, purpose).to(images.dtype)

    def _changed(self, images: Tensor, rng: Rng, purpose: str) -> Tensor:
        sides, p = images.shape[2:], self.p.to(images.dtype)
        draw = Draw(rng, purpose, p, images.dtype, self.shares)
        if any(self.shares[name] for name in GEOMETRY):
            # Reflection as far as the whole batch needs it, not only this part of the batch.
            everyone = geometry(Draw(rng.cut(0, rng.total), purpose, p, images.dtype, self.shares), sides)
            inverse = everyone[rng.start : rng.stop]
            images = resampled(images, inverse, self.taps.to(images.dtype), margins(everyone, sides))
        if any(self.shares[name] for name in COLOUR):
            images = coloured(draw, images)
        return holed(draw, images) if self.shares["cutout"] else images


class Draw:
    """Random numbers of one use, one per sample, replaced by the identity value if a transformation is off.

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
        """Return the value with the probability of `name`, else `idle`; twice: so that either of two draws has it."""
        p = self.p * self.shares[name]
        if twice:
            p = 1 - (1 - p).clamp_min(0).sqrt()
        return torch.where(self.uniform(f"{what}?") < p, value, idle)


def _matrix(rows: list[list[Tensor | float]], like: Tensor) -> Tensor:
    """Stack numbers [B] and constants to 3×3 matrices [B, 3, 3]."""
    return torch.stack([torch.stack([like * 0 + entry for entry in row], 1) for row in rows], 1)


def translation(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrices [B, 3, 3] that translate by (x, y)."""
    return _matrix([[1.0, 0.0, x], [0.0, 1.0, y], [0.0, 0.0, 1.0]], x)


def scaling(x: Tensor, y: Tensor) -> Tensor:
    """Return the matrices [B, 3, 3] that scale by x and y."""
    return _matrix([[x, 0.0, 0.0], [0.0, y, 0.0], [0.0, 0.0, 1.0]], x)


def rotation(angle: Tensor) -> Tensor:
    """Return the matrices [B, 3, 3] that rotate by an angle."""
    sine, cosine = angle.sin(), angle.cos()
    return _matrix([[cosine, -sine, 0.0], [sine, cosine, 0.0], [0.0, 0.0, 1.0]], angle)


def geometry(draw: Draw, sides: torch.Size) -> Tensor:
    """Return each output pixel's source: [B, 3, 3], in pixels around the centre (Karras et al. 2020, appendix B)."""
    height, width = sides
    mirror = draw.gated("mirror", "xflip", (draw.uniform("mirrored") * 2).floor(), 0.0)
    inverse = scaling(1 - 2 * mirror, mirror * 0 + 1)
    turns = draw.gated("quarter", "rotate90", (draw.uniform("quarters") * 4).floor(), 0.0)
    inverse = inverse @ rotation(turns * (math.pi / 2))
    across, down = (draw.gated("blit", "xint", (draw.uniform(f"blit {k}") * 2 - 1) * SHIFT, 0.0) for k in "xy")
    inverse = inverse @ translation(-(across * width).round(), -(down * height).round())
    size = draw.gated("scale", "scale", torch.exp2(draw.normal("scaled") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / size, 1 / size)
    # Before and after the stretch, so that at least one of the two happens with the probability of a rotation.
    inverse = inverse @ rotation(draw.gated("turn", "rotate", (draw.uniform("turned") * 2 - 1) * TURN, 0.0, twice=True))
    stretch = draw.gated("stretch", "aniso", torch.exp2(draw.normal("stretched") * SCALE), 1.0)
    inverse = inverse @ scaling(1 / stretch, stretch)
    again = draw.gated("turn 2", "rotate", (draw.uniform("turned 2") * 2 - 1) * TURN, 0.0, twice=True)
    inverse = inverse @ rotation(again)
    across, down = (draw.gated("move", "xfrac", draw.normal(f"moved {k}") * SHIFT, 0.0) for k in "xy")
    return inverse @ translation(-across * width, -down * height)


def margins(inverse: Tensor, sides: torch.Size) -> Tensor:
    """Return the margins (left, top, right, bottom) in pixels that reading through `inverse` needs: int64 [4].

    As in the released code: as far as any image's corners reach, plus the filter on both sides, but less than a side,
    where a reflection ends.
    """
    height, width = sides
    x, y = (width - 1) / 2, (height - 1) / 2
    corners = inverse.new_tensor([[-x, x, x, -x], [-y, -y, y, y], [1.0, 1.0, 1.0, 1.0]])
    reached = (inverse @ corners)[:, :2].transpose(0, 1).flatten(1)  # [2, B · 4]
    beyond = torch.cat([-reached, reached]).amax(1) - inverse.new_tensor([x, y, x, y]) + 2 * MARGIN
    most = inverse.new_tensor([width - 1, height - 1] * 2)
    return beyond.clamp_min(0).minimum(most).ceil().long()


def resampled(images: Tensor, inverse: Tensor, taps: Tensor, margin: Tensor | None = None) -> Tensor:
    """Resample images through `inverse`, reflected at their edges, at twice the resolution, filtered up and down.

    margin: how far they are reflected, as `margins` returns; beyond it, all is 0.
    """
    batch, channels, height, width = images.shape
    margin = margins(inverse, images.shape[2:]) if margin is None else margin
    # Matrices for rows and columns: many times faster than convolutions of few channels, and as exact.
    x = enlarging(height, taps, margin[1::2]) @ images @ enlarging(width, taps, margin[::2]).T
    ones = inverse.new_ones(batch)
    # Twice the size, and the half-pixel shift of an even filter.
    inverse = scaling(2 * ones, 2 * ones) @ inverse @ scaling(ones / 2, ones / 2)
    inverse = translation(-ones / 2, -ones / 2) @ inverse @ translation(ones / 2, ones / 2)
    shape = [batch, channels, 2 * (height + 2 * MARGIN), 2 * (width + 2 * MARGIN)]
    # From pixels to grid_sample's units, which run from -1 to 1 over input and output.
    inverse = scaling(ones * 2 / x.shape[3], ones * 2 / x.shape[2]) @ inverse
    inverse = inverse @ scaling(ones * shape[3] / 2, ones * shape[2] / 2)
    grid = F.affine_grid(inverse[:, :2], shape, align_corners=False)
    x = F.grid_sample(x, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    return shrinking(height, taps) @ x @ shrinking(width, taps).T


def enlarging(side: int, taps: Tensor, margin: Tensor) -> Tensor:
    """Return the matrix that reflects `side` pixels at both ends and upsamples them: [2 · (3 · side - 2), side].

    The reflection is a side less one long, the maximum, and 0 beyond the `margin` [low, high]: so its size does not
    depend on values on the device, which would need a synchronisation.
    """
    most = side - 1
    mirrored = F.pad(torch.eye(side, dtype=taps.dtype, device=taps.device)[:, None], [most, most], mode="reflect")

    def cut(x: Tensor, times: int) -> Tensor:
        places, over = torch.arange(x.shape[2], device=x.device), times * (most - margin)
        return x * ((places >= over[0]) & (places < x.shape[2] - over[1]))

    doubled = F.conv_transpose1d(cut(mirrored, 1), 2 * taps.view(1, 1, -1), stride=2, padding=len(taps) // 2 - 1)
    return cut(doubled, 2)[:, 0].T


def shrinking(side: int, taps: Tensor) -> Tensor:
    """Return the matrix that downsamples by the filter, without its border: [side, 2 · (side + 2 · MARGIN)]."""
    every = torch.eye(2 * (side + 2 * MARGIN), dtype=taps.dtype, device=taps.device)[:, None, 1:-1]
    return F.conv1d(every, taps.view(1, 1, -1), stride=2)[:, 0].T


def coloured(draw: Draw, images: Tensor) -> Tensor:
    """Apply brightness, contrast, luma flip, and hue and saturation to three channels (Karras et al. 2020, appendix B).

    The luma flip turns a grey image into its negative.
    """
    bright = draw.gated("brightness", "brightness", draw.normal("bright") * BRIGHTNESS, 0.0)
    hard = draw.gated("contrast", "contrast", torch.exp2(draw.normal("hard") * CONTRAST), 1.0)
    images = (images + bright.view(-1, 1, 1, 1)) * hard.view(-1, 1, 1, 1)
    inverted = draw.gated("luma", "lumaflip", (draw.uniform("inverted") * 2).floor(), 0.0).view(-1, 1, 1)
    if images.shape[1] != 3:
        return images * (1 - 2 * inverted.unsqueeze(3))
    # The rest acts relative to the grey axis, (1, 1, 1) / √3.
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
    """Set a rectangle of half of each side to 0, its centre anywhere in the image."""
    side = draw.gated("cutout", "cutout", torch.full_like(draw.uniform("hole x"), HOLE), 0.0)
    inside = []
    for length, axis in zip(images.shape[2:], "yx", strict=True):
        places = (torch.arange(length, device=images.device, dtype=images.dtype) + 0.5) / length
        inside.append((places - draw.uniform(f"hole {axis}")[:, None]).abs() < side[:, None] / 2)
    return images.masked_fill((inside[0][:, :, None] & inside[1][:, None, :])[:, None], 0.0)
