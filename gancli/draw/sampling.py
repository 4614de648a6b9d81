"""Drawing from a trained game: samples by seed and number, the same however many are drawn at once."""

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
from gancli.games.game import Batch, Game, draws_freely, label_of
from gancli.nets.layers import noise

CHUNK = 32  # samples are always drawn in chunks of this many, the last one filled up: the same seed gives the same bits
ALONE = 1  # but what is made of an image goes alone, whatever its size
FILES = (".pt", ".safetensors")  # of checkpoints and exports

Pair = tuple[int, int]  # a sample's seed and its number


class Sampler:
    """A trained game, ready to draw: `samples(n, seed)`; or `given`, `inputs` and `generate` one after another.

    direction: None: the game's first. truncation: threshold of the latents, None for none. rows: what samples are made
    from; None: looked for where the run says. Raises ConfigError for what the game does not know.
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
        self._check(truncation)
        self.run, self.step, self.about, self.config = Path(), 0, dict[str, Any](), dict[str, Any]()
        self._rows = rows

    @property
    def rows(self) -> Rows:
        """The data that samples are made from, where they are: looked for once. Raises GanError."""
        if self._rows is None:
            self._rows = Rows.of_run(self.config["dataset"], self.config["game"], self.taken)
        return self._rows

    def place(self, node: Mapping[str, Any]) -> None:
        """Let the data that samples are made from be those of this section."""
        self.config, self._rows = {**self.config, "dataset": dict(node)}, None

    @property
    def taken(self) -> dict[str, Field]:
        """The columns of data that samples are made from, labels apart."""
        wanted = self.game.input_fields(self.direction).items()
        return {name: field for name, field in wanted if not isinstance(field, Label)}

    @property
    def most(self) -> int | None:
        """How many samples there can be of one seed; None: any number."""
        if draws_freely(self.game, self.direction):
            return None
        return min(len(self.rows.source(name)[0]) for name in self.taken)

    @property
    def picture(self) -> tuple[str, Image] | None:
        """The column of images that samples are made from, where this and labels are all that they are made from."""
        images = [(name, field) for name, field in self.taken.items() if isinstance(field, Image)]
        return images[0] if len(images) == len(self.taken) == 1 else None

    @property
    def at_once(self) -> int:
        """How many samples go through the networks at a time."""
        return CHUNK if self.picture is None else ALONE

    @property
    def notes(self) -> list[str]:
        """What to bear in mind of these samples."""
        return [] if draws_freely(self.game, self.direction) or not self.rows.note else [self.rows.note]

    @property
    def whole(self) -> bool:
        """Whether all networks are there: an export holds those that draw alone."""
        return self.nets.keys() >= self.game.nets._modules.keys()

    @property
    def column(self) -> str:
        """The name of the sample among what is made: the column of the data that it is to be like."""
        return next(iter(self.game.output_fields(self.direction)))

    @property
    def field(self) -> Field:
        """What a sample is."""
        return next(iter(self.game.output_fields(self.direction).values()))

    @property
    def labelled(self) -> bool:
        """Whether samples are asked for by class."""
        return label_of(self.game, self.direction) is not None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes that samples are asked for by; of the data's, where they are asked for by none."""
        found = label_of(self.game, self.direction)
        return self.facts.classes if found is None else found[1].names

    @property
    def name(self) -> str:
        """The run's name without its date, for what is made from it."""
        stem = self.run.stem if self.run.suffix in FILES else self.run.name
        return re.sub(r"^\d{4}-\d\d-\d\d_\d\d-\d\d-\d\d-", "", stem)

    def refuse_many(self, asked: str, n: int, name: str = "n", times: int = 1) -> None:
        """Raise ConfigError where n samples, `times` over, do not fit into memory. asked: what was typed."""
        refuse_many(asked, n, times * self.field.bytes(), name)

    def given(
        self,
        pairs: Sequence[Pair],
        label: int | Sequence[int] | None = None,
        own: Mapping[str, Tensor] | None = None,
    ) -> Batch:
        """What samples are made from beside numbers: rows of data, and labels, chosen or drawn evenly for each pair.

        label: the class of all, or of each. own: columns to take in place of the data's. Raises GanError for data that
        are not there, or too few.
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
        """The right answers for samples of these pairs, ready; None where a game or the data have none."""
        return None if self.target is None else self.rows.take(self.target, pairs)

    @property
    def target(self) -> str | None:
        """The column that has the right answers; None where a game or the data have none."""
        name = self.game.targets(self.direction)
        return name if name is not None and self.rows.partner(name, self.taken) else None

    def origin(self, pairs: Sequence[Pair]) -> dict[str, Any]:
        """The rows of data that samples of these pairs are made from, by column, as plain values; {} for none."""
        if not self.taken:
            return {}
        rows = {name: self.rows.numbers(name, pairs).tolist() for name in self.taken}
        return {"data": self.rows.name, "split": self.rows.split, "rows": rows}

    def parts(self, made: Mapping[str, Tensor], given: Mapping[str, Tensor], pairs: Sequence[Pair]) -> list[Part]:
        """What a sheet shows of samples: what they were made from, what was made, and the right answers."""
        inputs = {name: (field, given[name]) for name, field in self.taken.items()}
        name, right = self.target, self.targets(pairs)
        truth = None if name is None or right is None else (name, self.field, right)
        return parts(self.game.output_fields(self.direction), made, inputs, truth)

    def inputs(self, pairs: Sequence[Pair], given: Mapping[str, Tensor] | None = None) -> Batch:
        """What `generate` takes for each (seed, number), a function of these two and of what is given; on the CPU."""
        given = self.given(pairs) if given is None else given
        options = {} if self.truncation is None else {"truncation": self.truncation}
        return self.game.inputs(RowRng([(s, "sample", k) for s, k in pairs]), given, self.direction, **options)

    def generate(self, inputs: Batch, pairs: Sequence[Pair] | None = None) -> dict[str, Tensor]:
        """What the game makes, ready, on the CPU; of several ranks, each makes its share.

        pairs: what noise inside the networks is keyed by.
        """
        world, n = World.of_group(), _count(inputs)
        start, stop = world.rows(n, CHUNK)
        mine = {name: rows[start:stop] if stop > start else rows[:1] for name, rows in inputs.items()}
        made = self.generate_here(mine, None if pairs is None else pairs[start:stop] or pairs[:1])
        return {name: world.joined(rows[: stop - start], n, CHUNK) for name, rows in made.items()}

    @torch.no_grad()
    def generate_here(self, inputs: Batch, pairs: Sequence[Pair] | None = None) -> dict[str, Tensor]:
        """As `generate`, by this rank alone."""
        parts: dict[str, list[Tensor]] = {}
        keys = list(pairs) if pairs else [(0, k) for k in range(_count(inputs))]
        full = self.at_once
        for start in range(0, _count(inputs), full):
            chunk = {name: rows[start : start + full] for name, rows in inputs.items()}
            count = _count(chunk)
            filled = {name: _fill(rows, full).to(self.compute.device) for name, rows in chunk.items()}
            inside = keys[start : start + count] + keys[start : start + 1] * (full - count)
            # What layers of others draw from the default generator is the same whatever was drawn before.
            self.compute.reseed(key("inside", *inside[0]))
            with noise.keyed(self.nets, [Rng(*pair, "inside", total=1, device=self.compute.device) for pair in inside]):
                made = self.game.generate(self.nets, filled, self.direction)
            for name, rows in made.items():
                rows = rows[:count].cpu()
                parts.setdefault(name, []).append(rows.float() if rows.is_floating_point() else rows)
        return {name: torch.cat(rows) for name, rows in parts.items()}

    def sample(self, pairs: Sequence[Pair], given: Mapping[str, Tensor] | None = None) -> Tensor:
        """The samples of these pairs, ready; of several ranks, each makes its share."""
        return self.alone().generate(self.inputs(pairs, given), pairs)[self.column]

    def alone(self) -> Sampler:
        """One that makes samples and nothing beside them: with those networks that its direction cannot do without."""
        other = copy.copy(self)
        needed = self.game.drawing(self.direction)
        other.nets = {name: net for name, net in self.nets.items() if name in needed}
        return other

    def samples(self, n: int, seed: int = 0, classes: str | int | None = None) -> Iterator[Tensor]:
        """n samples as stored chunks (images: uint8 [b, C, H, W]); sample k of a seed is the same whatever n is.

        classes: a class's name, or its number as an int, for a conditional generator; None: drawn evenly. Raises
        ConfigError.
        """
        for rows, _ in self.labelled_samples(n, seed, classes):
            yield rows

    def labelled_samples(
        self, n: int, seed: int = 0, classes: str | int | None = None, first: int = 0
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """As `samples`, each chunk with the classes asked for, int64 [b] (zeros where the generator knows none).

        first: the sample to begin with. Drawn by this rank alone.
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
        """The number of a class: an int is the number itself; a text is a name, else a number where no name is one.

        Raises ConfigError with the names there are.
        """
        if not self.labelled:
            other = ", or train one that does (model.conditioning=projection)"
            way = other if draws_freely(self.game, self.direction) else ""
            raise ConfigError(f"classes={word}: this generator knows no classes; leave classes out{way}")
        text = printable(str(word).strip())  # as names are kept
        if isinstance(word, str) and text in self.classes:
            return self.classes.index(text)
        numbered = isinstance(word, str) and any(map(_is_number, self.classes))
        if _is_number(text) and not numbered and int(text) < len(self.classes):
            return int(text)
        raise ConfigError(f"classes={word}: no such class; {suggestion(text, self.classes)}")

    def class_word(self, number: int) -> str:
        """What `class_number` takes for this class."""
        return self.classes[number] if any(map(_is_number, self.classes)) else str(number)

    def directed(self, direction: str | None) -> Sampler:
        """The same networks, drawing in another direction (None: this one). Raises ConfigError for an unknown one."""
        other = copy.copy(self)
        if direction is not None:
            other.direction, other._rows = chosen_direction(self.game, direction), None
        return other

    def truncated(self, threshold: float | None) -> Sampler:
        """The same generator with latents cut off at another threshold. Raises ConfigError where there are none."""
        self._check(threshold)
        other = copy.copy(self)
        other.truncation = threshold
        return other

    def _check(self, threshold: float | None) -> None:
        if threshold is not None and "truncation" not in self.game.sampling_options():
            raise ConfigError(
                f"truncation={threshold:g}: this game draws from no latents that could be cut off: leave it out"
            )

    def protocol(self) -> dict[str, Any]:
        """What the samples depend on, as plain values."""
        told = {"direction": self.direction} if self.direction else {}
        return {"run": str(self.run), "step": self.step, "truncation": self.truncation, **told, **self.about}


def chosen_direction(game: Game, direction: str | None) -> str:
    """The direction asked for, or the game's first. Raises ConfigError for one that it does not know."""
    known = game.directions()
    if direction is None:
        return known[0]
    if direction not in known:
        there = f"type direction={' or '.join(known)}" if known[0] else "leave direction out"
        raise ConfigError(f"direction={direction}: this game draws in no such direction: {there}")
    return direction


def _is_number(text: str) -> bool:
    return re.fullmatch(r"[0-9]{1,18}", text) is not None


def _count(batch: Mapping[str, Tensor]) -> int:
    return len(next(iter(batch.values())))


def _fill(tensor: Tensor, full: int) -> Tensor:
    """Fill a chunk up with its first row: kernels may round differently for another number of rows."""
    return (
        torch.cat([tensor, tensor[:1].expand(full - len(tensor), *tensor.shape[1:])]) if len(tensor) < full else tensor
    )
