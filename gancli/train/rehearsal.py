"""What a step will take, found out before the first one: memory, operations, seconds. Itself it takes a few seconds.

A few rows go through every move while each tensor's life is followed, at two numbers of rows. What is alive at any
moment is a straight line in the rows, so the two say what a micro-batch of any size will hold at its fullest moment.
Where even few rows take too long, the same networks without memory (torch's meta device) are counted, and the time
follows from the operations and what this machine does of them in a second.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from gancli.compute.memory import Footprint, Line, available, exhausted
from gancli.errors import DeviceError, GanError
from gancli.train.living import Living, OverTime
from gancli.train.shares import shares
from gancli.train.single_rows import norms_watched, refuse_single
from gancli.train.trial import elsewhere, untouched

if TYPE_CHECKING:
    from gancli.games.game import Batch, Move
    from gancli.games.stages import Moment
    from gancli.losses.adversarial import Couples
    from gancli.train.engine import Engine

TRIED, COUNTED, TIMED = 1.5, 4.0, 2.0  # seconds that few rows, counting without memory, and timing may take


@dataclass(frozen=True)
class Tried:
    """What one micro-batch's forward and backward of a few rows did.

    history: bytes of new tensors alive after each operation. operations: multiplications and additions. traffic: bytes
    that other operations move. drawn: bytes of random numbers. values: the fewest numbers of a channel that a batch
    norm took its statistics over, infinite where there is none.
    """

    rows: int
    history: list[int]
    operations: int
    traffic: int
    seconds: float
    drawn: int
    values: float


@dataclass(frozen=True)
class Growth:
    """How a move grows with its rows. at: where its stage begins. rows: of the whole move on this rank.

    few: what was tried.
    """

    at: Moment
    move: Move
    rows: int
    few: Tried
    lines: tuple[Line, ...]
    operations: Line
    traffic: Line

    @property
    def seconds(self) -> float:
        """Of the whole move, as slow as the few rows were."""
        return self.few.seconds * self.rows / self.few.rows


@dataclass(frozen=True)
class Speed:
    """What a device does in a second: operations of a convolution, and bytes of everything else."""

    operations: float
    traffic: float

    @staticmethod
    def measured(engine: Engine) -> Speed:
        """Of a 3×3 convolution of 128 channels and its gradients, and of 8 million sums: a moment's work."""
        place: dict[str, Any] = {"device": engine.compute.device, "dtype": engine.dtype}
        x = torch.zeros(8, 128, 32, 32, **place).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.zeros(128, 128, 3, 3, **place).to(memory_format=torch.channels_last).requires_grad_()
        numbers = torch.zeros(1 << 23, **place)

        def convolve() -> None:
            torch.nn.functional.conv2d(x, weight, padding=1).sum().backward()  # type: ignore[no-untyped-call]

        def seconds(work: Callable[[], object]) -> float:
            taken = []
            for _ in range(2):  # the first time includes the making of kernels
                began = time.perf_counter()
                work()
                engine.compute.synchronize()
                taken.append(time.perf_counter() - began)
            return max(min(taken), 1e-9)

        operations = 3 * 2 * x.numel() * 128 * 9
        return Speed(operations / seconds(convolve), 3 * numbers.nbytes / seconds(lambda: numbers + numbers))

    def seconds(self, growth: Growth) -> float:
        """Of a whole move on this rank, told from its counts."""
        done, moved = growth.operations, growth.traffic
        operations, traffic = (line.fixed + line.per_row * growth.rows for line in (done, moved))
        return operations / self.operations + traffic / self.traffic


