"""Results of evaluations: their protocol id, by which they are comparable, and their files in a run."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gancli.store.environment import environment
from gancli.store.files import write_json

PLACES = ("run", "folder", "file")  # entries of a protocol that are paths


def protocol_id(protocol: Mapping[str, Any]) -> str:
    """Return a hash of the protocol without step and paths; results with the same id are comparable.

    A run may be moved or named by another path; data and files are identified by their SHA-256.
    """
    sides = {
        side: {k: v for k, v in protocol[side].items() if k not in left_out}
        for side, left_out in (("fake", ("step", "seen", *PLACES)), ("reference", PLACES))
        if isinstance(protocol.get(side), Mapping)
    }
    return hashlib.sha256(json.dumps({**protocol, **sides}, sort_keys=True, default=str).encode()).hexdigest()[:8]


def finished(values: dict[str, Any], step: int | None, seconds: float) -> dict[str, Any]:
    """Return a result with its protocol id, step, environment and duration in seconds."""
    values = values | {"protocol_id": protocol_id(values["protocol"])} | ({} if step is None else {"step": step})
    values["protocol"] = values["protocol"] | environment() | {"seconds": round(seconds, 1)}
    return values


def keep(run: Path, values: Mapping[str, Any]) -> None:
    """Write a result to its run, one file per checkpoint and protocol; nothing for a checkpoint file outside a run."""
    if (run / "run.json").is_file():
        write_json(run / "eval" / f"{values['step']:08d}-{values['protocol_id']}.json", dict(values))


def numbers(values: Mapping[str, Any]) -> dict[str, float]:
    """Return the numbers of a result by name."""
    return {key: value for key, value in values.items() if isinstance(value, float) and key != "seconds"}
