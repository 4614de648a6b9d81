"""The sheet of style mixing: images whose styles come from one sample in some layers, and from another in the rest."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch

from gancli.draw import pictures
from gancli.draw.directions import layers_in_use
from gancli.draw.sampling import Pair, Sampler
from gancli.errors import ConfigError, RunError
from gancli.verbs.lists import seed_list

SIDES = {"coarse": (0, 8), "middle": (9, 32), "fine": (33, 1 << 20)}  # Karras et al. 2019, figure 3
FEW = 5  # default number of rows and of columns


def layers_of(sampler: Sampler, wanted: str | list[int] | int, key: str = "mixing") -> list[int]:
    """Return the numbers of layers: of a name in SIDES, or given; all of them only for other keys than mixing.

    Raises ConfigError, and RunError without styles.
    """
    styles = sampler.game.styles(sampler.direction)
    if styles is None:
        raise RunError(f"{sampler.run.name} has no styles to mix: train one with model=stylegan, or leave {key} out")
    used = layers_in_use(sampler, styles)
    if isinstance(wanted, str) and wanted in SIDES:
        low, high = SIDES[wanted]
        found = [k for k, side in enumerate(styles.sides[:used]) if low <= side <= high]
    else:
        words = str(wanted)
        found = seed_list(words, key) if re.fullmatch(r"[\[\]0-9, -]+", words) else []
    every = key == "mixing" and len(set(found)) == used
    if not found or max(found) >= used or every:
        raise ConfigError(
            f"{key}={wanted}: choose some{', but not all,' if key == 'mixing' else ''} of the {used} layers in use,"
            f" 0-{used - 1}, or {', '.join(SIDES)} for those of sides up to 8, 32, and above"
        )
    return found


def sheet(sampler: Sampler, rows: Sequence[Pair], columns: Sequence[Pair], layers: Sequence[int]) -> pictures.Pixels:
    """Draw the columns' samples on top, the rows' at the left, and their mixtures.

    A mixture has the row's styles, noise and class, with the column's styles in `layers`.
    """
    styles = sampler.game.styles(sampler.direction)
    assert styles is not None
    pairs = [*rows, *columns]
    inputs = sampler.inputs(pairs)
    count = len(styles.sides)
    w = sampler.computed(styles.made, inputs)[:, None].expand(-1, count, -1)
    chosen = torch.isin(torch.arange(count), torch.tensor(list(layers)))[:, None]
    n = len(rows)
    mixed = [torch.where(chosen, w[n + k], w[j]) for j in range(n) for k in range(len(columns))]
    whole = torch.cat([w, torch.stack(mixed)])
    keys = [*pairs, *(row for row in rows for _ in columns)]
    psi = {"psi": inputs["psi"][:1].expand(len(whole), -1)} if "psi" in inputs else {}
    made = sampler.generate({styles.column: whole, **psi}, keys)[sampler.column]
    images = sampler.field.stored(made)
    blank = torch.full_like(images[:1], 255)
    cells = [blank, images[n : len(pairs)]]
    for j in range(n):
        start = len(pairs) + j * len(columns)
        cells += [images[j : j + 1], images[start : start + len(columns)]]
    return pictures.sheet(torch.cat(cells), len(columns) + 1)
