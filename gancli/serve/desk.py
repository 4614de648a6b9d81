"""What the latent page draws: sheets, paths and archives, by one thread at a time."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gancli.config.commands import command, word
from gancli.draw import pictures
from gancli.draw.sampling import CHUNK, Sampler, path, to_uint8
from gancli.errors import ConfigError, Interrupted
from gancli.store import export

MOST, MOST_FILES = 256, 1000  # images of a sheet, files of an archive
GAP = 2  # pixels between images, as pictures.sheet leaves
FRAMES = 21  # pictures of a path, both ends included


@dataclass(frozen=True)
class Wish:
    """What a sheet shows: images 0 to n - 1 of a seed; with several classes, n a class.

    truncation: threshold of the latents, None for none. classes: their numbers; empty: drawn evenly.
    """

    seed: int = 0
    n: int = pictures.MANY
    truncation: float | None = None
    classes: tuple[int, ...] = ()

    @property
    def size(self) -> int:
        """How many images that is."""
        return self.n * max(1, len(self.classes))


@dataclass(frozen=True)
class Walk:
    """A path along the great circle between two latents, each a (seed, number), in one class (None: unlabelled)."""

    start: tuple[int, int]
    end: tuple[int, int]
    truncation: float | None = None
    label: int | None = None


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet: its PNG, and which image is where in it."""

    png: bytes
    pairs: list[tuple[int, int]]
    labels: list[int] | None
    columns: int
    cell: tuple[int, int]  # height and width of an image with its gap, in pixels
    left: int  # pixels that names take
    each: bool  # whether every row is a class's

    def at(self, x: float, y: float) -> int | None:
        """The image under a pixel, None beside them."""
        column, row = (x - self.left) // self.cell[1], y // self.cell[0]
        k = int(row * self.columns + column)
        return k if 0 <= column < self.columns and row >= 0 and k < len(self.pairs) else None

    def corner(self, k: int) -> tuple[int, int]:
        """x and y of an image's first pixel."""
        return self.left + k % self.columns * self.cell[1] + GAP, k // self.columns * self.cell[0] + GAP


