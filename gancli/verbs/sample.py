"""`gan sample`: images of a trained generator as a grid, as files, as an array or in a page; figures of its latents."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from gancli.compute.dist import World
from gancli.config.build import make_as
from gancli.config.settings import SampleSettings
from gancli.draw import pictures
from gancli.draw.sampling import Sampler, to_uint8
from gancli.errors import ConfigError
from gancli.store import export
from gancli.store.files import whole_file
from gancli.verbs import figures
from gancli.verbs.drawing import directory, images_only, sampler
from gancli.verbs.lists import class_list, seed_list

EXPORTS = ("safetensors", "onnx")  # formats that are no images but the generator itself
FEW = 6  # images of an attention sheet, where n is not given


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Draw as configured; returns the directory that holds the images. Raises GanError."""
    settings = make_as(SampleSettings, config, "")
    seeds = seed_list(settings.seeds)
    _refuse(settings)
    if settings.format in EXPORTS:
        return _export(settings)
    if settings.serve:
        return _serve(settings)
    found = sampler(settings, settings.truncation)
    if settings.arithmetic is not None:
        return _arithmetic(settings, found)
    pairs, labels = _plan(settings, found, seeds)
    if settings.attention:
        return _attention(settings, found, pairs, labels)
    points = len(found.shape) != 3
    if points and settings.format == "png":
        images_only(found, "sample format=png")
    samples = found.render(found.latents(pairs), labels)
    if not World.of_group().first:
        return Path()  # rank 0 writes
    with directory("sample", settings, found.name, _about(found, pairs, labels, bool(seeds))) as folder:
        if settings.format == "npz":
            target = _write_npz(folder, samples if points else to_uint8(samples).permute(0, 2, 3, 1), pairs, labels)
        elif points:
            target = folder / "scatter.png"
            pictures.save_png(target, pictures.scatter(samples))
        elif settings.format == "png":
            target = _write_files(folder, settings, to_uint8(samples), pairs, labels, bool(seeds))
        else:
            target = folder / "grid.png"
            pictures.save_png(target, _grid(settings, found, to_uint8(samples), labels))
    print(f"{len(pairs)} samples of {found.run.name} at step {found.step:,}: {target}")
    return folder


