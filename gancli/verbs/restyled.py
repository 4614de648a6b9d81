"""`gan sample format=w` writes the styles of samples, and `gan sample w=FILE` makes images of such a file."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gancli.compute.dist import World
from gancli.config.settings import SampleSettings
from gancli.draw import directions
from gancli.draw.sampling import Pair, Sampler
from gancli.draw.sheets import save_sheet
from gancli.errors import ConfigError
from gancli.games.game import Batch
from gancli.store.files import whole_file
from gancli.verbs import styles_file
from gancli.verbs.drawing import directory, need_images

NOT_WITH_W = ("input", "n", "seeds", "classes", "arithmetic", "mixing", "attention", "points", "serve", "project")


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that do not apply to w= and to format=w."""
    if settings.w is not None:
        for name in NOT_WITH_W:
            if getattr(settings, name):
                raise ConfigError(f"{name}= and w=: the file gives the styles; leave one of them out")
        if settings.format not in ("grid", "png", "npz"):
            raise ConfigError(f"format={settings.format}: w= makes images: type format=grid, png or npz")
        for key in settings.dataset.typed():
            raise ConfigError(f"dataset.{key}= and w=: these images need no data; leave dataset.{key} out")
    if settings.format == "w" and settings.size != "full":
        raise ConfigError("size=active: format=w writes styles, not images: leave size out")


def save(settings: SampleSettings, sampler: Sampler, pairs: Sequence[Pair], given: Batch, about: Any) -> Path:
    """Write the styles of samples, after truncation; return the output directory. Raises GanError."""
    styles = directions.styles_of(sampler, "format=w")
    w = directions.styled(sampler, styles, list(pairs), given)
    if not World.of_group().first:
        return Path()
    with directory("sample", settings, sampler.name, about) as folder:
        found = styles_file.Styled(w, list(pairs), model=styles_file.model_of(sampler))
        target = styles_file.write(folder, found)
    print(f"styles of {len(w)} samples of {sampler.run.name} at step {sampler.step:,}: {target}")
    return folder


def images_of(settings: SampleSettings, text: str, sampler: Sampler) -> Path:
    """Make an image of each row of a file; return the output directory. Raises GanError."""
    styled = styles_file.read(text, sampler)
    need_images(sampler.field, "sample w")
    styles_file.refuse_seed(styled, settings.seed, "w=")
    n, keys = len(styled.w), styled.keys(settings.seed)
    sampler.refuse_many(f"w of {n} rows", n)
    made = sampler.generate(styles_file.inputs(styled, sampler, range(n)), keys)
    if not World.of_group().first:
        return Path()
    if said := styles_file.note(styled, sampler):
        print(f"note: {said}", file=sys.stderr, flush=True)
    about = sampler.protocol() | {"n": n, "w": str(Path(text).expanduser().absolute()), "of": styled.model}
    about |= {"noise_maps": bool(styled.maps)} | ({} if styled.maps else {"seeds": [list(key) for key in keys]})
    with directory("sample", settings, sampler.name, about) as folder:
        stored = sampler.field.stored(made[sampler.column])
        if settings.format == "png":
            sampler.field.write(folder, [f"{k:06d}" for k in range(n)], stored)
            target = folder
        elif settings.format == "npz":
            target = folder / "samples.npz"
            with whole_file(target) as file:
                np.savez(file, images=sampler.field.array(stored), w=styled.w.numpy())
        else:
            target = save_sheet(folder, sampler.parts(made, {}, keys))
    print(f"{n} images by {sampler.run.name} at step {sampler.step:,}: {target}")
    return folder
