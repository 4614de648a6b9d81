"""`gan train`: build the components, make or reopen the run directory, train, and exit cleanly."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any, ClassVar

from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute import device, memory, ranks
from gancli.compute.dist import World
from gancli.config import paths, unused
from gancli.config.build import make, make_as
from gancli.config.compose import left_out
from gancli.config.generators import KEY
from gancli.config.settings import TrainSettings
from gancli.data import survey
from gancli.data.facts import DataFacts
from gancli.data.source import DataSet
from gancli.data.survey import Survey
from gancli.errors import ConfigError, Interrupted, RankError
from gancli.games.game import sample_of
from gancli.nets.layers.image_norms import ImageBatchNorm2d
from gancli.nets.layers.norms import AcrossRanks
from gancli.observers.checkpoints import with_best
from gancli.observers.observer import Observer, RunView
from gancli.observers.plane import in_a_plane
from gancli.pretrained.pretrained import Pretrained
from gancli.store import finding, rundir
from gancli.store.networks import StoredNetwork
from gancli.store.rundir import RunDir
from gancli.train import assemble, automatic, checks, few_shot, streams
from gancli.train import frozen as freezing
from gancli.train.by_device import usual_layers, with_generator
from gancli.train.engine import Engine
from gancli.train.players import counts
from gancli.train.rehearsal import Rehearsal
from gancli.train.rules import AUTO, Chosen
from gancli.train.single_rows import single_rows_explained
from gancli.verbs import starting
from gancli.verbs.ending import evaluate_best
from gancli.verbs.forecast import duration, forecast
from gancli.verbs.resume import refuse_held, reopen
from gancli.verbs.session import Session, begin, fail, run_steps, say_ended
from gancli.verbs.stopping import BEGINNING, STEP, Messenger, missing
from gancli.waiting import told


def run(config: Mapping[str, Any], overrides: Sequence[str]) -> Path:
    """Train as configured; return the run directory. A new run that fails before its first step leaves nothing behind.

    Raises GanError; Interrupted if a signal ended the run, which is then saved; KeyboardInterrupt for a signal before
    the first step.
    """
    config, wanted = unused.one_length(paths.with_whole(config), unused.typed_keys(overrides)), list[str]()
    with _Signals(wanted, World.of_group().first) as signals:
        path = _run(config, overrides, signals)
    if wanted:
        raise Interrupted(f"stopped by {wanted[0]}")
    return path


def _run(config: Mapping[str, Any], overrides: Sequence[str], signals: _Signals) -> Path:
    own = ranks.own_run(config.get("run_dir"), World.of_group())
    before = _before(config, own)
    config, overrides = with_generator(config, overrides, before)
    config, source, (chosen, advice) = _settled(config, overrides, before)
    settings = make_as(TrainSettings, config, "")
    if own is not None and own[1] == "finished":
        return own[0]  # restarted after the run had finished
    settings = settings if own is None else _again(settings, own[0])
    _refuse(settings)
    World.of_group().from_first(lambda: refuse_held(settings.resume))
    compute = device.resolve(
        make_as(device.DeviceChoice, settings.device, "device"),
        make_as(device.PrecisionChoice, settings.precision, "precision"),
    )
    if source is None:
        with told("reading the data set"), ranks.one_first():
            source = streams.data(settings)
    facts = DataFacts.of(source)
    found: dict[str, StoredNetwork] = {}
    if settings.init is not None:
        init, shapes = settings.init, partial(assemble.game, config, facts, real=())
        found = World.of_group().from_first(lambda: starting.networks(init, shapes))
    with told("building the networks", after=4.0):  # importing the first optimizer takes a second
        with ranks.one_first():
            frozen = assemble.frozen(config)
        engine = assemble.engine(settings, source, assemble.game(config, facts, pretrained=frozen), compute)
    observers = _observers(settings, RunView(engine, engine.steps, config=config))
    config = with_best(config, observers)
    if found:
        starting.take(found, engine)
    notes = [*advice, *source.notes, *streams.unread(engine.game, source), *pretrained_notes(frozen)]
    notes += [*starting.notes(found, engine.game, engine.averages), *compute.notes]
    notes += _frozen_notes(settings, engine, found)
    notes += [*rank_notes(engine), *split_notes(engine), *left_out(overrides), *_idle(settings, engine, overrides)]
    rehearsal = Rehearsal(engine, lambda: assemble.twin(settings, config, source, facts, frozen))
    need, seconds = forecast(rehearsal, settings, notes, overrides)
    notes[:0] = chosen.lines(*duration(seconds, settings, engine))
    about = _about(engine, need, frozen)
    if isinstance(settings.init, str) and not found:  # a run: its game's state, too
        starting.start_from(settings.init, engine)
    if settings.init is not None:
        freezing.start_from_averages(settings.model, engine)
        starting.restart_copies(engine)
    session = _session(settings, config, engine, facts, list(observers.values()), signals.wanted, about, seconds)
    try:
        with memory.explained(need, session.run, engine), single_rows_explained(engine):
            begin(session, overrides, notes)
            run_steps(session, signals.step_begins, evaluate_best)
    except BaseException as error:
        with signals.unheeded():
            discard(session, error)
        fail(session, error)
        raise
    finally:
        say_ended(session)
        session.run.unlock()
    return session.run.path


def _observers(settings: TrainSettings, view: RunView) -> dict[str, Observer]:
    """Return the observers by name, after each has met the others and checked the run. Raises GanError."""
    observers: dict[str, Observer] = {
        name: make(node, f"observers.{name}") for name, node in settings.observers.items() if node is not None
    }
    for name, observer in observers.items():
        observer.name = name
    for observer in observers.values():
        observer.meet(list(observers.values()))
        observer.refuse(view)
    return observers


def _before(config: Mapping[str, Any], own: tuple[Path, str] | None) -> Mapping[str, Any] | None:
    """Return the configuration of the run that goes on, if there is one and a key is `auto`. Raises GanError."""
    again = str(own[0]) if own is not None and RunDir(own[0]).listing() else config.get("resume")
    if not again or not (automatic.asked(config) or paths.value_of(config, KEY) == AUTO):
        return None
    return World.of_group().from_first(lambda: finding.find(str(again), key="resume")[0].config())


def _settled(
    config: Mapping[str, Any], overrides: Sequence[str], before: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any], DataSet | None, tuple[Chosen, list[str]]]:
    """Return the configuration without `auto`, the data set if it was read for that, what was chosen, and advice.

    before: of a run that goes on, which has the numbers that it began with: the present number of processes does not
    change them.
    """
    if before is not None:
        config = automatic.recorded(config, before)
    if not automatic.asked(config):
        return config, None, (Chosen(), [])
    size = World.of_group().size
    if automatic.by_files(config):
        kind = device.chosen(make_as(device.DeviceChoice, config["device"], "device").kind).type
        layers = usual_layers(config, overrides)
        settled, chosen, advice = few_shot.settled(config, _survey(config), kind, size, layers)
        return settled, None, (chosen, advice)
    with told("reading the data set"), ranks.one_first():
        source = streams.data_set(config["dataset"], config["game"])
    settled, chosen = automatic.settled(config, source, size)
    return settled, source, (chosen, [])


def _survey(config: Mapping[str, Any]) -> Survey:
    """Return the number and sizes of a run's images: of files before they are decoded. Raises GanError."""
    node = config["dataset"]
    with told("reading the sizes of the images"), ranks.one_first():
        found = survey.of_files(node)
        if found is None:
            node = {**node, "size": None} if node.get("size") == AUTO else node
            node = {**node, "flip": False} if node.get("flip") == AUTO else node
            found = automatic.surveyed(streams.data_set(node, config["game"]), config)
    return found


