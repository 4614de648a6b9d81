"""One network of a run: its weights, its configuration, and the SHA-256 of its file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from gancli.config.paths import split_source
from gancli.errors import RunError, suggestion
from gancli.store import checkpoint, export, finding


@dataclass(frozen=True)
class StoredNetwork:
    """A network as a checkpoint or an export stores it.

    state: its weights and buffers by its own names, on the CPU. config: the whole configuration of its run. data: the
    facts of its training data, and pretrained those of the run's frozen network, None if there was none. averaged:
    whether these are the EMA weights. sha256: of the whole file. average: other weights for the EMA. told: what a log
    says of the origin; empty: by the fields above. notes: further lines of the log.
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
    average: dict[str, Tensor] | None = None
    told: str = ""
    notes: tuple[str, ...] = ()


def read_network(source: str, key: str, name: str | None = None, averaged: bool | None = False) -> StoredNetwork:
    """Read the network that `run:PATH#NAME` names, from the newest checkpoint if PATH is a run directory.

    key: the key that gave the source, for messages. name: the network if the source names none. averaged: take the EMA
    weights if there are any; None: the same, and from an export the weights that it has. No code in the file is run,
    and no size that it states is trusted. The caller compares shapes before allocating the network (`refuse_shapes`).
    Raises ConfigError for another form, RunError for a file that is missing, damaged or not a run's, or a run without
    such a network.
    """
    path, name = split_source(source, key, name)
    run, file = finding.find(path, key=key)
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
        raise RunError(f"{file} is not a checkpoint of a run: its ema has a wrong type")
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
    """Raise RunError unless `shapes`, a state dict without memory, has exactly the stored names and shapes.

    what: how the message begins, such as `init.G=run:last`.
    """
    wanted = {name: list(value.shape) for name, value in shapes.items()}
    there = {name: list(value.shape) for name, value in stored.state.items()}
    other = sorted(name for name in wanted.keys() | there.keys() if wanted.get(name) != there.get(name))
    if other:
        first = other[0]
        said, held = wanted.get(first, "absent"), there.get(first, "absent")
        raise RunError(
            f"{what}: {len(other)} of {len(wanted)} tensors of {stored.name} do not fit: {first[:80]} is {held} in"
            f" {stored.file} and should be {said}"
        )
