"""What the latent page draws: sheets, paths and archives, by one thread at a time."""

from __future__ import annotations

import json
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gancli.config.commands import command, word
from gancli.draw import pictures
from gancli.draw.reading import passes_of
from gancli.draw.sampling import CHUNK, FILES, Pair, Sampler
from gancli.draw.walks import walk
from gancli.errors import ConfigError, Interrupted
from gancli.games.game import Batch, label_of

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
    """A path between two latents, each a (seed, number), in one class (None: unlabelled)."""

    start: Pair
    end: Pair
    truncation: float | None = None
    label: int | None = None


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet: its PNG, and which image is where in it."""

    png: bytes
    pairs: list[Pair]
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
        return self.sampler.classes if self.sampler.labelled else ()

    @property
    def truncates(self) -> bool:
        """Whether latents can be cut off."""
        return "truncation" in self.sampler.game.sampling_options()

    @property
    def column(self) -> str | None:
        """The latents that paths are walked between; None where there are none."""
        paths = self.sampler.game.interpolation_paths(self.sampler.direction).values()
        return next((path.column for path in paths if path.kind != "classes"), None)

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
        pairs, given = self._rows(wish)
        images = torch.cat(list(self._drawn(self._of(wish).inputs(pairs, given), pairs)))
        labels = self._labels(given)
        names = [self.classes[c] for c in wish.classes] if len(wish.classes) > 1 else []
        page = pictures.grid(images, names)
        columns = wish.n if names else pictures.columns_for(len(images))
        bare = pictures.sheet(images[:1], 1, GAP)
        cell = bare.shape[0] - GAP, bare.shape[1] - GAP
        left = page.shape[1] - columns * cell[1] - GAP
        return Sheet(pictures.png(page), pairs, labels, columns, cell, left, bool(names))

    def walk(self, wish: Walk) -> list[bytes]:
        """FRAMES pictures from start to end as PNGs, as `gan interpolate` draws them."""
        assert self.column is not None
        given = self.sampler.given([wish.start, wish.end], wish.label)
        ends = self.sampler.truncated(wish.truncation).inputs([wish.start, wish.end], given)
        inputs = {name: rows[:1].repeat_interleave(FRAMES, 0) for name, rows in ends.items()}
        first, last = ends[self.column]
        inputs[self.column] = walk(first, last, FRAMES, "slerp")
        images = torch.cat(list(self._drawn(inputs, [wish.start] * FRAMES)))
        return [pictures.png(pictures.to_pixels(image)) for image in images]

    def label(self, pair: Pair) -> int | None:
        """The class that an image of a seed has where none is asked for."""
        labels = self._labels(self.sampler.given([pair]))
        return None if labels is None else labels[0]

    def archive(self, wish: Wish, target: Path, progress: Callable[[int], None]) -> None:
        """Write a zip of the PNGs that `gan sample format=png` writes, and how they came about.

        progress: told how many are drawn. Raises ConfigError, and Interrupted where the desk is closed meanwhile.
        """
        self.checked(wish, MOST_FILES, "an archive")
        pairs, given = self._rows(wish)
        found, labels = self._of(wish), self._labels(given)
        marks = [f"-class{c}" for c in labels] if wish.classes and labels is not None else [""] * len(pairs)
        about = found.protocol() | {"n": len(pairs), "seeds": pairs, "classes": labels}
        with zipfile.ZipFile(target, "w") as file:
            file.writestr("sample.json", json.dumps(about, indent=1))
            for start, images in zip(
                range(0, len(pairs), CHUNK), self._drawn(found.inputs(pairs, given), pairs), strict=True
            ):
                for k, image in enumerate(images, start):
                    file.writestr(f"{pairs[k][1]:06d}{marks[k]}.png", pictures.png(pictures.to_pixels(image)))
                progress(start + len(images))

    def command(self, wish: Wish) -> str:
        """What to type for the same sheet."""
        about = self.sampler.protocol()
        words = [word("run", about["run"]), f"checkpoint={about['step']}"]
        if self.sampler.run.suffix in FILES:  # a file has one generator alone
            words.pop()
        if not about["ema"]:
            words.append("ema=false")
        elif about["standing_stats"] != passes_of(self.sampler.game, None):
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

    def _rows(self, wish: Wish) -> tuple[list[Pair], Batch]:
        pairs = [(wish.seed, k) for k in range(wish.n)]
        if not wish.classes:
            return pairs, self.sampler.given(pairs)
        labels = [label for label in wish.classes for _ in pairs]
        pairs = pairs * len(wish.classes)
        return pairs, self.sampler.given(pairs, labels)

    def _labels(self, given: Mapping[str, Tensor]) -> list[int] | None:
        label = label_of(self.sampler.game, self.sampler.direction)
        return None if label is None else given[label[0]].tolist()

    def _drawn(self, inputs: Batch, pairs: Sequence[Pair]) -> Iterator[Tensor]:
        """uint8 images chunk by chunk; between two chunks others get their turn."""
        for start in range(0, len(pairs), CHUNK):
            if self._closed.is_set():
                raise Interrupted("the page is closed")
            chunk = {name: rows[start : start + CHUNK] for name, rows in inputs.items()}
            with self._one:
                made = self.sampler.generate_here(chunk, pairs[start : start + CHUNK])
            yield self.sampler.field.stored(made[self.sampler.column])


def facts(sampler: Sampler) -> Sequence[str]:
    """What the page says of the generator it draws from."""
    about = sampler.protocol()
    weights = "averaged weights (EMA)" if about["ema"] else "raw weights"
    settled = f"standing statistics of {about['standing_stats']} passes" if about["standing_stats"] else ""
    channels, height, width = sampler.field.shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    classes = f"{len(sampler.classes)} classes" if sampler.labelled else "no classes"
    words = (f"step {about['step']:,}", weights, settled, f"{height} × {width} {kind}", classes)
    return [word for word in words if word]
