"""Outputs of translation games on held-out inputs, with their inputs, targets and classes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from torch import Tensor

from gancli.data.fields import Field, Image, Label
from gancli.data.source import DataSet, Source, Sources, feeds_of, lone
from gancli.errors import MetricError
from gancli.games.game import draws_freely
from gancli.metrics.images import CHUNK, ImageSet, Shown, eight_bits, from_source, shape_of
from gancli.metrics.metric import Metric, PairMetric

if TYPE_CHECKING:
    from gancli.draw.sampling import Pair, Sampler

BACK = "back"  # the games' name of a cycle reconstruction: an input translated there and back


def made_of_rows(sampler: Sampler) -> bool:
    """Whether samples are images made from rows of data, one of each row."""
    return not draws_freely(sampler.game, sampler.direction) and isinstance(sampler.field, Image)


def input_of(sampler: Sampler) -> str | None:
    """Return the column of the input images; None if the game has none."""
    fields = sampler.game.input_fields(sampler.direction)
    return next((name for name, field in fields.items() if isinstance(field, Image)), None)


def returned(sampler: Sampler) -> bool:
    """Whether the game's outputs include cycle reconstructions."""
    name, made = input_of(sampler), sampler.game.output_fields(sampler.direction)
    return name is not None and made.get(BACK) == sampler.game.input_fields(sampler.direction)[name]


def classes_of(sampler: Sampler) -> str | None:
    """Return the column of the inputs' classes, by its name in a batch; None if they have none."""
    name = input_of(sampler)
    if name is None:
        return None
    feed = name.rpartition(".")[0]
    own = {c: f for c, f in sampler.facts.fields.items() if c.rpartition(".")[0] == feed}
    return next((column for column, field in own.items() if isinstance(field, Label)), None)


def table_of(feeds: Mapping[str, Source], name: str) -> Source:
    """Return the images of a column (by its name in a batch) as a table with the columns x and, if known, y (class)."""
    feed, _, column = name.rpartition(".")
    source = feeds[feed] if feed in feeds else next(iter(feeds.values()))
    if next(iter(source.columns)) == column == "x":
        return source
    label = next((c for c in source.columns.values() if isinstance(c.field, Label)), None)
    columns = {"x": source.columns[column]} | ({} if label is None else {"y": label})
    options: dict[str, Any] = {"flip": source.flip, "crop": source.crop, "jitter": source.jitter}
    return Source(source.name, columns, dequantize=source.dequantize, **options)


def like_samples(data: DataSet, sampler: Sampler, who: str = "an evaluation") -> Source:
    """Return the real data that samples imitate: a data set's only table, or the images of the samples' column.

    who: the caller, for the message. Raises CombinationError for several tables if samples are not images.
    """
    several = isinstance(data, Sources) or made_of_rows(sampler)
    if not several or not isinstance(sampler.field, Image):
        return lone(data, who)
    return table_of(feeds_of(data), sampler.column)


def reference(sampler: Sampler, n: int | None = None, seed: int = 0) -> ImageSet:
    """Return n real images (None: all) of the outputs' domain, from the same split as the inputs.

    Raises MetricError if n is more than there are.
    """
    rows = sampler.rows
    source = table_of(rows.feeds, sampler.column)
    return from_source(source, n, seed, exact=True, split=rows.split, column=sampler.column)


def levels_of(field: Field) -> int:
    """Return the largest value of a saved pixel."""
    assert isinstance(field, Image)
    return field.top


def beside(
    sampler: Sampler, first: int, pairs: Sequence[Pair], given: Tensor, made: Tensor, back: Tensor | None = None
) -> Shown:
    """Return outputs with targets and labels. given, made, back: inputs, outputs and reconstructions, as saved."""
    game, rows = sampler.game, sampler.rows
    name, label, target = input_of(sampler), classes_of(sampler), sampler.target
    assert name is not None
    top, levels = levels_of(game.input_fields(sampler.direction)[name]), levels_of(sampler.field)
    truth = None if target is None else sampler.field.stored(rows.take(target, pairs)).double() / levels
    return Shown(
        first,
        eight_bits(made),
        levels,
        made.double() / levels,
        given.double() / top,
        labels=None if label is None else rows.take(label, pairs),
        truth=truth,
        back=None if back is None else back.double() / top,
    )


