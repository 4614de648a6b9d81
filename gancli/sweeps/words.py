"""A sweep's job overrides as recorded: with absolute paths and resolved values, independent of time and folder."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gancli.config import paths
from gancli.config.compose import compose, value_of
from gancli.config.files import groups
from gancli.config.grammar import in_quotes
from gancli.config.resolved import pinned
from gancli.errors import ConfigError
from gancli.sweeps.record import Sweep
from gancli.sweeps.search import Search, swept

_SECTIONS = ("dataset", "init", "observers")  # where the paths are


def of_new(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A new job's overrides as recorded. Raises GanError."""
    return with_paths([*overrides, *pinned(overrides, folders)], folders, typed=True)


def with_paths(
    overrides: Sequence[str], folders: Sequence[Path], typed: bool = False, place: Path | None = None
) -> list[str]:
    """A job's overrides with absolute paths. typed: as in `compose`. place: base of relative paths; None: here.

    Raises GanError.
    """
    if not folders and not any(_reaches(_key(override)) for override in overrides):
        return list(overrides)
    relevant = list(overrides)
    if not folders and not any("$" in override for override in overrides):
        # Composing takes 0.1 s, and most of thousands of jobs differ only in other keys.
        known = groups("train", folders)
        relevant = [o for o in overrides if _key(o).split(".")[0] in _SECTIONS or _key(o).split("@")[0] in known]
    return paths.whole(overrides, compose("train", relevant, folders, typed=typed), place)


def pins(search: Search, typed: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """Resolvers' values for jobs that a search adds later. Raises ConfigError if they differ between jobs."""
    keys = {key.lstrip("+") for key in swept(typed)}
    found = [pinned(job, folders) for job in search.probes(typed)]
    kept = [[pin for pin in each if _key(pin) not in keys] for each in found]
    for each in kept:
        if each != kept[0]:
            key = _key(next(pin for pin in [*each, *kept[0]] if pin not in each or pin not in kept[0]))
            raise ConfigError(f"{key}: a resolver gives each job another value: list the values, or set search=grid")
    found_now = list(kept[0]) if kept else []
    if value_of("init", typed) == "last":  # the last run now, not when the job is added
        found_now.append(f"++init={in_quotes(paths.with_whole({'init': 'last'})['init'])}")
    return found_now


def moved(sweep: Sweep, typed: Sequence[str], which: str) -> None:
    """Set the typed `dataset.root=` in the unfinished jobs. Raises ConfigError."""
    if any("dataset.root" in job.choices for job in sweep.jobs):
        raise ConfigError(f"{which}: its jobs differ in dataset.root; move the data back, or start a new sweep")
    root = f"dataset.root={in_quotes(paths.absolute(value_of('dataset.root', typed) or ''))}"
    for job in sweep.jobs:
        if job.status != "finished":
            job.overrides = [*(o for o in job.overrides if _key(o) != "dataset.root"), root]
    sweep.pins = [*(pin for pin in sweep.pins if _key(pin) != "dataset.root"), f"++{root}"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _reaches(key: str) -> bool:
    """Whether a key is that of a path, or of a section of a group that contains one."""
    return key == "init" or (
        "." in key and any(f"{each}.".startswith(f"{key}.") for each in (*paths.KEYS, *paths.OPTIONS))
    )
