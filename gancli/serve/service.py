"""The page's sampling service: sheets, paths, archives and translations, by one thread at a time."""

from __future__ import annotations

import functools
import io
import json
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.config.commands import command, word
from gancli.data import decode, imagefile
from gancli.data.fields import Field
from gancli.data.layout import printable
from gancli.draw import directions, pictures, sheets
from gancli.draw.interpolation import walk
from gancli.draw.reading import passes_of
from gancli.draw.sampling import CHUNK, FILES, Pair, Sampler
from gancli.draw.translating import Translator, shown
from gancli.errors import ConfigError, DataError, GanError, Interrupted
from gancli.games.game import Batch, label_of

MOST, MOST_FILES = 256, 1000  # images of a sheet, files of an archive
LARGEST_UPLOAD, MOST_PIXELS = 1 << 25, 1 << 22  # bytes and pixels of an uploaded file
MOST_VALUES = 4 * MOST_PIXELS  # pixels times channels of an uploaded file
GAP = 2  # pixels between images, as in pictures.sheet
EDITS = 5  # directions of styles with a slider
FRAMES = 21  # pictures of a path, including both ends


@dataclass(frozen=True)
class SheetRequest:
    """The request for a sheet: images 0 to n - 1 of a seed; with several classes, n per class.

    truncation: threshold of the latents, None for none. classes: class indices; empty: drawn uniformly. direction: None
    for the sampler's own.
    """

    seed: int = 0
    n: int = pictures.MANY
    truncation: float | None = None
    classes: tuple[int, ...] = ()
    direction: str | None = None

    @property
    def size(self) -> int:
        """The total number of images."""
        return self.n * max(1, len(self.classes))


@dataclass(frozen=True)
class Walk:
    """A path between two latents, each a (seed, number), in one class (None: unlabelled)."""

    start: Pair
    end: Pair
    truncation: float | None = None
    label: int | None = None


@dataclass(frozen=True)
class Edit:
    """A sample moved along the first directions of its styles, by `steps` in units of w, one for each direction."""

    pair: Pair
    steps: tuple[float, ...]
    truncation: float | None = None
    label: int | None = None


@dataclass(frozen=True)
class Sheet:
    """A drawn sheet: its PNG, and the positions of its images."""

    png: bytes
    pairs: list[Pair]
    labels: list[int] | None
    columns: int
    cell: tuple[int, int]  # height and width of an image with its gap, in pixels
    left: int  # pixels left of the images, for names
    each: bool  # whether every row is one class; with columns = 0 images have no positions
    top: int = 0  # pixels above the images, for titles
    gap: int = GAP

    def at(self, x: float, y: float) -> int | None:
        """The index of the image at a pixel, None if there is none."""
        if not self.columns:
            return None
        column, row = (x - self.left) // self.cell[1], (y - self.top) // self.cell[0]
        k = int(row * self.columns + column)
        return k if 0 <= column < self.columns and row >= 0 and k < len(self.pairs) else None

    def corner(self, k: int) -> tuple[int, int]:
        """x and y of an image's top left pixel."""
        x, y = k % self.columns * self.cell[1], k // self.columns * self.cell[0]
        return self.left + x + self.gap, self.top + y + self.gap


@dataclass(frozen=True)
class One:
    """One input image and its output, as PNGs.

    truth: the true output, or None. image: the output as stored, uint8 or uint16 [C, H, W]. name: of the output's file,
    without a suffix. changes: conversions of the input.
    """

    given: bytes
    made: bytes
    truth: bytes | None
    image: NDArray[Any]
    name: str
    changes: tuple[str, ...] = ()


