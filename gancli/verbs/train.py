"""`gan train`: build the parts, make or reopen the run directory, play the game, and leave cleanly."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli import assemble, checkpoint, device, rundir
from gancli.assemble import DataFacts
from gancli.build import make, make_as
from gancli.engine import Engine
from gancli.errors import ConfigError, DeviceError, GanError, Interrupted, RunError
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
    remembered: Mapping[str, Any] = field(default_factory=dict)  # by observers, in the checkpoint it goes on from
    saved: int | None = None  # the step of the newest checkpoint
    stop: Stop | None = None
    wanted: list[str] = field(default_factory=list)  # signals that came in


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Train as configured; returns the run directory. Nothing is written before all parts stand and a step was tried.

    Raises GanError; Interrupted where a signal ended the run, which is then saved.
    """
    settings = make_as(TrainSettings, config, "")
    _refuse(settings)
    compute = device.resolve(
        make_as(device.DeviceChoice, settings.device, "device"),
        make_as(device.PrecisionChoice, settings.precision, "precision"),
    )
    source = assemble.data(settings)
    facts = DataFacts.of(source)
    engine = assemble.engine(settings, source, assemble.game(config, facts), compute)
    observers = [make(node, f"observers.{name}") for name, node in settings.observers.items() if node is not None]
    notes = [*compute.notes, *split_notes(engine)]
    if settings.compile and settings.steps:
        notes += device.compile_networks(dict(engine.game.nets.items()), twice=engine.game.twice, device=compute.device)

    wanted: list[str] = []
    with _Signals(wanted):
        session = _session(settings, config, engine, facts, observers, wanted)
        try:
            _open(session, overrides, notes)
            _train(session)
        except BaseException as error:
            _fail(session, error)
            raise
        finally:
            session.run.unlock()
    if wanted:
        raise Interrupted(f"stopped by {wanted[0]}")
    return session.run.path


def _refuse(settings: TrainSettings) -> None:
    """Raise for what can be told from the settings alone."""
    assemble.check_sections(settings)
    if int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise DeviceError("gan train runs in one process so far and was started in several: start it without torchrun")
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
) -> Session:
    """Reopen a run, or make a new one after a step was tried: what cannot step leaves nothing behind."""
    about = {"parameters": {name: parameters(nets) for name, nets in engine.game.players().items()}}
    parts = (settings, config, engine, facts, observers)
    if settings.resume:
        reopened, state = reopen(settings, config, facts, engine)
        try:
            estimate, spent = _rehearse(engine), float(state.get("seconds", 0.0))
        except BaseException:
            reopened.unlock()
            raise
        remembered, at = state.get("observers") or {}, engine.step_number
        return Session(*parts, reopened, about, spent, estimate, True, remembered, at, wanted=wanted)
    if settings.init:
        start_from(settings.init, engine)
    estimate = _rehearse(engine) if settings.steps else 0.0
    new = RunDir(rundir.new_directory("train", f"{settings.model['name']}-{facts.name}", settings.run_dir))
    new.lock()
    try:
        rundir.refuse_taken(settings.run_dir)  # another process may have been here and gone in the meantime
    except BaseException:
        new.unlock()
        raise
    return Session(*parts, new, about, 0.0, estimate, wanted=wanted)


