"""A run in progress: its start, the training loop, the handling of observers' events, and its end."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gancli.compute import ranks
from gancli.compute.dist import World
from gancli.config import paths
from gancli.config.commands import command, word
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.draw.pictures import save_film, save_png
from gancli.errors import GanError, RankError, RunError
from gancli.metrics import results
from gancli.observers.observer import (
    Alarm,
    Event,
    Film,
    Keep,
    Lines,
    Observer,
    Picture,
    RunView,
    Say,
    Scored,
    Stop,
    Values,
    diverged,
)
from gancli.store import checkpoint
from gancli.store.environment import environment
from gancli.store.files import whole_file
from gancli.store.rundir import RunDir
from gancli.train.engine import Engine
from gancli.waiting import aloud, told

LONG = 5.0  # seconds; observers that take longer are skipped when the run is stopped by a signal


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
    spent: float = 0.0  # seconds of training, summed over all resumes
    estimates: Mapping[str, float] = field(default_factory=dict)  # seconds per step, by stage
    resumed: bool = False
    remembered: Mapping[str, Any] = field(default_factory=dict)  # observers' states in the resumed checkpoint
    saved: int | None = None  # the step of the newest checkpoint
    stop: Stop | None = None
    wanted: list[str] = field(default_factory=list)  # names of received signals
    above: list[Path] | None = None  # of a new run: the parent folders made for it

    @property
    def world(self) -> World:
        """The processes that train together; only rank 0 writes and prints."""
        return self.engine.world

    @property
    def stored(self) -> dict[str, Any]:
        """The configuration as it is stored: without the run directory and `resume`."""
        return {**self.config, "resume": None, "run_dir": None}


def begin(session: Session, overrides: Sequence[str], notes: list[str]) -> None:
    """Write config.yaml, run.json and the first checkpoint, and log what the run consists of."""
    if not session.world.first:
        return
    run, engine, settings = session.run, session.engine, session.settings
    damaged = run.forget_after(engine.step_number)
    state = {
        "status": "running",
        "reason": None,
        "step": engine.step_number,
        "seed": settings.seed,
        "note": settings.note,
    }
    facts = session.facts
    place = {"device": str(engine.compute.device), "world": session.world.size, "backend": ranks.backend()}
    place |= {"job": ranks.job(), "notes": notes}
    run.write_config(session.stored)
    if not session.resumed:
        place |= {"init": settings.init}  # a resumed run's command line no longer has it
        _write(session)  # before run.json, which marks the directory as a run: a run can always be resumed
    words = paths.typed(overrides, session.config)
    run.update(**state, **session.about, **place, data=facts.plain(), overrides=words, **environment())
    counted = [f"{name} {count:,} parameters" for name, count in session.about["parameters"].items()]
    counted += [f"{name} {count:,} frozen" for name, count in session.about["frozen"].items()]
    course = engine.course
    batches = dict.fromkeys(str(course.batch_size(stage)) for stage in course.stages)
    lines = [
        f"run {run.path}",
        f"data {facts.name}: {facts.told}",
        f"{' · '.join(counted)} · batches of {', then '.join(batches)}",
        *(note for net in engine.game.nets.values() for note in getattr(net, "notes", ())),
        *notes,
    ]
    if damaged:
        lines.append(f"{damaged} damaged lines of {run.metrics.name} were removed")
    for line in [*lines, *([f"resumed at step {engine.step_number}"] if session.resumed else [])]:
        _say(run, line)


def run_steps(
    session: Session,
    step_begins: Callable[[], None] = lambda: None,
    ending: Callable[[Session], None] = lambda session: None,
) -> None:
    """The training loop: a step, then the observers. Ctrl-C and SIGTERM end it after the current step.

    When a signal ends the run, observers get a final call only if they were fast before. step_begins: called before
    the first step. ending: called by all ranks after the last step, unless a signal or a failure ended the run; until
    it returns the run counts as unfinished. A run of 0 steps calls no observers: its networks may be too large for
    sampling.
    """
    engine, settings = session.engine, session.settings
    if not engine.steps:
        _close(session)
        return
    start = engine.step_number
    view = RunView(engine, engine.steps, estimates=session.estimates, began_at=start, folder=session.run.path)
    view.config, view.final = session.config, engine.step_number >= engine.steps
    view.say = lambda text: _answer(session, view, Say(text))
    began, spent = time.perf_counter(), session.spent
    # Observers that all ranks call come first: work of rank 0 alone must not come between collective operations.
    session.observers.sort(key=lambda observer: not observer.everywhere)
    session.observers = [o for o in session.observers if o.everywhere or session.world.first]
    try:
        slow, over = _opened(session, view), view.final
        step_begins()
        view.begin()
        while not over and session.stop is None:
            stage = engine.at.stage
            view.logs = engine.step()
            now = time.perf_counter()
            view.seconds = session.spent = spent + now - began
            late = settings.max_time is not None and now - began >= settings.max_time * 60
            called, late, slow = map(bool, session.world.highest(bool(session.wanted), late, slow))
            if called and not session.wanted:
                session.wanted.append("a signal to another rank")
            view.final = engine.step_number >= engine.steps or late or (called and not slow)
            over = view.final or called
            if engine.at.stage is not stage and not view.final:
                view.next_stage(stage)
                _answer(session, view, Say(_entered(engine)))
            _look(session, view)
            if late and engine.step_number < engine.steps:
                session.stop = session.stop or Stop(f"max_time={settings.max_time:g} minutes have passed")
            slow = slow or time.perf_counter() - now > LONG
            _agree(session)
        _keep_now(session)
        _agree(session)
    finally:
        for observer in session.observers:
            observer.close()
    if not any(session.world.highest(bool(session.wanted), session.stop is not None and session.stop.failed)):
        ending(session)
    _close(session)


def _opened(session: Session, view: RunView) -> bool:
    """Open the observers, who also see an untrained run; return whether that took long."""
    looks = time.perf_counter()
    with told("drawing samples and measuring before the first step", view.say):
        for observer in session.observers:
            observer.open(view)
        _restore_observers(session)
        if session.engine.step_number == 0:
            _look(session, view)
    _agree(session)
    return time.perf_counter() - looks > LONG


def _entered(engine: Engine) -> str:
    """Return the log line about a stage that begins."""
    stage = engine.at.stage
    reset = f", the optimizer of {' and '.join(stage.reset)} is reset" if stage.reset else ""
    return f"stage {stage.name} begins after step {engine.step_number}: batches of {engine.batch_size}{reset}"


def _agree(session: Session) -> None:
    """Stop all ranks if one stops, for the same reason."""
    stop = session.stop
    if any(session.world.highest(stop is not None)):
        stops = [each for each in session.world.everyone(stop) if each is not None]
        session.stop = next((each for each in stops if each.failed), stops[0])


def say_ended(session: Session) -> None:
    """Tell observers that the run ended; print their errors, so that they do not hide the run's own error."""
    watching = [o for o in session.observers if o.everywhere or session.world.first]
    for observer in watching if session.run.started() else ():
        try:
            observer.ended(session.run.path)
        except GanError as error:
            print(f"{' '.join(str(error).split())}", file=sys.stderr, flush=True)


