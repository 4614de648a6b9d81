"""The words of a sweep's jobs, so that they mean the same later and from any folder: paths, and what resolvers gave."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gancli.config import paths
from gancli.config.compose import compose, value_of
from gancli.config.files import groups
from gancli.config.grammar import in_quotes
from gancli.config.pinned import pinned
from gancli.errors import ConfigError
from gancli.sweeps.record import Sweep
from gancli.sweeps.search import Search, swept

_SECTIONS = ("dataset", "init", "observers")  # where the paths are


def of_new(overrides: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """A job's overrides, typed now, as they are recorded. Raises GanError."""
    return with_paths([*overrides, *pinned(overrides, folders)], folders, typed=True)


def with_paths(
    overrides: Sequence[str], folders: Sequence[Path], typed: bool = False, place: Path | None = None
) -> list[str]:
    """A job's overrides with whole paths. typed: as of `compose`. place: where they were typed; None: here.

    Raises GanError.
    """
    if not folders and not any(_reaches(_key(override)) for override in overrides):
        return list(overrides)
    telling = list(overrides)
    if not folders and not any("$" in override for override in overrides):
        # Of thousands of jobs most differ elsewhere, and composing takes a tenth of a second.
        known = groups("train", folders)
        telling = [o for o in overrides if _key(o).split(".")[0] in _SECTIONS or _key(o).split("@")[0] in known]
    return paths.whole(overrides, compose("train", telling, folders, typed=typed), place)


def pins(search: Search, typed: Sequence[str], folders: Sequence[Path]) -> list[str]:
    """What resolvers give in jobs that a search adds later. Raises ConfigError where it differs from job to job."""
    keys = {key.lstrip("+") for key in swept(typed)}
    found = [pinned(job, folders) for job in search.probes(typed)]
    kept = [[pin for pin in each if _key(pin) not in keys] for each in found]
    for each in kept:
        if each != kept[0]:
            key = _key(next(pin for pin in [*each, *kept[0]] if pin not in each or pin not in kept[0]))
            raise ConfigError(f"{key}: a resolver gives each job another value: list them, or search=grid")
    found_now = list(kept[0]) if kept else []
    if value_of("init", typed) == "last":  # of now, and not of when the job is added
        found_now.append(f"++init={in_quotes(paths.with_whole({'init': 'last'})['init'])}")
    return found_now


def moved(sweep: Sweep, typed: Sequence[str], which: str) -> None:
    """Let the jobs that are left look for their data at the `dataset.root=` that was typed. Raises ConfigError."""
    if any("dataset.root" in job.choices for job in sweep.jobs):
        raise ConfigError(f"{which}: its jobs differ in dataset.root; put the data back, or begin a new sweep")
    root = f"dataset.root={in_quotes(paths.absolute(value_of('dataset.root', typed) or ''))}"
    for job in sweep.jobs:
        if job.status != "finished":
            job.overrides = [*(o for o in job.overrides if _key(o) != "dataset.root"), root]
    sweep.pins = [*(pin for pin in sweep.pins if _key(pin) != "dataset.root"), f"++{root}"]


def _key(override: str) -> str:
    return override.lstrip("+~").partition("=")[0]


def _reaches(key: str) -> bool:
    """Whether a key is a path's, or that of a section inside of a group that holds one."""
    return key == "init" or (
        "." in key and any(f"{each}.".startswith(f"{key}.") for each in (*paths.KEYS, paths.OPTIONS))
    )