class Service:
    """Draws for the page, bit-identical to `gan sample` and `gan interpolate`; thread-safe, one call at a time."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self._samplers: dict[str, Sampler] = {sampler.direction: sampler}  # by direction
        self._lock = threading.Lock()
        self._closed = threading.Event()
        self.lack = self._lack()  # why there are no input rows, "" if there are; files can be used in any case

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes to choose from; none for an unconditional generator."""
        return self.sampler.classes if self.sampler.labelled else ()

    @property
    def what(self) -> str:
        """The first word of the page's title."""
        return "Latents" if self.column is not None else "Samples"

    @property
    def title(self) -> str:
        """The page's title."""
        return f"{self.what} of {self.sampler.name}"

    @property
    def directions(self) -> tuple[str, ...]:
        """The kinds of samples to choose from."""
        return self.sampler.game.directions()

    @property
    def translates(self) -> bool:
        """Whether the generator translates images."""
        return self.sampler.picture is not None

    def usual(self, direction: str | None = None) -> int:
        """The default number of images of a sheet. Raises GanError as `most`."""
        return self.most(pictures.MADE if self.translates else pictures.MANY, direction)

    def most(self, most: int, direction: str | None = None) -> int:
        """The number of images that a direction has, at most `most`. Raises GanError for data that do not fit."""
        found = None if self.lack else self._directed(direction).most
        return most if found is None else min(most, found)

    @property
    def truncates(self) -> bool:
        """Whether latents can be truncated."""
        return "truncation" in self.sampler.game.sampling_options()

    @property
    def column(self) -> str | None:
        """The column of latents that paths interpolate; None if there is none."""
        paths = self.sampler.game.interpolation_paths(self.sampler.direction).values()
        return next((path.column for path in paths if path.kind != "classes"), None)

    def close(self) -> None:
        """Stop any sampling at its next chunk."""
        self._closed.set()

    def checked(self, wish: SheetRequest, most: int = MOST, what: str = "a sheet") -> SheetRequest:
        """Return the wish. Raises ConfigError if it is for too many images."""
        if wish.size > most:
            fits = most // max(1, len(wish.classes))
            raise ConfigError(
                f"n={wish.n}: {what} of the page has at most {most:,} images"
                + (f", {fits} per class" if fits and len(wish.classes) > 1 else "")
                + ("" if fits else "; choose fewer classes")
            )
        return wish

    def sheet(self, wish: SheetRequest) -> Sheet:
        """Draw the grid.png of `gan sample`; for a single class it is also nearly square. Raises ConfigError."""
        self.checked(wish)
        found = self._of(wish)
        pairs, given = self._rows(wish)
        names = [self.classes[c] for c in wish.classes] if len(wish.classes) > 1 else []
        made = self._drawn(found, found.inputs(pairs, given), pairs)
        drawn = [*made]
        whole = {name: torch.cat([part[name] for part in drawn]) for name in drawn[0]}
        labels = self._labels(given)
        beside = sheets.groups(found.parts(whole, given, pairs), names)
        if beside is not None:
            page, columns, cell, left, top = beside
            columns = 0 if self.translates else columns  # images are clicked only to choose latents of a path
            return Sheet(pictures.png(page), pairs, labels, columns, cell, left, bool(names), top, sheets.BETWEEN)
        images = found.field.stored(whole[found.column])
        page = pictures.grid(images, names)
        columns = wish.n if names else pictures.columns_for(len(images))
        bare = pictures.sheet(images[:1], 1, GAP)
        cell = bare.shape[0] - GAP, bare.shape[1] - GAP
        left = page.shape[1] - columns * cell[1] - GAP
        return Sheet(pictures.png(page), pairs, labels, columns, cell, left, bool(names))

    def walk(self, wish: Walk) -> list[bytes]:
        """Draw FRAMES pictures from start to end as PNGs, as `gan interpolate` does."""
        assert self.column is not None
        given = self.sampler.given([wish.start, wish.end], wish.label)
        ends = self.sampler.truncated(wish.truncation).inputs([wish.start, wish.end], given)
        inputs = {name: rows[:1].repeat_interleave(FRAMES, 0) for name, rows in ends.items()}
        first, last = ends[self.column]
        inputs[self.column] = walk(first, last, FRAMES, "slerp")
        made, own = self._drawn(self.sampler, inputs, [wish.start] * FRAMES), self.sampler
        images = torch.cat([own.field.stored(part[own.column]) for part in made])
        return [pictures.png(pictures.to_pixels(image)) for image in images]

    @property
    def edits(self) -> int:
        """The number of directions of styles that the page offers; 0 for a generator without styles."""
        return 0 if self._directions is None else len(self._directions)

    @functools.cached_property
    def _directions(self) -> Tensor | None:
        return directions.first(self.sampler, EDITS)

    def edited(self, wish: Edit) -> bytes:
        """Draw a sample moved along directions, as a PNG: in all layers, as `gan interpolate axis=direction1` does."""
        found = self.sampler.truncated(wish.truncation)
        assert self._directions is not None
        step = (torch.tensor(wish.steps)[:, None] * self._directions[: len(wish.steps)]).sum(0, keepdim=True)
        with self._lock:
            inputs = directions.moved(found, [wish.pair], found.given([wish.pair], wish.label), step)
        (made,) = self._drawn(found, inputs, [wish.pair])
        return pictures.png(pictures.to_pixels(found.field.stored(made[found.column])[0]))

    def label(self, pair: Pair) -> int | None:
        """The class of a seed's image if none is requested."""
        labels = self._labels(self.sampler.given([pair]))
        return None if labels is None else labels[0]

    def archive(self, wish: SheetRequest, target: Path, progress: Callable[[int], None]) -> None:
        """Write a zip of the PNGs of `gan sample format=png`, with sample.json, which describes how they were drawn.

        progress: called with the number of images drawn. Raises ConfigError, and Interrupted if the service is closed.
        """
        self.checked(wish, MOST_FILES, "an archive")
        pairs, given = self._rows(wish)
        found, labels = self._of(wish), self._labels(given)
        marks = [f"-class{c}" for c in labels] if wish.classes and labels is not None else [""] * len(pairs)
        about = found.protocol() | {"n": len(pairs), "seeds": pairs, "classes": labels} | found.origin(pairs)
        with zipfile.ZipFile(target, "w") as file, tempfile.TemporaryDirectory(dir=target.parent) as scratch:
            file.writestr("sample.json", json.dumps(about, indent=1))
            made = self._drawn(found, found.inputs(pairs, given), pairs)
            for start, part in zip(range(0, len(pairs), CHUNK), made, strict=True):
                names = [f"{number:06d}{mark}" for (_, number), mark in zip(pairs[start:], marks[start:], strict=True)]
                images = found.field.stored(part[found.column])
                for path in found.field.write(Path(scratch), names[: len(images)], images):
                    file.write(path, path.name)
                    path.unlink()
                progress(start + len(images))

    def command(self, wish: SheetRequest) -> str:
        """The command for the same sheet."""
        about = self.sampler.protocol()
        words = [word("run", about["run"]), f"checkpoint={about['step']}"]
        if self.sampler.run.suffix in FILES:  # a file contains only one checkpoint
            words.pop()
        if not about["ema"]:
            words.append("ema=false")
        elif about["standing_stats"] != passes_of(self.sampler.game, None):
            words.append(f"standing_stats={about['standing_stats']}")
        if len(self.directions) > 1:
            words.append(f"direction={self._of(wish).direction}")
        words += [f"seed={wish.seed}", f"n={wish.n}"]
        if wish.truncation is not None:
            words.append(f"truncation={wish.truncation:g}")
            words += [f"truncation_layers={self.sampler.layers}"] if self.sampler.layers is not None else []
        words += ["size=active"] if self.sampler.active else []
        if wish.classes:
            every = wish.classes == tuple(range(len(self.classes)))
            words.append(f"classes={'all' if every else ','.join(map(self.sampler.class_word, wish.classes))}")
        return command("sample", *words)

    def row(self, pair: Pair, direction: str | None = None, label: int | None = None) -> One:
        """Translate a row of data, as in the sheets. Raises GanError."""
        found, pairs = self._directed(direction), [pair]
        given = found.given(pairs, label)
        assert found.picture is not None
        name, field = found.picture
        (made,) = self._drawn(found, found.inputs(pairs, given), pairs)
        right = found.targets(pairs)
        image = _kept(found.field, made[found.column])
        truth = None if right is None else _png(_kept(found.field, right))
        return One(_png(_kept(field, given[name])), _png(image), truth, image, f"{pair[1]:06d}")

    def upload(self, content: bytes, name: str, wish: SheetRequest) -> One:
        """Translate a file's content, as `gan sample input=` does. Raises GanError."""
        if len(content) > LARGEST_UPLOAD:
            raise DataError(f"{printable(name)} has more than {LARGEST_UPLOAD >> 20} MiB, the limit for uploads")
        label, array = wish.classes[0] if len(wish.classes) == 1 else None, _decoded(content, name)
        with self._lock:
            made = Translator(self._directed(wish.direction), wish.seed, label)(array, name)
        return One(_png(array), _png(made.image), None, made.image, _stem(name), made.changes)

    def _lack(self) -> str:
        try:
            _ = self.translates and self.sampler.rows
        except GanError as error:
            return str(error)
        return ""

    def _of(self, wish: SheetRequest) -> Sampler:
        return self._directed(wish.direction).truncated(wish.truncation)

    def _directed(self, direction: str | None) -> Sampler:
        """The sampler of a direction, cached with its rows of data."""
        wanted = self.sampler.direction if direction is None else direction
        if wanted not in self._samplers:
            self._samplers[wanted] = self.sampler.directed(wanted)
        return self._samplers[wanted]

    def _rows(self, wish: SheetRequest) -> tuple[list[Pair], Batch]:
        pairs, found = [(wish.seed, k) for k in range(wish.n)], self._directed(wish.direction)
        if not wish.classes:
            return pairs, found.given(pairs)
        labels = [label for label in wish.classes for _ in pairs]
        pairs = pairs * len(wish.classes)
        return pairs, found.given(pairs, labels)

    def _labels(self, given: Mapping[str, Tensor]) -> list[int] | None:
        label = label_of(self.sampler.game, self.sampler.direction)
        return None if label is None else given[label[0]].tolist()

    def _drawn(self, sampler: Sampler, inputs: Batch, pairs: Sequence[Pair]) -> Iterator[dict[str, Tensor]]:
        """Yield the samples chunk by chunk; other threads may run between two chunks."""
        for start in range(0, len(pairs), CHUNK):
            if self._closed.is_set():
                raise Interrupted("the page is closed")
            chunk = {name: rows[start : start + CHUNK] for name, rows in inputs.items()}
            with self._lock:
                made = sampler.generate_here(chunk, pairs[start : start + CHUNK])
            yield made