def _keep_now(session: Session) -> None:
    """Write a checkpoint of the current step, unless there is one or the run has failed."""
    failed = session.stop is not None and session.stop.failed
    if session.world.first and not failed and session.engine.step_number != session.saved:
        _save_if_finite(session)


def _look(session: Session, view: RunView) -> None:
    """Call every observer and handle its events; a checkpoint is written last, after all events of its step."""
    keep: Keep | None = None
    view.events.clear()
    for observer in session.observers:
        for event in observer.on_step(view):
            view.events.append(event)
            if isinstance(event, Keep):
                keep = event
            else:
                _answer(session, view, event)
            if session.stop and session.stop.failed and not observer.everywhere:
                return
    failed = session.stop is not None and session.stop.failed
    if keep is None or failed or not session.world.first:
        return
    if session.saved == view.step or _save_if_finite(session):
        _prune(session.run, keep)


def _answer(session: Session, view: RunView, event: Event) -> None:
    run = session.run
    if isinstance(event, Stop):
        session.stop = event
    elif not session.world.first:
        return
    elif isinstance(event, Values):
        run.append(event.values)
    elif isinstance(event, Picture):
        save_png(run.samples / f"{event.name}.png", event.image)
    elif isinstance(event, Lines):
        with whole_file(run.samples / f"{event.name}.txt") as file:
            file.write("".join(f"{line}\n" for line in event.lines).encode())
    elif isinstance(event, Film):
        save_film(run.samples, event.name, event.seconds)
    elif isinstance(event, Alarm):
        run.append({"step": view.step, "alarm": event.name, "text": event.text})
        _say(run, f"alarm at step {view.step}: {event.text}")
    elif isinstance(event, Say):
        _say(run, event.text)
    elif isinstance(event, Scored):
        told = " · ".join(f"{name} {value:.4f}" for name, value in results.numbers(event.result).items())
        _say(run, f"scores at step {view.step}: {told}")
        results.keep(run.path, event.result)


