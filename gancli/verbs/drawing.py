"""Shared by sample, interpolate and eval: the sampler from the settings, and the output directory."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from gancli.compute import device
from gancli.compute.dist import World
from gancli.config.build import make_as
from gancli.config.settings import DataPlace, DrawSettings
from gancli.data.fields import Field, Image
from gancli.draw.reading import load
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, RunError
from gancli.store import rundir
from gancli.store.files import write_json


def compute(settings: DrawSettings) -> device.Compute:
    """Return the device for sampling; samples are computed in float32."""
    return device.resolve(make_as(device.DeviceChoice, settings.device, "device"), device.PrecisionChoice(kind="fp32"))


def open_sampler(
    settings: DrawSettings, truncation: float | None = None, *, draws: bool = True, data: DataPlace | None = None
) -> Sampler:
    """Load the trained generator of the settings; `data` replaces the recorded place of its data.

    draws: whether samples are made. Raises RunError, and ConfigError for a data key that this data set does not have.
    """
    rundir.refuse_taken(settings.run_dir)
    options: dict[str, Any] = {"ema": settings.ema, "standing_stats": settings.standing_stats}
    options |= {"direction": settings.direction, "truncation": truncation}
    options |= {"pretrained_weights": settings.pretrained.weights}
    found = load(settings.run, settings.checkpoint, compute=compute(settings), **options)
    if getattr(settings, "size", None) == "active":
        found = found.at_active_size()
    found = found.layered(settings.truncation_layers)
    if data is not None:
        _place(data, found)
    paths = found.game.interpolation_paths(found.direction).values()
    uniform = any(path.latent is not None and path.latent.kind == "uniform" for path in paths)
    if truncation is not None and truncation >= 1 and uniform:
        words = f"truncation={truncation:g} has no effect: this generator's latents are uniform on [-1, 1]"
        print(f"note: {words}", file=sys.stderr, flush=True)
    if World.of_group().first:
        plain = ["this run keeps no EMA: the raw weights are used"]
        for note in [*(found.notes if draws else []), *(plain if settings.ema and not found.about["ema"] else [])]:
            print(f"note: {note}", file=sys.stderr, flush=True)
    return found


def _place(data: DataPlace, sampler: Sampler) -> None:
    """Set the place of a run's data to `dataset.root`. Raises ConfigError for a key that the data set does not have."""
    node: dict[str, Any] = dict(sampler.config.get("dataset") or {})
    for key, place in data.typed().items():
        if key not in node:
            has = "need no folder" if "root" not in node else "have no such key"
            words = f"the data of {sampler.run.name} ({sampler.facts.name}) {has}: leave it out"
            raise ConfigError(f"dataset.{key}={place}: {words}")
        path = Path(place).expanduser()
        node[key] = str(path.absolute()) if path.exists() else place  # a hub name or a pattern of shards is no path
    sampler.place(node)


def need_images(field: Field, verb: str) -> None:
    """Raise RunError if samples are no images."""
    if not isinstance(field, Image):
        raise RunError(f"gan {verb} draws images and this run draws {field.told}: its samples/ show them")


@contextmanager
def directory(verb: str, settings: DrawSettings, name: str, about: Mapping[str, Any]) -> Iterator[Path]:
    """Make a new directory for the output of a verb; at the end, write VERB.json, which marks the output as complete.

    If writing fails, the directory holds complete files and no such JSON; it is removed if empty. Raises RunError.
    """
    folder = rundir.new_directory(verb, name, settings.run_dir)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()
        raise
    write_json(folder / f"{verb}.json", dict(about))
