"""Mean power spectra of samples beside those of real images: peaks at single frequencies show aliasing.

Sources: Karras et al. 2021, "Alias-Free Generative Adversarial Networks" (average spectra with a Kaiser window); Durall
et al. 2020, "Watch your Up-Convolution" (means over circles).
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from gancli.draw.charts import PAPER, TEXT, Panel, chart
from gancli.draw.pictures import Pixels

BETA = 8.0  # of the Kaiser window, whose peaks are 5.5 bins wide
LEAST = 16  # pixels of a side: of fewer, a peak is a third of the spectrum
MOST = 1 << 25  # values of all images of a spectrum
FLOOR = 1e-10  # power of images that are all constant: -100 dB; that of rounding to 8 bits is -53 dB
DEEP = 90.0  # decibels from black to white, at most
SIDE, HIGH, GAP = 224, 280, 8  # pixels of a spectrum's longer side, of the page's height, and between pictures


def power(images: Tensor) -> Tensor:
    """The mean power over images and channels of [N, C, H, W] in [-1, 1]: [H, W], frequency 0 at [H // 2, W // 2].

    Each channel of an image has its mean subtracted, and is windowed. White noise of variance σ² has the power σ².
    """
    height, width = images.shape[2:]
    window = _window(height)[:, None] * _window(width)
    total = torch.zeros(height, width, dtype=torch.float64)
    for image in images:
        centred = image.float() - image.float().mean((1, 2), keepdim=True)
        total += torch.fft.fft2(centred * window).abs().double().square().mean(0)
    shifted: Tensor = torch.fft.fftshift(total / len(images))
    return shifted


@cache
def _window(side: int) -> Tensor:
    """A Kaiser window [side] whose squares have the sum 1."""
    window = torch.kaiser_window(side, periodic=False, beta=BETA, dtype=torch.float64)
    return (window / window.square().sum().sqrt()).float()


def radial(spectrum: Tensor) -> list[tuple[float, float]]:
    """(frequency, mean power) on circles from 0 to 0.5 cycles per pixel, with a step of 1 / the shorter side."""
    height, width = spectrum.shape
    side = min(height, width)
    down, across = (torch.arange(n, dtype=torch.float64) - n // 2 for n in (height, width))
    circle = (torch.hypot(down[:, None] / height, across / width) * side).round().long().flatten()
    sums = torch.bincount(circle, spectrum.double().flatten())
    means = sums / torch.bincount(circle)
    return [(k / side, float(means[k])) for k in range(side // 2 + 1)]


def decibels(value: Tensor) -> Tensor:
    """10 log₁₀ of a power, at least -100."""
    return value.clamp_min(FLOOR).log10() * 10


def page(real: Tensor, samples: Tensor, step: int, n: int) -> Pixels:
    """Both spectra [H, W] as pictures of one scale, and their radial means as a line chart.

    n: images of each.
    """
    both = [_small(each) for each in (real, samples)]
    high = float(max(each.max() for each in both))
    low = max(float(min(each.min() for each in both)), high - DEEP)
    shades = [((each - low) / max(high - low, 1e-6)).clamp(0, 1) * 255 for each in both]
    squares = [_square(each.round().to(torch.uint8).numpy()) for each in shades]
    curves = {name: radial(each) for name, each in (("real images", real), ("samples", samples))}
    lines = {name: [(f, float(decibels(torch.tensor(p)))) for f, p in curve] for name, curve in curves.items()}
    panel = Panel("power in dB by frequency", lines, "cycles per pixel")
    titles = [f"{n} real images", f"{n} samples, step {step:,}"]
    return np.concatenate([_titled(squares, titles, f"black {low:.0f} dB, white {high:.0f} dB"), chart([panel])], 1)


def _small(spectrum: Tensor) -> Tensor:
    """In decibels; means over blocks of power where a side is above `SIDE` pixels."""
    block = math.ceil(max(spectrum.shape) / SIDE)
    return decibels(F.avg_pool2d(spectrum[None, None], min(block, *spectrum.shape), block, ceil_mode=True)[0, 0])


def _square(grey: Pixels) -> Pixels:
    """Enlarged by a whole number."""
    scale = max(1, SIDE // max(grey.shape))
    large: Pixels = grey.repeat(scale, 0).repeat(scale, 1)
    return large


def _titled(squares: list[Pixels], titles: list[str], below: str) -> Pixels:
    """Pictures in a row, each under its title, above a line."""
    from PIL import Image, ImageDraw, ImageFont

    font, top = ImageFont.load_default(12), 34
    width = max(SIDE, squares[0].shape[1])
    whole = Image.new("RGB", (len(squares) * (width + GAP) + GAP, HIGH), PAPER)
    draw = ImageDraw.Draw(whole)
    for k, (square, title) in enumerate(zip(squares, titles, strict=True)):
        left = GAP + k * (width + GAP)
        whole.paste(Image.fromarray(square), (left, top))
        draw.text((left, top - 8), title, font=font, fill=TEXT, anchor="ls")
    draw.text((GAP, top + squares[0].shape[0] + 8), below, font=font, fill=TEXT, anchor="lt")
    return np.asarray(whole)
