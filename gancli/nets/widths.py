"""Widths of the residual networks by image size, from the papers and their released code.

G starts from a base whose shorter side is 4 to 7 pixels and doubles it, so both sides must halve exactly down to it.
Up to 32 pixels widths are constant and D halves only twice; above, widths grow with decreasing resolution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gancli.errors import ConfigError
from gancli.nets.shapes import base, halvings

Family = Literal["sngan", "biggan", "biggan_paper", "biggan_deep"]


@dataclass(frozen=True)
class Widths:
    """The architecture for one size: widths in multiples of ch.

    up: G's base, then each doubling stage. down, flat: D's halving stages, then those that keep the size. g_ch, d_ch:
    default ch. stem: width of D's first convolution (BigGAN-deep).
    """

    up: tuple[int, ...]
    down: tuple[int, ...]
    flat: tuple[int, ...] = ()
    g_ch: int = 64
    d_ch: int = 64
    head_bias: bool = True
    stem: int = 1


SMALL_SIDE = 32
CPU_WIDTH = 16  # ch for CPUs, below 128 pixels: BigGAN's usual 64 to 128 need a GPU

# By the number of times that G doubles; first up to 32 pixels, then above.
SNGAN = (
    {n: Widths((1,) * (n + 1), (1, 1), (1, 1), 256, 128, head_bias=False) for n in (1, 2, 3)},
    {
        3: Widths((8, 4, 2, 1), (1, 2, 4, 8), (16,)),
        4: Widths((16, 8, 4, 2, 1), (1, 2, 4, 8, 16)),
        5: Widths((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,)),
        6: Widths((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,)),
    },
)
BIGGAN = (
    {n: Widths((4,) * (n + 1), (4, 4), (4, 4), CPU_WIDTH, CPU_WIDTH) for n in (1, 2, 3)},
    {
        3: Widths((8, 8, 4, 2), (1, 2, 4), (8,), CPU_WIDTH, CPU_WIDTH),
        4: Widths((16, 16, 8, 4, 2), (1, 2, 4, 8), (16,), CPU_WIDTH, CPU_WIDTH),
        5: Widths((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,), 96, 96),
        6: Widths((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,), 96, 96),
        7: Widths((16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16), (16,), 96, 96),
    },
)
# The paper's own table of D at 512 pixels differs from the released code's: wider early, one more halving.
BIGGAN_PAPER = (
    BIGGAN[0],
    BIGGAN[1] | {7: Widths((16, 16, 8, 8, 4, 2, 1, 1), (1, 2, 4, 8, 8, 16, 16), (16,), 96, 96)},
)
BIGGAN_DEEP = (
    {n: Widths((4,) * (n + 1), (4, 4), (4,), CPU_WIDTH, CPU_WIDTH, stem=4) for n in (1, 2, 3)},
    {
        3: Widths((8, 8, 4, 2), (2, 4, 8), (), CPU_WIDTH, CPU_WIDTH),
        4: Widths((16, 16, 8, 4, 2), (2, 4, 8, 16), (), CPU_WIDTH, CPU_WIDTH),
        5: Widths((16, 16, 8, 4, 2, 1), (2, 4, 8, 16, 16), (), 128, 128),
        6: Widths((16, 16, 8, 8, 4, 2, 1), (2, 4, 8, 8, 16, 16), (), 128, 128),
        7: Widths((16, 16, 8, 8, 4, 2, 1, 1), (1, 2, 4, 8, 8, 16, 16), (), 128, 128),
    },
)
CPU_WIDTH_NOTE = (
    f"reduced width ch={CPU_WIDTH} for CPUs: below 128 pixels the papers' 64 to 128 need a GPU (model.ch=64); the"
    " papers' runs are experiment=biggan128 and similar"
)
FORMS = {"sngan": SNGAN, "biggan": BIGGAN, "biggan_paper": BIGGAN_PAPER, "biggan_deep": BIGGAN_DEEP}


def widths_for(height: int, width: int, family: Family = "sngan") -> tuple[Widths, tuple[int, int]]:
    """The architecture for a size, and G's base. Raises ConfigError if the sides do not halve exactly to 4..7.

    >>> widths_for(28, 28)[1], widths_for(48, 64)[1]
    ((7, 7), (6, 8))
    """
    short, found = min(height, width), base(height, width)
    forms = FORMS[family][short > SMALL_SIDE]
    if found is None or halvings(short) not in forms:
        raise ConfigError(
            f"model={family.removesuffix('_paper')} generates images whose sides halve exactly until the shorter one"
            f" has 4 to 7 pixels, not {height}x{width}: set dataset.size=[C,SIDE,SIDE] with SIDE one of"
            f" {' '.join(map(str, possible(family)))}, or use model=dcgan"
        )
    return forms[halvings(short)], found


def possible(family: Family = "sngan") -> list[int]:
    """The sides of square images that a family can generate.

    >>> possible()[:10]
    [8, 10, 12, 14, 16, 20, 24, 28, 32, 40]
    """
    sides = [smallest << n for n in range(1, 8) for smallest in (4, 5, 6, 7)]
    return [side for side in sides if halvings(side) in FORMS[family][side > SMALL_SIDE]]


def attention_sides(asked: Sequence[int] | None, side: int, natural: int, within: Sequence[int]) -> list[int]:
    """The shorter sides of the feature maps that get attention; `within`: those that the network has.

    asked: None for the papers', `natural`, if the network has it. Raises ConfigError for a side that it does not have.
    """
    if asked is None:
        return [natural] if natural in within else []
    for size in asked:
        if size not in within:
            have = ", ".join(map(str, sorted(set(within))))
            raise ConfigError(
                f"model.attention={list(asked)}: at {side} pixels this network has feature maps of {have}:"
                " choose from these, or [] for no attention"
            )
    return list(asked)