class Desk:
    """Draws for the page what `gan sample` and `gan interpolate` draw, to the byte; from any thread, one at a time."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self._one = threading.Lock()
        self._closed = threading.Event()

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes to choose from, none for a generator without labels."""
        return self.sampler.classes if self.sampler.game.labelled else ()

    def close(self) -> None:
        """End what is being drawn, at its next chunk."""
        self._closed.set()

    def checked(self, wish: Wish, most: int = MOST, what: str = "a sheet") -> Wish:
        """The wish itself. Raises ConfigError where it is for too many images."""
        if wish.size > most:
            fits = most // max(1, len(wish.classes))
            raise ConfigError(
                f"n={wish.n}: {what} of the page has at most {most:,} images"
                + (f", {fits} a class" if fits and len(wish.classes) > 1 else "")
                + ("" if fits else "; choose fewer classes")
            )
        return wish

    def sheet(self, wish: Wish) -> Sheet:
        """The sheet that `gan sample` writes as grid.png, but of one class near-square, too. Raises ConfigError."""
        self.checked(wish)
        pairs, labels = self._rows(wish)
        images = torch.cat(list(self._drawn(self._of(wish).latents(pairs), labels)))
        names = [self.classes[c] for c in wish.classes] if len(wish.classes) > 1 else []
        page = pictures.grid(images, names)
        columns = wish.n if names else pictures.columns_for(len(images))
        bare = pictures.sheet(images[:1], 1, GAP)
        cell = bare.shape[0] - GAP, bare.shape[1] - GAP
        left = page.shape[1] - columns * cell[1] - GAP
        told = None if labels is None else labels.tolist()
        return Sheet(pictures.png(page), pairs, told, columns, cell, left, bool(names))

    def walk(self, walk: Walk) -> list[bytes]:
        """FRAMES pictures from start to end as PNGs, as `gan interpolate` draws them."""
        ends = self.sampler.truncated(walk.truncation).latents([walk.start, walk.end])
        labels = None if walk.label is None else torch.full((FRAMES,), walk.label)
        images = torch.cat(list(self._drawn(path(ends[0], ends[1], FRAMES, "slerp"), labels)))
        return [pictures.png(pictures.to_pixels(image)) for image in images]

    def label(self, pair: tuple[int, int]) -> int | None:
        """The class that an image of a seed has where none is asked for."""
        labels = self.sampler.labels([pair])
        return None if labels is None else int(labels[0])

    def archive(self, wish: Wish, target: Path, progress: Callable[[int], None]) -> None:
        """Write a zip of the PNGs that `gan sample format=png` writes, and how they came about.

        progress: told how many are drawn. Raises ConfigError, and Interrupted where the desk is closed meanwhile.
        """
        self.checked(wish, MOST_FILES, "an archive")
        pairs, labels = self._rows(wish)
        found = self._of(wish)
        marks = [f"-class{c}" for c in labels.tolist()] if wish.classes and labels is not None else [""] * len(pairs)
        about = found.protocol() | {
            "n": len(pairs),
            "seeds": pairs,
            "classes": None if labels is None else labels.tolist(),
        }
        with zipfile.ZipFile(target, "w") as file:
            file.writestr("sample.json", json.dumps(about, indent=1))
            for start, images in zip(
                range(0, len(pairs), CHUNK), self._drawn(found.latents(pairs), labels), strict=True
            ):
                for k, image in enumerate(images, start):
                    file.writestr(f"{pairs[k][1]:06d}{marks[k]}.png", pictures.png(pictures.to_pixels(image)))
                progress(start + len(images))

    def command(self, wish: Wish) -> str:
        """What to type for the same sheet."""
        about = self.sampler.protocol()
        words = [word("run", about["run"]), f"checkpoint={about['step']}"]
        if self.sampler.run.suffix in (".pt", export.SUFFIX):  # a file has one generator alone
            words.pop()
        if not about["ema"]:
            words.append("ema=false")
        elif about["standing_stats"] != 16:
            words.append(f"standing_stats={about['standing_stats']}")
        words += [f"seed={wish.seed}", f"n={wish.n}"]
        if wish.truncation is not None:
            words.append(f"truncation={wish.truncation:g}")
        if wish.classes:
            every = wish.classes == tuple(range(len(self.classes)))
            words.append(f"classes={'all' if every else ','.join(map(self.sampler.class_word, wish.classes))}")
        return command("sample", *words)

    def _of(self, wish: Wish) -> Sampler:
        return self.sampler.truncated(wish.truncation)

    def _rows(self, wish: Wish) -> tuple[list[tuple[int, int]], Tensor | None]:
        return self.sampler.rows([(wish.seed, k) for k in range(wish.n)], wish.classes)

    def _drawn(self, latents: Tensor, labels: Tensor | None) -> Iterator[Tensor]:
        """uint8 images chunk by chunk; between two chunks others get their turn."""
        for start in range(0, len(latents), CHUNK):
            if self._closed.is_set():
                raise Interrupted("the page is closed")
            y = None if labels is None else labels[start : start + CHUNK]
            with self._one:
                images = to_uint8(self.sampler.draw(latents[start : start + CHUNK], y))
            yield images


def facts(sampler: Sampler) -> Sequence[str]:
    """What the page says of the generator it draws from."""
    about = sampler.protocol()
    weights = "averaged weights (EMA)" if about["ema"] else "raw weights"
    settled = f"standing statistics of {about['standing_stats']} passes" if about["standing_stats"] else ""
    channels, height, width = sampler.shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    classes = f"{len(sampler.classes)} classes" if sampler.game.labelled else "no classes"
    words = (f"step {about['step']:,}", weights, settled, f"{height} × {width} {kind}", classes)
    return [word for word in words if word]
