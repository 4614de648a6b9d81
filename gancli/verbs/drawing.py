"""What sample, interpolate and eval share: a sampler from the settings, and a directory to write to."""

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
    """The device to draw on; samples are drawn in float32."""
    return device.resolve(make_as(device.DeviceChoice, settings.device, "device"), device.PrecisionChoice(kind="fp32"))


def open_sampler(
    settings: DrawSettings, truncation: float | None = None, *, draws: bool = True, data: DataPlace | None = None
) -> Sampler:
    """The trained generator that the settings ask for, and its data where they are now.

    draws: whether samples are made. Raises RunError, and ConfigError for data that have no such place.
    """
    rundir.refuse_taken(settings.run_dir)
    options: dict[str, Any] = {"ema": settings.ema, "standing_stats": settings.standing_stats}
    options |= {"direction": settings.direction, "truncation": truncation}
    options |= {"pretrained_weights": settings.pretrained.weights}
    found = load(settings.run, settings.checkpoint, compute=compute(settings), **options)
    if data is not None:
        _place(data, found)
    paths = found.game.interpolation_paths(found.direction).values()
    uniform = any(path.latent is not None and path.latent.kind == "uniform" for path in paths)
    if truncation is not None and truncation >= 1 and uniform:
        words = f"truncation={truncation:g} cuts nothing off: this generator's latents are uniform on [-1, 1]"
        print(f"note: {words}", file=sys.stderr, flush=True)
    if World.of_group().first:
        plain = ["this run keeps no average of its networks: the raw ones draw"]
        for note in [*(found.notes if draws else []), *(plain if settings.ema and not found.about["ema"] else [])]:
            print(f"note: {note}", file=sys.stderr, flush=True)
    return found


def _place(data: DataPlace, sampler: Sampler) -> None:
    """Let a run's data be where `dataset.root` says. Raises ConfigError for data that have no such place."""
    node: dict[str, Any] = dict(sampler.config.get("dataset") or {})
    for key, place in data.typed().items():
        if key not in node:
            lie = "lie nowhere" if "root" not in node else "have no such place"
            words = f"the data of {sampler.run.name} ({sampler.facts.name}) {lie}: leave it out"
            raise ConfigError(f"dataset.{key}={place}: {words}")
        path = Path(place).expanduser()
        node[key] = str(path.absolute()) if path.exists() else place  # of a hub's data set, or shards, it is no path
    sampler.place(node)


def need_images(field: Field, verb: str) -> None:
    """Raise RunError where samples are no images."""
    if not isinstance(field, Image):
        raise RunError(f"gan {verb} draws images and this run draws {field.told}: its samples/ show them")


@contextmanager
def directory(verb: str, settings: DrawSettings, name: str, about: Mapping[str, Any]) -> Iterator[Path]:
    """A new directory for what this verb writes; afterwards, a JSON of how it came about, which says that all is there.

    Where writing ends early, the directory holds whole files and no such JSON, or is gone if there are none. Raises
    RunError.
    """
    folder = rundir.new_directory(verb, name, settings.run_dir)
    try:
        yield folder
    except BaseException:
        with contextlib.suppress(OSError):  # which holds files
            folder.rmdir()
        raise
    write_json(folder / f"{verb}.json", dict(about))
