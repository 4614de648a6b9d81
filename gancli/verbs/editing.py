"""`gan interpolate axis=directionK` moves samples along a direction of styles; `w=FILE` walks between a file's."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence

import torch

from gancli.compute.dist import World
from gancli.config.settings import InterpolateSettings
from gancli.draw.directions import STRENGTH, direction, edited, layers_in_use, styled, styles_of
from gancli.draw.interpolation import Mode, walk
from gancli.draw.moving import STRENGTHS
from gancli.draw.sampling import Pair, Sampler
from gancli.errors import ConfigError
from gancli.games.game import Batch
from gancli.verbs import mixing, styles_file
from gancli.verbs.styles_file import Styled


def number_of(axis: str | None) -> int | None:
    """Return K of directionK; None for another axis. Raises ConfigError for a direction without a number from 1.

    >>> number_of("direction3"), number_of("w"), number_of(None)
    (3, None, None)
    """
    if axis is None or not axis.startswith("direction"):
        return None
    found = re.fullmatch(r"direction([1-9][0-9]{0,5})", axis)
    if found is None:
        raise ConfigError(f"axis={axis}: directions are numbered from 1, as in axis=direction1")
    return int(found[1])


def refuse(settings: InterpolateSettings) -> None:
    """Raise ConfigError for keys of directions without one; translations and rotations have a strength, too."""
    if number_of(settings.axis) is not None:
        return
    for name in ("layers",) if settings.axis in STRENGTHS else ("strength", "layers"):
        if getattr(settings, name) is not None:
            given = f"{name}={getattr(settings, name)}"
            raise ConfigError(f"{given} moves along a direction: add axis=direction1, or leave {name} out")


def inputs(
    settings: InterpolateSettings, sampler: Sampler, number: int, labels: Sequence[int] | None, given: Styled | None
) -> tuple[Batch, list[Pair], dict[str, object]]:
    """Return the generator's inputs, the samples' keys, and what the JSON says.

    Row k is sample k of the seed, or row k of a file, whose styles (after truncation) move along the straight line
    w + t·direction, t from -strength to strength. labels: of the rows. Raises ConfigError and RunError.
    """
    styles = styles_of(sampler, f"axis={settings.axis}")
    used = list(range(layers_in_use(sampler, styles)))
    layers = used if settings.layers is None else mixing.layers_of(sampler, settings.layers, "layers")
    strength, frames = STRENGTH if settings.strength is None else settings.strength, settings.frames
    along = direction(sampler, styles, number, layers)
    if given is None:
        pairs, maps = [(settings.seed, row) for row in range(settings.rows)], {}
        w = styled(sampler, styles, pairs, sampler.given(pairs, labels))
    else:
        rows = first(settings, len(given.w), "rows of the file")
        pairs = given.keys(settings.seed)[:rows]
        own = styles_file.inputs(given, sampler, range(rows))
        w = sampler.computed(styles.moved, own)
        maps = {name: own[name].repeat_interleave(frames, 0) for name in given.maps}
    places = torch.tensor([strength * (2 * k - frames + 1) / (frames - 1) for k in range(frames)])
    step = (places[:, None] * along).repeat(len(pairs), 1)
    about: dict[str, object] = {"strength": strength, "layers": layers}
    moved = edited(w.repeat_interleave(frames, 0), step, layers)
    return {styles.column: moved, **maps}, [pair for pair in pairs for _ in range(frames)], about


def between(settings: InterpolateSettings, sampler: Sampler, given: Styled) -> tuple[Batch, list[Pair]]:
    """Return the inputs and keys of straight lines from each row of a file to the next.

    Noise maps of the file follow great circles, so that both ends are the file's images. Raises ConfigError for a
    file with a single row.
    """
    count, frames = len(given.w) - 1, settings.frames
    if not count:
        raise ConfigError(f"w={settings.w} holds one row: a path needs two; use axis=direction1, or gan sample w=")
    rows = first(settings, count, "paths between the file's rows")
    whole = styles_file.inputs(given, sampler, range(rows + 1))

    def path(name: str, mode: Mode) -> torch.Tensor:
        ends = whole[name]
        parts = [walk(ends[k].flatten(), ends[k + 1].flatten(), frames, mode) for k in range(rows)]
        return torch.cat(parts).view(rows * frames, *ends.shape[1:])

    styles = styles_of(sampler, "w")
    made = {styles.column: path(styles.column, "lerp")} | {name: path(name, "slerp") for name in given.maps}
    if "psi" in whole:
        made["psi"] = whole["psi"][:1].expand(rows * frames, -1)
    return made, [pair for pair in given.keys(settings.seed)[:rows] for _ in range(frames)]


def first(settings: InterpolateSettings, there: int, what: str) -> int:
    """Return the number of rows to draw, and print a note if there are more."""
    if there > settings.rows and World.of_group().first:
        words = f"the first {settings.rows} of {there} {what}; rows={there} shows them all"
        print(f"note: {words}", file=sys.stderr, flush=True)
    return min(there, settings.rows)


def read(settings: InterpolateSettings, sampler: Sampler) -> Styled | None:
    """Read the file of w=; None without one. Raises ConfigError for keys that do not apply to it, and DataError."""
    if settings.w is None:
        return None
    if settings.axis not in (None, "w", *STRENGTHS) and number_of(settings.axis) is None:
        raise ConfigError(
            f"axis={settings.axis} and w=: rows of a file are walked by axis=w, or moved by axis=direction1"
        )
    if settings.classes is not None:
        raise ConfigError(f"classes={settings.classes} and w=: styles of a file have their classes; leave classes out")
    found = styles_file.read(settings.w, sampler)
    styles_file.refuse_seed(found, settings.seed, "w=")
    if (said := styles_file.note(found, sampler)) and World.of_group().first:
        print(f"note: {said}", file=sys.stderr, flush=True)
    return found
