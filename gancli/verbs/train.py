"""`gan train`: build the parts, make or reopen the run directory, play the game, and leave cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute import device, memory, ranks
from gancli.compute.dist import World
from gancli.config import idle, paths
from gancli.config.build import make, make_as
from gancli.config.compose import left_out
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.errors import ConfigError, Interrupted, RankError
from gancli.games.game import sample_of
from gancli.nets.layers.norms import AcrossRanks
from gancli.nets.layers.own import ImageBatchNorm2d
from gancli.observers.checkpoints import with_best
from gancli.observers.observer import Observer, RunView
from gancli.observers.plane import in_a_plane
from gancli.pretrained.pretrained import Pretrained
from gancli.store import rundir
from gancli.store.networks import StoredNetwork
from gancli.store.rundir import RunDir
from gancli.train import assemble, checks, dealing
from gancli.train.engine import Engine
from gancli.train.players import counts
from gancli.train.rehearsal import Rehearsal
from gancli.train.single_rows import single_rows_explained
from gancli.verbs import starting
from gancli.verbs.forecast import forecast
from gancli.verbs.leaving import BEGINNING, STEP, Messenger, missing
from gancli.verbs.resume import refuse_held, reopen
from gancli.verbs.session import Session, begin, fail, run_steps, say_ended
from gancli.waiting import told


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Train as configured; returns the run directory. A new run that cannot make its first step leaves nothing behind.

    Raises GanError; Interrupted where a signal ended the run, which is then saved; KeyboardInterrupt where it came
    before the first step.
    """
    config, wanted = idle.one_length(paths.with_whole(config), idle.typed_keys(overrides)), list[str]()
    with _Signals(wanted, World.of_group().first) as signals:
        path = _run(config, overrides, signals)
    if wanted:
        raise Interrupted(f"stopped by {wanted[0]}")
    return path


def _run(config: Mapping[str, Any], overrides: Sequence[str], signals: _Signals) -> Path:
    settings = make_as(TrainSettings, config, "")
    own = ranks.own_run(settings.run_dir, World.of_group())
    if own is not None and own[1] == "finished":
        return own[0]  # restarted when all was done
    settings = settings if own is None else _again(settings, own[0])
    _refuse(settings)
    World.of_group().from_first(lambda: refuse_held(settings.resume))
    compute = device.resolve(
        make_as(device.DeviceChoice, settings.device, "device"),
        make_as(device.PrecisionChoice, settings.precision, "precision"),
    )
    with told("reading the data set"), ranks.one_first():
        source = dealing.data(settings)
    facts = DataFacts.of(source)
    found: dict[str, StoredNetwork] = {}
    if isinstance(settings.init, dict):
        init: Mapping[str, Any] = settings.init
        shapes = partial(assemble.game, config, facts, real=())
        found = World.of_group().from_first(lambda: starting.networks(init, shapes))
    with told("building the networks", after=4.0):  # the first optimizer alone imports for a second
        with ranks.one_first():
            frozen = assemble.frozen(config)
        engine = assemble.engine(settings, source, assemble.game(config, facts, pretrained=frozen), compute)
    observers = {n: make(node, f"observers.{n}") for n, node in settings.observers.items() if node is not None}
    for key, observer in observers.items():
        observer.name = key
        observer.refuse(RunView(engine, engine.steps, config=config))
    config = with_best(config, observers)
    if found:
        starting.take(found, engine)
    notes = [*source.notes, *dealing.unread(engine.game, source), *pretrained_notes(frozen)]
    notes += [*starting.notes(found, engine.game), *compute.notes]
    notes += [*rank_notes(engine), *split_notes(engine), *left_out(overrides), *_idle(settings, engine, overrides)]
    rehearsal = Rehearsal(engine, lambda: assemble.twin(settings, config, source, facts, frozen))
    need, seconds = forecast(rehearsal, settings, notes, overrides)
    about = _about(engine, need, frozen)
    session = _session(settings, config, engine, facts, list(observers.values()), signals.wanted, about, seconds)
    try:
        with memory.explained(need, session.run, engine), single_rows_explained(engine):
            begin(session, overrides, notes)
            run_steps(session, signals.step_begins)
    except BaseException as error:
        with signals.unheeded():
            discard(session, error)
        fail(session, error)
        raise
    finally:
        say_ended(session)
        session.run.unlock()
    return session.run.path