def inputs_of(sampler: Sampler, pairs: Sequence[Pair], given: Mapping[str, Tensor] | None = None) -> Tensor:
    """Return the input images of these pairs, as saved. given: their columns, if already read."""
    name = input_of(sampler)
    assert name is not None
    ready = sampler.rows.take(name, pairs) if given is None else given[name]
    return sampler.game.input_fields(sampler.direction)[name].stored(ready)


def look_back(metrics: Sequence[Metric]) -> bool:
    """Whether any of the metrics reads cycle reconstructions."""
    return any(isinstance(metric, PairMetric) and metric.wants == BACK for metric in metrics)


def from_rows(sampler: Sampler, n: int, seed: int, back: bool = True) -> ImageSet:
    """Return the outputs of the first n rows in the order of `seed`, each row once.

    back: whether to compute cycle reconstructions too, if the game has them. Raises MetricError if samples or inputs
    are not images.
    """
    making = sampler if back else sampler.alone()

    def part(start: int, stop: int) -> Shown:
        pairs = [(seed, k) for k in range(start, stop)]
        given = sampler.given(pairs)
        made = making.generate_here(sampler.inputs(pairs, given), pairs)
        shown = inputs_of(sampler, pairs, given)
        cycled = sampler.game.output_fields(sampler.direction)[BACK].stored(made[BACK]) if BACK in made else None
        return beside(sampler, start, pairs, shown, sampler.field.stored(made[sampler.column]), cycled)

    return in_parts(sampler, n, seed, part)


def in_parts(sampler: Sampler, n: int, seed: int, part: Callable[[int, int], Shown]) -> ImageSet:
    """Return a set of n outputs, or of their replacements, computed `CHUNK` at a time by part(start, stop)."""
    name, rows = input_of(sampler), sampler.rows
    if name is None:
        raise MetricError("these metrics need a game with input images, and this one has none: type gan sample")
    shape = shape_of(sampler.field)
    told = {"shape": list(shape), "seed": seed, **sampler.protocol()}
    source = rows.source(name)[0]
    told |= {"data": source.name, "split": rows.split, "rows": len(source), "fingerprint": source.fingerprint}
    known = classes_of(sampler) is not None

    def span(first: int, last: int) -> ImageSet:
        def shown() -> Iterator[Shown]:
            return (part(start, min(start + CHUNK, last)) for start in range(first, last, CHUNK))

        def labelled() -> Iterator[tuple[Tensor, Tensor]]:
            return ((each.images, each.labels) for each in shown() if each.labels is not None)

        def chunks() -> Iterator[Tensor]:
            return (each.images for each in shown())

        return ImageSet(last - first, shape, chunks, told, labelled if known else None, span, shown)

    return span(0, n)


def refuse_pairs(sampler: Sampler, metrics: Sequence[PairMetric]) -> None:
    """Raise MetricError for the first metric that needs something this run does not have."""
    for metric in metrics:
        key, name = f"metrics={metric.name}", input_of(sampler)
        if name is None or not isinstance(sampler.field, Image):
            raise MetricError(f"{key} needs a game with input images, and this one has none: type metrics=[fid,kid]")
        if metric.wants == "truth" and sampler.target is None:
            raise MetricError(
                f"{key} compares outputs with their targets, and {sampler.facts.name} has none for this game: its"
                " images are not paired; type metrics=[fid,kid]"
            )
        if metric.wants == "back" and not returned(sampler):
            raise MetricError(
                f"{key} compares inputs with their cycle reconstructions, and this game translates in one direction:"
                " leave it out of metrics, or train model=cyclegan"
            )
        if metric.wants == "back" and not sampler.whole:
            raise MetricError(f"{key} needs both directions, and {sampler.run} has only one: give the run")
        metric.refuse(sampler.field.shape, sampler.game.input_fields(sampler.direction)[name].shape)


def refuse_classes(sampler: Sampler, metric: str) -> None:
    """Raise MetricError if inputs have no classes, or other classes than the real images of the outputs' domain."""
    name, column = classes_of(sampler), sampler.column
    fields = sampler.facts.fields
    labels = [
        f for c, f in fields.items() if isinstance(f, Label) and c.rpartition(".")[0] == column.rpartition(".")[0]
    ]
    if name is None or not labels:
        raise MetricError(
            f"metrics={metric} tests whether outputs have the class of their input, and {sampler.facts.name} has no"
            " classes: leave it out of metrics"
        )
    if labels[0] != fields[name]:
        raise MetricError(
            f"metrics={metric} tests whether outputs have the class of their input, and the classes of {column} differ"
            f" from those of {name}: leave it out of metrics"
        )
