"""`gan sample`: images of a trained generator as a grid, as files, or as one array."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancli import pictures
from gancli.build import make_as
from gancli.errors import ConfigError, suggestion
from gancli.files import whole_file
from gancli.sampling import Sampler, to_uint8
from gancli.settings import SampleSettings
from gancli.verbs.drawing import directory, images_only, sampler


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Draw as configured; returns the directory that holds the images. Raises GanError."""
    settings = make_as(SampleSettings, config, "")
    seeds = seed_list(settings.seeds)
    found = sampler(settings, settings.truncation)
    pairs, labels = _plan(settings, found, seeds)
    points = len(found.shape) != 3
    if points and settings.format == "png":
        images_only(found, "sample format=png")
    samples = found.render(found.latents(pairs), labels)
    about = found.protocol() | {
        "n": len(pairs),
        "seeds": [s if seeds else [s, k] for s, k in pairs],
        "classes": None if labels is None else labels.tolist(),
    }
    folder = directory("sample", settings, found.name, about)
    if settings.format == "npz":
        target = _write_npz(folder, samples if points else to_uint8(samples).permute(0, 2, 3, 1), pairs, labels)
    elif points:
        target = folder / "scatter.png"
        pictures.save_png(target, pictures.scatter(samples))
    elif settings.format == "png":
        target = folder
        marks = (
            [f"-class{c}" for c in labels.tolist()]
            if settings.classes is not None and labels is not None
            else [""] * len(pairs)
        )
        for (seed, k), mark, image in zip(pairs, marks, to_uint8(samples), strict=True):
            name = f"seed{seed}{mark}.png" if seeds else f"{k:06d}{mark}.png"
            pictures.save_png(folder / name, pictures.to_pixels(image))
    else:
        target = folder / "grid.png"
        pictures.save_png(target, pictures.sheet(to_uint8(samples), pictures.columns_for(len(pairs))))
    print(f"{len(pairs)} samples of {found.run.name} at step {found.step:,}: {target}")
    return folder


def seed_list(seeds: str | list[int] | None) -> list[int]:
    """The seeds that a range or list names, empty for none. Raises ConfigError.

    >>> seed_list("0-3,7")
    [0, 1, 2, 3, 7]
    """
    if seeds is None:
        return []
    found: list[int] = []
    for part in str(seeds).strip("[]").split(","):
        first, dash, last = part.strip().partition("-")
        ends = re.fullmatch(r"[0-9]{1,18}", first) and (not dash or re.fullmatch(r"[0-9]{1,18}", last))
        if not ends or int(last or first) < int(first):
            raise ConfigError(f"seeds={seeds}: write a range such as 0-15, or a list such as 3,7,11")
        if len(found) + int(last or first) - int(first) >= 1_000_000:
            raise ConfigError(f"seeds={seeds}: at most a million seeds at a time")
        found += range(int(first), int(last or first) + 1)
    return found


def class_list(classes: str | list[int | str] | None, names: Sequence[str]) -> list[int]:
    """The class numbers that names or numbers mean, empty for none. Raises ConfigError with the names there are."""
    if classes is None:
        return []
    wanted = [str(c).strip() for c in (classes if isinstance(classes, list) else [classes])]
    if isinstance(classes, str) and classes not in names:
        wanted = [c.strip() for c in classes.strip("[]").split(",")]
    found = []
    for word in wanted:
        if word in names:
            found.append(list(names).index(word))
        elif word.isdigit() and int(word) < len(names):
            found.append(int(word))
        else:
            raise ConfigError(f"classes={word}: no such class; {suggestion(word, names)}")
    return found


def _plan(
    settings: SampleSettings, found: Sampler, seeds: Sequence[int]
) -> tuple[list[tuple[int, int]], Tensor | None]:
    """(seed, number) of every image, and its class where there are classes: one row a class."""
    pairs = [(s, 0) for s in seeds] or [(settings.seed, k) for k in range(settings.n)]
    if settings.classes is None:
        return pairs, found.labels(pairs)
    if not found.game.labelled:
        raise ConfigError(
            f"classes={settings.classes}: this generator knows no classes; leave classes out, or train one that does"
        )
    wanted = class_list(settings.classes, found.classes)
    return pairs * len(wanted), torch.tensor(wanted).repeat_interleave(len(pairs))


def _write_npz(folder: Path, samples: Tensor, pairs: Sequence[tuple[int, int]], labels: Tensor | None) -> Path:
    """samples.npz: `images` [n, H, W, C] uint8 (or `points` [n, D] float32), `seeds` [n, 2] and `labels` [n]."""
    arrays = {"points" if samples.dim() == 2 else "images": samples.numpy(), "seeds": np.array(pairs)}
    if labels is not None:
        arrays["labels"] = labels.numpy()
    with whole_file(folder / "samples.npz") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    return folder / "samples.npz"
