"""Samples as one picture, or as lines of text where they have none, with what a game shows beside them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from gancli.data.fields import Field, Image
from gancli.draw import pictures
from gancli.draw.pictures import Pixels
from gancli.store.files import whole_file


def page(fields: Mapping[str, Field], made: Mapping[str, Tensor], names: Sequence[str] = ()) -> Pixels | None:
    """A picture of all samples; None where they have none. made: ready rows by name, the samples first.

    Images of one size stand side by side, a group for each sample.
    """
    first = next(iter(fields.values()))
    alike = [name for name, field in fields.items() if field == first]
    rows = [field.stored(made[name]) for name, field in fields.items() if name in alike]
    if len(rows) == 1 or not isinstance(first, Image):
        return first.picture(rows[0], names)
    groups = torch.stack(rows, 1).flatten(0, 1)
    across = max(1, pictures.columns_for(len(groups)) // len(rows)) * len(rows)
    sheet = pictures.sheet(groups, len(groups) // len(names) if names else across)
    return pictures.with_names(sheet, names) if names else sheet


def lines(fields: Mapping[str, Field], made: Mapping[str, Tensor]) -> list[str]:
    """A line for each sample: itself, then what is shown beside it, between tabs."""
    texts = [field.text(field.stored(made[name])) for name, field in fields.items()]
    return ["\t".join(parts) for parts in zip(*texts, strict=True)]


def save_sheet(
    folder: Path, fields: Mapping[str, Field], made: Mapping[str, Tensor], names: Sequence[str] = ()
) -> Path:
    """Write a sheet as a PNG, or as samples.txt where samples have no picture; returns the file."""
    picture = page(fields, made, names)
    if picture is None:
        target = folder / "samples.txt"
        with whole_file(target) as file:
            file.write("".join(f"{line}\n" for line in lines(fields, made)).encode())
        return target
    target = folder / f"{next(iter(fields.values())).picture_name}.png"
    pictures.save_png(target, picture)
    return target
