"""The widths of the residual families by the size of their images, as their papers and released codes have them.

G starts from a base whose shorter side is 4 to 7 pixels and doubles it, so both sides must halve exactly down to it.
Up to 32 pixels widths are constant and D halves only twice; above, they grow towards the small end.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from gancli.errors import ConfigError

Family = Literal["sngan", "biggan", "biggan_paper", "biggan_deep"]


@dataclass(frozen=True)
class Form:
    """One size's architecture: widths in multiples of ch.

    up: G's base, then each doubling stage. down, flat: D's halving stages, then those that keep the size. g_ch, d_ch:
    the usual ch. stem: the width of a first convolution of D (BigGAN-deep).
    """

    up: tuple[int, ...]
    down: tuple[int, ...]
    flat: tuple[int, ...] = ()
    g_ch: int = 64
    d_ch: int = 64
    head_bias: bool = True
    stem: int = 1


SMALL_SIDE = 32
SLIM = 16  # ch where a CPU has to bear it: BigGAN's usual 64 to 128 below 128 pixels are work for a GPU

# Forms by the number of times that G doubles; first up to 32 pixels, then above.
SNGAN = (
    {n: Form((1,) * (n + 1), (1, 1), (1, 1), 256, 128, head_bias=False) for n in (1, 2, 3)},
    {
        3: Form((8, 4, 2, 1), (1, 2, 4, 8), (16,)),
        4: Form((16, 8, 4, 2, 1), (1, 2, 4, 8, 16)),
        5: Form((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,)),
        6: Form((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,)),
    },
)
BIGGAN = (
    {n: Form((4,) * (n + 1), (4, 4), (4, 4), SLIM, SLIM) for n in (1, 2, 3)},
    {
        3: Form((8, 8, 4, 2), (1, 2, 4), (8,), SLIM, SLIM),
        4: Form((16, 16, 8, 4, 2), (1, 2, 4, 8), (16,), SLIM, SLIM),
        5: Form((16, 16, 8, 4, 2, 1), (1, 2, 4, 8, 16), (16,), 96, 96),
        6: Form((16, 16, 8, 8, 4, 2, 1), (1, 2, 4, 8, 8, 16), (16,), 96, 96),
        7: Form((16, 16, 8, 8, 4, 2, 1, 1), (1, 1, 2, 4, 8, 8, 16), (16,), 96, 96),
    },
)
# The paper's own table of D at 512 pixels differs from the released code's: wider early, one more halving.
BIGGAN_PAPER = (
    BIGGAN[0],
    BIGGAN[1] | {7: Form((16, 16, 8, 8, 4, 2, 1, 1), (1, 2, 4, 8, 8, 16, 16), (16,), 96, 96)},
)
BIGGAN_DEEP = (
    {n: Form((4,) * (n + 1), (4, 4), (4,), SLIM, SLIM, stem=4) for n in (1, 2, 3)},
    {
        3: Form((8, 8, 4, 2), (2, 4, 8), (), SLIM, SLIM),
        4: Form((16, 16, 8, 4, 2), (2, 4, 8, 16), (), SLIM, SLIM),
        5: Form((16, 16, 8, 4, 2, 1), (2, 4, 8, 16, 16), (), 128, 128),
        6: Form((16, 16, 8, 8, 4, 2, 1), (2, 4, 8, 8, 16, 16), (), 128, 128),
        7: Form((16, 16, 8, 8, 4, 2, 1, 1), (1, 2, 4, 8, 8, 16, 16), (), 128, 128),
    },
)
SLIM_NOTE = (
    f"width ch={SLIM}, which a CPU can bear: below 128 pixels the papers' 64 to 128 are work for a GPU (model.ch=64);"
    " their own runs are experiment=biggan128 and its kin"
)
FORMS = {"sngan": SNGAN, "biggan": BIGGAN, "biggan_paper": BIGGAN_PAPER, "biggan_deep": BIGGAN_DEEP}


def form(height: int, width: int, family: Family = "sngan") -> tuple[Form, tuple[int, int]]:
    """The architecture for a size, and G's base. Raises ConfigError where the sides do not halve exactly to 4..7.

    >>> form(28, 28)[1], form(48, 64)[1]
    ((7, 7), (6, 8))
    """
    short = min(height, width)
    halvings = _halvings(short)
    step = 1 << halvings
    forms = FORMS[family][short > SMALL_SIDE]
    if halvings not in forms or height % step or width % step:
        raise ConfigError(
            f"model={family.removesuffix('_paper')} draws images whose sides halve exactly down to a shorter one of 4"
            f" to 7, not {height}x{width}: set dataset.size=[C,SIDE,SIDE] with SIDE one of"
            f" {' '.join(map(str, possible(family)))}, or use model=dcgan"
        )
    return forms[halvings], (height // step, width // step)


def possible(family: Family = "sngan") -> list[int]:
    """The sides of squares that a family can draw.

    >>> possible()[:10]
    [8, 10, 12, 14, 16, 20, 24, 28, 32, 40]
    """
    sides = [base << n for n in range(1, 8) for base in (4, 5, 6, 7)]
    return [side for side in sides if _halvings(side) in FORMS[family][side > SMALL_SIDE]]


def _halvings(side: int) -> int:
    halvings = 0
    while side >> halvings > 7:
        halvings += 1
    return halvings


def attention_sides(asked: Sequence[int] | None, side: int, natural: int, within: Sequence[int]) -> list[int]:
    """The feature maps (by their shorter side) that attention is put on, of those there are `within` a network.

    asked: None for the papers', `natural`, if the network has it. Raises ConfigError for a side that it has not.
    """
    if asked is None:
        return [natural] if natural in within else []
    for size in asked:
        if size not in within:
            have = ", ".join(map(str, sorted(set(within))))
            raise ConfigError(
                f"model.attention={list(asked)}: at {side} pixels this network has feature maps of {have}:"
                " name some of these, or [] for no attention"
            )
    return list(asked)
