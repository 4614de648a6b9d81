"""`gan sample project=`: the styles and noise of which a generator makes given images."""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.settings import SampleSettings
from gancli.data import imagefile
from gancli.data.domains import resized
from gancli.data.fields import Image
from gancli.data.inputs import Inputs, find
from gancli.data.layout import printable
from gancli.draw import pictures
from gancli.draw.distances import Distance, Own, Perceptual
from gancli.draw.projection import LATENTS, Projected, Projector
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, DataError, MetricError
from gancli.verbs import styles_file
from gancli.verbs.drawing import directory, need_images, open_sampler
from gancli.verbs.lists import class_list
from gancli.verbs.time_left import Remaining

KEY = "project_lpips"
NOT_WITH_PROJECT = ("input", "n", "seeds", "arithmetic", "mixing", "attention", "points", "serve", "truncation")


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that do not apply to project=."""
    if settings.project is None:
        return
    for name in NOT_WITH_PROJECT:
        if getattr(settings, name):
            raise ConfigError(f"{name}= and project=: styles are searched for images; leave one of them out")
    if settings.format != "grid":
        raise ConfigError(f"format={settings.format}: project= writes pictures and styles.npz; leave format out")
    if settings.size != "full":
        raise ConfigError("size=active: project= compares images at the data's size; leave size out")
    for key in settings.dataset.typed():
        raise ConfigError(f"dataset.{key}= and project=: no data are needed; leave dataset.{key} out")
    if World.of_group().size > 1:
        raise ConfigError("project= needs one process: start it without torchrun")


@dataclass
class _Found:
    """Complete projections: targets as stored, results, and what sample.json says; and unusable files."""

    targets: list[Tensor] = field(default_factory=list)
    made: list[Projected] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)


def run(settings: SampleSettings, text: str) -> Path:
    """Project each image; return the output directory. Raises GanError; DataError at the end for unusable files.

    If the user stops it, the projections that are complete are written.
    """
    inputs = find(text, "project")
    sampler = open_sampler(settings, draws=False)
    need_images(sampler.field, "sample project")
    chosen = class_list(settings.classes, sampler)
    if len(chosen) > 1:
        raise ConfigError(f"classes={settings.classes}: the search starts from the mean of one class, so name one")
    label = chosen[0] if chosen else None
    distance = _distance(settings, sampler)
    for note in inputs.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    projector = Projector(sampler, distance, settings.project_steps, settings.project_space, settings.seed, label)
    found, scale = _Found(), projector.between_samples()
    about = sampler.protocol() | {"project": str(Path(text).expanduser().absolute()), "seed": settings.seed}
    about |= {"steps": settings.project_steps, "space": settings.project_space, "distance": distance.told}
    about |= {"between_samples": scale, "latents": LATENTS} | ({"class": label} if sampler.labelled else {})
    about |= {"files": found.files, "failed": found.failed}
    with directory("sample", settings, sampler.name, about) as folder:
        try:
            _search(projector, inputs, found, scale)
        except KeyboardInterrupt:
            if found.made:
                _write(folder, sampler, found)
                said = f"{len(found.made)} of {len(inputs.paths)} projections are complete, in {folder}"
                print(f"note: {said}", file=sys.stderr, flush=True)
            raise
        if not found.made:
            raise DataError(found.failed[0]["why"])
        _write(folder, sampler, found)
    print(f"{len(found.made)} projected by {sampler.run.name} at step {sampler.step:,}: {folder / 'projected.png'}")
    if found.failed:
        first = found.failed[0]["why"]
        raise DataError(f"{len(found.failed)} of {len(inputs.paths)} files could not be used, the first: {first}")
    return folder


def _distance(settings: SampleSettings, sampler: Sampler) -> Distance:
    """Return the distance of the settings. Raises ConfigError, MetricError, WeightsError."""
    if settings.project_lpips is None:
        return Own(sampler)
    from gancli.metrics.lpips import SMALLEST, network
    from gancli.metrics.pairs import library
    from gancli.pretrained import weights

    path = weights.given(settings.project_lpips, KEY)
    library("lpips")
    channels, *sides = sampler.field.shape
    least = SMALLEST["vgg"]
    if channels not in (1, 3) or min(sides) < least:
        raise MetricError(
            f"{KEY}= takes images of 1 or 3 channels and at least {SMALLEST['vgg']} pixels per side: leave it out"
        )
    state, sha256 = weights.read(path, None, KEY)
    return Perceptual(network("vgg", state, str(path), KEY).to(sampler.compute.device), sha256)


def target_of(path: Path, image: Image) -> Tensor:
    """Read an image as a run's data of a type would be, cropped and resized, as stored. Raises DataError."""
    array = imagefile.fitted(imagefile.read(path), image.channels, image.bits, str(path))
    sized = resized(array, image.height, image.width)
    return torch.from_numpy(sized.astype("int32" if image.bits == 16 else "uint8"))


def _search(projector: Projector, inputs: Inputs, found: _Found, scale: float) -> None:
    """Project each file."""
    image, total = projector.sampler.field, len(inputs.paths) * projector.steps
    assert isinstance(image, Image)
    report = Remaining({"steps": total})
    for k, (path, name) in enumerate(zip(inputs.paths, inputs.names, strict=True)):
        done = k * projector.steps
        try:
            stored = target_of(path, image)
        except DataError as error:
            found.failed.append({"input": name, "why": str(error)})
            continue
        made = projector(image.ready(stored.clone()), partial(_tick, report, done, total))
        found.targets.append(stored)
        found.made.append(made)
        found.files.append({"input": name, "distance": made.distance, "share": made.distance / scale})
        share = f"{100 * made.distance / scale:.1f} % of that between two samples"
        print(f"{printable(name)}: distance {made.distance:.4g}, {share}", flush=True)


def _tick(report: Remaining, before: int, total: int, step: int) -> None:
    report("steps", before + step, total)


def _write(folder: Path, sampler: Sampler, found: _Found) -> None:
    """Write projected.png (target and result in each row), way.png and styles.npz."""
    image = sampler.field
    results = [image.stored(made.image[None]) for made in found.made]
    pairs = [each for target, result in zip(found.targets, results, strict=True) for each in (target[None], result)]
    pictures.save_png(folder / "projected.png", pictures.sheet(torch.cat(pairs), 2))
    steps = [step for step, _ in found.made[0].way]
    rows = []
    for target, made, result in zip(found.targets, found.made, results, strict=True):
        rows += [target[None], *(image.stored(each[None]) for _, each in made.way), result]
    columns = len(steps) + 2
    page = pictures.sheet(torch.cat(rows), columns)
    wide = (page.shape[1] - 2) / columns
    titles = ["target", *map(str, steps), "result"]
    named = [(2 + (k + 0.5) * wide, title) for k, title in enumerate(titles)]
    pictures.save_png(folder / "way.png", pictures.with_titles(page, named))
    maps = {name: torch.stack([made.maps[name] for made in found.made]) for name in found.made[0].maps}
    w = torch.stack([made.w for made in found.made])
    styles_file.write(folder, styles_file.Styled(w, maps=maps, model=styles_file.model_of(sampler)))