def _idle(settings: TrainSettings, engine: Engine, overrides: Sequence[str]) -> list[str]:
    """Return notes about settings that have no effect in this run."""
    length, (_, field) = (engine.steps, engine.course.seen(engine.steps)), sample_of(engine.game)
    return unused.notes(settings, unused.typed_keys(overrides), *length, in_a_plane(field), field.words)


def _about(engine: Engine, need: memory.Footprint | None, frozen: Pretrained | None) -> dict[str, Any]:
    """Return the part of run.json about parameters by player, frozen parameters, stages and memory."""
    trained, held = counts(engine.players, dict(engine.game.nets.items()))
    about: dict[str, Any] = {"parameters": trained, "frozen": held, "steps": engine.steps, "stages": stages(engine)}
    about["memory"] = need.plain() if need else None
    return about | ({} if frozen is None else {"pretrained": frozen.facts.plain()})


def _frozen_notes(settings: TrainSettings, engine: Engine, found: Iterable[str]) -> list[str]:
    """Return notes about frozen blocks. found: the networks that start from weights by name."""
    whole = settings.resume is not None or (isinstance(settings.init, str) and not found)
    return freezing.notes(settings.model, dict(engine.game.nets.items()), engine.game.nets if whole else found)


def _refuse(settings: TrainSettings) -> None:
    """Raise ConfigError for errors in the settings alone."""
    checks.check_sections(settings)
    if isinstance(settings.init, dict):
        starting.check(settings.init, assemble.network_nodes(settings.model, {}))
    if settings.resume and settings.init:
        raise ConfigError("resume= uses the run's own weights: leave init out")
    if settings.resume and settings.run_dir:
        raise ConfigError("resume= writes to the run's own directory: leave run_dir out")
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
    """Reopen a run, or create a new one."""
    parts = (settings, config, engine, facts, observers)
    if settings.resume:
        reopened, state = reopen(settings, config, facts, engine)
        spent, remembered = float(state.get("seconds", 0.0)), state.get("observers") or {}
        at = engine.step_number
        return Session(*parts, reopened, about, spent, estimates, True, remembered, at, wanted=wanted)
    called = f"{settings.model['name']}-{facts.name}"
    chosen = None if settings.run_dir is None else Path(settings.run_dir).expanduser()
    fresh, above = chosen is None or not chosen.exists(), missing(chosen or rundir.OUTPUTS / "train" / called)
    place = engine.world.from_first(lambda: rundir.new_directory("train", called, settings.run_dir))
    new = RunDir(place, made=fresh)
    if engine.world.first:
        new.lock()
        try:
            # Another process may have used the directory in the meantime.
            rundir.refuse_taken(None if chosen is None else str(place), again=new.locked)
            if ranks.job():  # a restart by torchrun finds the run by this entry
                new.update(status="starting", job=ranks.job())
        except BaseException:
            new.unlock()
            raise
    return Session(*parts, new, about, 0.0, estimates, wanted=wanted, above=above)


