"""One network of a run: its weights, what it is built of, and the hash of the file that they come from."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gancli.config.paths import split_source
from gancli.errors import RunError, suggestion
from gancli.store import checkpoint, export, rundir


@dataclass(frozen=True)
class StoredNetwork:
    """A network as a checkpoint or an export holds it.

    state: its weights and buffers by its own names, on the CPU. config: the whole configuration of its run. data: the
    facts of the data it was trained on, and pretrained those of the frozen network beside it, as the file keeps them,
    None where there was none. averaged: whether these are the averaged weights.
    sha256: of the whole file.
    """

    name: str
    file: Path
    step: int
    averaged: bool
    state: dict[str, Tensor]
    config: dict[str, Any]
    data: dict[str, Any]
    pretrained: dict[str, Any] | None
    sha256: str


def read_network(source: str, key: str, name: str | None = None, averaged: bool | None = False) -> StoredNetwork:
    """The network that `run:PATH#NAME` names, of the newest checkpoint where PATH is a run directory.

    key: where the source was typed, for messages. name: the network where the source names none. averaged: take the
    averaged weights where there are some; None: those, and of an export what it has. Nothing in the file is run, and no
    size that it states is believed. Whoever builds the network compares shapes before memory is taken for it
    (`refuse_shapes`). Raises ConfigError for another form, RunError for a file that is missing, damaged or no run's, or
    a run without such a network.
    """
    path, name = split_source(source, key, name)
    run, file = rundir.find(path, key=key)
    file = file or run.checkpoint("last")
    exported = file.suffix == export.SUFFIX
    state = export.read(file) if exported else checkpoint.read_run(file)
    game: Mapping[str, Tensor] = state["game"]
    names = sorted({parts[1] for parts in (full.split(".") for full in game) if parts[0] == "nets" and len(parts) > 2})
    if name not in names:
        raise RunError(f"{key}={source}: this run has no network {name}; {suggestion(name, names)}")
    if exported and averaged is not None:
        export.refuse_other(file, state, averaged)
    mean = None if averaged is False else state["ema"].get(name)
    held = f"nets.{name}."
    weights = mean or {full.removeprefix(held): value for full, value in game.items() if full.startswith(held)}
    if not all(isinstance(value, Tensor) for value in weights.values()):
        raise RunError(f"{file} is not a checkpoint of a run: its ema is of another kind")
    return StoredNetwork(
        name=name,
        file=file,
        step=int(state["step"]),
        averaged=bool(state["about"]["ema"]) if exported else mean is not None,
        state=dict(weights),
        config=dict(state["config"]),
        data=dict(state["data"]),
        pretrained=state.get("pretrained"),
        sha256=checkpoint.sha256(file),
    )


def refuse_shapes(shapes: Mapping[str, Tensor], stored: StoredNetwork, what: str) -> None:
    """Raise RunError unless `shapes`, a state dict without memory, has just the names and shapes that are stored.

    what: how the message begins, such as `init.G=run:last`.
    """
    wanted = {name: list(value.shape) for name, value in shapes.items()}
    there = {name: list(value.shape) for name, value in stored.state.items()}
    other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if other:
        first = other[0]
        said, held = wanted.get(first, "not there"), there.get(first, "not there")
        raise RunError(
            f"{what}: {len(other)} of {len(wanted)} tensors of {stored.name} do not fit: {first[:80]} is {held} in"
            f" {stored.file} and should be {said}"
        )
