"""`gan sample format=safetensors`, `onnx` and `rosinality`: export of the generator to one file."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import replace
from pathlib import Path

from gancli.config.settings import SampleSettings
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError
from gancli.store import export, layouts
from gancli.store.files import whole_file
from gancli.verbs.drawing import directory, open_sampler

FORMATS = ("safetensors", "onnx", "rosinality")


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that do not apply to an export, RunError for a missing extra."""
    for name in ("n", "seeds", "classes", "truncation", "truncation_layers", "mixing", "translate", "rotate"):
        if getattr(settings, name) is not None:
            raise ConfigError(f"format={settings.format} writes the generator, not images: leave {name} out")
    for name in settings.dataset.typed():
        raise ConfigError(f"format={settings.format} writes the generator, not images: leave dataset.{name} out")
    if settings.size != "full":
        raise ConfigError(f"format={settings.format} writes the generator, not images: leave size out")
    export.need(settings.format)


def run(settings: SampleSettings) -> Path:
    """Export the generator to a new directory, after comparing its outputs with PyTorch's. Raises RunError."""
    sampler = open_sampler(settings, draws=False)
    with tempfile.TemporaryDirectory() as scratch:  # a failed export leaves nothing behind
        made, worst = _written(sampler, settings, Path(scratch))
        about = sampler.protocol() | {"largest_difference": worst}
        with directory("sample", settings, sampler.name, about) as folder:
            target = folder / made.name
            with whole_file(target) as file, made.open("rb") as content:
                shutil.copyfileobj(content, file)
    near = f"differs from PyTorch's {sampler.field.words} by at most {worst:.1e}"
    same = near if settings.format == "onnx" else "verified bit by bit"
    direction = f", direction {sampler.direction}," if sampler.direction else ""
    print(f"generator of {sampler.run.name}{direction} at step {sampler.step:,}: {target} ({same})")
    if settings.format == "onnx" and export.drops(sampler):
        print("the ONNX file omits dropout, this run's noise: its output for an image is deterministic, without a seed")
    elif settings.format == "onnx" and export.noisy(sampler):
        print("the ONNX file has the same noise maps for every image: its output depends on its inputs alone")
    if settings.format == "rosinality":
        net = sampler.nets[_drawing(sampler)]
        print(f"in rosinality's stylegan2-pytorch: python {layouts.command_of(net)} --ckpt {target.absolute()}")
    return folder


def _drawing(sampler: Sampler) -> str:
    return next(iter(sampler.game.drawing(sampler.direction)))


def _written(sampler: Sampler, settings: SampleSettings, folder: Path) -> tuple[Path, float]:
    """Write the file of the format; of rosinality's, with the raw weights beside the averaged if the run has both."""
    if settings.format != "rosinality":
        return export.write(sampler, settings.format, folder)
    name = _drawing(sampler)
    layouts.refuse_other(sampler.nets[name], sampler.config["model"]["name"])
    raw = None
    if sampler.about["ema"] and sampler.whole:
        raw = open_sampler(replace(settings, ema=False, standing_stats=None), draws=False).nets[name]
    path = folder / "generator.pt"
    with whole_file(path) as file:
        file.write(layouts.written(sampler.nets[name], raw))
    return path, 0.0
