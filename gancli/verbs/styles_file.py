"""The file styles.npz: styles of samples, the seeds of their noise or the noise maps themselves."""

from __future__ import annotations

import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.config.settings import MOST
from gancli.data.layout import printable
from gancli.draw.directions import styles_of
from gancli.draw.sampling import Pair, Sampler
from gancli.errors import ConfigError, DataError, plain
from gancli.games.game import Batch
from gancli.store.arrays import header
from gancli.store.files import open_regular, whole_file

NAME = "styles.npz"
LARGEST = 1 << 31  # bytes of all arrays of a file
UNREADABLE = (
    OSError, ValueError, EOFError, KeyError, NotImplementedError, MemoryError, zipfile.BadZipFile, zlib.error
)  # fmt: skip


@dataclass(frozen=True)
class Styled:
    """Styles w [n, layers, width] as a generator takes them.

    pairs: (seed, number) of each row, which its noise is drawn by; None: not known. maps: noise maps [n, 1, H, W] to
    use instead, by the columns of the generator's inputs. model: the run and step that they belong to.
    """

    w: Tensor
    pairs: list[Pair] | None = None
    maps: Mapping[str, Tensor] = field(default_factory=dict)
    model: str = ""

    def keys(self, seed: int) -> list[Pair]:
        """Return the keys of the rows' noise: their own, or samples 0, 1, ... of a seed."""
        return self.pairs or [(seed, k) for k in range(len(self.w))]


def model_of(sampler: Sampler) -> str:
    """Return the run and step of a sampler."""
    return f"{sampler.run.name} step {sampler.step}"


def write(folder: Path, styled: Styled) -> Path:
    """Write styles.npz: `w` [n, layers, width] float32, `seeds` [n, 2], `model` and maps [n, H, W]. Raises RunError."""
    arrays: dict[str, Any] = {"w": styled.w.float().numpy(), "model": np.array(styled.model)}
    if styled.pairs is not None:
        arrays["seeds"] = np.array(styled.pairs, np.int64)
    arrays |= {name: rows[:, 0].float().numpy() for name, rows in styled.maps.items()}
    with whole_file(folder / NAME) as file:
        np.savez(file, **arrays)
    return folder / NAME


def read(text: str, sampler: Sampler) -> Styled:
    """Read a file for a sampler's generator; no pickle is read. Raises DataError if it does not fit, and RunError."""
    styles = styles_of(sampler, f"w={printable(text)}")
    arrays, said = _arrays(Path(text).expanduser()), f"w={printable(text)}"
    if "w" not in arrays:
        raise DataError(f"{said} has no array w: give a file of gan sample format=w, or of project=")
    w, (layers, width) = arrays["w"], (len(styles.sides), styles.weights(sampler.nets)[0].shape[1])
    if w.shape[1:] not in ((width,), (layers, width)) or not len(w):
        raise DataError(
            f"{said} holds w of shape {list(w.shape)}, and this generator takes [n, {layers}, {width}] or [n, {width}]:"
            " give styles of this run"
        )
    rows = _numbers(w, f"{said}: w")
    whole = rows if w.shape[1:] == (layers, width) else rows[:, None].expand(-1, layers, -1).contiguous()
    wanted = styles.maps(sampler.nets)
    maps = {name: _map(arrays[name], (len(w), *shape[1:]), f"{said}: {name}") for name, shape in wanted.items()
            if name in arrays}  # fmt: skip
    model = str(arrays["model"])[:200] if arrays.get("model", np.array(0)).dtype.kind == "U" else ""
    return Styled(whole, _pairs(arrays.get("seeds"), len(w), said), maps, model)


def note(styled: Styled, sampler: Sampler) -> str:
    """Return a warning if styles are of another model; empty otherwise."""
    own = model_of(sampler)
    other = styled.model and styled.model != own
    return f"these styles are of {printable(styled.model)}, not of {own}: images differ from theirs" if other else ""


def inputs(styled: Styled, sampler: Sampler, rows: Sequence[int]) -> Batch:
    """Return the generator's inputs for some rows: styles, noise maps and, with truncation, ψ."""
    styles = styles_of(sampler, "w")
    index = torch.tensor(list(rows))
    made = {styles.column: styled.w[index]} | {name: maps[index] for name, maps in styled.maps.items()}
    if sampler.truncation is not None:
        made["psi"] = sampler.inputs([(0, 0)])["psi"].expand(len(index), -1)
    return made


def _arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read all arrays of an npz file. Raises DataError for any other file."""
    shown = printable(str(path))
    if not path.exists():
        raise DataError(f"w={shown} does not exist: give a file of gan sample format=w, or of project=")
    try:
        with open_regular(path) as raw:
            with zipfile.ZipFile(raw) as archive:
                if sum(entry.file_size for entry in archive.infolist()) > LARGEST:
                    raise ValueError(f"it has over {LARGEST >> 30} GiB")
                for entry in archive.infolist():
                    with archive.open(entry) as member:
                        header(member, entry.filename, entry.file_size)
            raw.seek(0)
            with np.load(raw, allow_pickle=False) as file:
                return {name: np.asarray(file[name]) for name in file.files}
    except UNREADABLE as error:
        raise DataError(
            f"w={shown} cannot be read ({plain(error)}): give a file of gan sample format=w, or of project="
        ) from None


def _numbers(array: NDArray[Any], said: str) -> Tensor:
    """Return an array as float32. Raises DataError unless it holds finite numbers of some floating-point type."""
    if array.dtype.kind != "f":
        raise DataError(f"{said} holds {array.dtype}, and needs floating-point numbers")
    with np.errstate(over="ignore"):
        found = torch.from_numpy(array.astype(np.float32))
    if not bool(found.isfinite().all()):
        raise DataError(f"{said} holds numbers that are not finite: compute the file again")
    return found


def _map(array: NDArray[Any], shape: tuple[int, ...], said: str) -> Tensor:
    if array.shape != shape:
        raise DataError(f"{said} has the shape {list(array.shape)}, and needs {list(shape)}: give styles of this run")
    return _numbers(array, said)[:, None]


def _pairs(array: NDArray[Any] | None, rows: int, said: str) -> list[Pair] | None:
    if array is None:
        return None
    if array.shape != (rows, 2) or array.dtype.kind not in "iu" or (array < 0).any() or (array > MOST).any():
        raise DataError(f"{said}: seeds has to be [n, 2] whole numbers, the seed and number of each row")
    return [(int(seed), int(number)) for seed, number in array]


def refuse_seed(styled: Styled, seed: int, typed: str) -> None:
    """Raise ConfigError for a seed if the file names those of its noise."""
    if seed and (styled.pairs is not None or styled.maps):
        raise ConfigError(f"seed={seed}: {typed} has the noise of its images: leave seed out")
