"""`gan sample`: samples of a run as a grid, files, an array or a web page; latent arithmetic and attention maps."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.build import make_as
from gancli.config.settings import SampleSettings
from gancli.draw import pictures
from gancli.draw.sampling import Pair, Sampler
from gancli.draw.sheets import Part, save_sheet
from gancli.errors import ConfigError
from gancli.games.game import Batch, draws_freely, label_of
from gancli.store.files import whole_file
from gancli.verbs import exporting, figures, mixing, moving, projecting, restyled, translate
from gancli.verbs.drawing import directory, need_images, open_sampler
from gancli.verbs.lists import class_list, seed_list

FEW = 6  # default number of images in an attention sheet
BESIDE = 4  # about the number of images per row if samples are shown with their inputs


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Draw samples as configured; return the output directory. Raises GanError."""
    settings = make_as(SampleSettings, config, "")
    seeds = seed_list(settings.seeds)
    _refuse(settings)
    if settings.format in exporting.FORMATS:
        return exporting.run(settings)
    if settings.serve:
        return _serve(settings)
    if settings.input is not None:
        return translate.run(settings, settings.input)
    if settings.project is not None:
        return projecting.run(settings, settings.project)
    sampler = _open(settings)
    if settings.arithmetic is not None:
        return _arithmetic(settings, sampler)
    if settings.mixing is not None:
        return _mixing(settings, settings.mixing, sampler, seeds)
    if settings.w is not None:
        return restyled.images_of(settings, settings.w, sampler)
    pairs, given = _plan(settings, sampler, seeds)
    if settings.format == "w":
        about = _about(sampler, pairs, labels_of(sampler, given), bool(seeds))
        return restyled.save(settings, sampler, pairs, given, about)
    if settings.attention:
        return _attention(settings, sampler, pairs, given)
    if settings.format == "png" and sampler.field.picture_name != "grid":
        need_images(sampler.field, "sample format=png")
    made = sampler.generate(sampler.inputs(pairs, given), pairs)
    if not World.of_group().first:
        return Path()  # rank 0 writes
    labels = labels_of(sampler, given)
    with directory("sample", settings, sampler.name, _about(sampler, pairs, labels, bool(seeds))) as folder:
        parts = sampler.parts(made, given, pairs)
        if settings.format == "npz":
            target = _write_npz(folder, sampler, parts, pairs, labels)
        elif settings.format == "png":
            target = _write_files(folder, settings, sampler, made[sampler.column], pairs, labels, bool(seeds))
        else:
            target = save_sheet(folder, parts, _names(settings, sampler, labels))
    print(f"{len(pairs)} samples of {sampler.run.name} at step {sampler.step:,}: {target}")
    return folder


def _open(settings: SampleSettings, draws: bool = True) -> Sampler:
    """Load the sampler, set the place of its data and move its samples. Raises ConfigError if samples need no data."""
    sampler = open_sampler(settings, settings.truncation, draws=draws, data=settings.dataset)
    for key in settings.dataset.typed() if draws_freely(sampler.game, sampler.direction) else ():
        raise ConfigError(f"dataset.{key}=: samples of {sampler.run.name} need no data: leave it out")
    return moving.moved(settings, sampler)


def _refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that exclude each other."""
    if settings.input is not None:
        translate.refuse(settings)
    restyled.refuse(settings)
    projecting.refuse(settings)
    moving.refuse(settings)
    if settings.serve:
        _refuse_page(settings)
    elif (settings.host, settings.port, settings.open) != ("127.0.0.1", 0, True):
        raise ConfigError("host=, port= and open= apply to the page: add serve=true, or leave them out")
    drawn = [name for name in ("attention", "arithmetic", "mixing") if getattr(settings, name) not in (None, False)]
    if len(drawn) > 1:
        raise ConfigError(f"{drawn[0]}= and {drawn[1]}= are two figures: draw one at a time")
    if settings.mixing is not None and settings.classes is not None:
        raise ConfigError(f"classes={settings.classes}: a sheet of mixing= draws classes at random; leave classes out")
    if settings.points is not None and not settings.attention:
        raise ConfigError("points= needs attention=true: add it, or leave points out")
    if settings.format != "grid" and drawn and settings.format not in exporting.FORMATS:
        raise ConfigError(f"format={settings.format}: {drawn[0]}= draws one picture; leave format out")
    if settings.format in exporting.FORMATS:
        exporting.refuse(settings)
    if settings.arithmetic is not None:
        figures.terms(settings.arithmetic)
    if settings.attention:
        figures.checked_points(figures.POINTS if settings.points is None else settings.points)


def _refuse_page(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that do not apply to serve=true."""
    if settings.format != "grid":
        raise ConfigError(f"format={settings.format}: with serve=true the page downloads files; leave format out")
    if settings.run_dir is not None:
        raise ConfigError(f"run_dir={settings.run_dir}: serve=true writes nothing; leave run_dir out")
    for name in ("seeds", "arithmetic", "attention", "points", "mixing"):
        if getattr(settings, name):
            raise ConfigError(f"{name}= and serve=true: the page draws from one seed; leave one of them out")


