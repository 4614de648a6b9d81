"""`gan interpolate`: paths through latent space, as a sheet or an animation."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.build import make_as
from gancli.config.settings import InterpolateSettings
from gancli.draw import pictures
from gancli.draw.sampling import Sampler, path, to_uint8
from gancli.errors import ConfigError
from gancli.verbs.drawing import directory, images_only, sampler
from gancli.verbs.lists import class_list


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Draw paths as configured; returns the directory that holds the picture. Raises GanError."""
    settings = make_as(InterpolateSettings, config, "")
    found = sampler(settings, settings.truncation)
    images_only(found, "interpolate")
    rows, frames = settings.rows, settings.frames
    larger = "rows" if rows >= frames else "frames"
    found.refuse_many(f"rows={rows} frames={frames}", max(rows, frames), larger, times=min(rows, frames))
    labels = _labels(settings, found)
    ends = found.latents([(settings.seed, k) for k in range(2 * rows)])
    second = 0 if settings.axis == "class" else 1  # where only the class moves, a path ends at the latent it began with
    latents = torch.cat([path(ends[2 * row], ends[2 * row + second], frames, settings.mode) for row in range(rows)])
    images = to_uint8(found.render(latents, labels))
    if not World.of_group().first:
        return Path()  # rank 0 writes
    about = found.protocol() | {k: getattr(settings, k) for k in ("axis", "classes", "rows", "frames", "mode", "seed")}
    with directory("interpolate", settings, found.name, about) as folder:
        if settings.format == "gif":
            target = folder / "paths.gif"
            columns = pictures.columns_for(rows)
            pages = [pictures.sheet(images[frame::frames], columns) for frame in range(frames)]
            pictures.save_gif(target, [*pages, *pages[-2:0:-1]], seconds=max(0.04, min(0.25, 2 / frames)))
        else:
            target = folder / "paths.png"
            pictures.save_png(target, pictures.sheet(images, frames))
    print(f"{rows} paths of {found.run.name} at step {found.step:,}: {target}")
    return folder


def _say_left(there: int, rows: int, what: str) -> None:
    """Say that there are more than rows for them."""
    if there > rows:
        print(f"note: the first {rows} of {there} {what}; rows={there} shows them all", file=sys.stderr, flush=True)


def _labels(settings: InterpolateSettings, found: Sampler) -> Tensor | None:
    """The class of every image, int64 [rows · frames], or its mixture of two classes, [rows · frames, classes].

    Raises ConfigError where classes are asked of a generator that knows none.
    """
    rows, frames = settings.rows, settings.frames
    chosen = class_list(settings.classes, found)
    if settings.axis == "z":
        if chosen:
            _say_left(len(chosen), rows, "classes")
            return torch.tensor([chosen[row % len(chosen)] for row in range(rows)]).repeat_interleave(frames)
        return found.labels([(settings.seed, row) for row in range(rows) for _ in range(frames)])
    if not found.game.labelled:
        raise ConfigError(
            f"axis={settings.axis}: this generator knows no classes; use axis=z, or train one that does"
            " (model.conditioning=projection)"
        )
    chosen = chosen or [*range(len(found.classes)), 0]
    if len(chosen) < 2:
        raise ConfigError(f"classes={settings.classes}: a path between classes needs two, such as classes=0,1")
    one_hot = torch.eye(len(found.classes))
    steps = [(chosen[k], chosen[k + 1]) for k in range(len(chosen) - 1)]
    _say_left(len(steps), rows, "paths between classes")
    walks = [steps[row % len(steps)] for row in range(rows)]
    return torch.cat([path(one_hot[a], one_hot[b], frames, "lerp") for a, b in walks])