class Rehearsal:
    """Tries one micro-batch of each move of every stage that is left of an engine's run; leaves no trace.

    twin: makes an engine of the same step on the meta device, for when few rows take too long. Of several ranks all
    have to rehearse, since they meet in the moves.
    """

    def __init__(self, engine: Engine, twin: Callable[[], Engine] | None = None):
        self.engine, self._twin = engine, twin if engine.world.size == 1 else None
        self.growths: list[Growth] = []  # of the moves of each stage, one after another
        self._carry: Batch = {}  # what the moves that were tried so far carried
        self.real = True  # whether the growths were measured, not counted

    def footprint(self) -> Footprint | None:
        """What a step takes in memory; None where that could not be found out in time.

        Raises DeviceError where even few rows do not fit, CombinationError where batch norm would see a single one.
        """
        engine = self.engine
        free, couples = available(engine.compute.device), engine.couples
        try:
            self.growths = self._tried(couples)
        except OverTime:
            self.real, self.growths = False, self._counted(couples)
        except Exception as error:
            if not exhausted(error):
                raise
            raise DeviceError(
                "not even a few images fit into the device's memory: type a smaller model.ch, or another device"
            ) from None
        if not self.growths:
            return None
        for growth in self.growths:
            with elsewhere(engine, growth.at):
                refuse_single(engine, growth.move, growth.few.values / growth.few.rows)
        held = sum(t.untyped_storage().nbytes() for t in _distinct(_tensors(engine)))
        state = sum(_optimizer_bytes(player.optimizer) for player in engine.players.values())
        course, stages = engine.course, [growth.at.stage for growth in self.growths]
        largest = max(course.batch_size(stage) for stage in stages)
        held += engine.kept.nbytes(largest)
        return Footprint(
            held,
            state,
            tuple((growth.rows, growth.lines) for growth in self.growths),
            free,
            couples,
            largest,
            course.whole_micro_batch,
            tuple((course.total(g.move, g.at.stage), g.few.drawn / g.few.rows) for g in self.growths),
            tuple(stage.name for stage in stages),
            tuple(course.micro_batch(stage) for stage in stages),
        )

    def pace(self) -> dict[str, float]:
        """Seconds that a step of each stage will take, to be asked for after `footprint`.

        Empty where that could not be found out in time.
        """
        found: dict[str, float] = {}
        speed = Speed.measured(self.engine) if self.growths and not self.real else None
        until = time.monotonic() + TIMED * self._patience()
        for number, growth in enumerate(self.growths):
            now = time.monotonic()
            share = now + max(0.0, until - now) / (len(self.growths) - number)
            with elsewhere(self.engine, growth.at):
                each = speed.seconds(growth) if speed else self._timed(growth.move, growth, share)
            name = growth.at.stage.name
            found[name] = found.get(name, 0.0) + each * growth.move.repeat / growth.move.every
        return found

    def _patience(self) -> int:
        """How many times as long it may take to try several stages."""
        return min(2, len(self.engine.ahead()))

    def _tried(self, couples: Couples) -> list[Growth]:
        """Each move by real rows. Raises OverTime."""
        engine, until = self.engine, time.monotonic() + TRIED * self._patience()
        found = []
        alone = engine.world.size == 1
        for span in engine.ahead():
            with elsewhere(engine, span.at):
                for move in engine.moves():
                    # Ranks meet inside a move, and so must end it together.
                    if not alone and any(engine.world.highest(time.monotonic() > until)):
                        raise OverTime
                    found.append(self._growth(engine, move, couples, until if alone else None))
        return found

    def _counted(self, couples: Couples) -> list[Growth]:
        """Each move by shapes alone; empty where that cannot be done, or not in time."""
        if self._twin is None or self.engine.compute.autocast is not None:
            return []
        until, self._carry = time.monotonic() + COUNTED, {}
        try:
            twin, found = self._twin(), list[Growth]()
            for span in self.engine.ahead():
                with elsewhere(self.engine, span.at), elsewhere(twin, span.at):
                    found += [self._growth(twin, move, couples, until) for move in twin.moves()]
            return found
        except GanError:
            raise
        except Exception:  # something that asks for a number where there are only shapes
            return []

    def _growth(self, engine: Engine, move: Move, couples: Couples, until: float | None) -> Growth:
        rows, k = _rows(self.engine, move), couples if isinstance(couples, int) else 1
        few, more = min(rows, 2 * k), min(rows, 4 * k)
        first = self._try(engine, move, few, until)
        if more == few:
            each = Line(0.0, first.operations / few), Line(0.0, first.traffic / few)
            return Growth(engine.at, move, rows, first, (Line(max(first.history), 0.0),), *each)
        second = self._try(engine, move, more, until)
        pair = first.history, second.history
        if len(pair[0]) != len(pair[1]):  # the code took another way for more rows: only the heights can be compared
            pair = [max(pair[0])], [max(pair[1])]
        lines = [_line(a, b, few, more) for a, b in zip(*pair, strict=True)]
        operations = _line(first.operations, second.operations, few, more)
        return Growth(
            engine.at, move, rows, first, _upper(lines), operations, _line(first.traffic, second.traffic, few, more)
        )

    def _try(self, engine: Engine, move: Move, rows: int, until: float | None) -> Tried:
        living, values, began = Living(until), [math.inf], time.monotonic()
        with untouched(engine), norms_watched(engine, move, rows, values), living:
            rng, carry = engine.try_micro_batch(move, rows, self._carry)
            engine.compute.synchronize()
        seconds = time.monotonic() - began
        self._carry |= carry
        return Tried(rows, living.history, living.operations, living.traffic, seconds, rng.drawn, min(values))

    def _timed(self, move: Move, growth: Growth, until: float) -> float:
        """Seconds of all of a move's micro-batches: of ever more rows, as long as the next ones end in time."""
        engine = self.engine
        most = _rows(engine, move)  # on every rank the same: a rank with a smaller share tries as often
        whole = min(engine.micro_batch or most, most)
        parts = math.ceil(most / whole)
        if any(net._compiled_call_impl is not None for net in engine.game.nets.values()):
            if self._any(growth.seconds / parts > TIMED):  # the compiler is tried all the same: it may fail
                self._run(move, growth.few.rows)
                return growth.seconds
            return [self._run(move, None) for _ in range(2)][-1] * parts  # the first time it compiles
        rows, seconds, per_row = 0, 0.0, 0.0
        more = min(growth.few.rows, whole)  # these were tried, and so were twice as many: kernels are made for both
        while True:
            before, rows = rows, more
            again = self._run(move, rows if rows < whole else None)
            per_row = max(0.0, again - seconds) / (rows - before)
            seconds, more = again, min(whole, rows * (4 if before else 2))
            if rows == whole or (before and self._any(time.monotonic() + seconds + per_row * (more - rows) > until)):
                break
        if rows == whole:
            # Once more where there is time: the first time includes the making of kernels.
            late = self._any(time.monotonic() + seconds > until)
            return (seconds if late else self._run(move, None)) * parts
        return (seconds + per_row * (whole - rows)) * parts

    def _run(self, move: Move, rows: int | None) -> float:
        """Seconds of the first micro-batch, or of one of `rows`."""
        with untouched(self.engine):
            began = time.perf_counter()
            self.engine.try_micro_batch(move, rows, self._carry)
            self.engine.compute.synchronize()
            return time.perf_counter() - began

    def _any(self, flag: bool) -> bool:
        return any(self.engine.world.highest(flag))


def footprint(engine: Engine, twin: Callable[[], Engine] | None = None) -> Footprint | None:
    """What a step takes in memory, as `Rehearsal.footprint`."""
    return Rehearsal(engine, twin).footprint()


def _rows(engine: Engine, move: Move) -> int:
    """Of the whole move, on the rank that has most of them: every rank tries the same."""
    return max(shares(engine.total(move), engine.world, engine.unit))


def _line(a: float, b: float, few: int, more: int) -> Line:
    slope = (b - a) / (more - few)
    return Line(a - few * slope, slope)


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


def _tensors(engine: Engine) -> Iterator[Tensor]:
    for module in (engine.game, *engine.averages.values(), *engine.copies.values()):
        yield from module.parameters()
        yield from module.buffers()
    if engine.game.pretrained is not None:
        yield from engine.game.pretrained.tensors()


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
