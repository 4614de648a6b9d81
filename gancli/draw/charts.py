"""Line charts drawn with Pillow: panels side by side, each with its own axes."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gancli.draw.pictures import Pixels

INKS = ((31, 90, 166), (200, 30, 60), (30, 140, 90), (190, 120, 20), (120, 70, 160), (90, 90, 90))
GRID, TEXT, PAPER = (225, 228, 233), (40, 44, 52), (255, 255, 255)
SHARP = 2  # charts are drawn at this multiple of the size, then downsampled (anti-aliasing)


@dataclass(frozen=True)
class Panel:
    """Curves over one pair of axes.

    curves: points (x, y) by name, in order of x. names: labels of the x ticks, by x; empty: round numbers. log: a
    logarithmic y axis. legend: whether to draw the curves' names.
    """

    title: str
    curves: Mapping[str, Sequence[tuple[float, float]]]
    x: str = ""
    names: Mapping[float, str] = field(default_factory=dict)
    log: bool = False
    legend: bool = True


def chart(panels: Sequence[Panel], width: int = 380, height: int = 280) -> Pixels:
    """Draw the panels in a row, [height, width · panels, 3]."""
    from PIL import Image, ImageDraw

    page = Image.new("RGB", (width * len(panels) * SHARP, height * SHARP), PAPER)
    draw = ImageDraw.Draw(page)
    for k, panel in enumerate(panels):
        _panel(draw, panel, k * width * SHARP, width * SHARP, height * SHARP)
    return np.asarray(page.resize((width * len(panels), height), Image.Resampling.BOX))


def ticks(low: float, high: float, wanted: int = 5) -> list[float]:
    """Return round numbers between `low` and `high`.

    >>> ticks(0.13, 0.92)
    [0.2, 0.4, 0.6, 0.8]
    """
    rough = (high - low) / wanted or 1.0
    scale = 10 ** math.floor(math.log10(rough))
    step = min((m * scale for m in (1, 2, 5, 10)), key=lambda s: abs(s - rough))
    first = math.ceil(low / step - 1e-9)
    return [round(k * step, 10) for k in range(first, math.floor(high / step + 1e-9) + 1)]


def _panel(draw: Any, panel: Panel, left: int, width: int, height: int) -> None:
    """Draw one panel with its left edge at pixel `left`."""
    font = _font(11)
    x0, x1, y0, y1 = left + 52 * SHARP, left + width - 16 * SHARP, height - 42 * SHARP, 34 * SHARP
    points = [p for curve in panel.curves.values() for p in curve]
    xs, ys = [x for x, _ in points] or [0.0], [_height(y, panel.log) for _, y in points] or [0.0]
    low, high = min(ys), max(ys)
    margin = (high - low or abs(high) or 1.0) * 0.08
    low, high = low - margin, high + margin
    span = max(xs) - min(xs) or 1.0

    def place(x: float, y: float) -> tuple[float, float]:
        return x0 + (x - min(xs)) / span * (x1 - x0), y0 - (y - low) / (high - low) * (y0 - y1)

    for y in ticks(low, high):
        at = place(min(xs), y)[1]
        draw.line([(x0, at), (x1, at)], fill=GRID, width=SHARP)
        draw.text((x0 - 6 * SHARP, at), _number(10**y if panel.log else y), font=font, fill=TEXT, anchor="rm")
    for x, name in (panel.names or {x: _number(x) for x in ticks(min(xs), max(xs))}).items():
        at = place(x, low)[0]
        draw.line([(at, y0), (at, y0 + 4 * SHARP)], fill=TEXT, width=SHARP)
        draw.text((at, y0 + 7 * SHARP), name, font=font, fill=TEXT, anchor="mt")
    draw.line([(x0, y1), (x0, y0), (x1, y0)], fill=TEXT, width=SHARP)
    draw.text((x0, y1 - 10 * SHARP), panel.title, font=_font(13), fill=TEXT, anchor="lb")
    draw.text(((x0 + x1) / 2, height - 8 * SHARP), panel.x, font=font, fill=TEXT, anchor="mb")
    for k, (name, curve) in enumerate(panel.curves.items()):
        ink = INKS[k % len(INKS)]
        path = [place(x, _height(y, panel.log)) for x, y in curve]
        if len(path) > 1:
            draw.line(path, fill=ink, width=2 * SHARP, joint="curve")
        if len(path) <= 12:
            for x, y in path:
                draw.ellipse([x - 3 * SHARP, y - 3 * SHARP, x + 3 * SHARP, y + 3 * SHARP], fill=ink)
        if panel.legend and len(panel.curves) > 1:
            draw.text((x1, y1 - (10 - 14 * k) * SHARP), name, font=font, fill=ink, anchor="rb")


def _height(y: float, log: bool) -> float:
    return math.log10(max(y, 1e-12)) if log else y


def _number(value: float) -> str:
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def _font(size: int) -> Any:
    from PIL import ImageFont

    return ImageFont.load_default(size * SHARP)
