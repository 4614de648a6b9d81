"""Estimates of a step's memory, the memory of devices, and the errors if it does not suffice."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from gancli.config.commands import word
from gancli.errors import ConfigError, DeviceError, GanError, RunError

if TYPE_CHECKING:
    from gancli.losses.adversarial import Couples
    from gancli.store.rundir import RunDir
    from gancli.train.engine import Engine

GIB = 1 << 30


@dataclass(frozen=True)
class Line:
    """Bytes allocated at one moment of a move, as a linear function of the rows."""

    fixed: float
    per_row: float


@dataclass(frozen=True)
class Footprint:
    """The estimated peak memory of a run.

    held: bytes already allocated (weights, buffers, averages). optimizers: their state, which the first step allocates.
    moves: of each move, (rows on this rank, bytes by rows). free: the device's free bytes, or None if unknown.
    multiple: micro-batches are multiples of it. draws: of each move, (rows over all ranks, bytes of random numbers per
    row): they are drawn for all rows, however these are split. stages, micros: of each move, its stage and its
    micro-batch if the run does not set one. batch_size: the largest of all stages.
    """

    held: int
    optimizers: int
    moves: tuple[tuple[int, tuple[Line, ...]], ...]
    free: int | None
    multiple: Couples
    batch_size: int
    micro_batch: int | None
    draws: tuple[tuple[int, float], ...] = ()
    stages: tuple[str, ...] = ()
    micros: tuple[int | None, ...] = ()

    def _peaks(self, micro_batch: int | None) -> list[float]:
        """Each move's peak in bytes."""
        peaks, many = [], len(self.moves)
        parts = zip(self.moves, self.draws or [(0, 0.0)] * many, self.micros or [None] * many, strict=True)
        for (rows, lines), (total, drawn), own in parts:
            part = min(micro_batch or own or rows, rows)
            whole = drawn * max(0, total - part)
            peaks.append(whole + max(line.fixed + line.per_row * part for line in lines))
        return peaks

    def new(self, micro_batch: int | None) -> int:
        """Bytes at the run's peak in addition to `held`."""
        return self.optimizers + int(max(self._peaks(micro_batch), default=0))

    @property
    def fullest(self) -> str:
        """The stage whose step takes most, as text for messages; empty if there is only one."""
        return f" in stage {self.stages[self._fullest()]}" if len(set(self.stages)) > 1 else ""

    @property
    def at_once(self) -> int:
        """The micro-batch at the run's peak."""
        own = self.micro_batch or (self.micros and self.micros[self._fullest()])
        return own or min(self.batch_size, self.moves[self._fullest()][0] if self.fullest else self.batch_size)

    def _fullest(self) -> int:
        """The index of the move that takes most."""
        peaks = self._peaks(self.micro_batch)
        return peaks.index(max(peaks))

    @property
    def total(self) -> int:
        """Peak bytes of the run as configured."""
        return self.held + self.new(self.micro_batch)

    @property
    def fits(self) -> bool:
        """Whether a step fits into the device's memory; true if that is unknown."""
        return self.free is None or self.new(self.micro_batch) <= self.free

    def largest(self, free: int | None = None, below: int | None = None) -> int | None:
        """The largest micro-batch that fits into `free` bytes and is smaller than `below`; None if none does."""
        room = self.free if free is None else free
        now = below or (self.micro_batch or self.batch_size) + 1
        if self.multiple == "all":
            return None
        # A micro-batch's memory grows with its rows: bisection, since there may be 10^9 sizes to choose from.
        fitting, beyond = 0, (now - 1) // self.multiple + 1
        while beyond - fitting > 1:
            middle = (fitting + beyond) // 2
            if room is None or self.new(middle * self.multiple) <= room:
                fitting = middle
            else:
                beyond = middle
        return fitting * self.multiple or None

    def remedy(self, free: int | None = None, below: int | None = None) -> str:
        """The change of settings to suggest."""
        if self.multiple == "all":
            return f"its samples are judged jointly and cannot be split: set a batch_size below {self.batch_size}"
        rows = self.largest(free, below)
        if rows is None and self.free is not None and self._drawn() > self.free / 2:
            return (
                "the random numbers for so many rows do not fit: set a batch_size below"
                f" {self.batch_size}, or a smaller game.g_size"
            )
        if rows is None:
            return "not even the smallest micro-batch fits: set a smaller model.ch, or use another device"
        return f"set micro_batch={rows}, which fits"

    def _drawn(self) -> float:
        """Bytes of a move's random numbers."""
        return max((total * drawn for total, drawn in self.draws), default=0.0)

    def line(self) -> str:
        """The line for a run's log."""
        room = "" if self.free is None else f" of {_gib(self.held + self.free)}"
        return f"memory about {_gib(self.total)}{room} (micro_batch={self.at_once}{self.fullest})"

    def plain(self) -> dict[str, Any]:
        """The values for run.json, in bytes."""
        rest = self.new(self.micro_batch) - self.optimizers
        return {
            "estimate": self.total,
            "weights": self.held,
            "optimizers": self.optimizers,
            "step": rest,
            "free": self.free,
            "micro_batch": self.at_once,
        }