def _serve(settings: SampleSettings) -> Path:
    """Serve the page until the user stops it; nothing is written."""
    from gancli.serve import address, server
    from gancli.serve.service import Service, SheetRequest

    if World.of_group().size > 1:
        raise ConfigError("serve=true opens one page: start it without torchrun")
    server.need_library()
    with address.bound(settings.host, settings.port) as listener:
        sampler = _open(settings, draws=False)
        need_images(sampler.field, "sample serve=true")
        wanted = tuple(class_list(settings.classes, sampler))
        service = Service(sampler)
        for note in [service.lack] if service.lack else sampler.notes:
            print(f"note: {note}", file=sys.stderr, flush=True)
        n = settings.n or (pictures.ROW if len(wanted) > 1 else service.usual())
        first = service.checked(SheetRequest(settings.seed, n, settings.truncation, wanted))
        server.serve(service, first, listener, settings.open, settings.host)
    return Path()


def _plan(settings: SampleSettings, sampler: Sampler, seeds: Sequence[int]) -> tuple[list[Pair], Batch]:
    """Return (seed, number) of every sample, and its inputs: the same latents for every requested class."""
    wanted = class_list(settings.classes, sampler)
    few = pictures.MADE if sampler.picture is not None else pictures.MANY
    n = settings.n or (FEW if settings.attention else pictures.ROW if wanted else few)
    n = n if settings.n or sampler.most is None else min(n, sampler.most)
    times = max(1, len(wanted)) * (1 if sampler.picture is None else BESIDE)
    sampler.refuse_many(f"n={n}" if not seeds else "seeds", len(seeds) or n, times=times)
    pairs = [(s, 0) for s in seeds] or [(settings.seed, k) for k in range(n)]
    if not wanted:
        return pairs, sampler.given(pairs)
    pairs, labels = pairs * len(wanted), [k for k in wanted for _ in pairs]
    return pairs, sampler.given(pairs, labels)


def labels_of(sampler: Sampler, given: Mapping[str, Tensor]) -> Tensor | None:
    """Return the classes of the samples, int64 [n]; None if the game is not conditional."""
    label = label_of(sampler.game, sampler.direction)
    return None if label is None else given[label[0]]


def _about(sampler: Sampler, pairs: Sequence[Pair], labels: Tensor | None, seeds: bool = False) -> dict[str, Any]:
    """Return the content of sample.json."""
    return (
        sampler.protocol()
        | {
            "n": len(pairs),
            "seeds": [s if seeds else [s, k] for s, k in pairs],
            "classes": None if labels is None else labels.tolist(),
        }
        | sampler.origin(pairs)
    )


def _names(settings: SampleSettings, sampler: Sampler, labels: Tensor | None) -> list[str]:
    """Return the names of a sheet's rows if `classes` is given, else none."""
    rows = [] if settings.classes is None or labels is None else list(dict.fromkeys(labels.tolist()))
    return [sampler.classes[row] for row in rows]


def _write_files(
    folder: Path,
    settings: SampleSettings,
    sampler: Sampler,
    samples: Tensor,
    pairs: Sequence[Pair],
    labels: Tensor | None,
    seeds: bool,
) -> Path:
    """Write one file per sample, named by its seed or number, and by its class if `classes` is given."""
    by_class = settings.classes is not None and labels is not None
    marks = [f"-class{c}" for c in labels.tolist()] if by_class and labels is not None else [""] * len(pairs)
    names = [f"seed{s}{mark}" if seeds else f"{k:06d}{mark}" for (s, k), mark in zip(pairs, marks, strict=True)]
    sampler.field.write(folder, names, sampler.field.stored(samples))
    return folder


