"""Resuming a run: the recorded configuration, the checks, and the restored state."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gancli.config import paths
from gancli.config.build import shown
from gancli.config.commands import word
from gancli.config.settings import TrainSettings
from gancli.errors import RunError, WeightsError
from gancli.store import finding
from gancli.store.earlier import refuse_earlier
from gancli.store.rundir import RunDir

if TYPE_CHECKING:
    from gancli.data.facts import DataFacts
    from gancli.train.engine import Engine

# Keys that may change when a run is resumed; all others must stay the same.
# micro_batch may change: a run that ran out of memory continues with smaller micro-batches, which only changes the
# rounding of sums and the rows of batch norm's statistics. Data and the file of a pretrained network may be moved:
# their fingerprint or hash must stay the same. auto_rules was used when the run began.
FREE = frozenset(
    "steps images max_time device precision compile observers note resume run_dir init micro_batch dataset.root"  # noqa: SIM905
    " dataset.root_B pretrained.weights pretrained.source auto_rules".split()
)
# Keys of the networks that runs may lack, as they began before these existed, and the values that they had then.
LATER = {"freeze": 0}


def recorded_overrides(which: str) -> list[str]:
    """Return the run's overrides, so that resuming composes the same configuration. Raises RunError.

    A run directory may be untrusted: overrides other than a run's keys are refused, not composed.
    """
    run, file = finding.find(which, key="resume")
    if file is not None and file == run.path:
        raise RunError(f"resume={which} is no run: give a run directory, or a file in its checkpoints/")
    refuse_earlier(run.about().get("data"), run.path)
    kept, config = [], run.config()
    for override in run.about().get("overrides") or []:
        key = override.lstrip("+~").partition("=")[0]
        if re.match(r"hydra\b", key):
            raise RunError(f"{run.path / 'run.json'}: {override[:100]} is no key of a run; it was ignored")
        if key not in ("resume", "run_dir", "init"):
            kept.append(override)
    # Paths as recorded at the start: a configuration file may give them relative to another folder.
    found = {key: word for key, word in paths.recorded(config).items() if key != "init"}
    typed = {o.lstrip("+").partition("=")[0] for o in kept}
    others = [o for o in kept if o.lstrip("+").partition("=")[0] not in found]
    return [
        *others,
        *(word for key, word in found.items() if key in typed or key in ("dataset.root", "dataset.root_B")),
    ]


def refuse_held(which: str | None) -> None:
    """Raise RunError early, before networks are built, if another process holds the run to resume."""
    if which:
        run, _ = finding.find(which, key="resume")
        run.lock()
        run.unlock()


def reopen(
    settings: TrainSettings, config: Mapping[str, Any], facts: DataFacts, engine: Engine
) -> tuple[RunDir, dict[str, Any]]:
    """Lock a run and load its newest intact checkpoint into the engine; return the run and the checkpoint's state.

    Raises RunError if configuration or data differ from the run's.
    """
    which, held = f"resume={settings.resume}", list[RunDir]()
    try:
        path, state, unfinished = engine.world.from_first(lambda: _read(settings, config, engine, held))
        more = "images=N" if settings.images is not None else "steps=N"
        most = engine.steps - (not unfinished or not _evaluates(settings))
        return (held or [RunDir(path)])[0], _take(state, which, facts, engine, most, more)
    except BaseException:
        for run in held:
            run.unlock()
        raise


def _read(
    settings: TrainSettings, config: Mapping[str, Any], engine: Engine, held: list[RunDir]
) -> tuple[Path, dict[str, Any], bool]:
    """Return the run's path, the state to load, and whether the run is unfinished; append the locked run to `held`.

    Raises RunError.
    """
    from gancli.store import checkpoint

    which = f"resume={settings.resume}"
    run, file = finding.find(str(settings.resume), key="resume")
    if file is not None and file.resolve() not in [path.resolve() for path in run.listing().values()]:
        raise RunError(
            f"{which} is no checkpoint in a run's checkpoints/: {word('init', settings.resume or '')} starts a new run"
        )
    changed = differences(run.config(), config)
    if changed:
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        shown = "; ".join(changed[:5]) + more
        raise RunError(f"{which}: the configuration differs from the run's ({shown}); init= starts a new run from it")
    run.lock()
    held.append(run)
    if file is not None:
        state, wrong = checkpoint.read(file), list[str]()
        if state["step"] != int(file.stem):
            raise RunError(f"{which} contains step {state['step']}, which differs from its name")
    else:
        state, wrong = checkpoint.newest(run)
    for problem in wrong:
        run.say(f"skipped: {problem}")
        print(f"skipped: {problem}", file=sys.stderr, flush=True)
    unfinished = run.about().get("status") != "finished"
    return run.path, checkpoint.of_a_run(state, file or run.checkpoint(state["step"])), unfinished


def _evaluates(settings: TrainSettings) -> bool:
    """Whether the run is evaluated at its end, which a kill may have interrupted after the last step."""
    return bool((settings.observers.get("final") or {}).get("metrics"))


def _take(state: dict[str, Any], which: str, facts: DataFacts, engine: Engine, most: int, more: str) -> dict[str, Any]:
    """Load the state into the engine. most: the last step that may be resumed. more: what to type after it."""
    from gancli.data.facts import DataFacts as Facts
    from gancli.pretrained.pretrained import PretrainedFacts, refuse_other
    from gancli.store import compatible

    try:
        before = Facts.read(state["data"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise RunError(f"{which}: the checkpoint does not record its data set") from None
    if before.fingerprint != facts.fingerprint:
        raise RunError(f"{which}: the data set has changed since the training: {before.differences(facts)}")
    frozen = engine.game.pretrained
    if frozen is not None:
        remedy = "type pretrained.weights=PATH with the original file"
        if "source" in (state["config"].get("pretrained") or {}):  # the source run may have newer checkpoints now
            remedy = "type pretrained.source=run:FILE#NAME with the original checkpoint FILE"
        try:
            refuse_other(PretrainedFacts.read(state["pretrained"]), frozen.facts, remedy)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise RunError(f"{which}: the checkpoint does not record its pretrained network") from None
        except WeightsError as error:
            raise RunError(f"{which}: {error}") from None
    if state["step"] > most:
        raise RunError(f"{which}: the run is at step {state['step']} of {engine.steps}; continue with {more}")
    try:
        compatible.refuse_other(state, engine)
        engine.load(state)
    except Exception as error:  # any error here is caused by the file's content
        raise RunError(f"{which}: the checkpoint does not fit: {' '.join(str(error).split())[:200]}") from None
    return state


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """Return the keys that differ, as `key: old -> new`, except for those that may change on resume.

    >>> differences({"steps": 1, "loss": {"a": 1}}, {"steps": 2, "loss": {"a": 3}})
    ['loss.a: 1 -> 3']
    >>> differences({"model": {"D": {}, "G": {}}}, {"model": {"D": {"freeze": 0}, "G": {"freeze": 2}}})
    ['model.G.freeze: 0 -> 2']
    """
    found = []
    for name in sorted({*before, *now}):
        if f"{prefix}{name}" in FREE:
            continue
        old, new = before.get(name), now.get(name)
        if name in LATER and name not in before and re.fullmatch(r"model\.\w+\.", prefix):
            old = LATER[name]
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {shown(old)} -> {shown(new)}")
    return found
