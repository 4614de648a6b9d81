"""What a run's game makes for whoever watches it: of numbers and data that stay the same over the whole run."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.data.fields import Label
from gancli.data.loader import Stream
from gancli.games.game import Batch
from gancli.nets.layers.noise import keyed
from gancli.observers.observer import RunView


def stream_of(view: RunView, name: str) -> tuple[Stream, str] | None:
    """The stream and the column of the data that a game calls by this name; None where the data have no such column."""
    feed, _, column = name.rpartition(".")
    stream = view.engine.streams.get(feed) if feed else view.engine.main
    return None if stream is None or column not in stream.source.fields else (stream, column)


def data_of(view: RunView, name: str, n: int) -> Tensor | None:
    """The first n rows of a column, ready, as they are dealt (fewer where there are fewer); None: no such column."""
    found = stream_of(view, name)
    if found is None:
        return None
    stream, column = found
    return stream.batch(0, min(n, len(stream.source)))[column]


def shown(
    view: RunView, purpose: str, n: int, nets: Mapping[str, nn.Module], labels: Tensor | None = None
) -> dict[str, Tensor]:
    """n samples of the first direction, ready, with what the game shows beside them.

    labels: classes asked for, int64 [n]; None: drawn. They are made in parts that the device is known to bear.
    """
    engine = view.engine
    game, device = engine.game, engine.compute.device
    direction = game.directions()[0]
    noise = Rng(engine.seed, purpose, total=n, device=device, dtype=engine.dtype)
    inputs = game.inputs(noise, _given(view, purpose, n, direction, labels), direction)
    rows, parts = min(n, engine.micro_batch or engine.batch_size), list[dict[str, Tensor]]()
    engine.compute.reseed(noise.seed("inside"))
    for start in range(0, n, rows):
        part = {name: t[start : start + rows].to(device) for name, t in inputs.items()}
        with torch.no_grad(), keyed(nets, noise.cut(start, min(n, start + rows))):
            parts.append(game.generate(nets, part, direction))
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _given(view: RunView, purpose: str, n: int, direction: str, labels: Tensor | None) -> Batch:
    """The input columns: rows of the data in an order of this purpose, and the labels asked for."""
    engine, given = view.engine, Batch()
    for name, field in engine.game.input_fields(direction).items():
        if isinstance(field, Label):
            given |= {} if labels is None else {name: labels}
            continue
        found = stream_of(view, name)
        assert found is not None, f"{name} is no column of the data"
        stream, column = found
        own = Stream(stream.source, engine.seed, purpose, engine.compute.device)
        given[name] = own.batch(0, n)[column]
    return given