def _arithmetic(settings: SampleSettings, sampler: Sampler) -> Path:
    need_images(sampler.field, "sample arithmetic")
    assert settings.arithmetic is not None
    wanted = class_list(settings.classes, sampler)
    if len(wanted) > 1:
        raise ConfigError(f"classes={settings.classes}: arithmetic= needs a single class")
    page, chosen = figures.arithmetic(sampler, settings.arithmetic, wanted[0] if wanted else None, settings.seed)
    if not World.of_group().first:
        return Path()
    about = sampler.protocol() | {"arithmetic": settings.arithmetic, "class": chosen, "noise": figures.NEAR}
    with directory("sample", settings, sampler.name, about) as folder:
        pictures.save_png(folder / "arithmetic.png", page)
    print(f"{settings.arithmetic} of {sampler.run.name} at step {sampler.step:,}: {folder / 'arithmetic.png'}")
    return folder


def _mixing(settings: SampleSettings, wanted: str | list[int] | int, sampler: Sampler, seeds: Sequence[int]) -> Path:
    """Draw the sheet of style mixing: rows of the first half of the seeds, columns of the second."""
    need_images(sampler.field, "sample mixing")
    layers = mixing.layers_of(sampler, wanted)
    n = settings.n or mixing.FEW
    if seeds and len(seeds) % 2:
        raise ConfigError(f"seeds={settings.seeds}: mixing= takes as many seeds for its rows as for its columns")
    pairs = [(s, 0) for s in seeds] or [(settings.seed, k) for k in range(2 * n)]
    half = len(pairs) // 2
    sampler.refuse_many(f"n={half}" if not seeds else "seeds", half + 2, times=half + 2)
    page = mixing.sheet(sampler, pairs[:half], pairs[half:], layers)
    if not World.of_group().first:
        return Path()
    about = sampler.protocol() | {"mixing": layers, "rows": pairs[:half], "columns": pairs[half:]}
    with directory("sample", settings, sampler.name, about) as folder:
        pictures.save_png(folder / "mixing.png", page)
    said = f"{half} × {half} samples of {sampler.run.name} with the columns' styles in layers"
    print(f"{said} {', '.join(map(str, layers))}: {folder / 'mixing.png'}")
    return folder


def _attention(settings: SampleSettings, sampler: Sampler, pairs: Sequence[Pair], given: Batch) -> Path:
    need_images(sampler.field, "sample attention=true")
    if not World.of_group().first:
        return Path()
    points = figures.POINTS if settings.points is None else settings.points
    sheets = figures.attention(sampler, pairs, given, points)
    about = _about(sampler, pairs, labels_of(sampler, given))
    about |= {"points": [list(p) for p in points], "layers": list(sheets)}
    with directory("sample", settings, sampler.name, about) as folder:
        names = {side: "attention.png" if len(sheets) == 1 else f"attention-{side}.png" for side in sheets}
        for side, page in sheets.items():
            pictures.save_png(folder / names[side], page)
    for side, name in names.items():
        target = folder / name
        print(f"attention of {sampler.run.name} at step {sampler.step:,}, features of {side} pixels: {target}")
    return folder


def _write_npz(
    folder: Path, sampler: Sampler, parts: Sequence[Part], pairs: Sequence[Pair], labels: Tensor | None
) -> Path:
    """Write samples.npz: the samples by their kind (`images` [n, H, W, C] uint8, `points` [n, D] float32, ...).

    It also holds inputs, further outputs and targets by the names of their columns, `seeds` [n, 2] and `labels` [n].
    """
    arrays: dict[str, Any] = {}
    for part in parts:
        arrays[part.name or sampler.field.words.replace(" ", "_")] = part.field.array(part.field.stored(part.rows))
    arrays["seeds"] = np.array(pairs)
    if labels is not None:
        arrays["labels"] = labels.numpy()
    with whole_file(folder / "samples.npz") as file:
        np.savez(file, **arrays)
    return folder / "samples.npz"
