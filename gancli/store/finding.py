"""Which run a user names: by its directory, a file in it, or `last`; and short names for several."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from gancli.errors import RunError, suggestion
from gancli.store.rundir import OUTPUTS, RunDir, begun, real


def find(which: str, key: str = "run") -> tuple[RunDir, Path | None]:
    """Find a run by its directory, a checkpoint file in it, or `last`; also return a named file. Raises RunError."""
    if which == "last":
        runs = [p.parent for place in ("train", "sweeps/*") for p in OUTPUTS.glob(f"{place}/*/run.json")]
        if not runs:
            raise RunError(
                f"{key}=last: no run under {OUTPUTS / 'train'} yet; start one with gan train, or give its path"
            )
        return RunDir(real(max(runs, key=_composed_at))), None
    path = Path(which).expanduser()
    if path.is_file():
        if path.suffix == ".json":
            raise RunError(f"{key}={which} is not a checkpoint: give a run directory, or a file of its checkpoints/")
        run = RunDir(real(path.parent.parent))
        return (run, path) if run.started() else (RunDir(path), path)
    if not path.is_dir():
        if which.lower() in ("true", "yes", "1"):
            raise RunError(f"{key}={which}: name the run: {key}=last, or {key}=PATH of its directory")
        there = [p.name for p in OUTPUTS.glob("train/*") if p.is_dir() and p.name != "sweeps"]
        hint = suggestion(path.name, there) if there else "start one with gan train"
        raise RunError(f"{key}={which}: no such run; {hint}")
    path = real(path)
    if not RunDir(path).started():
        if begun(path):
            raise RunError(f"{key}={which}: this run was killed before its first checkpoint: repeat its command")
        raise RunError(f"{key}={which} is not a run directory: it has no run.json")
    return RunDir(path), None


def _composed_at(path: Path) -> tuple[int, str]:
    """Return when a run's configuration was written, in ns; the name breaks ties."""
    config = path / "config.yaml"
    return config.stat().st_mtime_ns if config.exists() else 0, path.name


def names(paths: Sequence[Path]) -> list[str]:
    """Return a name for each path, distinct for distinct paths: their shortest endings that tell them apart.

    >>> names([Path("/x/P/0"), Path("/x/Q/0"), Path("/x/a"), Path("/x/P/0")])
    ['P/0', 'Q/0', 'a', 'P/0']
    """
    whole = [path.resolve() for path in paths]
    found = []
    for path in whole:
        others = [other.parts for other in set(whole) - {path}]
        depths = range(1, len(path.parts) + 1)
        depth = next((k for k in depths if all(parts[-k:] != path.parts[-k:] for parts in others)), len(path.parts))
        found.append(str(Path(*path.parts[-depth:])))
    return found
