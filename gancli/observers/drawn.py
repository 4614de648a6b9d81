"""Samples of a run's game for observers, from latents and data rows that are fixed over the whole run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.fields import Label
from gancli.data.loader import Stream
from gancli.draw.sheets import Part, parts
from gancli.games.game import Batch, sample_of
from gancli.nets.layers.noise import keyed
from gancli.observers.observer import RunView


def stream_of(view: RunView, name: str) -> tuple[Stream, str] | None:
    """Return the stream and the column of this name in the game; None if the data have no such column."""
    feed, _, column = name.rpartition(".")
    stream = view.engine.streams.get(feed) if feed else view.engine.main
    return None if stream is None or column not in stream.source.fields else (stream, column)


def data_of(view: RunView, name: str, n: int) -> Tensor | None:
    """Return the first n rows (or all) of a column in the stream's order, as network input; None: no such column."""
    found = stream_of(view, name)
    if found is None:
        return None
    stream, column = found
    return stream.batch(0, min(n, len(stream.source)))[column]


def shown(
    view: RunView,
    purpose: str,
    n: int,
    nets: Mapping[str, nn.Module],
    labels: Tensor | None = None,
    direction: str | None = None,
) -> dict[str, Tensor]:
    """Generate n samples of a direction (None: the first) and the game's further outputs, as network values.

    labels: requested classes, int64 [n]; None: random. Batches are as large as in training, which fit in memory.
    """
    engine = view.engine
    game, device = engine.game, engine.compute.device
    direction = game.directions()[0] if direction is None else direction
    noise = Rng(engine.seed, purpose, total=n, device=device, dtype=engine.dtype)
    inputs = game.inputs(noise, _given(view, purpose, n, direction, labels), direction)
    rows, parts = min(n, engine.micro_batch or engine.batch_size), list[dict[str, Tensor]]()
    engine.compute.reseed(noise.seed("inside"))
    for start in range(0, n, rows):
        part = {name: t[start : start + rows].to(device) for name, t in inputs.items()}
        with torch.no_grad(), keyed(nets, noise.cut(start, min(n, start + rows))):
            parts.append(game.generate(nets, part, direction))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def parts_of(view: RunView, purpose: str, n: int, made: Mapping[str, Tensor]) -> list[Part]:
    """Return what a sheet shows of the outputs of `shown`: their inputs, the outputs, and the targets.

    Targets are shown if they are in the same table as the inputs; other feeds have their own order.
    """
    game = view.engine.game
    direction = game.directions()[0]
    taken = {name: field for name, field in game.input_fields(direction).items() if not isinstance(field, Label)}
    columns = {name: stream_of(view, name) for name in taken}
    target, truth = game.targets(direction), None
    found = None if target is None else stream_of(view, target)
    if target is not None and found is not None and any(own and own[0] is found[0] for own in columns.values()):
        stream, column = found
        truth = target, sample_of(game, direction)[1], _batch(view, stream, purpose, n)[column].cpu()
    given = {name: rows.cpu() for name, rows in _given(view, purpose, n, direction, None).items()}
    return parts(game.output_fields(direction), made, {name: (taken[name], given[name]) for name in taken}, truth)


def given_of(view: RunView, purpose: str, n: int, direction: str) -> Batch:
    """Return the input rows of `shown`, by column, without labels."""
    return _given(view, purpose, n, direction, None)


def _batch(view: RunView, stream: Stream, purpose: str, n: int) -> Batch:
    """Return n rows of a stream's table, in a permutation keyed by `purpose`."""
    return Stream(stream.source, view.engine.seed, purpose, view.engine.compute.device).batch(0, n)


def _given(view: RunView, purpose: str, n: int, direction: str, labels: Tensor | None) -> Batch:
    """Return the input columns: data rows in a permutation keyed by `purpose`, and the requested labels."""
    engine, given = view.engine, Batch()
    for name, field in engine.game.input_fields(direction).items():
        if isinstance(field, Label):
            given |= {} if labels is None else {name: labels}
            continue
        found = stream_of(view, name)
        assert found is not None, f"the data have no column {name}"
        stream, column = found
        given[name] = _batch(view, stream, purpose, n)[column]
    return given
