"""`gan train`: build the parts, make or reopen the run directory, play the game, and leave cleanly."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli import assemble, device, memory, paths, ranks, rundir
from gancli.assemble import DataFacts
from gancli.build import make, make_as
from gancli.dist import World
from gancli.engine import Engine
from gancli.errors import ConfigError, DeviceError, GanError, Interrupted
from gancli.nets.layers.norms import AcrossRanks
from gancli.observers.checkpoints import with_best
from gancli.observers.observer import Observer
from gancli.rundir import RunDir
from gancli.settings import TrainSettings
from gancli.verbs.resume import reopen, start_from
from gancli.verbs.session import Session, begin, fail, part, play


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Train as configured; returns the run directory. Nothing is written before all parts stand and a step was tried.

    Raises GanError; Interrupted where a signal ended the run, which is then saved.
    """
    config = paths.settled(config)
    settings = make_as(TrainSettings, config, "")
    own = ranks.own_run(settings.run_dir, World.of_group())
    if own is not None and own[1] == "finished":
        return own[0]  # restarted when all was done
    settings = settings if own is None else _again(settings, own[0])
    _refuse(settings)
    compute = device.resolve(
        make_as(device.DeviceChoice, settings.device, "device"),
        make_as(device.PrecisionChoice, settings.precision, "precision"),
    )
    with ranks.one_first():
        source = assemble.data(settings)
    facts = DataFacts.of(source)
    engine = assemble.engine(settings, source, assemble.game(config, facts), compute)
    observers = {n: make(node, f"observers.{n}") for n, node in settings.observers.items() if node is not None}
    config = with_best(config, observers)
    notes = [*source.notes, *compute.notes, *rank_notes(engine), *split_notes(engine)]
    need = memory.footprint(engine) if settings.steps else None
    if need is not None:
        memory.refuse(need)
        notes.append(need.line())
    if settings.compile and settings.steps:
        notes += device.compile_networks(dict(engine.game.nets.items()), twice=engine.game.twice, device=compute.device)

    wanted: list[str] = []
    with _Signals(wanted):
        session = _session(settings, config, engine, facts, list(observers.values()), wanted, need, notes)
        try:
            with memory.explained(need, session.run, engine):
                begin(session, overrides, notes)
                play(session)
        except BaseException as error:
            fail(session, error)
            raise
        finally:
            part(session)
            session.run.unlock()
            if session.world.first and not session.run.started():  # it came to nothing before its first step
                session.run.withdraw()
    if wanted:
        raise Interrupted(f"stopped by {wanted[0]}")
    return session.run.path


def _refuse(settings: TrainSettings) -> None:
    """Raise for what can be told from the settings alone."""
    assemble.check_sections(settings)
    if settings.resume and settings.run_dir:
        raise ConfigError("resume= goes on in the run's own directory: leave run_dir out")
    rundir.refuse_taken(settings.run_dir, again=True)


def _session(
    settings: TrainSettings,
    config: Mapping[str, Any],
    engine: Engine,
    facts: DataFacts,
    observers: list[Observer],
    wanted: list[str],
    need: memory.Footprint | None,
    notes: list[str],
) -> Session:
    """Reopen a run, or make a new one after a step was tried: what cannot step leaves nothing behind."""
    about: dict[str, Any] = {"parameters": {name: parameters(nets) for name, nets in engine.game.players().items()}}
    about["memory"] = need.plain() if need else None
    parts = (settings, config, engine, facts, observers)
    if settings.resume:
        reopened, state = reopen(settings, config, facts, engine)
        try:
            estimate, spent = _rehearse(engine, need, notes), float(state.get("seconds", 0.0))
        except BaseException:
            reopened.unlock()
            raise
        remembered, at = state.get("observers") or {}, engine.step_number
        return Session(*parts, reopened, about, spent, estimate, True, remembered, at, wanted=wanted)
    if settings.init:
        start_from(settings.init, engine)
    estimate = _rehearse(engine, need, notes) if settings.steps else 0.0
    called = f"{settings.model['name']}-{facts.name}"
    fresh = settings.run_dir is None or not Path(settings.run_dir).expanduser().exists()
    place = engine.world.from_first(lambda: rundir.new_directory("train", called, settings.run_dir))
    new = RunDir(place, made=fresh)
    if engine.world.first:
        new.lock()
        try:
            # Another process may have been here and gone in the meantime.
            rundir.refuse_taken(settings.run_dir, again=new.locked)
            if ranks.job():  # from now on a restart finds it
                new.update(status="starting", job=ranks.job())
        except BaseException:
            new.unlock()
            raise
    return Session(*parts, new, about, 0.0, estimate, wanted=wanted)