def discard(session: Session, error: BaseException) -> None:
    """Remove a new run that ended before its first step was complete.

    It is kept if another rank failed, since that rank may have got further.
    """
    if session.above is None or session.engine.step_number or isinstance(error, RankError) or not session.world.first:
        return
    session.run.withdraw()
    for folder in session.above:
        with contextlib.suppress(OSError):  # not empty
            folder.rmdir()


def _again(settings: TrainSettings, own: Path) -> TrainSettings:
    """Return settings that resume this job's run after a restart by torchrun, or restart it if it has no checkpoint."""
    if RunDir(own).listing():
        return replace(settings, resume=str(own), run_dir=None, init=None)
    RunDir(own).withdraw()
    return replace(settings, run_dir=str(own))


def pretrained_notes(frozen: Pretrained | None) -> list[str]:
    """Return notes about the pretrained network: the hash of its weights, and its layers."""
    if frozen is None:
        return []
    layers = ", ".join(f"{name} ({count})" for name, count in frozen.channels.items())
    size = sum(t.nbytes for t in frozen.tensors()) / (1 << 20)
    line = f"pretrained {frozen.name} (SHA-256 {frozen.sha256[:8]}..., {size:.0f} MiB), frozen"
    return [line + (f"; layers {layers}" if layers else ""), *frozen.notes]


