"""Measurement of memory, operations and seconds of a step before the first one.

It takes a few seconds, and up to a minute for a run of many stages.

Every move runs with two small numbers of rows, while the bytes of live tensors are traced. After each operation these
bytes are linear in the rows, so that two measurements give the peak of a micro-batch of any size. If even few rows take
too long, operations are counted on torch's meta device; the time follows from the count and this machine's speed.
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
from gancli.train.single_rows import norms_watched, refuse_single
from gancli.train.splitting import shares
from gancli.train.tracing import LiveTensors, OverTime
from gancli.train.trial import elsewhere, untouched

if TYPE_CHECKING:
    from gancli.games.game import Batch, Move
    from gancli.games.stages import Moment
    from gancli.losses.adversarial import Couples
    from gancli.train.course import Span
    from gancli.train.engine import Engine

TRIED, COUNTED, TIMED = 1.5, 4.0, 2.0  # time limits in seconds: few rows, counting on the meta device, timing
EACH, MORE = 4.0, 20.0  # more for each further stage, about what the tracing of a large network takes; at most


@dataclass(frozen=True)
class Tried:
    """Measurements of forward and backward of one micro-batch of a few rows.

    history: bytes of new live tensors after each operation. operations: multiplications and additions. traffic: bytes
    that other operations move. drawn: bytes of random numbers. values: the smallest number of values per channel of a
    batch norm, infinite without batch norm.
    """

    rows: int
    history: list[int]
    operations: int
    traffic: int
    seconds: float
    drawn: int
    values: float


@dataclass(frozen=True)
class Cost:
    """Memory and operations of a move as a function of its rows.

    at: start of its stage. rows: of the move on this rank. few: the measurement of few rows.
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
        """Seconds of the whole move at the speed of the few rows."""
        return self.few.seconds * self.rows / self.few.rows


@dataclass(frozen=True)
class Speed:
    """Speed of a device: operations of a convolution, and bytes of all else, per second."""

    operations: float
    traffic: float

    @staticmethod
    def measured(engine: Engine) -> Speed:
        """Measure a 3×3 convolution of 128 channels with its gradients, and 8 million additions."""
        place: dict[str, Any] = {"device": engine.compute.device, "dtype": engine.dtype}
        x = torch.zeros(8, 128, 32, 32, **place).to(memory_format=torch.channels_last).requires_grad_()
        weight = torch.zeros(128, 128, 3, 3, **place).to(memory_format=torch.channels_last).requires_grad_()
        numbers = torch.zeros(1 << 23, **place)

        def convolve() -> None:
            torch.nn.functional.conv2d(x, weight, padding=1).sum().backward()  # type: ignore[no-untyped-call]

        def seconds(work: Callable[[], object]) -> float:
            taken = []
            for _ in range(2):  # the first run includes the compilation of kernels
                began = time.perf_counter()
                work()
                engine.compute.synchronize()
                taken.append(time.perf_counter() - began)
            return max(min(taken), 1e-9)

        operations = 3 * 2 * x.numel() * 128 * 9
        return Speed(operations / seconds(convolve), 3 * numbers.nbytes / seconds(lambda: numbers + numbers))

    def seconds(self, cost: Cost) -> float:
        """Return the seconds of a whole move on this rank, from its counts."""
        done, moved = cost.operations, cost.traffic
        operations, traffic = (line.fixed + line.per_row * cost.rows for line in (done, moved))
        return operations / self.operations + traffic / self.traffic


