"""Forecast of a run before its first step: memory, seconds per step and total time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from gancli.compute import device, memory
from gancli.config.settings import TrainSettings
from gancli.config.unused import one_length, typed_keys
from gancli.errors import ConfigError, DeviceError, GanError
from gancli.observers.progress import clock
from gancli.train import few_shot
from gancli.train.course import Course
from gancli.train.engine import Engine
from gancli.train.rehearsal import Rehearsal
from gancli.train.rules import AUTO, Row
from gancli.waiting import told


def forecast(
    rehearsal: Rehearsal, settings: TrainSettings, notes: list[str], overrides: Sequence[str]
) -> tuple[memory.Footprint | None, dict[str, float]]:
    """Return the memory (None if unknown) and the seconds per step by stage; add both to the notes.

    Compiles the networks if requested. A run of 0 steps is not refused for lack of memory. Raises DeviceError for a
    step that does not fit into memory, CombinationError if batch norm would see a single row.
    """
    try:
        return _forecast(rehearsal, settings, notes, overrides)
    except GanError as error:
        if rehearsal.engine.steps:
            raise
        notes.append(f"no forecast: {error}")
        return None, {}


def _forecast(
    rehearsal: Rehearsal, settings: TrainSettings, notes: list[str], overrides: Sequence[str]
) -> tuple[memory.Footprint | None, dict[str, float]]:
    engine = rehearsal.engine
    with told("measuring the memory and time of a step"):
        need = rehearsal.footprint()
    if need is not None:
        notes.append(need.line() + ("" if need.fits else f": {need.remedy()}"))
        if rehearsal.others:
            names = ", ".join(dict.fromkeys(cost.at.stage.name for cost in rehearsal.others))
            notes.append(f"memory of the stages {names}: not measured, for lack of time")
        if engine.steps:
            memory.refuse(need)
    compiled = settings.compile and engine.steps > 0
    if compiled:
        nets = dict(engine.game.nets.items())
        notes += device.compile_networks(nets, eager=engine.game.eager, device=engine.compute.device)
    with told("compiling the networks" if compiled else "measuring the time of a step"):
        seconds = timed(rehearsal, need, notes)
    if not seconds:
        unknown = "the time" if need is not None else "memory and time"
        notes.append(f"{unknown} of a step: not measured, since even a few images take too long here")
    else:
        notes.append(pace(seconds, settings, engine, overrides, "about" if rehearsal.real else "at least"))
        notes += noise_left(seconds, settings, engine)
    return need, seconds


def timed(rehearsal: Rehearsal, need: memory.Footprint | None, notes: list[str]) -> dict[str, float]:
    """Measure the seconds per step by stage; if compilation fails, note it and use eager mode. Raises DeviceError."""
    try:
        return rehearsal.pace()
    except Exception as error:
        engine = rehearsal.engine
        if memory.exhausted(error):
            raise DeviceError(f"a step does not fit into the device's memory: {memory.advice(need, engine)}") from None
        if isinstance(error, GanError) or not device.uncompile(engine.game.nets.values()):
            raise
        words = " ".join(str(error).split())[:120]
        notes.append(f"compile: the compiler failed ({type(error).__name__}: {words}); the networks run uncompiled")
    return rehearsal.pace()


def pace(
    seconds: Mapping[str, float], settings: TrainSettings, engine: Engine, overrides: Sequence[str], how: str = "about"
) -> str:
    """Return the note about time; for a run of 0 steps it uses the default number of steps.

    seconds: per step, by stage. how: "at least" if the time is computed from the operation count at peak speed.
    """
    short, long = (choose(seconds, key=lambda name: seconds[name]) for choose in (min, max))
    each = f"a step takes {how} {_shown(seconds[short])}"
    if len(seconds) > 1:
        each += f" in stage {short}, {_shown(seconds[long])} in stage {long}"
    rows = max((len(stream.source) for stream in engine.streams.values()), default=0)
    steps = engine.steps or default_steps(overrides, engine.course, rows)
    if settings.resume or not steps:
        return each
    whole = length(seconds, engine, steps)
    stopped = settings.max_time is not None and whole > 60 * settings.max_time
    return f"{each}, {steps:,} steps {how} {clock(whole)}" + (
        f"; max_time={settings.max_time:g} stops it earlier" if stopped else ""
    )


def noise_left(seconds: Mapping[str, float], settings: TrainSettings, engine: Engine) -> list[str]:
    """Return a note if max_time ends a new run before the noise on D's input is 0.

    seconds: per step, by stage.
    """
    loss, most = settings.loss or {}, settings.max_time
    until = loss.get("noise_until") if loss.get("noise") else None
    whole = length(seconds, engine, engine.steps)
    if not until or most is None or settings.resume or whole <= 60 * most:
        return []
    seen = int(round(engine.course.seen(engine.steps) * 60 * most / whole, -2))
    if seen >= until:
        return []
    return [
        f"loss.noise_until={until}: max_time={most:g} ends the run after about {seen:,} images, before the noise is 0"
    ]


def length(seconds: Mapping[str, float], engine: Engine, steps: int) -> float:
    """Return the seconds of a run of this many steps. seconds: per step, by stage."""
    return sum(seconds[span.at.stage.name] * (span.steps or 0) for span in engine.course.spans(until=steps))


def duration(seconds: Mapping[str, float], settings: TrainSettings, engine: Engine) -> list[Row]:
    """Return the row about a new run's time for the table of rules; none if it is unknown."""
    most = settings.max_time
    if not seconds or not engine.steps:
        unknown = "at most, by max_time; the time of a step was not measured"
        return [Row("time", clock(60 * most), unknown)] if most is not None and engine.steps else []
    whole = length(seconds, engine, engine.steps)
    if most is not None and whole > 60 * most:
        why = f"max_time ends the run; its {engine.steps:,} steps would take {clock(whole)}"
        return [Row("time", clock(60 * most), why)]
    return [Row("time", clock(whole), f"for {engine.steps:,} steps, besides evaluations")]


def _shown(seconds: float) -> str:
    return f"{seconds:.2g} s" if seconds < 10 else f"{seconds:.0f} s"


def default_steps(overrides: Sequence[str], course: Course, rows: int) -> int:
    """Return the number of steps of the same command without `steps=`; 0 if that command is invalid.

    rows: of the data set, from which a length that is `auto` follows.
    """
    from gancli.config.compose import compose
    from gancli.config.flags import split

    try:
        _, words, folders = split(overrides)
        kept = [word for word in words if word.lstrip("+").partition("=")[0] not in ("steps", "run_dir")]
        config = one_length(compose("train", kept, folders), typed_keys(kept))
        images = few_shot.length(rows) if config["images"] == AUTO else config["images"]
        return course.steps(config["steps"], images)
    except ConfigError:
        return 0
