"""Going on with a run that is there."""

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
from gancli.store import rundir
from gancli.store.earlier import refuse_earlier
from gancli.store.rundir import RunDir

if TYPE_CHECKING:
    from gancli.data.facts import DataFacts
    from gancli.train.engine import Engine

# What a resumed run may be told anew; everything else must be as it was.
# micro_batch is among them: a run that ran out of memory goes on in smaller pieces, which changes how sums are rounded
# and what batch norm takes its statistics over, and nothing else. Data may have been moved, and so may the file of a
# pretrained network: it is their fingerprint, or hash, that must be as it was.
FREE = frozenset(
    "steps images max_time device precision compile observers note resume run_dir init micro_batch dataset.root"  # noqa: SIM905
    " dataset.root_B pretrained.weights pretrained.source".split()
)


def recorded_overrides(which: str) -> list[str]:
    """The command line a run was started with, so that resuming composes the same configuration. Raises RunError.

    A run directory may come from a stranger: what reaches beyond a run's own keys is refused, not composed.
    """
    run, file = rundir.find(which, key="resume")
    if file is not None and file == run.path:
        raise RunError(f"resume={which} is no run: give a run directory, or a file of its checkpoints/")
    refuse_earlier(run.about().get("data"), run.path)
    kept, config = [], run.config()
    for override in run.about().get("overrides") or []:
        key = override.lstrip("+~").partition("=")[0]
        if re.match(r"hydra\b", key):
            raise RunError(f"{run.path / 'run.json'}: {override[:100]} is no key of a run; it was not followed")
        if key not in ("resume", "run_dir", "init"):
            kept.append(override)
    # As they were where the run was begun: a file of settings may say them relative to another folder.
    found = {key: word for key, word in paths.recorded(config).items() if key != "init"}
    typed = {o.lstrip("+").partition("=")[0] for o in kept}
    others = [o for o in kept if o.lstrip("+").partition("=")[0] not in found]
    return [
        *others,
        *(word for key, word in found.items() if key in typed or key in ("dataset.root", "dataset.root_B")),
    ]


def refuse_held(which: str | None) -> None:
    """Raise RunError where a run cannot be gone on with, before anyone waits for networks: another process has it."""
    if which:
        run, _ = rundir.find(which, key="resume")
        run.lock()
        run.unlock()


def reopen(
    settings: TrainSettings, config: Mapping[str, Any], facts: DataFacts, engine: Engine
) -> tuple[RunDir, dict[str, Any]]:
    """Take up a run, locked, where its newest whole checkpoint stands; that checkpoint's state, too.

    Raises RunError where it is not the same run any more.
    """
    which, held = f"resume={settings.resume}", list[RunDir]()
    try:
        path, state = engine.world.from_first(lambda: _read(settings, config, engine, held))
        return (held or [RunDir(path)])[0], _take(state, which, facts, engine, settings.images is not None)
    except BaseException:
        for run in held:
            run.unlock()
        raise


def _read(
    settings: TrainSettings, config: Mapping[str, Any], engine: Engine, held: list[RunDir]
) -> tuple[Path, dict[str, Any]]:
    """The run's place and the state to take up; the run, locked, goes into `held`. Raises RunError."""
    from gancli.store import checkpoint

    which = f"resume={settings.resume}"
    run, file = rundir.find(str(settings.resume), key="resume")
    if file is not None and file.resolve() not in [path.resolve() for path in run.listing().values()]:
        raise RunError(
            f"{which} is no checkpoint in a run's checkpoints/: {word('init', settings.resume or '')} starts a new run"
        )
    changed = differences(run.config(), config)
    if changed:
        more = f"; and {len(changed) - 5} more" if len(changed) > 5 else ""
        shown = "; ".join(changed[:5]) + more
        raise RunError(f"{which}: the run was configured otherwise ({shown}); init= starts a new one from it")
    run.lock()
    held.append(run)
    if file is not None:
        state, wrong = checkpoint.read(file), list[str]()
        if state["step"] != int(file.stem):
            raise RunError(f"{which} is named after another step than its own, {state['step']}")
    else:
        state, wrong = checkpoint.newest(run)
    for problem in wrong:
        run.say(f"passed over: {problem}")
        print(f"passed over: {problem}", file=sys.stderr, flush=True)
    return run.path, checkpoint.of_a_run(state, file or run.checkpoint(state["step"]))


def _take(state: dict[str, Any], which: str, facts: DataFacts, engine: Engine, images: bool) -> dict[str, Any]:
    from gancli.data.facts import DataFacts as Facts
    from gancli.pretrained.pretrained import PretrainedFacts, refuse_other
    from gancli.store import fits

    try:
        before = Facts.read(state["data"])
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
        raise RunError(f"{which}: the checkpoint says nothing of its data set") from None
    if before.fingerprint != facts.fingerprint:
        raise RunError(
            f"{which}: the data set has changed since the run was trained on it: {before.differences(facts)}"
        )
    frozen = engine.game.pretrained
    if frozen is not None:
        way = "type pretrained.weights=PATH with the file it had"
        if "source" in (state["config"].get("pretrained") or {}):  # a run that was trained on has newer checkpoints
            way = "type pretrained.source=run:FILE#NAME, FILE being the checkpoint it had"
        try:
            refuse_other(PretrainedFacts.read(state["pretrained"]), frozen.facts, way)
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError):
            raise RunError(f"{which}: the checkpoint says nothing of its pretrained network") from None
        except WeightsError as error:
            raise RunError(f"{which}: {error}") from None
    if state["step"] >= engine.steps:
        more = "images=N" if images else "steps=N"
        raise RunError(f"{which}: the run is at step {state['step']} of {engine.steps}; give it more with {more}")
    try:
        fits.refuse_other(state, engine)
        engine.load(state)
    except Exception as error:  # all of it comes from the file: whatever goes wrong is the file's doing
        raise RunError(f"{which}: the checkpoint does not fit: {' '.join(str(error).split())[:200]}") from None
    return state


def differences(before: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys that differ, as `key: old -> new`, but for those that a resumed run may change.

    >>> differences({"steps": 1, "loss": {"a": 1}}, {"steps": 2, "loss": {"a": 3}})
    ['loss.a: 1 -> 3']
    """
    found = []
    for name in sorted({*before, *now}):
        if f"{prefix}{name}" in FREE:
            continue
        old, new = before.get(name), now.get(name)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            found += differences(old, new, f"{prefix}{name}.")
        elif old != new:
            found.append(f"{prefix}{name}: {shown(old)} -> {shown(new)}")
    return found