def _rehearse(engine: Engine) -> float:
    """Seconds a step will take. Raises DeviceError where the device's memory is too small for it."""
    try:
        return engine.rehearse()
    except torch.OutOfMemoryError:
        half = max(1, (engine.micro_batch or engine.batch_size) // 2)
        raise DeviceError(f"a step does not fit into the device's memory: try micro_batch={half}, or less") from None


def split_notes(engine: Engine) -> list[str]:
    """What splitting a batch changes: batch norm sees the micro-batch only; everything else stays the same."""
    split = engine.micro_batch is not None and engine.micro_batch < engine.batch_size
    if split and any(isinstance(m, _BatchNorm) for m in engine.game.modules()):
        return [f"micro_batch={engine.micro_batch}: batch norm takes its statistics over so many images"]
    return []


def parameters(nets: Iterable[nn.Module]) -> int:
    """Trainable parameters of a player."""
    return sum(p.numel() for net in nets for p in net.parameters())


def _open(session: Session, overrides: Sequence[str], notes: list[str]) -> None:
    """Write down what this run is before its first step."""
    run, engine, settings = session.run, session.engine, session.settings
    run.forget_after(engine.step_number)
    state = {
        "status": "running",
        "reason": None,
        "step": engine.step_number,
        "seed": settings.seed,
        "note": settings.note,
    }
    data = session.facts.plain()
    place = {"device": str(engine.compute.device), "notes": notes}
    run.write_config(session.config)
    if not session.resumed:
        _write(session)  # before run.json: what makes a directory a run comes after what it can go on from
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
    view = RunView(engine, settings.steps, estimate=session.estimate, began_at=engine.step_number)
    view.final = engine.step_number >= settings.steps
    began, spent = time.perf_counter(), session.spent
    try:
        for observer in session.observers:
            observer.open(view)
        _restore_observers(session)
        if engine.step_number == 0:
            _look(session, view)
        while not view.final and session.stop is None:
            view.logs = engine.step()
            now = time.perf_counter()
            view.seconds = session.spent = spent + now - began
            late = settings.max_time is not None and now - began >= settings.max_time * 60
            view.final = engine.step_number >= settings.steps or bool(session.wanted) or late
            _look(session, view)
            if late and engine.step_number < settings.steps:
                session.stop = session.stop or Stop(f"max_time={settings.max_time:g} minutes are over")
        _keep_now(session)
    finally:
        for observer in session.observers:
            observer.close()
    _close(session)


def _keep_now(session: Session) -> None:
    """Save this moment, unless it is saved already or the run has failed."""
    failed = session.stop is not None and session.stop.failed
    if not failed and session.engine.step_number != session.saved:
        _save_if_finite(session)


def _look(session: Session, view: RunView) -> None:
    """Show every observer the run and do what it asks for; a checkpoint comes last, after what belongs to its step."""
    keep: Keep | None = None
    for observer in session.observers:
        for event in observer.on_step(view):
            if isinstance(event, Keep):
                keep = event
            else:
                _answer(session, view, event)
            if session.stop and session.stop.failed:
                return
    if keep is not None and (session.saved == view.step or _save_if_finite(session)):
        _prune(session.run, keep)


def _answer(session: Session, view: RunView, event: Event) -> None:
    run = session.run
    if isinstance(event, Row):
        run.append(event.values)
    elif isinstance(event, Picture):
        save_png(run.samples / f"{event.name}.png", event.image)
    elif isinstance(event, Film):
        save_film(run.samples, event.name, event.seconds)
    elif isinstance(event, Alarm):
        run.append({"step": view.step, "alarm": event.name, "text": event.text})
        _say(run, f"alarm at step {view.step}: {event.text}")
    elif isinstance(event, Stop):
        session.stop = event


def _save_if_finite(session: Session) -> bool:
    """Write a checkpoint; where a weight is no longer a number, end the run instead: the last good one stays."""
    engine = session.engine
    if not all(bool(p.isfinite().all()) for p in engine.game.parameters()):
        session.stop = diverged("a weight", engine.step_number)
        return False
    save(session)
    return True


def save(session: Session) -> Path:
    """Write a checkpoint of this moment, and say so in run.json."""
    path = _write(session)
    session.run.update(step=session.engine.step_number)
    return path


def _write(session: Session) -> Path:
    """Write a checkpoint of this moment, after all rows up to it."""
    engine, run = session.engine, session.run
    own = {"seconds": session.spent, "config": dict(session.config), "data": session.facts.plain()}
    about = {"seen": engine.seen, "config": dict(session.config), **rundir.environment()}
    run.settle()
    observers = {type(observer).__name__: observer.state() for observer in session.observers}
    path = checkpoint.save(run.checkpoints, engine.state() | own | {"observers": observers}, about)
    run.drop_aside()
    session.saved = engine.step_number
    return path


def _restore_observers(session: Session) -> None:
    """Let every observer go on where it was, as far as the checkpoint remembers it. Raises RunError."""
    for observer in session.observers:
        own = session.remembered.get(type(observer).__name__)
        if own:
            try:
                observer.restore(own)
            except (KeyError, TypeError, ValueError, AttributeError):
                words = f"the checkpoint remembers something else of {type(observer).__name__}"
                raise RunError(f"resume={session.settings.resume}: {words}; leave it out of observers") from None


def _prune(run: RunDir, rule: Keep) -> None:
    """Delete checkpoints but for the first, the best and the newest."""
    found = run.listing()
    if rule.keep is None or len(found) <= rule.keep:
        return
    for step in sorted(set(found) - {min(found), run.best(rule.best)} - set(sorted(found)[-rule.keep :])):
        checkpoint.delete(found[step])


def _fail(session: Session, error: BaseException) -> None:
    """Write down why a run failed; where it was the disk, the way on is said too. Raises RunError in its place."""
    run, step = session.run, session.engine.step_number
    reason = " ".join((str(error) if isinstance(error, GanError) else f"{type(error).__name__}: {error}").split())
    began = (run.path / "run.json").exists()
    if began:
        with contextlib.suppress(GanError):  # a full disk: the reason is said on the terminal all the same
            run.update(status="failed", reason=reason, step=step)
    disk = error if isinstance(error, OSError) else error.__cause__ if isinstance(error, RunError) else None
    if isinstance(disk, OSError):
        kept = max(run.listing(), default=None)
        way = f"; step {kept} is saved: gan train resume={run.path} goes on from there" if began else ""
        raise RunError(f"step {step}: {reason}{way}") from error


def _close(session: Session) -> None:
    """Say how the run ended, in run.json, in the log and to the person."""
    run, step, steps, stop = session.run, session.engine.step_number, session.settings.steps, session.stop
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
    with contextlib.suppress(OSError):  # the terminal has gone, or the disk that it is written to is full
        print(text, file=sys.stderr, flush=True)


class _Signals:
    """While inside, SIGINT and SIGTERM are noted instead of obeyed; a second SIGINT interrupts at once."""

    def __init__(self, wanted: list[str]):
        self.wanted = wanted
        self.before: dict[int, Any] = {}

    def __enter__(self) -> None:
        if threading.current_thread() is threading.main_thread():
            self.before = {s: signal.signal(s, self._note) for s in (signal.SIGINT, signal.SIGTERM)}

    def __exit__(self, *_: object) -> None:
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted.append({signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}[signal.Signals(number)])
        if len(self.wanted) > 1 and number == signal.SIGINT:
            raise KeyboardInterrupt
