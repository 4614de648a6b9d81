"""Layers of StyleGAN 3, equivariant to moves of their input (Karras et al. 2021).

Features are samples of a continuous, band-limited signal. Each has a sampling rate s, in pixels per image side, a
cutoff f_c, and a half-width f_h of the transition band up to the frequency f_t = f_c + f_h at which it has vanished.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.dist import all_reduce, grouped
from gancli.nets.freezing import is_frozen
from gancli.nets.layers import matmul, modulated
from gancli.nets.layers.equalized import GAIN, LEAK, EqualizedLinear
from gancli.nets.layers.filtered import Filters, filtered, plans
from gancli.nets.layers.modulated import EPS
from gancli.nets.layers.resampling import jinc, kaiser, separated
from gancli.nets.layers.spectral import full_precision

FILTER = 6  # taps of a filter at the lower of its two sampling rates
FASTER = 2  # the nonlinearity's sampling rate, as a multiple of the higher of its input's and output's


@dataclass(frozen=True)
class Signal:
    """Features at one point of a network: channels, sides in pixels, and the band (see above)."""

    channels: int
    sides: tuple[int, int]
    rate: float
    cutoff: float
    half_width: float


def inverses(transform: Tensor) -> Tensor:
    """The inverses of moves [B, 3] of an image, as matrices [B, 3, 3] on coordinates (x, y, 1) with y downwards.

    A move is (dx, dy, degrees): a rotation about the image's centre, counter-clockwise, then dx to the right and dy
    downwards, in image sides.
    """
    dx, dy, angle = transform[:, 0], transform[:, 1], torch.deg2rad(transform[:, 2])
    cos, sin, zero, one = angle.cos(), angle.sin(), torch.zeros_like(dx), torch.ones_like(dx)
    rows = [cos, -sin, sin * dy - cos * dx, sin, cos, -sin * dx - cos * dy, zero, zero, one]
    return torch.stack(rows, 1).view(-1, 3, 3)


class FourierInput(nn.Module):
    """Sinusoids of random frequencies inside the band, moved as w and `transform` say, and mixed by a learned matrix.

    frequencies [C, 2], uniform in the disc of the cutoff's radius, and phases [C] are fixed. Source: Karras et al.
    2021, appendix F, with the constants of the released code.
    """

    frequencies: Tensor
    phases: Tensor

    def __init__(self, signal: Signal, w_dim: int):
        super().__init__()
        self.signal, count = signal, signal.channels
        drawn = torch.randn(count, 2)
        radius = drawn.norm(dim=1, keepdim=True)
        # exp(-r²/2) of a normal vector's length r is uniform in [0, 1], and so is the square of a disc's radius.
        self.register_buffer("frequencies", drawn / radius * (-radius.square() / 4).exp() * signal.cutoff)
        self.register_buffer("phases", torch.rand(count) - 0.5)
        self.weight = nn.Parameter(torch.randn(count, count))
        self.affine = EqualizedLinear(w_dim, 4, gain=1.0)
        nn.init.zeros_(self.affine.weight)
        with torch.no_grad():
            self.affine.bias.copy_(torch.tensor([1.0, 0.0, 0.0, 0.0]))  # type: ignore[union-attr]

    def forward(self, w: Tensor, transform: Tensor | None = None) -> Tensor:
        """w [B, w_dim], moves [B, 3] of the image (see `inverses`) or None -> [B, C, H, W]."""
        with full_precision(w):
            turned, shifted = self._moved(w.to(torch.promote_types(w.dtype, torch.float32)), transform)
            # By elements: matrix products may have 10 bits on a GPU, and phases would be wrong by pixel.
            phases = self.phases + (self.frequencies * shifted[:, None]).sum(2)
            frequencies = (self.frequencies[:, :, None] * turned[:, None]).sum(2)
            # A transform that scales could leave the band.
            beyond = frequencies.norm(dim=2) - self.signal.cutoff
            amplitudes = (1 - beyond / (self.signal.rate / 2 - self.signal.cutoff)).clamp(0, 1)
            x, y = self._grid(w)
            angles = x[:, None] * frequencies[:, None, :, 0] + y[:, None] * frequencies[:, None, :, 1] + phases[:, None]
            waves = torch.sin(2 * math.pi * angles) * amplitudes[:, None]
            mixed = F.linear(waves, self.weight / math.sqrt(self.signal.channels))
        return mixed.unflatten(1, self.signal.sides).permute(0, 3, 1, 2)  # type: ignore[no-untyped-call, no-any-return]

    def _moved(self, w: Tensor, transform: Tensor | None) -> tuple[Tensor, Tensor]:
        """The matrices [B, 2, 2] and shifts [B, 2] of coordinates: first the learned rotation and shift, then given."""
        t = self.affine(w)
        t = t / t[:, :2].norm(dim=1, keepdim=True)
        cos, sin = t[:, 0], t[:, 1]
        turned = torch.stack([cos, -sin, sin, cos], 1).view(-1, 2, 2)
        shifted = -(turned * t[:, None, 2:]).sum(2)
        if transform is None:
            return turned, shifted
        given = inverses(transform.to(t.dtype))
        both = (turned[:, :, :, None] * given[:, None, :2]).sum(2)  # the product with the upper rows
        return both[:, :, :2], both[:, :, 2] + shifted

    def _grid(self, like: Tensor) -> tuple[Tensor, Tensor]:
        """The positions x and y of pixels, [H·W] each, in image sides from the centre."""
        height, width = self.signal.sides
        dtype = self.frequencies.dtype
        y, x = (
            (torch.arange(n, device=like.device, dtype=dtype) + (1 - n) / 2) / self.signal.rate for n in (height, width)
        )
        return x.repeat(height), y.repeat_interleave(width)


def input_gain(magnitude: Tensor, x: Tensor, keep: float | None) -> tuple[Tensor, Tensor | None]:
    """A layer's factor of its input and, unless keep is None, the input's mean square, which the factor then includes.

    magnitude: the moving average of the mean square, over all ranks' batches; keep: its decay. The caller updates it.
    """
    if keep is None:
        return magnitude.rsqrt(), None
    squares = x.detach().to(torch.promote_types(x.dtype, torch.float32)).square()
    if grouped():  # a rank may have no rows
        whole = torch.stack([squares.sum(), squares.new_tensor(float(squares.numel()))])
        all_reduce(whole)
        now = whole[0] / whole[1]
    else:
        now = squares.mean()
    return now.lerp(magnitude, keep).rsqrt(), now


class AliasFree(nn.Module):
    """A modulated convolution, bias, and a LeakyReLU between an upsampling and a downsampling filter.

    kernel: of the convolution, which extends the image by kernel - 1 pixels. radial: the downsampling filter is
    radially symmetric. faster: sampling rate of the nonlinearity, relative to the signals'.
    """

    magnitude: Tensor
    up_filter: Tensor
    down_filter: Tensor

    def __init__(
        self, before: Signal, after: Signal, w_dim: int, *, kernel: int = 3, radial: bool = False, faster: int = FASTER
    ):
        super().__init__()
        self.register_buffer("magnitude", torch.ones(()))  # the moving average of the input's mean square
        self.style = EqualizedLinear(w_dim, before.channels, gain=1.0)
        nn.init.ones_(self.style.bias)  # type: ignore[arg-type]
        self.weight = nn.Parameter(torch.randn(after.channels, before.channels, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(after.channels))
        rate = max(before.rate, after.rate) * faster
        up, down = round(rate / before.rate), round(rate / after.rate)
        taps = [FILTER * factor if factor > 1 else 1 for factor in (up, down)]
        both = [plans(before.sides[k] + kernel - 1, after.sides[k], up, down, taps[0], taps[1]) for k in range(2)]
        self.filters = Filters((both[0][0], both[1][0]), (both[0][1], both[1][1]), LEAK)
        line = kaiser(taps[0], before.cutoff, before.half_width, rate) * up if up > 1 else torch.ones(1)
        if down == 1:
            pairs = torch.ones(1, 2, 1)
        elif radial:
            pairs = separated(jinc(taps[1], after.cutoff, after.half_width, rate))
        else:
            pairs = kaiser(taps[1], after.cutoff, after.half_width, rate).expand(1, 2, -1)
        for name, design in (("up_filter", line), ("down_filter", pairs)):
            self.register_buffer(name, design.to(self.bias, copy=True), persistent=False)

    def forward(self, x: Tensor, w: Tensor, keep: float | None = None) -> tuple[Tensor, Tensor | None]:
        """[B, inputs, H, W] and w [B, w_dim] -> [B, outputs, H', W'], and what `input_gain` returns."""
        if keep is not None and is_frozen(self):
            keep = 1.0  # its average does not change
        gain, now = input_gain(self.magnitude, x, keep)
        return filtered(self._convolved(x, w, gain), self.filters, self.up_filter, self.down_filter), now

    def _convolved(self, x: Tensor, w: Tensor, gain: Tensor) -> Tensor:
        """The convolution with demodulation, and the bias, both times √2: LeakyReLU is homogeneous.

        The released code divides styles by their root mean square over the whole batch, and demodulation, which is
        relative, removes that scale again. Here it is each sample's own, so that samples do not depend on their batch.
        """
        with full_precision(w):
            scale = self.style(w.to(torch.promote_types(w.dtype, torch.float32)))
            scale = scale * scale.square().mean(1, keepdim=True).rsqrt()
            weight = self.weight * self.weight.square().mean((1, 2, 3), keepdim=True).rsqrt()
            energy = weight.square().sum((2, 3)).to(scale.dtype)
            demodulation = (F.linear(scale.square(), energy) + EPS).rsqrt() * GAIN
            scale = scale * gain
        x = x * scale[:, :, None, None].to(x.dtype)
        x = matmul.convolve(x, weight, None, pad=self.weight.shape[2] - 1)
        bias = (self.bias * GAIN).to(x.dtype)
        return torch.addcmul(bias[:, None, None], x, demodulation[:, :, None, None].to(x.dtype))


class ToImage(modulated.ToImage):
    """Features to the image's channels, of inputs divided by their root mean square."""

    magnitude: Tensor

    def __init__(self, inputs: int, channels: int, w_dim: int):
        super().__init__(inputs, channels, w_dim)
        self.register_buffer("magnitude", torch.ones(()))

    def forward(  # type: ignore[override]
        self, x: Tensor, w: Tensor, keep: float | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """[B, inputs, H, W] and w [B, w_dim] -> [B, channels, H, W] in float32 at least, and as `AliasFree`."""
        gain, now = input_gain(self.magnitude, x, keep)
        return self.scaled(x, w, gain), now