def stages(engine: Engine) -> list[dict[str, Any]] | None:
    """Return the stages as plain values: names, first steps and batch sizes; None for a single stage."""
    course = engine.course
    if len(course.stages) == 1:
        return None
    found = [span.at for span in course.spans(until=engine.steps or None)]
    return [{"name": at.stage.name, "step": at.step, "batch_size": course.batch_size(at.stage)} for at in found]


def rank_notes(engine: Engine) -> list[str]:
    """Return notes about the number of ranks, the backend, the images per rank, and the scope of batch norm."""
    world, norms = engine.world, [m for m in engine.game.modules() if isinstance(m, _BatchNorm)]
    if world.size == 1:
        return []
    start, stop = world.rows(engine.batch_size, engine.unit)
    notes = [f"{world.size} ranks over {ranks.backend()}, about {stop - start} of {engine.batch_size} images each"]
    if norms:
        shared = all(isinstance(m, AcrossRanks) for m in norms)
        notes.append(f"batch norm computes its statistics over {'all ranks' if shared else 'each rank separately'}")
    return notes


def split_notes(engine: Engine) -> list[str]:
    """Return a note if batch norm depends on the micro-batch size or differs between training and sampling."""
    world, course = engine.world, engine.course
    sizes = {(course.micro_batch(stage), course.batch_size(stage)): None for stage in course.stages}
    split = {micro: None for micro, batch in sizes if micro is not None and micro * world.size < batch}
    if split and any(isinstance(m, _BatchNorm) for m in engine.game.modules()):
        each = " of every rank" if world.size > 1 else ""
        many = ", ".join(map(str, split))
        return [f"micro_batch={many}: batch norm computes its statistics over this many images{each}"]
    several = max(batch for _, batch in sizes)
    if several > 1 and any(isinstance(m, ImageBatchNorm2d) for m in engine.game.modules()):
        told = f"batch norm uses the statistics of {several} images in training, and of single images in sampling"
        return [f"{told}; model.norm=instance uses single images in both"]
    return []


class _Signals:
    """A context that records SIGINT, SIGTERM and SIGHUP instead of ending; a second SIGINT interrupts at once.

    SIGHUP means that the terminal was closed; under nohup it stays ignored. Before the first step, each of them
    interrupts. aloud: whether this process prints a message when the signal arrives.
    """

    NAMES: ClassVar[dict[str, str]] = {"SIGINT": "Ctrl-C", "SIGTERM": "SIGTERM", "SIGHUP": "SIGHUP"}

    def __init__(self, wanted: list[str], aloud: bool = True):
        self.wanted = wanted
        self.before: dict[int, Any] = {}
        self.last = 0.0
        self.stepping, self.leaving = False, False
        self.messenger = Messenger(self._line) if aloud else None

    def step_begins(self) -> None:
        """Mark the start of the first step. Raises KeyboardInterrupt for an earlier signal whose exception was lost."""
        self.stepping = True
        if self.wanted:  # it arrived in a finalizer, where Python discards exceptions
            raise KeyboardInterrupt

    @contextlib.contextmanager
    def unheeded(self) -> Iterator[None]:
        """A context that no signal interrupts, so that a directory is removed completely."""
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
        # A rank receives one Ctrl-C twice: from the terminal and from torchrun.
        if len(self.wanted) > 1 and number == signal.SIGINT and (ranks.job() is None or now - before > 1):
            raise KeyboardInterrupt