def _refuse(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that exclude each other."""
    if settings.serve:
        _refuse_page(settings)
    elif (settings.host, settings.port, settings.open) != ("127.0.0.1", 0, True):
        raise ConfigError("host=, port= and open= are the page's: add serve=true, or leave them out")
    if settings.attention and settings.arithmetic is not None:
        raise ConfigError("attention=true and arithmetic= are two figures: draw one at a time")
    if settings.points is not None and not settings.attention:
        raise ConfigError("points= are looked from in attention=true: add that, or leave points out")
    if settings.format != "grid" and (settings.attention or settings.arithmetic is not None):
        raise ConfigError(f"format={settings.format}: a figure is one picture; leave format out")
    if settings.format in EXPORTS:
        for name in ("n", "seeds", "classes", "truncation"):
            if getattr(settings, name) is not None:
                raise ConfigError(f"format={settings.format} writes the generator, not images: leave {name} out")
        export.need(settings.format)
    if settings.arithmetic is not None:
        figures.terms(settings.arithmetic)
    if settings.attention:
        figures.checked_points(figures.POINTS if settings.points is None else settings.points)


def _export(settings: SampleSettings) -> Path:
    """Write the generator, checked against what it gives here, into a new directory."""
    found = sampler(settings)
    with tempfile.TemporaryDirectory() as scratch:  # what cannot be exported leaves nothing behind
        made, worst = export.write(found, settings.format, Path(scratch))
        about = found.protocol() | {"largest_difference": worst}
        with directory("sample", settings, found.name, about) as folder:
            target = folder / made.name
            with whole_file(target) as file, made.open("rb") as content:
                shutil.copyfileobj(content, file)
    same = "read back bit by bit" if settings.format == "safetensors" else f"at most {worst:.1e} from PyTorch's images"
    print(f"generator of {found.run.name} at step {found.step:,}: {target} ({same})")
    return folder


def _refuse_page(settings: SampleSettings) -> None:
    """Raise ConfigError for keys that a page has no use for."""
    if settings.format != "grid":
        raise ConfigError(f"format={settings.format}: with serve=true the page downloads files; leave format out")
    if settings.run_dir is not None:
        raise ConfigError(f"run_dir={settings.run_dir}: serve=true writes nothing; leave run_dir out")
    for name in ("seeds", "arithmetic", "attention", "points"):
        if getattr(settings, name):
            raise ConfigError(f"{name}= and serve=true: the page draws from one seed; leave one of them out")


def _serve(settings: SampleSettings) -> Path:
    """Open the page and keep it open until a person ends it; nothing is written."""
    from gancli.serve import address, server
    from gancli.serve.desk import Desk, Wish

    if World.of_group().size > 1:
        raise ConfigError("serve=true opens one page: start it without torchrun")
    server.need_library()
    with address.bound(settings.host, settings.port) as listener:
        found = sampler(settings, settings.truncation)
        images_only(found, "sample serve=true")
        wanted = tuple(class_list(settings.classes, found))
        n = settings.n or (pictures.ROW if len(wanted) > 1 else pictures.MANY)
        desk = Desk(found)
        first = desk.checked(Wish(settings.seed, n, settings.truncation, wanted))
        server.serve(desk, first, listener, settings.open, settings.host)
    return Path()


def _plan(
    settings: SampleSettings, found: Sampler, seeds: Sequence[int]
) -> tuple[list[tuple[int, int]], Tensor | None]:
    """(seed, number) of every image, and its class where there are classes: the same latents for every class."""
    wanted = class_list(settings.classes, found)
    n = settings.n or (FEW if settings.attention else pictures.ROW if wanted else pictures.MANY)
    found.refuse_many(f"n={n}" if not seeds else "seeds", len(seeds) or n, times=max(1, len(wanted)))
    return found.rows([(s, 0) for s in seeds] or [(settings.seed, k) for k in range(n)], wanted)


def _about(
    found: Sampler, pairs: Sequence[tuple[int, int]], labels: Tensor | None, seeds: bool = False
) -> dict[str, Any]:
    """What sample.json says."""
    return found.protocol() | {
        "n": len(pairs),
        "seeds": [s if seeds else [s, k] for s, k in pairs],
        "classes": None if labels is None else labels.tolist(),
    }


def _grid(settings: SampleSettings, found: Sampler, images: Tensor, labels: Tensor | None) -> pictures.Pixels:
    """A near-square sheet; with classes= a row each, its name beside it."""
    rows = [] if settings.classes is None or labels is None else list(dict.fromkeys(labels.tolist()))
    return pictures.grid(images, [found.classes[row] for row in rows])


def _write_files(
    folder: Path,
    settings: SampleSettings,
    images: Tensor,
    pairs: Sequence[tuple[int, int]],
    labels: Tensor | None,
    seeds: bool,
) -> Path:
    """A PNG an image, named by its seed or number, and by its class where classes were asked for."""
    by_class = settings.classes is not None and labels is not None
    marks = [f"-class{c}" for c in labels.tolist()] if by_class and labels is not None else [""] * len(pairs)
    for (seed, k), mark, image in zip(pairs, marks, images, strict=True):
        name = f"seed{seed}{mark}.png" if seeds else f"{k:06d}{mark}.png"
        pictures.save_png(folder / name, pictures.to_pixels(image))
    return folder


def _arithmetic(settings: SampleSettings, found: Sampler) -> Path:
    images_only(found, "sample arithmetic")
    assert settings.arithmetic is not None
    wanted = class_list(settings.classes, found)
    if len(wanted) > 1:
        raise ConfigError(f"classes={settings.classes}: arithmetic= is drawn for one class at a time")
    page, chosen = figures.arithmetic(found, settings.arithmetic, wanted[0] if wanted else None, settings.seed)
    if not World.of_group().first:
        return Path()
    about = found.protocol() | {"arithmetic": settings.arithmetic, "class": chosen, "noise": figures.NEAR}
    with directory("sample", settings, found.name, about) as folder:
        pictures.save_png(folder / "arithmetic.png", page)
    print(f"{settings.arithmetic} of {found.run.name} at step {found.step:,}: {folder / 'arithmetic.png'}")
    return folder


def _attention(
    settings: SampleSettings, found: Sampler, pairs: Sequence[tuple[int, int]], labels: Tensor | None
) -> Path:
    images_only(found, "sample attention=true")
    if not World.of_group().first:
        return Path()
    points = figures.POINTS if settings.points is None else settings.points
    sheets = figures.attention(found, pairs, labels, points)
    about = _about(found, pairs, labels) | {"points": [list(p) for p in points], "layers": list(sheets)}
    with directory("sample", settings, found.name, about) as folder:
        names = {side: "attention.png" if len(sheets) == 1 else f"attention-{side}.png" for side in sheets}
        for side, page in sheets.items():
            pictures.save_png(folder / names[side], page)
    for side, name in names.items():
        target = folder / name
        print(f"attention of {found.run.name} at step {found.step:,}, features of {side} pixels: {target}")
    return folder


def _write_npz(folder: Path, samples: Tensor, pairs: Sequence[tuple[int, int]], labels: Tensor | None) -> Path:
    """samples.npz: `images` [n, H, W, C] uint8 (or `points` [n, D] float32), `seeds` [n, 2] and `labels` [n]."""
    arrays = {"points" if samples.dim() == 2 else "images": samples.numpy(), "seeds": np.array(pairs)}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    with whole_file(folder / "samples.npz") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return folder / "samples.npz"
