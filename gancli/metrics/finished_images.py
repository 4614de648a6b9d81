"""Images to evaluate from a path: a folder, a zip archive of images, or an .npz as `gan sample` writes it."""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gancli.data import decode
from gancli.data.folder import Folder
from gancli.data.folder import folder as folder_source
from gancli.data.layout import printable
from gancli.data.listing import Files, Listing, Names, Place
from gancli.data.npz import npz
from gancli.data.source import Source, order
from gancli.data.zipped import Zip
from gancli.data.zipped import archive as zip_source
from gancli.errors import ConfigError, DataError
from gancli.metrics.images import ImageSet, from_source

KINDS = "a folder of images, a .zip of images, or an .npz that holds images (as gan sample format=npz writes it)"
Told = Callable[[int], Mapping[str, Any]]
SHOWN = 100  # file sizes listed in a protocol, at most


@dataclass(frozen=True)
class Given:
    """Images to evaluate, as found at their path.

    key: the command-line key of the path. sizes: distinct (H, W) of the files after EXIF rotation, ascending. source:
    all images in one shape; None: each has its own, and listing, place and shapes (C, H, W) describe the files.
    """

    key: str
    path: Path
    sizes: Sequence[tuple[int, int]]
    source: Source | None
    place: Place | None = None
    listing: Listing | None = None
    shapes: Sequence[tuple[int, int, int]] = ()

    def __len__(self) -> int:
        return len(self.shapes) if self.source is None else len(self.source)

    @property
    def left_out(self) -> Sequence[str]:
        """Return a line for each kind of file in the folder that is not evaluated."""
        if self.listing is not None:
            return [note.replace("dataset.root", self.key) for note in self.listing.notes]
        return () if self.source is None else self.source.notes

    def images(self, n: int, seed: int) -> ImageSet:
        """Return n of them, chosen by `seed` as in `from_source`."""
        facts: dict[str, Any] = {
            "folder" if self.path.is_dir() else "file": str(self.path),
            "file_sizes": [list(size) for size in self.sizes[:SHOWN]],
        }
        if self.source is not None:
            images = from_source(self.source, n, seed, **facts)
            names = (
                None if self.listing is None or len(self.listing) != images.protocol["images"] else self.listing.names
            )
            return images if names is None else replace(images, told=_with_files(images.told, names))
        assert self.place is not None
        assert self.listing is not None
        chosen = np.sort(order(len(self), seed, "evaluation")[:n])
        shapes = np.array(self.shapes)[chosen]
        channels = int(shapes[:, 0].max())
        # Sorted by size, so that a batch has one shape.
        by_size = np.lexsort((chosen, shapes[:, 2], shapes[:, 1]))
        chosen, shapes = chosen[by_size], shapes[by_size]
        place, listing = self.place, self.listing

        def chunks() -> Iterator[Tensor]:
            starts = np.flatnonzero(np.r_[True, (shapes[1:, 1:] != shapes[:-1, 1:]).any(1)])
            for start, stop in zip(starts, [*starts[1:], len(chosen)], strict=True):
                files = place.files(listing.pick(chosen[start:stop]))
                _, height, width = shapes[start].tolist()
                for part in decode.images(files, (channels, height, width)):
                    yield torch.from_numpy(part)

        told = {"name": place.kind, "images": len(self), "shape": [channels, 0, 0], "judged_at": "each file's own size"}
        told |= {"fingerprint": _fingerprint(place.files(listing)), "seed": seed, **facts}
        numbers = _with_files(lambda row: {"number": int(chosen[row])}, listing.names)
        return ImageSet(n, (channels, 0, 0), chunks, told, told=numbers)

    def at_most(self, n: int | None) -> ImageSet:
        """Return at most n of them (None: all), chosen by seed 0."""
        return self.images(len(self) if n is None else min(n, len(self)), 0)

    def resizing(self, shape: Sequence[int]) -> str:
        """Return how images of other sizes were resized, to follow the key's name; empty if they were not."""
        mixed = not shape[1]
        if not mixed and all(size == tuple(shape[1:]) for size in self.sizes):
            return ""
        if mixed:
            return (
                f"files of {self.words()} pixels, each resized by the extractor from its own size; size= sets one size"
                " for all"
            )
        return (
            f"files of {self.words()} pixels were cropped and resized to {shape[1]}x{shape[2]} before the extractor's"
            " own resize: compare the numbers only with others of the same resize"
        )

    def words(self) -> str:
        """Return the sizes as text.

        >>> Given("input", Path("a"), [(8, 9), (16, 9), (20, 9), (30, 9)], None).words()
        '8x9, 16x9, 20x9 and 1 more sizes of'
        """
        sizes = [f"{h}x{w}" for h, w in self.sizes]
        if len(sizes) > 3:
            return f"{', '.join(sizes[:3])} and {len(sizes) - 3} more sizes of"
        return " and ".join(part for part in (", ".join(sizes[:-1]), sizes[-1]) if part)