def _save_if_finite(session: Session) -> bool:
    """Write a checkpoint; if a weight is not finite, end the run instead, and keep the last good checkpoint."""
    engine = session.engine
    if not all(bool(p.isfinite().all()) for p in engine.game.parameters()):
        session.stop = diverged("a weight", engine)
        return False
    save(session)
    return True


def save(session: Session) -> Path:
    """Write a checkpoint of the current step, and update run.json."""
    path = _write(session)
    session.run.update(step=session.engine.step_number)
    return path


def _write(session: Session) -> Path:
    """Write a checkpoint of the current step, after all metrics rows up to it."""
    engine, run = session.engine, session.run
    own = {"seconds": session.spent, "config": session.stored, "data": session.facts.plain()}
    if engine.game.pretrained is not None:
        own["pretrained"] = engine.game.pretrained.facts.plain()
    about = {"seen": engine.seen, "config": session.stored, **environment()}
    run.flush()
    # Before the first step observers have no state: a run resumed at step 0 calls them from the start.
    watching = session.observers if engine.step_number else []
    observers = {observer.name: observer.state() for observer in watching}
    path = checkpoint.save(run.checkpoints, engine.state() | own | {"observers": observers}, about)
    run.drop_aside()
    session.saved = engine.step_number
    return path


def _restore_observers(session: Session) -> None:
    """Restore the state of every observer that the checkpoint contains. Raises RunError."""
    for observer in session.observers if session.engine.step_number else ():
        own = session.remembered.get(observer.name)
        if own:
            try:
                observer.restore(own)
            except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
                words = f"the state of observers.{observer.name} in the checkpoint does not fit"
                raise RunError(f"resume={session.settings.resume}: {words}; remove this observer") from None


def _prune(run: RunDir, rule: Keep) -> None:
    """Delete checkpoints except for the first, the best and the newest."""
    found = run.listing()
    if rule.keep is None or len(found) <= rule.keep:
        return
    for step in sorted(set(found) - {min(found), run.best(rule.best)} - set(sorted(found)[-rule.keep :])):
        checkpoint.delete(found[step])


def fail(session: Session, error: BaseException) -> None:
    """Record why a run failed; for an error of the disk, the message includes the command to resume.

    Raises RunError or RankError in place of the error.
    """
    run, step = session.run, session.engine.step_number
    reason = " ".join((str(error) if isinstance(error, GanError) else f"{type(error).__name__}: {error}").split())
    began, stopped = (run.path / "run.json").exists(), isinstance(error, KeyboardInterrupt)
    if began and session.world.first:
        with contextlib.suppress(GanError):  # if the disk is full, the terminal still shows the reason
            reason = "interrupted" if stopped else reason
            run.update(status="stopped" if stopped else "failed", reason=reason, step=step)
    if isinstance(error, RankError):
        raise RankError(f"{error}; resume with: {word('resume', run.path)}") from None
    disk = error if isinstance(error, OSError) else error.__cause__ if isinstance(error, RunError) else None
    if isinstance(disk, OSError):
        kept = max(run.listing(), default=None)
        remedy = f"; step {kept} is saved; resume with: {command('train', word('resume', run.path))}" if began else ""
        raise RunError(f"step {step}: {reason}{remedy}") from error


def _close(session: Session) -> None:
    """Record how the run ended, in run.json, in the log and on the terminal."""
    run, step, steps, stop = session.run, session.engine.step_number, session.engine.steps, session.stop
    if not session.world.first:
        if stop is not None and stop.failed:
            raise RunError(stop.reason)  # rank 0 prints it
        return
    if stop is not None and stop.failed:
        kept = max(run.listing().values())
        raise RunError(f"{stop.reason}. The last good checkpoint is {kept}")
    if step < steps:
        reason = (
            stop.reason if stop else f"received {session.wanted[0]}" if session.wanted else "an observer stopped it"
        )
        run.update(status="stopped", reason=reason, step=step)
        _say(
            run,
            f"stopped at step {step} of {steps}: {reason}; resume with: {command('train', word('resume', run.path))}",
        )
        return
    run.update(status="finished", reason=None, step=step)
    further = command("sample", word("run", run.path))
    if not step:
        again = command("train", word("resume", run.path), "steps=N")
        _say(run, f"finished at step 0: the run is built; train it with {again}, then try: {further}")
        return
    look = f"samples are in {run.samples}; " if run.samples.is_dir() else ""
    _say(run, f"finished at step {step} in {session.spent:.0f} s of training; {look}next: {further}")


def _say(run: RunDir, text: str) -> None:
    run.say(text)
    aloud(text)