def _idle(settings: TrainSettings, engine: Engine, overrides: Sequence[str]) -> list[str]:
    """What of the settings has no effect in this run."""
    length, (_, field) = (engine.steps, engine.course.seen(engine.steps)), sample_of(engine.game)
    return idle.notes(settings, idle.typed_keys(overrides), *length, in_a_plane(field), field.words)


def _about(engine: Engine, need: memory.Footprint | None, frozen: Pretrained | None) -> dict[str, Any]:
    """What run.json says of the parts: parameters by player, frozen ones apart, stages, memory."""
    trained, held = counts(engine.players, dict(engine.game.nets.items()))
    about: dict[str, Any] = {"parameters": trained, "frozen": held, "steps": engine.steps, "stages": stages(engine)}
    about["memory"] = need.plain() if need else None
    return about | ({} if frozen is None else {"pretrained": frozen.facts.plain()})


def _refuse(settings: TrainSettings) -> None:
    """Raise for what can be told from the settings alone."""
    checks.check_sections(settings)
    if isinstance(settings.init, dict):
        starting.check(settings.init, assemble.network_nodes(settings.model, {}))
    if settings.resume and settings.init:
        raise ConfigError("resume= goes on with the run's own weights: leave init out")
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
    about: dict[str, Any],
    estimates: Mapping[str, float],
) -> Session:
    """Reopen a run, or make a new one."""
    parts = (settings, config, engine, facts, observers)
    if settings.resume:
        reopened, state = reopen(settings, config, facts, engine)
        spent, remembered = float(state.get("seconds", 0.0)), state.get("observers") or {}
        at = engine.step_number
        return Session(*parts, reopened, about, spent, estimates, True, remembered, at, wanted=wanted)
    if isinstance(settings.init, str):
        starting.start_from(settings.init, engine)
    called = f"{settings.model['name']}-{facts.name}"
    chosen = None if settings.run_dir is None else Path(settings.run_dir).expanduser()
    fresh, above = chosen is None or not chosen.exists(), missing(chosen or rundir.OUTPUTS / "train" / called)
    place = engine.world.from_first(lambda: rundir.new_directory("train", called, settings.run_dir))
    new = RunDir(place, made=fresh)
    if engine.world.first:
        new.lock()
        try:
            # Another process may have been here and gone in the meantime.
            rundir.refuse_taken(None if chosen is None else str(place), again=new.locked)
            if ranks.job():  # from now on a restart finds it
                new.update(status="starting", job=ranks.job())
        except BaseException:
            new.unlock()
            raise
    return Session(*parts, new, about, 0.0, estimates, wanted=wanted, above=above)


def discard(session: Session, error: BaseException) -> None:
    """Take a new run away again that ended before its first step was made.

    It stays where another rank failed, which may have got further.
    """
    if session.above is None or session.engine.step_number or isinstance(error, RankError) or not session.world.first:
        return
    session.run.withdraw()
    for folder in session.above:
        with contextlib.suppress(OSError):  # which holds something else
            folder.rmdir()


def _again(settings: TrainSettings, own: Path) -> TrainSettings:
    """Settings that go on with this job's own run after torchrun restarted it; one without a checkpoint begins anew."""
    if RunDir(own).listing():
        return replace(settings, resume=str(own), run_dir=None, init=None)
    RunDir(own).withdraw()
    return replace(settings, run_dir=str(own))