def _again(settings: TrainSettings, own: Path) -> TrainSettings:
    """Settings that go on with this job's own run after torchrun restarted it; one without a checkpoint begins anew."""
    if RunDir(own).listing():
        return replace(settings, resume=str(own), run_dir=None, init=None)
    RunDir(own).withdraw()
    return replace(settings, run_dir=str(own))


def _rehearse(engine: Engine, need: memory.Footprint | None, notes: list[str]) -> float:
    """Seconds a step will take; uncompiled where the compiler fails, which joins the notes. Raises DeviceError."""
    try:
        return engine.rehearse()
    except Exception as error:
        if memory.exhausted(error):
            raise DeviceError(f"a step does not fit into the device's memory: {memory.advice(need, engine)}") from None
        if isinstance(error, GanError) or not device.uncompile(engine.game.nets.values()):
            raise
        words = " ".join(str(error).split())[:120]
        notes.append(f"compile: the compiler failed ({type(error).__name__}: {words}); going on uncompiled")
    return engine.rehearse()


def rank_notes(engine: Engine) -> list[str]:
    """How many ranks share a batch, over what, and what batch norm makes of it."""
    world, norms = engine.world, [m for m in engine.game.modules() if isinstance(m, _BatchNorm)]
    if world.size == 1:
        return []
    start, stop = world.rows(engine.batch_size, engine.unit)
    notes = [f"{world.size} ranks over {ranks.backend()}, about {stop - start} of {engine.batch_size} images each"]
    if norms:
        shared = all(isinstance(m, AcrossRanks) for m in norms)
        notes.append(f"batch norm takes its statistics over {'all ranks' if shared else 'each rank alone'}")
    return notes


def split_notes(engine: Engine) -> list[str]:
    """What splitting a batch changes: batch norm sees the micro-batch only; everything else stays the same."""
    world = engine.world
    split = engine.micro_batch is not None and engine.micro_batch * world.size < engine.batch_size
    if split and any(isinstance(m, _BatchNorm) for m in engine.game.modules()):
        each = " of every rank" if world.size > 1 else ""
        return [f"micro_batch={engine.micro_batch}: batch norm takes its statistics over so many images{each}"]
    return []


def parameters(nets: Iterable[nn.Module]) -> int:
    """Trainable parameters of a player."""
    return sum(p.numel() for net in nets for p in net.parameters())


class _Signals:
    """While inside, SIGINT, SIGTERM and SIGHUP are noted instead of obeyed; a second SIGINT interrupts at once.

    SIGHUP says that the terminal was closed; under nohup, which ignores it, it stays ignored.
    """

    NAMES: ClassVar[dict[str, str]] = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}

    def __init__(self, wanted: list[str]):
        self.wanted = wanted
        self.before: dict[int, Any] = {}
        self.last = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
            ignored = {n for n in numbers if n != signal.SIGINT and signal.getsignal(n) == signal.SIG_IGN}
            self.before = {n: signal.signal(n, self._note) for n in numbers if n not in ignored}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted.append(self.NAMES[signal.Signals(number).name])
        now, before = time.monotonic(), self.last
        self.last = now
        # Of one Ctrl-C a rank hears twice: from the terminal and from torchrun.
        if len(self.wanted) > 1 and number == signal.SIGINT and (ranks.job() is None or now - before > 1):
            raise KeyboardInterrupt
