"""`gan train`: build the parts, make or reopen the run directory, play the game, and leave cleanly."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FrameType
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli import assemble, checkpoint, device, memory, ranks, rundir
from gancli.assemble import DataFacts
from gancli.build import make, make_as
from gancli.dist import World
from gancli.engine import Engine
from gancli.errors import ConfigError, DeviceError, GanError, Interrupted, RankError, RunError
from gancli.nets.layers.norms import AcrossRanks
from gancli.observers.observer import Alarm, Event, Film, Keep, Observer, Picture, Row, RunView, Stop, diverged
from gancli.pictures import save_film, save_png
from gancli.rundir import RunDir
from gancli.settings import TrainSettings
from gancli.verbs.resume import reopen, start_from


@dataclass
class Session:
    """One process's part of a run."""

    settings: TrainSettings
    config: Mapping[str, Any]
    engine: Engine
    facts: DataFacts
    observers: list[Observer]
    run: RunDir
    about: dict[str, Any]
    spent: float = 0.0  # seconds of training, over all resumes
    estimate: float = 0.0  # seconds a step
    resumed: bool = False
    stop: Stop | None = None
    wanted: list[str] = field(default_factory=list)  # signals that came in

    @property
    def world(self) -> World:
        """Who trains together; the first of them writes and speaks."""
        return self.engine.world


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Train as configured; returns the run directory. Nothing is written before all parts stand and a step was tried.

    Raises GanError; Interrupted where a signal ended the run, which is then saved.
    """
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
    observers = [make(node, f"observers.{name}") for name, node in settings.observers.items() if node is not None]
    notes = [*compute.notes, *rank_notes(engine), *split_notes(engine)]
    need = memory.footprint(engine) if settings.steps else None
    if need is not None:
        memory.refuse(need)
        notes.append(need.line())
    if settings.compile and settings.steps:
        notes += device.compile_networks(dict(engine.game.nets.items()), twice=engine.game.twice, device=compute.device)

    wanted: list[str] = []
    with _Signals(wanted):
        session = _session(settings, config, engine, facts, observers, wanted, need, notes)
        try:
            with memory.explained(need, session.run, engine):
                _open(session, overrides, notes)
                _train(session)
        except BaseException as error:
            reason = str(error) if isinstance(error, GanError) else f"{type(error).__name__}: {error}"
            if session.world.first:
                session.run.update(status="failed", reason=" ".join(reason.split()), step=engine.step_number)
            if isinstance(error, RankError):
                raise RankError(f"{error}; go on with: resume={session.run.path}") from None
            raise
        finally:
            _part(session)
            session.run.unlock()
    if wanted:
        raise Interrupted(f"stopped by {wanted[0]}")
    return session.run.path


def _refuse(settings: TrainSettings) -> None:
    """Raise for what can be told from the settings alone."""
    assemble.check_sections(settings)
    if settings.resume and settings.run_dir:
        raise ConfigError("resume= goes on in the run's own directory: leave run_dir out")
    rundir.refuse_taken(settings.run_dir)


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
        reopened, spent = reopen(settings, config, facts, engine)
        estimate = _rehearse(engine, need, notes)
        return Session(*parts, reopened, about, spent, estimate, resumed=True, wanted=wanted)
    if settings.init:
        start_from(settings.init, engine)
    estimate = _rehearse(engine, need, notes) if settings.steps else 0.0
    called = f"{settings.model['name']}-{facts.name}"
    new = RunDir(engine.world.from_first(lambda: rundir.new_directory("train", called, settings.run_dir)))
    if engine.world.first:
        new.lock()
        if ranks.job():  # from now on a restart finds it
            new.update(status="starting", job=ranks.job())
    return Session(*parts, new, about, 0.0, estimate, wanted=wanted)


def _again(settings: TrainSettings, own: Path) -> TrainSettings:
    """Settings that go on with this job's own run after torchrun restarted it; one without a checkpoint begins anew."""
    if RunDir(own).listing():
        return replace(settings, resume=str(own), run_dir=None, init=None)
    (own / "run.json").unlink(missing_ok=True)
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


