"""Checkpoints: tensors and plain values in a .pt file, and beside it a JSON with what made it and its SHA-256.

Reading runs no code: `weights_only=True` rejects everything but tensors and plain containers.
"""

from __future__ import annotations

import hashlib
import pickle
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from gancli.errors import RunError
from gancli.files import read_json, whole_file, write_json
from gancli.rundir import RunDir

FORMAT = 1


def save(folder: Path, state: Mapping[str, Any], about: Mapping[str, Any]) -> Path:
    """Write `folder/STEP.pt` and its JSON, both whole or not at all; `state` has "step" at its top."""
    path = folder / f"{state['step']:08d}.pt"
    with whole_file(path) as file:
        try:
            torch.save({"format": FORMAT, **state}, file)
        except RuntimeError as error:  # torch's word for a write that failed
            raise OSError(f"the write failed, the disk may be full ({' '.join(str(error).split())[:80]})") from error
    write_json(path.with_suffix(".json"), {"step": state["step"], "sha256": sha256(path), **about})
    return path


def read(path: Path, device: torch.device | str = "cpu") -> dict[str, Any]:
    """A checkpoint's state. Raises RunError for a file that is missing, cut short, changed, or not a checkpoint."""
    if not path.is_file():
        raise RunError(f"{path}: no such checkpoint file")
    beside = path.with_suffix(".json")
    about = read_json(beside) if beside.is_file() and path != beside else None
    if about is not None and (not isinstance(about, dict) or about.get("sha256") != sha256(path)):
        raise RunError(f"{path} is damaged: its SHA-256 is not the one in {beside.name}; take another checkpoint=STEP")
    if not zipfile.is_zipfile(path):
        raise RunError(f"{path} is cut short or damaged, or no checkpoint; take another checkpoint=STEP")
    try:
        state = torch.load(path, map_location=device, weights_only=True)
    except pickle.UnpicklingError:
        raise RunError(
            f"{path} holds more than tensors and plain values, or is no checkpoint; it was not run"
        ) from None
    except (RuntimeError, EOFError, OSError, ValueError, KeyError, zipfile.BadZipFile):
        raise RunError(f"{path} is cut short or damaged; take another checkpoint=STEP") from None
    if not isinstance(state, dict) or state.get("format") != FORMAT or "step" not in state:
        raise RunError(f"{path} is not a checkpoint of this program (format {FORMAT})")
    return state


def newest(run: RunDir, device: torch.device | str = "cpu") -> tuple[dict[str, Any], list[str]]:
    """The newest whole checkpoint's state, and what is wrong with any newer one. Raises RunError if none is whole."""
    wrong: list[str] = []
    for path in reversed(run.listing().values()):
        try:
            return read(path, device), wrong
        except RunError as error:
            wrong.append(str(error))
    raise RunError(f"{run.path} holds no whole checkpoint" + (f": {wrong[0]}" if wrong else ""))


def sha256(path: Path) -> str:
    """A file's SHA-256 in hex."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
