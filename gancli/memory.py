"""How much memory a step takes: weights, gradients and optimizer state by counting, activations by measuring.

A few rows go through every move while each tensor's life is followed, at two numbers of rows. What is alive at any
moment is a straight line in the rows, so the two say what a micro-batch of any size will hold at its fullest moment.
"""

from __future__ import annotations

import os
import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from gancli.commands import word
from gancli.dist import World
from gancli.errors import ConfigError, DeviceError, GanError, RunError

if TYPE_CHECKING:
    from gancli.engine import Engine
    from gancli.games.game import Couples, Move
    from gancli.rundir import RunDir

GIB = 1 << 30


@dataclass(frozen=True)
class Line:
    """Bytes that are alive at one moment of a move, for any number of rows."""

    fixed: float
    per_row: float


@dataclass(frozen=True)
class Footprint:
    """What a run holds at its fullest moment.

    held: bytes that were taken already when this was made (weights, buffers, averages). optimizers: their state, which
    the first step makes. moves: (rows of a whole move on this rank, how its bytes grow with the rows).
    free: what the device had left, or None where it does not say. multiple: micro-batches come in multiples of it.
    """

    held: int
    optimizers: int
    moves: tuple[tuple[int, tuple[Line, ...]], ...]
    free: int | None
    multiple: Couples
    batch_size: int
    micro_batch: int | None

    def new(self, micro_batch: int | None) -> int:
        """Bytes beside those that are held, at the fullest moment of a step."""
        peaks = [
            max(line.fixed + line.per_row * min(micro_batch or rows, rows) for line in lines)
            for rows, lines in self.moves
        ]
        return self.optimizers + int(max(peaks, default=0))

    @property
    def total(self) -> int:
        """Bytes of the run as configured."""
        return self.held + self.new(self.micro_batch)

    @property
    def fits(self) -> bool:
        """Whether the device has room for a step; true where it does not say."""
        return self.free is None or self.new(self.micro_batch) <= self.free

    def largest(self, free: int | None = None, below: int | None = None) -> int | None:
        """The largest micro-batch that fits into `free` bytes and is smaller than `below`; None where none does."""
        room = self.free if free is None else free
        now = below or (self.micro_batch or self.batch_size) + 1
        if self.multiple == "all":
            return None
        least = self.multiple
        for rows in range((now - 1) // least * least, 0, -least):
            if room is None or self.new(rows) <= room:
                return rows
        return None

    def remedy(self, free: int | None = None, below: int | None = None) -> str:
        """What to type instead."""
        if self.multiple == "all":
            return f"its samples are judged together and cannot be split: type a batch_size below {self.batch_size}"
        rows = self.largest(free, below)
        if rows is None:
            return "not even the smallest micro-batch would fit: type a smaller model.ch, or another device"
        return f"micro_batch={rows} would fit; type micro_batch={rows}"

    def line(self) -> str:
        """For the start of a run."""
        room = "" if self.free is None else f" of {_gib(self.held + self.free)}"
        return f"memory about {_gib(self.total)}{room} (micro_batch={self.micro_batch or self.batch_size})"

    def plain(self) -> dict[str, Any]:
        """As plain values for run.json, in bytes."""
        rest = self.new(self.micro_batch) - self.optimizers
        return {
            "estimate": self.total,
            "weights": self.held,
            "optimizers": self.optimizers,
            "step": rest,
            "free": self.free,
            "micro_batch": self.micro_batch or self.batch_size,
        }


def footprint(engine: Engine) -> Footprint:
    """Measure on a few rows what a step will take. Leaves no trace. Raises DeviceError where even those do not fit."""
    free = available(engine.compute.device)
    couples = couples_of(engine)
    moves = [(move, rows_of(engine, move)) for move in engine.game.moves(engine.seen)]
    try:
        lines = tuple((rows, _lines(engine, move, rows, couples)) for move, rows in moves)
    except Exception as error:
        if not exhausted(error):
            raise
        raise DeviceError(
            "not even a few images fit into the device's memory: type a smaller model.ch, or another device"
        ) from None
    held = sum(t.untyped_storage().nbytes() for t in _distinct(_tensors(engine)))
    state = sum(_optimizer_bytes(player.optimizer) for player in engine.players.values())
    return Footprint(held, state, lines, free, couples, engine.batch_size, engine.micro_batch)


def refuse(need: Footprint) -> None:
    """Raise DeviceError where a step will not fit."""
    if not need.fits:
        assert need.free is not None
        raise DeviceError(
            f"a step needs about {_gib(need.total)} of memory and the device has {_gib(need.held + need.free)}:"
            f" {need.remedy()}"
        )


def advice(need: Footprint | None, engine: Engine) -> str:
    """What to type after the memory ran out at this size all the same."""
    now = engine.micro_batch or engine.batch_size
    if need is None:
        return f"type micro_batch={max(1, now // 2)}"
    return need.remedy(below=now // 2 + 1 if need.fits else now)


@contextmanager
def explained(need: Footprint | None, run: RunDir, engine: Engine) -> Iterator[None]:
    """Answer memory that runs out in the middle of a run. Raises RunError with what to type and what is kept."""
    try:
        yield
    except Exception as error:
        if isinstance(error, GanError) or not exhausted(error):
            raise
        kept = list(run.listing().values())
        words = f"out of memory at step {engine.step_number}: {advice(need, engine)}"
        tail = f" after {word('resume', run.path)}. The last good checkpoint is {kept[-1]}" if kept else ""
        raise RunError(words + tail) from None


def couples_of(engine: Engine) -> Couples:
    """How many samples must stay together, by all parts of the game."""
    parts: list[Couples] = [engine.game.couples, *(getattr(net, "couples", 1) for net in engine.game.nets.values())]
    return "all" if "all" in parts else max(k for k in parts if isinstance(k, int))


def rows_of(engine: Engine, move: Move) -> int:
    """The rows of a whole move that a rank has at most: all ranks have to try the same, since they meet in it."""
    total = engine.batch_size * move.size
    shares = (World(rank, engine.world.size).rows(total) for rank in range(engine.world.size))
    return max(stop - start for start, stop in shares)


def _lines(engine: Engine, move: Move, rows: int, couples: Couples) -> tuple[Line, ...]:
    """How the bytes alive at each moment of a move grow with its rows."""
    k = couples if isinstance(couples, int) else 1
    few, more = (min(rows, 2 * k), min(rows, 4 * k))
    first = _history(engine, move, few)
    if more == few:
        return (Line(max(first), 0.0),)
    second = _history(engine, move, more)
    if len(first) != len(second):  # the code took another way for more rows: only the heights can be compared
        first, second = [max(first)], [max(second)]
    slopes = [(b - a) / (more - few) for a, b in zip(first, second, strict=True)]
    return _upper(Line(a - few * slope, slope) for a, slope in zip(first, slopes, strict=True))


def _upper(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Those of the lines that may be the highest somewhere: for each slope the highest one."""
    best: dict[float, float] = {}
    for line in lines:
        best[line.per_row] = max(best.get(line.per_row, line.fixed), line.fixed)
    kept: list[Line] = []
    for slope, fixed in sorted(best.items(), reverse=True):
        if not kept or fixed > max(line.fixed for line in kept):
            kept.append(Line(fixed, slope))
    return tuple(kept)


def _history(engine: Engine, move: Move, rows: int) -> list[int]:
    """Bytes of new tensors alive after each operation of one micro-batch's forward and backward."""
    living = _Living()
    with engine.untouched(), living:
        engine.try_part(move, rows)
    return living.history


class _Living(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """While active, follows how many bytes of tensors made under it are alive."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.now, self.history = 0, [0]
        self._known: dict[int, int] = {}

    def __torch_dispatch__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        given = {id(s) for s in (_storage(t) for t in tree_leaves((args, kwargs))) if s is not None}
        answer = func(*args, **(kwargs or {}))
        for leaf in tree_leaves(answer):
            storage = _storage(leaf)
            if storage is not None and id(storage) not in given and id(storage) not in self._known:
                self._follow(storage)
        self.history.append(self.now)
        return answer

    def _follow(self, storage: torch.UntypedStorage) -> None:
        key, size = id(storage), storage.nbytes()
        self._known[key] = size
        self.now += size
        weakref.finalize(storage, self._gone, key)

    def _gone(self, key: int) -> None:
        self.now -= self._known.pop(key, 0)


def _storage(value: object) -> torch.UntypedStorage | None:
    if not isinstance(value, Tensor) or value.device.type == "meta":
        return None
    try:
        return value.untyped_storage()
    except (NotImplementedError, RuntimeError):  # a tensor without memory of its own
        return None


def _tensors(engine: Engine) -> Iterator[Tensor]:
    for module in (engine.game, *engine.averages.values()):
        yield from module.parameters()
        yield from module.buffers()


def _distinct(tensors: Iterable[Tensor]) -> list[Tensor]:
    return list({t.untyped_storage().data_ptr(): t for t in tensors}.values())


def _optimizer_bytes(optimizer: torch.optim.Optimizer) -> int:
    """Bytes of state still to be made, found by letting an optimizer of the same kind step on a small weight."""
    if optimizer.state:
        return 0
    total = 0
    for group in optimizer.param_groups:
        options = {name: value for name, value in group.items() if name not in ("params", "initial_lr")}
        params: list[Tensor] = group["params"]
        if not params:
            continue
        probe = torch.zeros(7, dtype=params[0].dtype, device=params[0].device, requires_grad=True)
        probe.grad = torch.zeros_like(probe)
        small = type(optimizer)([{**options, "params": [probe]}])  # type: ignore[call-arg]
        small.step()
        kept = [t for t in small.state[probe].values() if isinstance(t, Tensor) and t.numel() == probe.numel()]
        total += len(kept) * sum(p.numel() * p.element_size() for p in params)
    return total


# -- what a device has -------------------------------------------------------------------------------------------------


def available(device: torch.device) -> int | None:
    """Bytes of memory that a process may still take on a device; None where it does not say."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, int(torch.mps.recommended_max_memory()) - int(torch.mps.driver_allocated_memory()))
    return _main_memory()


def _main_memory() -> int | None:
    """What the system and the control group leave to this process."""
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
    """Bytes left under the memory limit of this process's control group, version 2 or 1, its file cache not counted."""
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
    """What `ulimit -v` leaves."""
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


# -- when there is not enough ------------------------------------------------------------------------------------------

SIGNS = ("can't allocate memory", "not enough memory", "out of memory", "Storage size calculation overflowed")


def exhausted(error: BaseException) -> bool:
    """Whether an error is some library's way of saying that memory is used up."""
    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)


@contextmanager
def weights_that_fit(what: str, device: torch.device | None = None) -> Iterator[None]:
    """Refuse networks whose weights exceed the memory, before any of it is touched. Raises ConfigError."""
    room, taken = available(device or torch.device("cpu")), 0

    def count(module: nn.Module, name: str, parameter: nn.Parameter) -> None:
        nonlocal taken
        taken += 0 if parameter is None else parameter.numel() * parameter.element_size()
        if room is not None and taken > room:
            raise ConfigError(f"{what} has weights of over {_gib(taken)} and {_gib(room)} are free: {SMALLER}")

    handle = nn.modules.module.register_module_parameter_registration_hook(count)
    try:
        yield
    finally:
        handle.remove()


SMALLER = "type a smaller width, such as model.ch=32, or smaller images"


def _gib(n: float) -> str:
    """Bytes for people."""
    return f"{n / GIB:.1f} GiB" if n >= GIB / 10 else f"{n / (1 << 20):.0f} MiB"
