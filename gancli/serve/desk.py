"""What the latent page draws: sheets, paths and archives, by one thread at a time."""

from __future__ import annotations

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
from gancli.draw import pictures, sheets
from gancli.draw.reading import passes_of
from gancli.draw.sampling import CHUNK, FILES, Pair, Sampler
from gancli.draw.translating import Translator, shown
from gancli.draw.walks import walk
from gancli.errors import ConfigError, DataError, GanError, Interrupted
from gancli.games.game import Batch, label_of

MOST, MOST_FILES = 256, 1000  # images of a sheet, files of an archive
LARGEST_UPLOAD, MOST_PIXELS = 1 << 25, 1 << 22  # bytes of a file that is uploaded, and its pixels
MOST_VALUES = 4 * MOST_PIXELS  # of it, each channel counted
GAP = 2  # pixels between images, as pictures.sheet leaves
FRAMES = 21  # pictures of a path, both ends included


@dataclass(frozen=True)
class Wish:
    """What a sheet shows: images 0 to n - 1 of a seed; with several classes, n a class.

    truncation: threshold of the latents, None for none. classes: their numbers; empty: drawn evenly. direction: None
    for the sampler's own.
    """

    seed: int = 0
    n: int = pictures.MANY
    truncation: float | None = None
    classes: tuple[int, ...] = ()
    direction: str | None = None

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
    each: bool  # whether every row is a class's; without columns there are no places of images
    top: int = 0  # pixels that titles take
    gap: int = GAP

    def at(self, x: float, y: float) -> int | None:
        """The image under a pixel, None beside them."""
        if not self.columns:
            return None
        column, row = (x - self.left) // self.cell[1], (y - self.top) // self.cell[0]
        k = int(row * self.columns + column)
        return k if 0 <= column < self.columns and row >= 0 and k < len(self.pairs) else None

    def corner(self, k: int) -> tuple[int, int]:
        """x and y of an image's first pixel."""
        x, y = k % self.columns * self.cell[1], k // self.columns * self.cell[0]
        return self.left + x + self.gap, self.top + y + self.gap


@dataclass(frozen=True)
class One:
    """One image and what is made of it, PNGs to be shown. truth: None where there is none. image: what was made, as it
    is kept, uint8 or uint16 [C, H, W]. name: of its file, without a suffix. changes: what was converted.
    """

    given: bytes
    made: bytes
    truth: bytes | None
    image: NDArray[Any]
    name: str
    changes: tuple[str, ...] = ()


