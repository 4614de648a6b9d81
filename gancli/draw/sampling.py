"""Sampling from a trained game: samples by seed and number, independent of how many are drawn."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.compute.dist import World
from gancli.compute.memory import refuse_many
from gancli.compute.rng import Rng, RowRng, key
from gancli.data.facts import DataFacts
from gancli.data.fields import Field, Image, Label
from gancli.data.layout import printable
from gancli.draw.given import Rows
from gancli.draw.sheets import Part, parts
from gancli.errors import ConfigError, suggestion
from gancli.games.drawing import TRANSFORM, Made
from gancli.games.game import Batch, Game, draws_freely, label_of
from gancli.nets.layers import noise

CHUNK = 32  # samples are always drawn in batches of this size, the last one padded: bit-identical for the same seed
ALONE = 1  # except outputs made from an image: those are drawn one by one
FILES = (".pt", ".safetensors")  # of checkpoints and exports

Pair = tuple[int, int]  # a sample's seed and its number


class Sampler:
    """Samples a trained game: `samples(n, seed)`; or `given`, `inputs` and `generate` one after another.

    direction: None: the game's first. truncation: threshold of the latents, None for none. rows: what samples are made
    from; None: from the run's data set. Raises ConfigError for options that the game does not have.
    """

    def __init__(
        self,
        game: Game,
        nets: Mapping[str, nn.Module],
        facts: DataFacts,
        compute: Compute,
        truncation: float | None = None,
        direction: str | None = None,
        rows: Rows | None = None,
    ):
        self.game, self.nets, self.facts, self.compute, self.truncation = game, dict(nets), facts, compute, truncation
        self.direction = chosen_direction(game, direction)
        self.layers: int | None = None  # that truncation applies to; None: the game's default
        self.active = False  # whether images have the size that a growing generator has reached
        self.move: tuple[float, float, float] | None = None  # right, down, degrees, of all samples (`TRANSFORM`)
        self._check(truncation)
        self.run, self.step, self.about, self.config = Path(), 0, dict[str, Any](), dict[str, Any]()
        self._rows = rows

    @property
    def rows(self) -> Rows:
        """The rows that samples are made from, loaded at first use. Raises GanError."""
        if self._rows is None:
            self._rows = Rows.of_run(self.config["dataset"], self.config["game"], self.taken)
        return self._rows

    def place(self, node: Mapping[str, Any]) -> None:
        """Make samples from the data set of this section (dataset=...)."""
        self.config, self._rows = {**self.config, "dataset": dict(node)}, None

    @property
    def taken(self) -> dict[str, Field]:
        """The input columns of data, without labels."""
        wanted = self.game.input_fields(self.direction).items()
        return {name: field for name, field in wanted if not isinstance(field, Label)}

    @property
    def most(self) -> int | None:
        """The largest number of samples of one seed; None: unlimited."""
        if draws_freely(self.game, self.direction):
            return None
        return min(len(self.rows.source(name)[0]) for name in self.taken)

    @property
    def picture(self) -> tuple[str, Image] | None:
        """The input column if samples are made from one image (and labels) only, else None."""
        images = [(name, field) for name, field in self.taken.items() if isinstance(field, Image)]
        return images[0] if len(images) == len(self.taken) == 1 else None

    @property
    def at_once(self) -> int:
        """How many samples go through the networks in one batch."""
        return CHUNK if self.picture is None else ALONE

    @property
    def notes(self) -> list[str]:
        """Warnings about these samples."""
        return [] if draws_freely(self.game, self.direction) or not self.rows.note else [self.rows.note]

    @property
    def whole(self) -> bool:
        """Whether all networks are loaded: an export has only those for sampling."""
        return self.nets.keys() >= self.game.nets._modules.keys()

    @property
    def column(self) -> str:
        """The name of the sample among the outputs: the data column that it imitates."""
        return next(iter(self.game.output_fields(self.direction)))

    @property
    def field(self) -> Field:
        """The type of a sample."""
        return next(iter(self.outputs.values()))

    @property
    def outputs(self) -> dict[str, Field]:
        """The types of the outputs by name, the sample first."""
        found = dict(self.game.output_fields(self.direction))
        size = self.game.active_size(self.direction) if self.active else None
        if size is not None:
            name = next(iter(found))
            found[name] = found[name].sized(*size)
        return found

    @property
    def labelled(self) -> bool:
        """Whether the generator is conditioned on a class."""
        return label_of(self.game, self.direction) is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the generator's classes; the data's if it is unconditional."""
        found = label_of(self.game, self.direction)
        return self.facts.classes if found is None else found[1].names

    @property
    def name(self) -> str:
        """The run's name without its date, for the names of output files."""
        stem = self.run.stem if self.run.suffix in FILES else self.run.name
        return re.sub(r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-", "", stem)

    def refuse_many(self, asked: str, n: int, name: str = "n", times: int = 1) -> None:
        """Raise ConfigError if `times` n samples do not fit in memory. asked: the argument, for the message."""
        refuse_many(asked, n, times * self.field.bytes(), name)

    def given(
        self,
        pairs: Sequence[Pair],
        label: int | Sequence[int] | None = None,
        own: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """Return the inputs of samples besides noise: rows of data and, for each pair, a given or uniform random label.

        label: the class of all, or of each. own: columns that replace the data's. Raises GanError for data that are
        missing or too few.
        """
        given: Batch = {}
        for name, field in self.game.input_fields(self.direction).items():
            if own is not None and name in own:
                given[name] = own[name]
            elif not isinstance(field, Label):
                given[name] = self.rows.take(name, pairs)
            elif label is None:
                given[name] = RowRng([(s, "label", k) for s, k in pairs]).integers(name, len(field.names))
            else:
                chosen = [label] * len(pairs) if isinstance(label, int) else list(label)
                given[name] = torch.tensor(chosen, dtype=torch.int64)
        return given

    def targets(self, pairs: Sequence[Pair]) -> Tensor | None:
        """Return the targets of samples of these pairs, as network values; None if game or data have none."""
        return None if self.target is None else self.rows.take(self.target, pairs)

    @property
    def target(self) -> str | None:
        """The column of the targets; None if game or data have none."""
        name = self.game.targets(self.direction)
        return name if name is not None and self.rows.partner(name, self.taken) else None

    def origin(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """Return the row numbers that samples of these pairs are made from, by column, as plain values; {} for none."""
        if not self.taken:
            return {}
        rows = {name: self.rows.numbers(name, pairs).tolist() for name in self.taken}
        return {"data": self.rows.name, "split": self.rows.split, "rows": rows}

    def parts(self, made: Mapping[str, Tensor], given: Mapping[str, Tensor], pairs: Sequence[Pair]) -> list[Part]:
        """Return what a sheet shows of samples: inputs, outputs and targets."""
        inputs = {name: (field, given[name]) for name, field in self.taken.items()}
        name, right = self.target, self.targets(pairs)
        truth = None if name is None or right is None else (name, self.field, right)
        return parts(self.outputs, made, inputs, truth)

    def inputs(self, pairs: Sequence[Pair], given: Mapping[str, Tensor] | None = None) -> Batch:
        """Return the input of `generate` for each (seed, number): a function of both and of `given`; on the CPU."""
        given = self.given(pairs) if given is None else given
        options: dict[str, float | None] = {} if self.truncation is None else {"truncation": self.truncation}
        options |= {} if self.layers is None else {"truncation_layers": self.layers}
        return self.game.inputs(RowRng([(s, "sample", k) for s, k in pairs]), given, self.direction, **options)

    def generate(self, inputs: Batch, pairs: Sequence[Pair] | None = None) -> dict[str, Tensor]:
        """Generate the game's outputs, as network values on the CPU; with several ranks each generates its share.

        pairs: the keys of noise inside the networks.
        """
        world, n = World.of_group(), _count(inputs)
        start, stop = world.rows(n, CHUNK)
        mine = {name: rows[start:stop] if stop > start else rows[:1] for name, rows in inputs.items()}
        made = self.generate_here(mine, None if pairs is None else pairs[start:stop] or pairs[:1])
        return {name: world.joined(rows[: stop - start], n, CHUNK) for name, rows in made.items()}

    @torch.no_grad()
    def generate_here(self, inputs: Batch, pairs: Sequence[Pair] | None = None) -> dict[str, Tensor]:
        """Generate on this rank only."""
        parts: dict[str, list[Tensor]] = {}
        keys = list(pairs) if pairs else [(0, k) for k in range(_count(inputs))]
        full = self.at_once
        if self.move is not None:
            inputs = {**inputs, TRANSFORM: torch.tensor([self.move]).expand(_count(inputs), -1)}
        for start in range(0, _count(inputs), full):
            chunk = {name: rows[start : start + full] for name, rows in inputs.items()}
            count = _count(chunk)
            filled = {name: _fill(rows, full).to(self.compute.device) for name, rows in chunk.items()}
            inside = keys[start : start + count] + keys[start : start + 1] * (full - count)
            # Third-party layers draw from the default generator: reseed it, so that earlier draws have no effect.
            self.compute.reseed(key("inside", *inside[0]))
            with noise.keyed(self.nets, [Rng(*pair, "inside", total=1, device=self.compute.device) for pair in inside]):
                made = self.game.generate(self.nets, filled, self.direction)
            for name, rows in made.items():
                rows = self._sized(name, rows[:count]).cpu()
                parts.setdefault(name, []).append(rows.float() if rows.is_floating_point() else rows)
        return {name: torch.cat(rows) for name, rows in parts.items()}

    def _sized(self, name: str, rows: Tensor) -> Tensor:
        """Undo the enlargement of a sample by repeated pixels if `active`."""
        if not self.active or name != self.column:
            return rows
        step = rows.shape[-1] // self.field.shape[-1]
        return rows[..., ::step, ::step]

    @torch.no_grad()
    def computed(self, made: Made, inputs: Batch) -> Tensor:
        """Compute a column from inputs, with the same batches as `generate`; on the CPU."""
        parts = []
        for start in range(0, _count(inputs), self.at_once):
            chunk = {name: rows[start : start + self.at_once] for name, rows in inputs.items()}
            filled = {name: _fill(rows, self.at_once).to(self.compute.device) for name, rows in chunk.items()}
            parts.append(made(self.nets, filled)[: _count(chunk)].cpu())
        return torch.cat(parts)

    def sample(self, pairs: Sequence[Pair], given: Mapping[str, Tensor] | None = None) -> Tensor:
        """Generate the samples of these pairs, as network values; with several ranks each generates its share."""
        return self.alone().generate(self.inputs(pairs, given), pairs)[self.column]

    def alone(self) -> Sampler:
        """Return a sampler without further outputs, with only the networks that its direction needs."""
        other = copy.copy(self)
        needed = self.game.drawing(self.direction)
        other.nets = {name: net for name, net in self.nets.items() if name in needed}
        return other

    def samples(self, n: int, seed: int = 0, classes: str | int | None = None) -> Iterator[Tensor]:
        """Yield n samples in stored form (images: uint8 [b, C, H, W]); sample k of a seed does not depend on n.

        classes: a class's name, or its number as an int, for a conditional generator; None: uniformly random. Raises
        ConfigError.
        """
        for rows, _ in self.labelled_samples(n, seed, classes):
            yield rows

    def labelled_samples(
        self, n: int, seed: int = 0, classes: str | int | None = None, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield `samples` with their classes, int64 [b] (zeros for an unconditional generator).

        first: the sample to begin with. Draws on this rank only.
        """
        one = None if classes is None else self.class_number(classes)
        found = label_of(self.game, self.direction)
        alone = self.alone()
        for start in range(first, n, CHUNK):
            pairs = [(seed, k) for k in range(start, min(start + CHUNK, n))]
            given = self.given(pairs, one)
            made = alone.generate_here(self.inputs(pairs, given), pairs)[self.column]
            labels = torch.zeros(len(pairs), dtype=torch.int64) if found is None else given[found[0]]
            yield self.field.stored(made), labels

    def class_number(self, word: str | int) -> int:
        """Return the number of a class: an int is the number; a text is a name or, unless names are numbers, a number.

        Raises ConfigError with the known names.
        """
        if not self.labelled:
            other = ", or train a conditional one (model.conditioning=projection)"
            remedy = other if draws_freely(self.game, self.direction) else ""
            raise ConfigError(f"classes={word}: this generator is unconditional; leave classes out{remedy}")
        text = printable(str(word).strip())  # names are stored like this
        if isinstance(word, str) and text in self.classes:
            return self.classes.index(text)
        numbered = isinstance(word, str) and any(map(_is_number, self.classes))
        if _is_number(text) and not numbered and int(text) < len(self.classes):
            return int(text)
        raise ConfigError(f"classes={word}: no such class; {suggestion(text, self.classes)}")

    def class_word(self, number: int) -> str:
        """Return the text that `class_number` maps to this class."""
        return self.classes[number] if any(map(_is_number, self.classes)) else str(number)

    def directed(self, direction: str | None) -> Sampler:
        """Return a sampler of another direction (None: this one). Raises ConfigError for an unknown one."""
        other = copy.copy(self)
        if direction is not None:
            other.direction, other._rows = chosen_direction(self.game, direction), None
        return other

    def truncated(self, threshold: float | None) -> Sampler:
        """Return a sampler with another truncation threshold. Raises ConfigError if the game has no latents."""
        self._check(threshold)
        other = copy.copy(self)
        other.truncation = threshold
        return other

    def layered(self, layers: int | None) -> Sampler:
        """Return a sampler whose truncation applies to so many layers. Raises ConfigError if the game has no styles."""
        if layers is not None and "truncation_layers" not in self.game.sampling_options():
            raise ConfigError(
                f"truncation_layers={layers}: this generator has no styles: leave it out, or train model=stylegan"
            )
        other = copy.copy(self)
        other.layers = layers
        return other

    def moved(self, right: float, down: float, degrees: float, said: str = "") -> Sampler:
        """Return a sampler that moves and rotates all samples (`TRANSFORM`). Raises ConfigError if the game cannot."""
        self.refuse_still(said or f"moved({right:g}, {down:g}, {degrees:g})", "leave it out")
        other = copy.copy(self)
        other.move = right, down, degrees
        return other

    def refuse_still(self, said: str, remedy: str) -> None:
        """Raise ConfigError if the game's samples cannot be moved."""
        if not self.game.moves_samples(self.direction):
            raise ConfigError(f"{said}: samples of this game cannot be moved: {remedy}, or train model=stylegan3")

    def at_active_size(self) -> Sampler:
        """Return a sampler of images at the size that the generator has reached. Raises ConfigError if none grows."""
        if self.game.active_size(self.direction) is None:
            raise ConfigError("size=active: this generator does not grow: leave size out")
        other = copy.copy(self)
        other.active = True
        return other

    def _check(self, threshold: float | None) -> None:
        if threshold is not None and "truncation" not in self.game.sampling_options():
            raise ConfigError(
                f"truncation={threshold:g}: this game has no latents that can be truncated: leave truncation out"
            )

    def protocol(self) -> dict[str, Any]:
        """Return what the samples depend on, as plain values."""
        told: dict[str, Any] = {"direction": self.direction} if self.direction else {}
        told |= {} if self.layers is None else {"truncation_layers": self.layers}
        told |= {} if self.move is None else {"translate": list(self.move[:2]), "rotate": self.move[2]}
        size = self.game.active_size(self.direction)
        told |= {} if size is None or self.field.shape[-2:] == size else {"enlarged_from": list(size)}
        return {"run": str(self.run), "step": self.step, "truncation": self.truncation, **told, **self.about}


def chosen_direction(game: Game, direction: str | None) -> str:
    """Return the given direction, or the game's first. Raises ConfigError for an unknown one."""
    known = game.directions()
    if direction is None:
        return known[0]
    if direction not in known:
        there = f"type direction={' or '.join(known)}" if known[0] else "leave direction out"
        raise ConfigError(f"direction={direction}: this game has no such direction: {there}")
    return direction


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None


def _count(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _fill(tensor: Tensor, full: int) -> Tensor:
    """Pad a batch with copies of its first row: kernels may round differently for another batch size."""
    return (
        torch.cat([tensor, tensor[:1].expand(full - len(tensor), *tensor.shape[1:])]) if len(tensor) < full else tensor
    )
