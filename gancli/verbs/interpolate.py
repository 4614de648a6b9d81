"""`gan interpolate`: paths from one sample to another, as a sheet or an animation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.build import make_as
from gancli.config.settings import InterpolateSettings
from gancli.draw import pictures
from gancli.draw.interpolation import walk
from gancli.draw.moving import STRENGTHS, loops
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError
from gancli.games.drawing import Path
from gancli.games.game import Batch, label_of
from gancli.verbs import editing, moving
from gancli.verbs.drawing import directory, need_images, open_sampler
from gancli.verbs.lists import class_list


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> FilePath:
    """Draw paths as configured; return the output directory. Raises GanError."""
    settings = make_as(InterpolateSettings, config, "")
    editing.refuse(settings)
    sampler = open_sampler(settings, settings.truncation)
    need_images(sampler.field, "interpolate")
    rows, frames = settings.rows, settings.frames
    number = editing.number_of(settings.axis)
    given = editing.read(settings, sampler)
    fixed = number is not None or given is not None or _moves(settings, sampler)
    axis, walked = (settings.axis or "w", []) if fixed else _paths(settings, sampler)
    if not sampler.labelled:
        class_list(settings.classes, sampler)  # refuses any class
    larger = "rows" if rows >= frames else "frames"
    sampler.refuse_many(f"rows={rows} frames={frames}", max(rows, frames), larger, times=min(rows, frames))
    told: dict[str, Any] = {k: getattr(settings, k) for k in ("classes", "rows", "frames", "mode", "seed")}
    if number is not None:
        inputs, pairs, more = editing.inputs(settings, sampler, number, _classes(settings, sampler), given)
        told |= more
    elif axis in STRENGTHS:
        inputs, pairs, more = moving.inputs(settings, sampler, axis, _classes(settings, sampler), given)
        told |= more
    elif given is not None:
        inputs, pairs = editing.between(settings, sampler, given)
    else:
        inputs = _inputs(settings, sampler, walked)
        pairs = [(settings.seed, 2 * row) for row in range(rows) for _ in range(frames)]
    rows = len(pairs) // frames
    told |= {} if settings.w is None else {"rows": rows, "w": str(FilePath(settings.w).expanduser().absolute())}
    images = sampler.field.stored(sampler.generate(inputs, pairs)[sampler.column])
    if not World.of_group().first:
        return FilePath()  # rank 0 writes
    about = sampler.protocol() | {"axis": axis} | told
    with directory("interpolate", settings, sampler.name, about) as folder:
        if settings.format == "gif":
            target = folder / "paths.gif"
            columns = pictures.columns_for(rows)
            pages = [pictures.sheet(images[frame::frames], columns) for frame in range(frames)]
            back = [] if loops(axis, told.get("strength", 0.0)) else pages[-2:0:-1]
            pictures.save_gif(target, [*pages, *back], seconds=max(0.04, min(0.25, 2 / frames)))
        else:
            target = folder / "paths.png"
            pictures.save_png(target, pictures.sheet(images, frames))
    print(f"{rows} paths of {sampler.run.name} at step {sampler.step:,}: {target}")
    return folder


def _moves(settings: InterpolateSettings, sampler: Sampler) -> bool:
    """Whether samples are translated or rotated. Raises ConfigError if those of this game cannot be."""
    if settings.axis not in STRENGTHS:
        return False
    sampler.refuse_still(f"axis={settings.axis}", "leave axis out")
    return True


def _paths(settings: InterpolateSettings, sampler: Sampler) -> tuple[str, list[Path]]:
    """Return the axis and the paths along it. Raises ConfigError for an axis that this game does not have."""
    there = sampler.game.interpolation_paths(sampler.direction)
    if not there:
        raise ConfigError(
            "gan interpolate walks between latents, but this game makes its samples from data: type gan sample, which"
            " shows them with their inputs"
        )
    axis = settings.axis or next(iter(there))
    if axis in ("both", "class") and not any(path.kind == "classes" for path in there.values()):
        raise ConfigError(
            f"axis={axis}: this generator is unconditional; use axis={next(iter(there))}, or train one that does"
            " (model.conditioning=projection)"
        )
    if axis != "both" and axis not in there:
        directions = [] if sampler.game.styles(sampler.direction) is None else ["direction1, direction2, ..."]
        moves = [*STRENGTHS] if sampler.game.moves_samples(sampler.direction) else []
        raise ConfigError(f"axis={axis}: allowed for this game: {', '.join([*there, 'both', *directions, *moves])}")
    walked = {name: path for name, path in there.items() if axis == name or (axis == "both" and path.made is None)}
    return axis, list(walked.values())


def _inputs(settings: InterpolateSettings, sampler: Sampler, walked: Sequence[Path]) -> Batch:
    """Return the inputs of the generator: rows · frames, path after path."""
    rows, frames = settings.rows, settings.frames
    ends = sampler.inputs([(settings.seed, k) for k in range(2 * rows)])
    inputs = {name: values[::2].repeat_interleave(frames, 0) for name, values in ends.items()}
    label, labels = label_of(sampler.game, sampler.direction), None
    if label is not None and not any(path.kind == "classes" for path in walked):
        labels = _labels(settings, sampler, label[0])
        ends[label[0]] = labels[::frames].repeat_interleave(2)  # both ends of a path have its class
    for path in walked:
        if path.kind == "classes":
            inputs[path.column] = _mixtures(settings, sampler)
        else:
            mode = settings.mode if path.kind == "sphere" else "lerp"
            column = ends[path.column] if path.made is None else sampler.computed(path.made, ends)
            first, last = column[::2], column[1::2]
            inputs[path.column] = torch.cat([walk(a, b, frames, mode) for a, b in zip(first, last, strict=True)])
    if label is not None and labels is not None:
        inputs[label[0]] = labels
    return inputs


def _say_left(there: int, rows: int, what: str) -> None:
    """Print a note if there are more items than rows."""
    if there > rows:
        print(f"note: the first {rows} of {there} {what}; rows={there} shows them all", file=sys.stderr, flush=True)


def _classes(settings: InterpolateSettings, sampler: Sampler) -> list[int] | None:
    """Return the class of every row; None for an unconditional generator."""
    label = label_of(sampler.game, sampler.direction)
    return None if label is None else _labels(settings, sampler, label[0])[:: settings.frames].tolist()


def _labels(settings: InterpolateSettings, sampler: Sampler, name: str) -> Tensor:
    """Return the class of every image, int64 [rows · frames]: one per row."""
    chosen, pairs = class_list(settings.classes, sampler), [(settings.seed, row) for row in range(settings.rows)]
    if not chosen:
        return sampler.given(pairs)[name].repeat_interleave(settings.frames)
    _say_left(len(chosen), settings.rows, "classes")
    each = [chosen[row % len(chosen)] for row in range(settings.rows)]
    return torch.tensor(each).repeat_interleave(settings.frames)


def _mixtures(settings: InterpolateSettings, sampler: Sampler) -> Tensor:
    """Return every image's mixture of two classes, [rows · frames, classes]. Raises ConfigError for fewer than two."""
    chosen = class_list(settings.classes, sampler) or [*range(len(sampler.classes)), 0]
    if len(chosen) < 2:
        raise ConfigError(f"classes={settings.classes}: a path between classes needs two, such as classes=0,1")
    one_hot = torch.eye(len(sampler.classes))
    steps = [(chosen[k], chosen[k + 1]) for k in range(len(chosen) - 1)]
    _say_left(len(steps), settings.rows, "paths between classes")
    walks = [steps[row % len(steps)] for row in range(settings.rows)]
    return torch.cat([walk(one_hot[a], one_hot[b], settings.frames, "lerp") for a, b in walks])
