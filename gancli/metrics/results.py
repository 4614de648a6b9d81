"""A finished result: what it may be compared by, and where a run keeps it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gancli.store.environment import environment
from gancli.store.files import write_json

PLACES = ("run", "folder", "file")  # what a protocol says of where its images lie


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """The same for results that may be compared: all of the protocol but the step, and where things lie.

    A run may be moved, or named by another spelling of its path; data and files are told by their SHA-256.
    """
    sides = {
        side: {k: v for k, v in protocol[side].items() if k not in left_out}
        for side, left_out in (("fake", ("step", "seen", *PLACES)), ("reference", PLACES))
        if isinstance(protocol.get(side), Mapping)
    }
    return hashlib.sha256(json.dumps({**protocol, **sides}, sort_keys=True, default=str).encode()).hexdigest()[:8]


def finished(values: dict[str, Any], step: int | None, seconds: float) -> dict[str, Any]:
    """A result with the mark of its protocol, its step, and what it was made with and how long that took."""
    values = values | {"protocol_id": protocol_id(values["protocol"])} | ({} if step is None else {"step": step})
    values["protocol"] = values["protocol"] | environment() | {"seconds": round(seconds, 1)}
    return values


def keep(run: Path, values: Mapping[str, Any]) -> None:
    """Keep a result in its run, one file a checkpoint and protocol; a checkpoint file on its own has no such place."""
    if (run / "run.json").is_file():
        write_json(run / "eval" / f"{values['step']:08d}-{values['protocol_id']}.json", dict(values))


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that a result is about, by name."""
    return {key: value for key, value in values.items() if isinstance(value, float) and key != "seconds"}