def split_notes(engine: Engine) -> list[str]:
    """What splitting a batch changes: batch norm sees the micro-batch only; everything else stays the same."""
    world = engine.world
    split = engine.micro_batch is not None and engine.micro_batch * world.size < engine.batch_size
    if split and any(isinstance(m, _BatchNorm) for m in engine.game.modules()):
        each = " of every rank" if world.size > 1 else ""
        return [f"micro_batch={engine.micro_batch}: batch norm takes its statistics over so many images{each}"]
    return []


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


def parameters(nets: Iterable[nn.Module]) -> int:
    """Trainable parameters of a player."""
    return sum(p.numel() for net in nets for p in net.parameters())


def _open(session: Session, overrides: Sequence[str], notes: list[str]) -> None:
    """Write down what this run is before its first step."""
    if not session.world.first:
        return
    run, engine, settings = session.run, session.engine, session.settings
    if session.resumed:
        run.forget_after(engine.step_number)
    state = {
        "status": "running",
        "reason": None,
        "step": engine.step_number,
        "seed": settings.seed,
        "note": settings.note,
    }
    data = session.facts.plain() | {"images": len(engine.streams["real"].source)}
    place = {"device": str(engine.compute.device), "world": session.world.size, "backend": ranks.backend()}
    place |= {"job": ranks.job(), "notes": notes}
    run.write_config(session.config)
    run.update(**state, **session.about, **place, data=data, overrides=list(overrides), **rundir.environment())
    counts = " · ".join(f"{name} {count:,} parameters" for name, count in session.about["parameters"].items())
    lines = [
        f"run {run.path}",
        f"data {data['name']}: {data['images']:,} items of {'×'.join(map(str, data['shape']))}",
        f"{counts} · batches of {engine.batch_size}",
        *(note for net in engine.game.nets.values() for note in getattr(net, "notes", ())),
        *notes,
    ]
    for line in [*lines, *([f"resumed at step {engine.step_number}"] if session.resumed else [])]:
        _say(run, line)


def _train(session: Session) -> None:
    """The loop: a step, then whoever looks at it. Ctrl-C and SIGTERM end it after the current step."""
    engine, settings = session.engine, session.settings
    start = engine.step_number
    view = RunView(engine, settings.steps, estimate=session.estimate, began_at=start, folder=session.run.path)
    view.final = engine.step_number >= settings.steps
    began, spent = time.perf_counter(), session.spent
    # Those that all ranks call come first: what rank 0 does alone must not come between them.
    session.observers.sort(key=lambda observer: not observer.everywhere)
    session.observers = [o for o in session.observers if o.everywhere or session.world.first]
    try:
        for observer in session.observers:
            observer.open(view)
        if not session.resumed:
            _look(session, view)
            _keep_now(session)  # a checkpoint stands before the first step, whoever looks on
        _agree(session)
        while not view.final and session.stop is None:
            view.logs = engine.step()
            now = time.perf_counter()
            view.seconds = session.spent = spent + now - began
            late = settings.max_time is not None and now - began >= settings.max_time * 60
            called, late = map(bool, session.world.highest(bool(session.wanted), late))
            if called and not session.wanted:
                session.wanted.append("a signal to another rank")
            view.final = engine.step_number >= settings.steps or called or late
            _look(session, view)
            if late and engine.step_number < settings.steps:
                session.stop = session.stop or Stop(f"max_time={settings.max_time:g} minutes are over")
            _agree(session)
        _keep_now(session)
        _agree(session)
    finally:
        for observer in session.observers:
            observer.close()
    _close(session)


def _agree(session: Session) -> None:
    """Every rank stops where one does, for the same reason."""
    stop = session.stop
    if any(session.world.highest(stop is not None)):
        stops = [each for each in session.world.everyone(stop) if each is not None]
        session.stop = next((each for each in stops if each.failed), stops[0])