class Rehearsal:
    """Measures one micro-batch of each move of every remaining stage; the engine's state is restored.

    twin: builds an engine of the same step on the meta device, used if few rows take too long. All ranks must call it,
    since moves contain collective operations.
    """

    def __init__(self, engine: Engine, twin: Callable[[], Engine] | None = None):
        self.engine, self._twin = engine, twin if engine.world.size == 1 else None
        self.costs: list[Cost] = []  # for each move of each stage
        self.others: list[Cost] = []  # of stages for which there was no time: only timed
        self._carry: Batch = {}  # rows carried by the moves measured so far
        self.real = True  # whether the costs were measured; else they were counted

    def footprint(self) -> Footprint | None:
        """Return the memory of a step; None if it cannot be measured in time.

        Raises DeviceError if even few rows do not fit, CombinationError if batch norm would see a single row.
        """
        engine = self.engine
        free, couples = available(engine.compute.device), engine.couples
        try:
            self.costs = self._tried(couples)
        except OverTime:
            self.real, self.costs = False, self._counted(couples)
        except Exception as error:
            if not exhausted(error):
                raise
            raise DeviceError(
                "even a few images do not fit into the device's memory: type a smaller model.ch, or another device"
            ) from None
        if not self.costs:
            return None
        for cost in self.costs:
            with elsewhere(engine, cost.at):
                refuse_single(engine, cost.move, cost.few.values / cost.few.rows)
        held = sum(t.untyped_storage().nbytes() for t in _distinct(_tensors(engine)))
        state = sum(_optimizer_bytes(player.optimizer) for player in engine.players.values())
        course, stages = engine.course, [cost.at.stage for cost in self.costs]
        largest = max(course.batch_size(stage) for stage in stages)
        held += engine.kept.nbytes(largest)
        return Footprint(
            held,
            state,
            tuple((cost.rows, cost.lines) for cost in self.costs),
            free,
            couples,
            largest,
            course.whole_micro_batch,
            tuple((course.total(g.move, g.at.stage), g.few.drawn / g.few.rows) for g in self.costs),
            tuple(stage.name for stage in stages),
            tuple(course.micro_batch(stage) for stage in stages),
        )

    def pace(self) -> dict[str, float]:
        """Return the seconds per step by stage; call `footprint` first. Empty if they cannot be measured in time.

        A stage `as_before` has the seconds of the one before it.
        """
        found: dict[str, float] = {}
        speed = Speed.measured(self.engine) if self.costs and not self.real else None
        until = time.monotonic() + self._patience(TIMED)
        every = [*self.others, *self.costs]
        for number, cost in enumerate(every):
            now = time.monotonic()
            share = now + max(0.0, until - now) / (len(every) - number)
            with elsewhere(self.engine, cost.at):
                each = speed.seconds(cost) if speed else self._timed(cost.move, cost, share)
            name = cost.at.stage.name
            found[name] = found.get(name, 0.0) + each * cost.move.repeat / cost.move.every
        last = 0.0
        for span in self.engine.ahead() if found else ():
            last = found.setdefault(span.at.stage.name, last)
        return found

    def _spans(self) -> list[Span]:
        """Return the remaining stages that are measured."""
        every = self.engine.ahead()
        return [span for k, span in enumerate(every) if k == 0 or not span.at.stage.as_before]

    def _patience(self, limit: float) -> float:
        """Return a time limit in seconds, longer for several stages."""
        return limit + min(MORE, EACH * (len(self._spans()) - 1)) if limit > 0 else limit

    def _tried(self, couples: Couples) -> list[Cost]:
        """Measure each move with real rows, from the last stage backwards, while there is time.

        Stages without time are left to `others`. Raises OverTime if there is none for the last stage.
        """
        engine, until = self.engine, time.monotonic() + self._patience(TRIED)
        spans, found, alone = self._spans(), dict[int, list[Cost]](), engine.world.size == 1
        for number in reversed(range(len(spans))):
            parts = []
            try:
                with elsewhere(engine, spans[number].at):
                    for move in engine.moves():
                        # Moves contain collective operations, so that all ranks must stop together.
                        if not alone and any(engine.world.highest(time.monotonic() > until)):
                            raise OverTime
                        parts.append(self._cost(engine, move, couples, until if alone else None))
            except OverTime:
                if not found:
                    raise
                self.others = [cost for span in spans[: number + 1] for cost in self._untraced(span, couples)]
                break
            found[number] = parts
        return [cost for number in sorted(found) for cost in found[number]]

    def _untraced(self, span: Span, couples: Couples) -> list[Cost]:
        """Return a stage's moves, to be timed only."""
        k, nothing = couples if isinstance(couples, int) else 1, Line(0.0, 0.0)
        with elsewhere(self.engine, span.at):
            found = []
            for move in self.engine.moves():
                rows = _rows(self.engine, move)
                few = Tried(min(rows, 2 * k), [0], 0, 0, 0.0, 0, math.inf)
                found.append(Cost(span.at, move, rows, few, (nothing,), nothing, nothing))
            return found

    def _counted(self, couples: Couples) -> list[Cost]:
        """Count each move on the meta device; empty if that fails or takes too long."""
        if self._twin is None or self.engine.compute.autocast is not None:
            return []
        until, self._carry = time.monotonic() + self._patience(COUNTED), {}
        try:
            twin, found = self._twin(), list[Cost]()
            for span in self._spans():
                with elsewhere(self.engine, span.at), elsewhere(twin, span.at):
                    found += [self._cost(twin, move, couples, until) for move in twin.moves()]
            return found
        except GanError:
            raise
        except Exception:  # code that needs a value, which meta tensors do not have
            return []

    def _cost(self, engine: Engine, move: Move, couples: Couples, until: float | None) -> Cost:
        rows, k = _rows(self.engine, move), couples if isinstance(couples, int) else 1
        few, more = min(rows, 2 * k), min(rows, 4 * k)
        first = self._try(engine, move, few, until)
        if more == few:
            each = Line(0.0, first.operations / few), Line(0.0, first.traffic / few)
            return Cost(engine.at, move, rows, first, (Line(max(first.history), 0.0),), *each)
        second = self._try(engine, move, more, until)
        pair = first.history, second.history
        if len(pair[0]) != len(pair[1]):  # the operations differ between the two: only the peaks can be compared
            pair = [max(pair[0])], [max(pair[1])]
        lines = [_line(a, b, few, more) for a, b in zip(*pair, strict=True)]
        operations = _line(first.operations, second.operations, few, more)
        return Cost(
            engine.at, move, rows, first, _upper(lines), operations, _line(first.traffic, second.traffic, few, more)
        )

    def _try(self, engine: Engine, move: Move, rows: int, until: float | None) -> Tried:
        living, values, began = LiveTensors(until), [math.inf], time.monotonic()
        with untouched(engine), norms_watched(engine, move, rows, values), living:
            rng, carry = engine.try_micro_batch(move, rows, self._carry)
            engine.compute.synchronize()
        seconds = time.monotonic() - began
        self._carry |= carry
        return Tried(rows, living.history, living.operations, living.traffic, seconds, rng.drawn, min(values))

    def _timed(self, move: Move, cost: Cost, until: float) -> float:
        """Return the seconds of all micro-batches of a move: time more and more rows while there is time."""
        engine = self.engine
        most = _rows(engine, move)  # the same on every rank: a rank with a smaller share runs as often
        whole = min(engine.micro_batch or most, most)
        parts = math.ceil(most / whole)
        if any(net._compiled_call_impl is not None for net in engine.game.nets.values()):
            if self._any(cost.seconds / parts > TIMED):  # still run the compiler: it may fail
                self._run(move, cost.few.rows)
                return cost.seconds
            return [self._run(move, None) for _ in range(2)][-1] * parts  # the first run compiles
        rows, seconds, per_row = 0, 0.0, 0.0
        more = min(cost.few.rows, whole)  # these and twice as many ran before: their kernels exist
        while True:
            before, rows = rows, more
            again = self._run(move, rows if rows < whole else None)
            per_row = max(0.0, again - seconds) / (rows - before)
            seconds, more = again, min(whole, rows * (4 if before else 2))
            if rows == whole or (before and self._any(time.monotonic() + seconds + per_row * (more - rows) > until)):
                break
        if rows == whole:
            # Repeat if there is time: the first run includes the compilation of kernels.
            late = self._any(time.monotonic() + seconds > until)
            return (seconds if late else self._run(move, None)) * parts
        return (seconds + per_row * (whole - rows)) * parts

    def _run(self, move: Move, rows: int | None) -> float:
        """Return the seconds of the first micro-batch, or of one of `rows` rows."""
        with untouched(self.engine):
            began = time.perf_counter()
            self.engine.try_micro_batch(move, rows, self._carry)
            self.engine.compute.synchronize()
            return time.perf_counter() - began

    def _any(self, flag: bool) -> bool:
        return any(self.engine.world.highest(flag))


def footprint(engine: Engine, twin: Callable[[], Engine] | None = None) -> Footprint | None:
    """Return the memory of a step, as `Rehearsal.footprint`."""
    return Rehearsal(engine, twin).footprint()


def _rows(engine: Engine, move: Move) -> int:
    """Return the rows of the whole move on the rank with the most, so that all ranks run the same."""
    return max(shares(engine.total(move), engine.world, engine.unit))


def _line(a: float, b: float, few: int, more: int) -> Line:
    slope = (b - a) / (more - few)
    return Line(a - few * slope, slope)


def _upper(lines: Iterable[Line]) -> tuple[Line, ...]:
    """Return the lines that can be the maximum somewhere: for each slope the highest one."""
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
    """Return the bytes of optimizer state not yet allocated, from a step of the same optimizer on a small weight."""
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
