"""Starting from something that is there: the same run again, or another run's weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from gancli import rundir
from gancli.errors import RunError
from gancli.rundir import RunDir
from gancli.settings import TrainSettings

if TYPE_CHECKING:
    from gancli.assemble import DataFacts
    from gancli.engine import Engine

# What a resumed run may be told anew; everything else must be as it was.
FREE = frozenset(
    ("steps", "max_time", "device", "precision", "compile", "observers", "note", "resume", "run_dir", "init")
)


def recorded_overrides(which: str) -> list[str]:
    """The command line a run was started with, so that resuming composes the same configuration. Raises RunError."""
    run, _ = rundir.find(which, key="resume")
    return [str(o) for o in run.about().get("overrides", []) if not str(o).startswith(("resume=", "run_dir=", "init="))]


def reopen(settings: TrainSettings, config: Mapping[str, Any], facts: DataFacts, engine: Engine) -> RunDir:
    """Take up a run where its newest whole checkpoint stands. Raises RunError where it is not the same run any more."""
    from gancli import checkpoint

    which = f"resume={settings.resume}"
    run, file = rundir.find(str(settings.resume), key="resume")
    changed = differences(run.config(), config)
    if changed:
        raise RunError(
            f"{which}: the run was configured otherwise ({'; '.join(changed[:5])}); init= starts a new one from it"
        )
    if file is not None:
        state = checkpoint.read(file, engine.compute.device)
    else:
        state, wrong = checkpoint.newest(run, engine.compute.device)
        for problem in wrong:
            run.say(f"passed over: {problem}")
    if state["data"]["fingerprint"] != facts.fingerprint:
        raise RunError(f"{which}: the data set {facts.name} has changed since the run was trained on it")
    if state["step"] >= settings.steps:
        raise RunError(f"{which}: the run is at step {state['step']} of {settings.steps}; give it more with steps=N")
    try:
        engine.load(state)
    except (KeyError, RuntimeError, ValueError) as error:
        raise RunError(f"{which}: the checkpoint does not fit: {' '.join(str(error).split())[:200]}") from None
    return run


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys that differ, as `key: old -> new`, but for those that a resumed run may change.

    >>> differences({"steps": 1, "loss": {"a": 1}}, {"steps": 2, "loss": {"a": 3}})
    ['loss.a: 1 -> 3']
    """
    found = []
    for name in sorted({*before, *now}):
        if not prefix and name in FREE:
            continue
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {old} -> {new}")
    return found


def start_from(which: str, engine: Engine) -> None:
    """Take another run's weights, and nothing else of it. Raises RunError where they do not fit."""
    from gancli import checkpoint

    run, file = rundir.find(which, key="init")
    state = checkpoint.read(file or run.checkpoint("last"), engine.compute.device)
    try:
        engine.game.load_state_dict(state["game"])
        for name, net in engine.averages.items():
            net.load_state_dict(state["ema"].get(name) or engine.game.nets[name].state_dict())
    except (KeyError, RuntimeError) as error:
        words = " ".join(str(error).split())[:200]
        raise RunError(f"init={which}: its weights do not fit this model: {words}") from None