class Desk:
    """Draws for the page what `gan sample` and `gan interpolate` draw, to the byte; from any thread, one at a time."""

    def __init__(self, sampler: Sampler):
        self.sampler = sampler
        self._ways: dict[str, Sampler] = {sampler.direction: sampler}
        self._one = threading.Lock()
        self._closed = threading.Event()
        self.lack = self._lack()  # why there are no rows to make images of, "" where there are: files can still be used

    @property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes to choose from, none for a generator without labels."""
        return self.sampler.classes if self.sampler.labelled else ()

    @property
    def what(self) -> str:
        """What the page is about."""
        return "Latents" if self.column is not None else "Samples"

    @property
    def title(self) -> str:
        """Of the page."""
        return f"{self.what} of {self.sampler.name}"

    @property
    def directions(self) -> tuple[str, ...]:
        """The kinds of samples to choose from."""
        return self.sampler.game.directions()

    @property
    def translates(self) -> bool:
        """Whether images are made of images."""
        return self.sampler.picture is not None

    def usual(self, direction: str | None = None) -> int:
        """Images of a sheet where no number is given. Raises GanError as `most`."""
        return self.most(pictures.MADE if self.translates else pictures.MANY, direction)

    def most(self, most: int, direction: str | None = None) -> int:
        """As many images as there can be in a direction, up to a number. Raises GanError for data that do not fit."""
        found = None if self.lack else self._way(direction).most
        return most if found is None else min(most, found)

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
            columns = 0 if self.translates else columns  # images are chosen for the paths between their latents
            return Sheet(pictures.png(page), pairs, labels, columns, cell, left, bool(names), top, sheets.BETWEEN)
        images = found.field.stored(whole[found.column])
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
        made, own = self._drawn(self.sampler, inputs, [wish.start] * FRAMES), self.sampler
        images = torch.cat([own.field.stored(part[own.column]) for part in made])
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
        if len(self.directions) > 1:
            words.append(f"direction={self._of(wish).direction}")
        words += [f"seed={wish.seed}", f"n={wish.n}"]
        if wish.truncation is not None:
            words.append(f"truncation={wish.truncation:g}")
        if wish.classes:
            every = wish.classes == tuple(range(len(self.classes)))
            words.append(f"classes={'all' if every else ','.join(map(self.sampler.class_word, wish.classes))}")
        return command("sample", *words)

    def row(self, pair: Pair, direction: str | None = None, label: int | None = None) -> One:
        """What is made of a row of data, as the sheets have it. Raises GanError."""
        found, pairs = self._way(direction), [pair]
        given = found.given(pairs, label)
        assert found.picture is not None
        name, field = found.picture
        (made,) = self._drawn(found, found.inputs(pairs, given), pairs)
        right = found.targets(pairs)
        image = _kept(found.field, made[found.column])
        truth = None if right is None else _png(_kept(found.field, right))
        return One(_png(_kept(field, given[name])), _png(image), truth, image, f"{pair[1]:06d}")

    def upload(self, content: bytes, name: str, wish: Wish) -> One:
        """What is made of a file's content, as `gan sample input=` makes it. Raises GanError."""
        if len(content) > LARGEST_UPLOAD:
            raise DataError(f"{printable(name)} has more than {LARGEST_UPLOAD >> 20} MiB, which a page takes at most")
        label, array = wish.classes[0] if len(wish.classes) == 1 else None, _decoded(content, name)
        with self._one:
            made = Translator(self._way(wish.direction), wish.seed, label)(array, name)
        return One(_png(array), _png(made.image), None, made.image, _stem(name), made.changes)

    def _lack(self) -> str:
        try:
            _ = self.translates and self.sampler.rows
        except GanError as error:
            return str(error)
        return ""

    def _of(self, wish: Wish) -> Sampler:
        return self._way(wish.direction).truncated(wish.truncation)

    def _way(self, direction: str | None) -> Sampler:
        """The sampler of a direction, which knows its rows of data already where it drew before."""
        wanted = self.sampler.direction if direction is None else direction
        if wanted not in self._ways:
            self._ways[wanted] = self.sampler.directed(wanted)
        return self._ways[wanted]

    def _rows(self, wish: Wish) -> tuple[list[Pair], Batch]:
        pairs, found = [(wish.seed, k) for k in range(wish.n)], self._way(wish.direction)
        if not wish.classes:
            return pairs, found.given(pairs)
        labels = [label for label in wish.classes for _ in pairs]
        pairs = pairs * len(wish.classes)
        return pairs, found.given(pairs, labels)

    def _labels(self, given: Mapping[str, Tensor]) -> list[int] | None:
        label = label_of(self.sampler.game, self.sampler.direction)
        return None if label is None else given[label[0]].tolist()

    def _drawn(self, sampler: Sampler, inputs: Batch, pairs: Sequence[Pair]) -> Iterator[dict[str, Tensor]]:
        """What is made, ready, chunk by chunk; between two chunks others get their turn."""
        for start in range(0, len(pairs), CHUNK):
            if self._closed.is_set():
                raise Interrupted("the page is closed")
            chunk = {name: rows[start : start + CHUNK] for name, rows in inputs.items()}
            with self._one:
                made = sampler.generate_here(chunk, pairs[start : start + CHUNK])
            yield made


def _decoded(content: bytes, name: str) -> NDArray[Any]:
    """A file's image, uint8 or uint16 [C, H, W]. Raises DataError, for too large ones before they are decoded."""
    with decode.named(name), decode.quiet():
        told = imagefile.header(io.BytesIO(content))
    pixels = told.height * told.width
    for count, most, words in ((pixels, MOST_PIXELS, "pixels"), (pixels * told.channels, MOST_VALUES, "values")):
        if count > most:
            raise DataError(f"{printable(name)} has more than {most:,} {words}: type gan sample input=FILE")
    with decode.named(name), decode.quiet():
        return imagefile.pixels(io.BytesIO(content))


def _stem(name: str) -> str:
    """What a file that is made of an upload is called, without a suffix: systems count the bytes of names.

    >>> _stem("C:\\\\photos\\\\a.png"), len(_stem("é" * 99).encode("utf-8"))
    ('a', 100)
    """
    stem = PurePath(name.replace("\\", "/")).stem.replace("\0", "")
    return stem.encode("utf-8", "ignore")[:100].decode("utf-8", "ignore") or "image"


def _kept(field: Field, rows: Tensor) -> NDArray[Any]:
    """The first of some images, uint8 or uint16 [C, H, W]."""
    image: NDArray[Any] = field.array(field.stored(rows[:1]))[0].transpose(2, 0, 1)
    return image


def _png(image: NDArray[Any]) -> bytes:
    return pictures.png(shown(image))


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
