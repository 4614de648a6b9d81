"""`gan sample format=safetensors` and `onnx`: the networks that draw, as one file."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from gancli.config.settings import SampleSettings
from gancli.errors import ConfigError
from gancli.store import export
from gancli.store.files import whole_file
from gancli.verbs.drawing import directory, open_sampler

FORMATS = ("safetensors", "onnx")


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys of samples, RunError for an extra that is missing."""
    for name in ("n", "seeds", "classes", "truncation"):
        if getattr(settings, name) is not None:
            raise ConfigError(f"format={settings.format} writes the generator, not images: leave {name} out")
    for name in settings.dataset.typed():
        raise ConfigError(f"format={settings.format} writes the generator, not images: leave dataset.{name} out")
    export.need(settings.format)


def run(settings: SampleSettings) -> Path:
    """Write the generator, checked against what it gives here, into a new directory. Raises RunError."""
    sampler = open_sampler(settings, draws=False)
    with tempfile.TemporaryDirectory() as scratch:  # what cannot be exported leaves nothing behind
        made, worst = export.write(sampler, settings.format, Path(scratch))
        about = sampler.protocol() | {"largest_difference": worst}
        with directory("sample", settings, sampler.name, about) as folder:
            target = folder / made.name
            with whole_file(target) as file, made.open("rb") as content:
                shutil.copyfileobj(content, file)
    near = f"at most {worst:.1e} from PyTorch's {sampler.field.words}"
    same = "read back bit by bit" if settings.format == "safetensors" else near
    way = f", direction {sampler.direction}," if sampler.direction else ""
    print(f"generator of {sampler.run.name}{way} at step {sampler.step:,}: {target} ({same})")
    if settings.format == "onnx" and export.drops(sampler):
        print(
            "dropout, this run's noise, is left out of the ONNX file: it makes one output of an image, without a seed"
        )
    return folder
