"""Sheets of samples: one picture (or lines of text) of inputs, outputs and targets."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from gancli.data.fields import Field, Image
from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.store.files import whole_file

INPUT, OUTPUT, TRUTH = "input", "output", "truth"
GAP, BETWEEN = 2, 8  # pixels between pictures of one sample, and between samples


class Part(NamedTuple):
    """One column of a sheet: its name, role (INPUT, OUTPUT or TRUTH), type, and rows as network values."""

    name: str
    role: str
    field: Field
    rows: Tensor

    @property
    def title(self) -> str:
        """The title above it: its role, or the name of a further output."""
        return self.role if self.role != OUTPUT or not self.name else self.name.removesuffix(".x")


def parts(
    fields: Mapping[str, Field],
    made: Mapping[str, Tensor],
    inputs: Mapping[str, tuple[Field, Tensor]] | None = None,
    truth: tuple[str, Field, Tensor] | None = None,
) -> list[Part]:
    """Return the parts of a sheet in order: inputs, samples, further outputs, targets.

    fields: of the outputs, the sample first; outputs that an export cannot make are left out. Inputs that are passed
    through as outputs are shown once.
    """
    first = next(iter(fields))
    found = [Part(name, INPUT, *each) for name, each in (inputs or {}).items() if name not in fields]
    there = [name for name in fields if name in made]
    found += [Part("" if name == first else name, OUTPUT, fields[name], made[name]) for name in there]
    return found if truth is None else [*found, Part(truth[0], TRUTH, *truth[1:])]


class Groups(NamedTuple):
    """A page with a group of images per sample: groups per row, and height and width of a group with its gap.

    left, top: pixels before the first gap, for names and titles.
    """

    page: Pixels
    columns: int
    cell: tuple[int, int]
    left: int
    top: int


def page(shown: Sequence[Part], names: Sequence[str] = ()) -> Pixels | None:
    """Draw all samples; None if they are not drawable. names: one per row of samples.

    A sample and its further images stand side by side, in one group per sample.
    """
    sample = next(part for part in shown if part.role == OUTPUT)
    found = groups(shown, names)
    return sample.field.picture(sample.field.stored(sample.rows), names) if found is None else found.page


def groups(shown: Sequence[Part], names: Sequence[str] = ()) -> Groups | None:
    """Draw the page of groups; None if a sample has no further images."""
    sample = next(part for part in shown if part.role == OUTPUT)
    beside = [part for part in shown if isinstance(part.field, Image)]
    if len(beside) < 2 or not isinstance(sample.field, Image):
        return None
    strips, middles = _strips(beside)
    count = len(strips)
    high, wide = strips.shape[2] + BETWEEN, strips.shape[3] + BETWEEN
    columns = count // len(names) if names else pictures.columns_for(max(1, round(count * high / wide)))  # near-square
    sheet = pictures.sheet(strips, columns, BETWEEN, scale=1)
    named = pictures.with_names(sheet, names) if names else sheet
    left = named.shape[1] - sheet.shape[1]
    across = [left + BETWEEN + k * wide for k in range(min(columns, count))]
    titles = [(x + middle, part.title) for x in across for middle, part in zip(middles, beside, strict=True)]
    whole = pictures.with_titles(named, titles)
    return Groups(whole, columns, (high, wide), left, whole.shape[0] - sheet.shape[0])


def _strips(beside: Sequence[Part]) -> tuple[Tensor, list[float]]:
    """Return each sample's images in one row on white, uint8 [n, 3, H, W], and the x of each image's centre.

    Small ones are enlarged by an integer, up to the size of the largest.
    """
    sides = [part.field.shape[-2:] for part in beside]
    most = max(max(side) for side in sides)
    high, wide = (max(side[axis] for side in sides) * max(1, 64 // most) for axis in (0, 1))
    cells = []
    for part, (height, width) in zip(beside, sides, strict=True):
        scale = max(1, min(high // height, wide // width))
        stored = part.field.stored(part.rows)
        rows = np.stack([pictures.to_pixels(image).repeat(scale, 0).repeat(scale, 1) for image in stored])
        above = (high - rows.shape[1]) // 2
        rest = high - rows.shape[1] - above
        cells.append(np.pad(rows, ((0, 0), (above, rest), (0, 0), (0, 0)), constant_values=255))
    gap = np.full((len(cells[0]), high, GAP, 3), 255, np.uint8)
    lefts = np.cumsum([0, *(cell.shape[2] + GAP for cell in cells[:-1])])
    middles = [float(left + cell.shape[2] / 2) for left, cell in zip(lefts, cells, strict=True)]
    joined = np.concatenate([piece for cell in cells for piece in (gap, cell)][1:], 2)
    return torch.from_numpy(np.ascontiguousarray(joined.transpose(0, 3, 1, 2))), middles


def lines(shown: Sequence[Part]) -> list[str]:
    """Return a line per sample: its parts, separated by tabs."""
    texts = [part.field.text(part.field.stored(part.rows)) for part in shown]
    return ["\t".join(row) for row in zip(*texts, strict=True)]


def save_sheet(folder: Path, shown: Sequence[Part], names: Sequence[str] = ()) -> Path:
    """Write a sheet as PNG, or as samples.txt if samples are not drawable; returns the file."""
    picture = page(shown, names)
    if picture is None:
        target = folder / "samples.txt"
        with whole_file(target) as file:
            file.write("".join(f"{line}\n" for line in lines(shown)).encode())
        return target
    sample = next(part for part in shown if part.role == OUTPUT)
    target = folder / f"{sample.field.picture_name}.png"
    pictures.save_png(target, picture)
    return target