def _part(session: Session) -> None:
    """Let observers see how the run ended; what goes wrong with that must not hide how."""
    for observer in session.observers:
        try:
            observer.ended(session.run.path)
        except GanError as error:
            print(f"{' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _keep_now(session: Session) -> None:
    """Save this moment, unless it is saved already or the run has failed."""
    failed = session.stop is not None and session.stop.failed
    if session.world.first and not failed and session.engine.step_number not in session.run.listing():
        _save_if_finite(session)


def _look(session: Session, view: RunView) -> None:
    """Show every observer the run and do what it asks for."""
    view.events.clear()
    for observer in session.observers:
        for event in observer.on_step(view):
            view.events.append(event)
            _answer(session, view, event)
            if session.stop and session.stop.failed and not observer.everywhere:
                return


def _answer(session: Session, view: RunView, event: Event) -> None:
    run = session.run
    if isinstance(event, Stop):
        session.stop = event
    elif not session.world.first:
        return
    elif isinstance(event, Row):
        run.append(event.values)
    elif isinstance(event, Picture):
        save_png(run.samples / f"{event.name}.png", event.image)
    elif isinstance(event, Film):
        save_film(run.samples, event.name, event.seconds)
    elif isinstance(event, Alarm):
        run.append({"step": view.step, "alarm": event.name, "text": event.text})
        _say(run, f"alarm at step {view.step}: {event.text}")
    elif isinstance(event, Keep) and _save_if_finite(session):
        _prune(run, event.keep)


def _save_if_finite(session: Session) -> bool:
    """Write a checkpoint; where a weight is no longer a number, end the run instead: the last good one stays."""
    engine = session.engine
    if not all(bool(p.isfinite().all()) for p in engine.game.parameters()):
        session.stop = diverged("a weight", engine.step_number)
        return False
    save(session)
    return True


def save(session: Session) -> Path:
    """Write a checkpoint of this moment."""
    engine = session.engine
    state = engine.state() | {"seconds": session.spent, "config": dict(session.config), "data": session.facts.plain()}
    about = {"seen": engine.seen, "config": dict(session.config), **rundir.environment()}
    path = checkpoint.save(session.run.checkpoints, state, about)
    session.run.update(step=engine.step_number)
    return path


def _prune(run: RunDir, keep: int | None) -> None:
    """Delete checkpoints but for the first, the best and the newest `keep`."""
    found = run.listing()
    if keep is None or len(found) <= keep:
        return
    try:
        best = {run.best()}
    except RunError:
        best = set()
    for step in sorted(set(found) - {min(found)} - best - set(sorted(found)[-keep:])):
        found[step].with_suffix(".json").unlink(missing_ok=True)
        found[step].unlink(missing_ok=True)


def _close(session: Session) -> None:
    """Say how the run ended, in run.json, in the log and to the person."""
    run, step, steps, stop = session.run, session.engine.step_number, session.settings.steps, session.stop
    if not session.world.first:
        if stop is not None and stop.failed:
            raise RunError(stop.reason)  # which rank 0 says
        return
    if stop is not None and stop.failed:
        kept = max(run.listing().values())
        raise RunError(f"{stop.reason}. The last good checkpoint is {kept}")
    if step < steps:
        reason = stop.reason if stop else f"{session.wanted[0] if session.wanted else 'an observer'} came in"
        run.update(status="stopped", reason=reason, step=step)
        _say(run, f"stopped at step {step} of {steps}: {reason}; go on with: gan train resume={run.path}")
        return
    run.update(status="finished", reason=None, step=step)
    seconds = f" in {session.spent:.0f} s of training" if step else ""
    _say(run, f"finished at step {step}{seconds}; look at {run.samples}, then try: gan sample run={run.path}")


def _say(run: RunDir, text: str) -> None:
    run.say(text)
    print(text, file=sys.stderr, flush=True)


class _Signals:
    """While inside, SIGINT and SIGTERM are noted instead of obeyed; a second SIGINT interrupts at once."""

    def __init__(self, wanted: list[str]):
        self.wanted = wanted
        self.before: dict[int, Any] = {}
        self.last = 0.0

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted.append({signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[signal.Signals(number)])
        now, before = time.monotonic(), self.last
        self.last = now
        # Of one Ctrl-C a rank hears twice: from the terminal and from torchrun.
        if len(self.wanted) > 1 and number == signal.SIGINT and (ranks.job() is None or now - before > 1):
            raise KeyboardInterrupt
