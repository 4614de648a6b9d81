"""Translates single images: converts and pads each for the network, and crops the output to its size and bit depth."""

from __future__ import annotations

import dataclasses
import functools
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from gancli.data import imagefile
from gancli.data.fields import Image
from gancli.data.layout import printable
from gancli.draw import pictures
from gancli.draw.sampling import Sampler
from gancli.errors import ConfigError, DataError
from gancli.games.game import draws_freely, label_of

LEAST = 4  # minimum side in multiples, or the field's side if that is less: for layers with reflection padding
KINDS = {1: "grey", 3: "colour", 4: "colour with alpha"}


class Made(NamedTuple):
    """An output. image: uint8 or uint16 [C, H, W]. facts: of the file, as plain values. changes: conversions."""

    image: NDArray[Any]
    facts: dict[str, Any]
    changes: tuple[str, ...]


@dataclass(frozen=True)
class Translator:
    """Translates an image, as a function of only the weights, the image, the seed and the class.

    Noise inside the network is that of sample 0 of the seed, independent of other images. label: the requested class;
    None: that of sample 0, if there are classes. Raises ConfigError if the game's input is not one image, or its output
    not an image.
    """

    sampler: Sampler
    seed: int = 0
    label: int | None = None

    def __post_init__(self) -> None:
        refuse(self.sampler)

    @functools.cached_property
    def taken(self) -> tuple[str, Image]:
        """The input column and its type."""
        found = self.sampler.picture
        assert found is not None
        return found

    @functools.cached_property
    def _alone(self) -> Sampler:
        return self.sampler.alone()

    @property
    def asked(self) -> int | None:
        """The requested class; None if there are no classes."""
        label = label_of(self.sampler.game, self.sampler.direction)
        if label is None or self.label is not None:
            return self.label
        return int(self.sampler.given([(self.seed, 0)], own={self.taken[0]: torch.empty(1)})[label[0]])

    def __call__(self, array: NDArray[Any], name: str) -> Made:
        """Translate an image, uint8 or uint16 [C, H, W]. name: of the file. Raises DataError if it is not accepted."""
        column, field = self.taken
        height, width = array.shape[1:]
        tall, wide = self._sides(height, width, name)
        fitted = imagefile.fitted(array, field.channels, field.bits, name)
        ready = field.ready(torch.from_numpy(fitted.astype("int32" if field.bits == 16 else "uint8")))
        pairs = [(self.seed, 0)]
        given = self.sampler.given(pairs, self.label, own={column: padded(ready, tall, wide)[None]})
        try:
            made = self._alone.generate_here(self.sampler.inputs(pairs, given), pairs)[self.sampler.column][0]
        except (MemoryError, RuntimeError) as error:
            if not _no_memory(error):
                raise
            words = f"{printable(name)} at {tall}×{wide} pixels does not fit in memory: make it smaller"
            raise DataError(words) from None
        # Crop the output in proportion to the input, because a network may enlarge.
        made = made[:, : height * made.shape[1] // tall, : width * made.shape[2] // wide]
        bits = 8 * array.dtype.itemsize
        own = dataclasses.replace(self._output, height=made.shape[1], width=made.shape[2], bits=bits)
        facts: dict[str, Any] = {"shape": list(array.shape), "bits": bits}
        facts |= {"padded": [tall, wide]} if (tall, wide) != (height, width) else {}
        return Made(own.stored(made).numpy().astype(array.dtype), facts, self._changes(array, (tall, wide)))

    @property
    def _output(self) -> Image:
        field = self.sampler.field
        assert isinstance(field, Image)
        return field

    def _sides(self, height: int, width: int, name: str) -> tuple[int, int]:
        """Return the padded size of an image. Raises DataError if the network accepts only another size."""
        field, multiple = self.taken[1], self.sampler.game.input_multiple(self.sampler.direction)
        if multiple is None:
            if (height, width) != (field.height, field.width):
                raise DataError(
                    f"{printable(name)} is {height}×{width}, and this network takes only {field.height}×{field.width}:"
                    " resize it first"
                )
            return height, width
        least = [min(LEAST * multiple, side) for side in (field.height, field.width)]
        tall, wide = (
            -(-max(side, few) // multiple) * multiple for side, few in zip((height, width), least, strict=True)
        )
        return tall, wide

    def _changes(self, array: NDArray[Any], sides: tuple[int, int]) -> tuple[str, ...]:
        field, own, bits = self.taken[1], len(array), 8 * array.dtype.itemsize
        found = []
        if own != field.channels:
            before, after = (KINDS.get(count, f"{count} channels") for count in (own, field.channels))
            found.append(f"{before} converted to {after}{', on white' if own == 4 else ''}")
        if bits != field.bits:
            found.append(f"{bits} bits converted to {field.bits} for the network, and outputs back to {bits}")
        if sides != array.shape[1:]:
            multiple = self.sampler.game.input_multiple(self.sampler.direction)
            found.append(f"padded by reflection to multiples of {multiple}, and outputs cropped")
        return tuple(found)


def refuse(sampler: Sampler) -> None:
    """Raise ConfigError if a game's input is not one image, or its output not an image."""
    game, direction = sampler.game, sampler.direction
    if draws_freely(game, direction):
        raise ConfigError("input= needs a game that translates, and this one samples from noise: leave input out")
    if sampler.picture is None:
        told = " and ".join(field.told for field in sampler.taken.values())
        raise ConfigError(f"input= needs a game whose input is an image, and this one's is {told}: leave input out")
    if not isinstance(sampler.field, Image):
        raise ConfigError(
            f"input= needs a game whose output is an image, and this one's is {sampler.field.told}: leave input out"
        )


def padded(image: Tensor, height: int, width: int) -> Tensor:
    """Pad [C, H, W] at the bottom and right by reflection; if it is too small for that, by replication.

    >>> padded(torch.tensor([[[1.0, 2.0, 3.0]]]), 2, 5)
    tensor([[[1., 2., 3., 2., 1.],
             [1., 2., 3., 2., 1.]]])
    """
    for axis, side in ((1, height), (2, width)):
        more = side - image.shape[axis]
        if more:
            mode = "reflect" if more < image.shape[axis] else "replicate"
            image = F.pad(image[None], (0, 0, 0, more) if axis == 1 else (0, more, 0, 0), mode)[0]
    return image


def _no_memory(error: Exception) -> bool:
    return isinstance(error, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(error)


def shown(image: NDArray[Any]) -> pictures.Pixels:
    """Convert an image uint8 or uint16 [C, H, W] for display, uint8 [H, W, 3]."""
    return pictures.to_pixels(torch.from_numpy(image if image.dtype == np.uint8 else image.astype(np.int32)))
