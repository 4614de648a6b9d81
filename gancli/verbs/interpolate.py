"""`gan interpolate`: paths through latent space, as a sheet or an animation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gancli import pictures
from gancli.build import make_as
from gancli.sampling import path, to_uint8
from gancli.settings import InterpolateSettings
from gancli.verbs.drawing import directory, images_only, sampler


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Draw paths as configured; returns the directory that holds the picture. Raises GanError."""
    settings = make_as(InterpolateSettings, config, "")
    found = sampler(settings, settings.truncation)
    images_only(found, "interpolate")
    rows, frames = settings.rows, settings.frames
    ends = found.latents([(settings.seed, k) for k in range(2 * rows)])
    latents = torch.cat([path(ends[2 * row], ends[2 * row + 1], frames, settings.mode) for row in range(rows)])
    labels = found.labels([(settings.seed, row) for row in range(rows) for _ in range(frames)])
    images = to_uint8(found.render(latents, labels))
    folder = directory(
        "interpolate",
        settings,
        found.name,
        found.protocol() | {k: getattr(settings, k) for k in ("rows", "frames", "mode", "seed")},
    )
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