def _with_files(told: Told | None, names: Names) -> Told | None:
    """Return the same facts with the file of each image's number."""

    def found(row: int) -> dict[str, Any]:
        assert told is not None
        facts = told(row)
        return {**facts, "file": printable(names[facts["number"]])}

    return None if told is None else found


def holds_images(path: Path) -> bool:
    """Whether a file contains images rather than features: a .zip, or an .npz with an array `images`."""
    if path.suffix.lower() == ".zip":
        return True
    if path.suffix.lower() != ".npz":
        return False
    try:
        with zipfile.ZipFile(path) as file:
            return "images.npy" in file.namelist()
    except Exception:  # zipfile raises many kinds for a damaged file; its reader reports it later
        return False


def find(key: str, path: str, size: Sequence[int] | None = None) -> Given:
    """Open the images at `key=path`. size: [H, W] or [C, H, W] for all of them; None: the files' own sizes.

    Sizes are validated before anything is unpacked. Raises ConfigError or DataError, which name the key, for anything
    else.
    """
    if not path.strip():
        raise ConfigError(f"{key}= is empty: name {KINDS}")
    place = Path(path).expanduser().absolute()
    try:
        if place.is_dir():
            return _files(key, place, Folder(place), size)
        if not place.exists():
            raise DataError(f"{key}={path} does not exist: name {KINDS}")
        if not place.is_file():
            raise DataError(f"{key}={path} is neither a folder nor a file: name {KINDS}")
        if place.suffix.lower() == ".zip":
            return _files(key, place, Zip(place), size)
        if place.suffix.lower() == ".npz":
            return _archive(key, place, size)
    except (DataError, ConfigError) as error:
        words = str(error).replace("dataset.root", key).replace("dataset.size", "size")
        raise DataError(words if key in words else f"{key}: {words}") from None
    except OSError as error:
        raise DataError(f"{key}={path} cannot be read ({error.strerror}): make it readable") from None
    except MemoryError:
        raise DataError(f"{key}={path}: the images do not fit in memory: name a folder of them") from None
    statistics = ", or features in an .npz or .pt" if key == "reference" else ""
    raise DataError(f"{key}={path}: name {KINDS}{statistics}")


def _files(key: str, path: Path, place: Folder | Zip, size: Sequence[int] | None) -> Given:
    """Open image files. Their headers are read first: images of different sizes are resized only if size= is given."""
    listing = place.listing()
    shapes = list(decode.headers(place.files(listing)))
    sizes = sorted({(height, width) for _, height, width in shapes})
    if size is None and len(sizes) > 1:
        return Given(key, path, sizes, None, place, listing, shapes)
    channels = max(c for c, _, _ in shapes)
    wanted = list(sizes[0]) if size is None else list(size)
    wanted = wanted if len(wanted) == 3 else [channels, *wanted]
    source = folder_source if isinstance(place, Folder) else zip_source
    return Given(key, path, sizes, source(str(path), size=wanted), listing=listing)


def _archive(key: str, path: Path, size: Sequence[int] | None) -> Given:
    """Open an .npz of images, such as samples.npz."""
    source = npz(str(path))
    natural = source.shape
    if natural[0] not in (1, 3):
        raise DataError(f"{path}: these images have {natural[0]} channels; only 1 or 3 can be evaluated")
    if size is not None:
        source = npz(str(path), size=list(size) if len(size) == 3 else [natural[0], *size])
    return Given(key, path, [(natural[1], natural[2])], source)


def _fingerprint(files: Files) -> str:
    """Return the SHA-256 of the files' bytes."""
    total = hashlib.sha256(b"files")
    for i in range(len(files)):
        with files.open(i) as file:
            total.update(hashlib.sha256(file.read()).digest())
    return total.hexdigest()