def pretrained_notes(frozen: Pretrained | None) -> list[str]:
    """Which frozen network is looked through, by its weights' hash, and by which layers."""
    if frozen is None:
        return []
    layers = ", ".join(f"{name} ({count})" for name, count in frozen.channels.items())
    size = sum(t.nbytes for t in frozen.tensors()) / (1 << 20)
    line = f"pretrained {frozen.name} (SHA-256 {frozen.sha256[:8]}..., {size:.0f} MiB), frozen"
    return [line + (f"; layers {layers}" if layers else ""), *frozen.notes]


def stages(engine: Engine) -> list[dict[str, Any]] | None:
    """A run's stages as plain values: their names, first steps and batches; None where there is but one."""
    course = engine.course
    if len(course.stages) == 1:
        return None
    found = [span.at for span in course.spans(until=engine.steps or None)]
    return [{"name": at.stage.name, "step": at.step, "batch_size": course.batch_size(at.stage)} for at in found]


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
    world, course = engine.world, engine.course
    sizes = {(course.micro_batch(stage), course.batch_size(stage)): None for stage in course.stages}
    split = {micro: None for micro, batch in sizes if micro is not None and micro * world.size < batch}
    if split and any(isinstance(m, _BatchNorm) for m in engine.game.modules()):
        each = " of every rank" if world.size > 1 else ""
        many = ", ".join(map(str, split))
        return [f"micro_batch={many}: batch norm takes its statistics over so many images{each}"]
    several = max(batch for _, batch in sizes)
    if several > 1 and any(isinstance(m, ImageBatchNorm2d) for m in engine.game.modules()):
        told = f"batch norm looks at {several} images at once in training, and at each alone when samples are made"
        return [f"{told}: model.norm=instance does the same in both"]
    return []


class _Signals:
    """While inside, SIGINT, SIGTERM and SIGHUP are noted instead of obeyed; a second SIGINT interrupts at once.

    SIGHUP says that the terminal was closed; under nohup, which ignores it, it stays ignored.
    Before the first step, any of them interrupts. aloud: whether this process says so, when the signal comes.
    """

    NAMES: ClassVar[dict[str, str]] = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}

    def __init__(self, wanted: list[str], aloud: bool = True):
        self.wanted = wanted
        self.before: dict[int, Any] = {}
        self.last = 0.0
        self.stepping, self.leaving = False, False
        self.messenger = Messenger(self._line) if aloud else None

    def step_begins(self) -> None:
        """From now on there is something to save. Raises KeyboardInterrupt for a signal that Python let go unheeded."""
        self.stepping = True
        if self.wanted:  # it came while a finalizer ran, out of which nothing is raised
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def unheeded(self) -> Iterator[None]:
        """While inside, no signal interrupts: what is taken away goes whole."""
        self.leaving = True
        try:
            yield
        finally:
            self.leaving = False

    def __enter__(self) -> _Signals:
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in self.NAMES if hasattr(signal, name)]
            ignored = {n for n in numbers if n != signal.SIGINT and signal.getsignal(n) == signal.SIG_IGN}
            self.before = {n: signal.signal(n, self._note) for n in numbers if n not in ignored}
            if self.messenger is not None:
                self.messenger.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self.before and self.messenger is not None:
            self.messenger.stop()
        for number, handler in self.before.items():
            signal.signal(number, handler)

    def _line(self, number: int) -> str | None:
        if number not in self.before:
            return None
        return STEP if self.stepping else BEGINNING

    def _note(self, number: int, frame: FrameType | None) -> None:
        self.wanted.append(self.NAMES[signal.Signals(number).name])
        now, before = time.monotonic(), self.last
        self.last = now
        if self.leaving:
            return
        if not self.stepping and len(self.wanted) == 1:
            raise KeyboardInterrupt
        # Of one Ctrl-C a rank hears twice: from the terminal and from torchrun.
        if len(self.wanted) > 1 and number == signal.SIGINT and (ranks.job() is None or now - before > 1):
            raise KeyboardInterrupt
