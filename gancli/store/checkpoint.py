"""Checkpoints: a .pt file of tensors and plain values, and a JSON file beside it with its origin and SHA-256.

Reading runs no code: `weights_only=True` rejects everything but tensors and plain containers, and the sizes that a file
states are validated (`gancli.store.safe`).
"""

from __future__ import annotations

import hashlib
import io
import math
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import torch
from torch import Tensor

from gancli.errors import DamagedError, GanError, RunError
from gancli.store.earlier import refuse_earlier
from gancli.store.files import open_regular, read_json, remove, whole_file, write_json
from gancli.store.rundir import RunDir
from gancli.store.safe import BrokenError, UnsafeError, examine, intact

FORMAT = 1


def save(folder: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Write `folder/STEP.pt` and its JSON, both atomically; `state` has "step" at its top."""
    path = folder / f"{state['step']:08d}.pt"
    beside = path.with_suffix(".json")
    with whole_file(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch's error for a failed write
            raise OSError(f"the write failed, the disk may be full ({' '.join(str(error).split())[:80]})") from error
        remove(beside)  # of an earlier file of this name: if killed here, the new file has none
    write_json(beside, {"step": state["step"], "sha256": sha256(path), **about})
    return path


def delete(path: Path) -> None:
    """Delete a checkpoint, then its JSON: if killed in between, no checkpoint is left without its checksum."""
    remove(path)
    remove(path.with_suffix(".json"))


def read(path: Path) -> dict[str, Any]:
    """Return a checkpoint's state, on the CPU.

    Raises DamagedError for a file that is truncated or changed, RunError for one that is missing, cannot be read now,
    or is not a checkpoint.
    """
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint file")
    try:
        with open_regular(path) as file:
            _check(path, file)
            state = torch.load(file, map_location="cpu", weights_only=True)
    except OSError as error:
        raise RunError(f"{path} cannot be read: {error.strerror or error}") from None
    except pickle.UnpicklingError:
        raise _unsafe(path, "") from None
    except MemoryError:
        raise RunError(f"{path} does not fit into this machine's memory") from None
    except GanError:
        raise
    except Exception as error:  # torch and zipfile raise a dozen kinds for a damaged file
        if "allocate" in str(error):
            raise RunError(f"{path} does not fit into this machine's memory") from None
        raise DamagedError(f"{path} is truncated or damaged; type another checkpoint=STEP") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or type(state.get("step")) is not int:
        raise RunError(f"{path} is not a checkpoint of this program (format {FORMAT})")
    return state


def _check(path: Path, file: IO[bytes]) -> None:
    """Raise DamagedError or RunError unless the file is complete and holds what it should."""
    beside = path.with_suffix(".json")
    known = False
    if beside.is_file() and path != beside:
        try:
            about = read_json(beside)
        except RunError:
            about = None  # damaged itself: it proves nothing about the checkpoint
        if about is not None and (not isinstance(about, dict) or about.get("sha256") != _digest(file)):
            raise DamagedError(
                f"{path} is damaged: its SHA-256 is not the one in {beside.name}; type another checkpoint=STEP"
            )
        known = about is not None
    try:
        examine(file)
    except BrokenError:
        raise DamagedError(f"{path} is truncated, damaged or not a checkpoint; type another checkpoint=STEP") from None
    except UnsafeError as error:
        raise _unsafe(path, f" ({error})") from None
    if not known and not intact(file):
        raise DamagedError(f"{path} is damaged: a checksum is wrong; type another checkpoint=STEP")


def _unsafe(path: Path, detail: str) -> RunError:
    return RunError(f"{path} is not a checkpoint, or holds more than tensors and plain values; not loaded{detail}")


# The parts of a training run's checkpoint: the type of each, and of its values.
PARTS: dict[str, tuple[type, type | None]] = {
    "step": (int, None), "seen": (int, None), "positions": (dict, int), "game": (dict, Tensor), "ema": (dict, dict),
    "copies": (dict, dict), "kept": (dict, Tensor), "optimizers": (dict, dict), "scalers": (dict, dict),
    "config": (dict, None), "data": (dict, None), "seconds": (float, None), "observers": (dict, dict),
    "pretrained": (dict, None),
}  # fmt: skip
LATER = ("seconds", "observers", "pretrained")  # missing from older checkpoints, and from runs without them


def read_run(path: Path) -> dict[str, Any]:
    """Read a training run's checkpoint, all parts present and of the right type. Raises as `read`."""
    return of_a_run(read(path), path)


def of_a_run(state: dict[str, Any], path: Path) -> dict[str, Any]:
    """Return the same state if all parts are present and of the right type. Raises RunError, naming `path`."""
    refuse_earlier(state.get("data"), path)
    for name, (kind, inner) in PARTS.items():
        if name in LATER and name not in state:
            continue
        part = state.get(name)
        good = type(part) is kind or (kind is dict and isinstance(part, dict))
        if good and isinstance(part, dict):
            good = all(isinstance(key, str) for key in part)
            good = good and (inner is None or all(isinstance(value, inner) for value in part.values()))
        counts: list[Any] = [part] if kind is int else list(part.values()) if good and inner is int and part else []
        good = good and (kind is not float or 0 <= state[name] < math.inf) and _plain(part)
        if not good or any(isinstance(n, bool) or not 0 <= n < 1 << 60 for n in counts):
            raise RunError(f"{path} is not a checkpoint of a run: its {name} is missing or has a wrong type")
    return state


def _plain(part: object) -> bool:
    """Whether all tensors in it are dense, real and on the CPU."""
    if isinstance(part, dict):
        return all(map(_plain, part.values()))
    if isinstance(part, (list, tuple)):
        return all(map(_plain, part))
    if not isinstance(part, Tensor):
        return True
    dense = part.layout == torch.strided and part.device.type == "cpu" and not part.is_quantized
    return dense and not part.is_complex()


def newest(run: RunDir) -> tuple[dict[str, Any], list[str]]:
    """Return the newest intact checkpoint's state, and the faults of newer ones. Raises RunError if none is intact."""
    wrong: list[str] = []
    for step, path in reversed(run.listing().items()):
        try:
            state = read(path)
            if state["step"] != step:
                raise DamagedError(f"{path} is named after another step than its own, {state['step']}")
            return state, wrong
        except DamagedError as error:
            wrong.append(str(error))
    raise RunError(f"{run.path} holds no intact checkpoint" + (f": {wrong[0]}" if wrong else ""))


def sha256(path: Path) -> str:
    """Return a file's SHA-256 in hex."""
    with path.open("rb") as file:
        return _digest(file)


def _digest(file: IO[bytes]) -> str:
    digest = hashlib.sha256()
    while block := file.read(1 << 20):
        digest.update(block)
    file.seek(0, io.SEEK_SET)
    return digest.hexdigest()