def _decoded(content: bytes, name: str) -> NDArray[Any]:
    """Decode a file, uint8 or uint16 [C, H, W]. Raises DataError, for too large images before they are decoded."""
    with decode.named(name), decode.quiet():
        header = imagefile.header(io.BytesIO(content))
    pixels = header.height * header.width
    for count, most, unit in ((pixels, MOST_PIXELS, "pixels"), (pixels * header.channels, MOST_VALUES, "values")):
        if count > most:
            raise DataError(
                f"{printable(name)} has more than {most:,} {unit}, the limit of the page: use gan sample input=FILE"
            )
    with decode.named(name), decode.quiet():
        return imagefile.pixels(io.BytesIO(content))


def _stem(name: str) -> str:
    """The output's file name for an upload, without a suffix and limited in bytes, as file systems require.

    >>> _stem("C:\\\\photos\\\\a.png"), len(_stem("é" * 99).encode("utf-8"))
    ('a', 100)
    """
    stem = PurePath(name.replace("\\", "/")).stem.replace("\0", "")
    return stem.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore") or "image"


def _kept(field: Field, rows: Tensor) -> NDArray[Any]:
    """The first image of a batch as stored, uint8 or uint16 [C, H, W]."""
    image: NDArray[Any] = field.array(field.stored(rows[:1]))[0].transpose(2, 0, 1)
    return image


def _png(image: NDArray[Any]) -> bytes:
    return pictures.png(shown(image))


def facts(sampler: Sampler) -> Sequence[str]:
    """The facts about the generator that the page shows."""
    about = sampler.protocol()
    weights = "averaged weights (EMA)" if about["ema"] else "raw weights"
    standing = f"standing statistics of {about['standing_stats']} passes" if about["standing_stats"] else ""
    channels, height, width = sampler.field.shape
    kind = {1: "grey", 3: "colour"}.get(channels, f"{channels} channels")
    classes = f"{len(sampler.classes)} classes" if sampler.labelled else "no classes"
    found = (f"step {about['step']:,}", weights, standing, f"{height} × {width} {kind}", classes)
    return [fact for fact in found if fact]