def refuse(need: Footprint) -> None:
    """Raise DeviceError if a step does not fit."""
    if not need.fits:
        assert need.free is not None
        needs = f"a step{need.fullest} needs about {_gib(need.total)} of memory"
        raise DeviceError(f"{needs}, but the device has {_gib(need.held + need.free)}: {need.remedy()}")


def advice(need: Footprint | None, engine: Engine) -> str:
    """The change of settings to suggest after memory ran out at this size."""
    now = engine.micro_batch or engine.batch_size
    if need is None:
        return f"set micro_batch={max(1, now // 2)}"
    return need.remedy(below=now // 2 + 1 if need.fits else now)


@contextmanager
def explained(need: Footprint | None, run: RunDir, engine: Engine) -> Iterator[None]:
    """Convert out-of-memory errors during a run. Raises RunError with a remedy and the last checkpoint."""
    try:
        yield
    except Exception as error:
        if isinstance(error, GanError) or not exhausted(error):
            raise
        kept = [path for step, path in run.listing().items() if step]  # the checkpoint of step 0 saves nothing
        message = f"out of memory at step {engine.step_number}: {advice(need, engine)}"
        tail = f", together with {word('resume', run.path)}. The last good checkpoint is {kept[-1]}" if kept else ""
        raise RunError(message + tail) from None


# -- memory of a device ------------------------------------------------------------------------------------------------


def available(device: torch.device) -> int | None:
    """Bytes of memory that this process may still allocate on a device; None if unknown."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory()))
    return _main_memory()


def _main_memory() -> int | None:
    """Main memory that the system and the control group leave to this process."""
    known = [n for n in (_meminfo(), _cgroup(), _address_space()) if n is not None]
    if known:
        return max(0, min(known))
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


def _meminfo(path: Path = Path("/proc/meminfo")) -> int | None:
    text = _read(path)
    for line in text.splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return None


def _cgroup(root: Path = Path("/sys/fs/cgroup"), own: Path = Path("/proc/self/cgroup")) -> int | None:
    """Bytes left under the memory limit of this process's control group, version 2 or 1; file cache counts as free."""
    paths = [line.partition("::")[2] for line in _read(own).splitlines() if line.startswith("0::")]
    left = []
    for folder in [root / p.lstrip("/") for p in paths] + [root, root / "memory"]:
        new = folder / "memory.max"
        limit, used = (new, "memory.current") if new.exists() else (folder / "memory.limit_in_bytes", "")
        most, now = _read(limit).strip(), _read(folder / (used or "memory.usage_in_bytes")).strip()
        if most.isdigit() and now.isdigit() and int(most) < 1 << 60:
            cache = [r.split()[1] for r in _read(folder / "memory.stat").splitlines() if r.startswith("inactive_file ")]
            left.append(int(most) - int(now) + int(cache[0] if cache else 0))
    return min(left, default=None)


def _address_space() -> int | None:
    """Bytes left under the limit of `ulimit -v`."""
    try:
        import resource
    except ImportError:  # not on this system
        return None
    most, _ = resource.getrlimit(resource.RLIMIT_AS)
    pages = _read(Path("/proc/self/statm")).split()
    return None if most == resource.RLIM_INFINITY or not pages else most - int(pages[0]) * resource.getpagesize()


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError:
        return ""


def refuse_many(asked: str, n: int, each: int, name: str) -> None:
    """Raise ConfigError if n items of `each` bytes do not fit into main memory. name: the key to lower.

    asked: the override as typed.
    """
    free = available(torch.device("cpu"))
    if free is not None and n * each > free:
        raise ConfigError(
            f"{asked}: {n:,} of them need about {_gib(n * each)} of memory, but {_gib(free)} are free: set"
            f" {name}={max(1, free // each // 2)} or less"
        )


# -- out of memory -----------------------------------------------------------------------------------------------------

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


def exhausted(error: BaseException) -> bool:
    """Whether an error means that a library ran out of memory."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def weights_that_fit(what: str, device: torch.device | None = None) -> Iterator[None]:
    """Refuse networks whose weights exceed the free memory, before these are initialised. Raises ConfigError."""
    room, taken = available(device or torch.device("cpu")), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal taken
        taken += 0 if parameter is None else parameter.numel() * parameter.element_size()
        if room is not None and taken > room:
            raise ConfigError(f"{what} has weights of over {_gib(taken)}, but {_gib(room)} are free: {SMALLER}")

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


SMALLER = "set a smaller width, such as model.ch=32, or use smaller images"


def _gib(n: float) -> str:
    """Format bytes."""
    return f"{n / GIB:.1f} GiB" if n >= GIB / 10 else f"{n / (1 << 20):.0f} MiB"
