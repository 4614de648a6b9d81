"""`gan sample input=`: translation of image files; each output keeps its input's name, size and bit depth."""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

from gancli.compute.dist import World
from gancli.config.settings import SampleSettings
from gancli.data import imagefile
from gancli.data.inputs import Inputs, find
from gancli.data.layout import printable
from gancli.draw.sampling import Sampler
from gancli.draw.translating import Translator
from gancli.errors import ConfigError, DataError
from gancli.verbs.drawing import directory, open_sampler
from gancli.verbs.lists import class_list
from gancli.verbs.time_left import Remaining

WORDS = "images"


def refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that do not apply to input=."""
    if settings.serve:
        raise ConfigError("input= and serve=true: images are uploaded on the page; leave one of them out")
    if settings.format not in ("grid", "png"):
        raise ConfigError(f"format={settings.format} and input=: one PNG is written per file; leave format out")
    for name in ("n", "seeds", "arithmetic", "attention", "points"):
        if getattr(settings, name):
            raise ConfigError(f"{name}= and input=: one image is made per file; leave one of them out")
    for key in settings.dataset.typed():
        raise ConfigError(f"dataset.{key}= and input=: outputs are made from these files only; leave one of them out")
    if World.of_group().size > 1:
        raise ConfigError("input= needs one process: start it without torchrun")


@dataclass
class _Log:
    """files: each input and output. failed: unusable inputs. changes: conversions and how often they occurred."""

    files: list[dict[str, Any]] = field(default_factory=list)
    failed: list[dict[str, str]] = field(default_factory=list)
    changes: Counter[str] = field(default_factory=Counter)


def run(settings: SampleSettings, text: str) -> Path:
    """Translate each file; return the output directory.

    Unusable files are skipped and reported at the end. Raises GanError.
    """
    found = find(text)  # before networks are loaded
    sampler = open_sampler(settings, settings.truncation, draws=False)  # no samples from the run's own data
    chosen = class_list(settings.classes, sampler)
    if len(chosen) > 1:
        raise ConfigError(f"classes={settings.classes}: one image is made per file, so name one class")
    translator = Translator(sampler, settings.seed, chosen[0] if chosen else None)
    for note in found.notes:
        print(f"note: {note}", file=sys.stderr, flush=True)
    log = _Log()
    about = sampler.protocol() | {"input": str(Path(text).expanduser().absolute()), "seed": settings.seed}
    about |= {"class": translator.asked} if sampler.labelled else {}
    about |= {"files": log.files, "failed": log.failed}
    with directory("sample", settings, sampler.name, about) as folder:
        try:
            _translate(translator, found, folder, log)
        except KeyboardInterrupt:
            if log.files:
                _say(f"{len(log.files):,} of {len(found.paths):,} images are complete, in {folder}")
            raise
        if not log.files:
            raise DataError(_failures(log, len(found.paths)))
    _finish(sampler, found, folder, log)
    return folder


def _translate(translator: Translator, found: Inputs, folder: Path, log: _Log) -> None:
    """Translate and write each file. Raises RunError if the disk is full."""
    report, total = Remaining({WORDS: len(found.paths)}), len(found.paths)
    each = zip(found.paths, found.names, found.outputs, strict=True)
    for k, (path, name, output) in enumerate(each, 1):
        try:
            made = translator(imagefile.read(path), str(path))
        except DataError as error:
            log.failed.append({"input": name, "why": str(error)})
        else:
            place = PurePath(output)
            target = imagefile.write(folder / place.parent, place.name, made.image)
            log.files.append({"input": name, "output": str(target.relative_to(folder)), **made.facts})
            log.changes.update(made.changes)
        if total > 1:
            report(WORDS, k, total)


def _finish(sampler: Sampler, found: Inputs, folder: Path, log: _Log) -> None:
    """Print the conversions and the output directory. Raises DataError if some files could not be used."""
    total = len(found.paths)
    for change, count in log.changes.items():
        _say(f"{count:,} of {total:,} files: {change}" if total > 1 else change)
    direction, many = f", {sampler.direction}" if sampler.direction else "", "image" if len(log.files) == 1 else WORDS
    print(f"{len(log.files):,} {many} by {sampler.run.name} at step {sampler.step:,}{direction}: {folder}")
    if log.failed:
        raise DataError(f"{_failures(log, total)}; the others are in {folder}; sample.json lists all")


def _failures(log: _Log, total: int) -> str:
    first = log.failed[0]["why"]
    return first if total == 1 else f"{len(log.failed):,} of {total:,} files could not be used, the first: {first}"


def _say(text: str) -> None:
    print(f"note: {printable(text)}", file=sys.stderr, flush=True)
