"""A small world of its own: a working directory with runs, data and things of others; a home; what lies outside."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from dataclasses import dataclass
from pathlib import Path

SECRET = "s3cr3t-of-the-environment"
AREAS = ("place", "outside", "home", "tmp")
HURT = Path("hurt/run")  # in `place`: the run or sweep that is damaged

# type, size, time and, of links, where they point
Snapshot = dict[str, tuple[int, int, int, str]]


@dataclass(frozen=True)
class Changes:
    """Paths, relative to the world, that a case made, deleted or altered."""

    new: list[str]
    gone: list[str]
    altered: list[str]

    def under(self, *starts: str) -> list[str]:
        """Those in these folders."""
        every = sorted([*self.new, *self.gone, *self.altered])
        return [path for path in every if any(path == s or path.startswith(f"{s}/") for s in starts)]


class World:
    """`top/live` is where commands run; `top/spare` is as it was at first."""

    def __init__(self, top: Path):
        self.top, self.live, self.spare = top, top / "live", top / "spare"
        self.place, self.outside = self.live / "place", self.live / "outside"

    def enter(self) -> None:
        """Go there, with a home without anything and a secret in the environment. Makes it anew, or as it was."""
        from tests.fuzz import inputs

        built = (self.spare / "done").exists()
        if built:
            self.restore_all()
        for area in AREAS:
            (self.live / area).mkdir(parents=True, exist_ok=True)
        home = str(self.live / "home")
        for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME", "HF_HOME"):
            os.environ[name] = home
        os.environ.update(TMPDIR=str(self.live / "tmp"), SECRET=SECRET)
        os.environ.pop("GAN_TRACEBACK", None)
        tempfile.tempdir = None  # found anew, by the variable
        os.chdir(self.place)
        if not built:
            inputs.build(self.place, self.outside)
            for area in AREAS:
                clone(self.live / area, self.spare / area)
            (self.spare / "done").touch()

    def restore_all(self) -> None:
        """As it was at first, whatever became of it."""
        for area in AREAS:
            remove(self.live / area)
            clone(self.spare / area, self.live / area)

    def snapshot(self) -> Snapshot:
        """All that is there. Links are not followed."""
        found: Snapshot = {}
        queue = [str(self.live / area) for area in AREAS]
        skip = len(str(self.live)) + 1
        while queue:
            with os.scandir(queue.pop()) as entries:
                for entry in entries:
                    state = entry.stat(follow_symlinks=False)
                    link = os.readlink(entry.path) if entry.is_symlink() else ""  # noqa: PTH115  # a Path a file costs more
                    found[entry.path[skip:]] = (stat.S_IFMT(state.st_mode), state.st_size, state.st_mtime_ns, link)
                    if entry.is_dir(follow_symlinks=False):
                        queue.append(entry.path)
        return found

    def changes(self, before: Snapshot) -> Changes:
        """What is other than it was; folders only where they came, went or became something else."""
        now = self.snapshot()
        same = [path for path in now if path in before]
        altered = [
            p for p in same if now[p] != before[p] and not (stat.S_ISDIR(now[p][0]) and now[p][0] == before[p][0])
        ]
        return Changes(
            sorted(path for path in now if path not in before),
            sorted(path for path in before if path not in now),
            sorted(altered),
        )

    def restore(self, changes: Changes) -> None:
        """Undo them; the damaged run, which `spare` does not have, goes."""
        for path in reversed(changes.new):
            remove(self.live / path)
        for path in [*changes.gone, *changes.altered]:
            target, source = self.live / path, self.spare / path
            remove(target)
            if exists(source) and exists(target.parent):
                clone(source, target)
        remove(self.place / "hurt")


def exists(path: Path) -> bool:
    """Whether there is something of this name, be it a link to nowhere."""
    return os.path.lexists(path)


def remove(path: Path) -> None:
    """Delete a file, a link or a folder with all that it holds, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    elif exists(path):
        path.unlink()


def clone(source: Path, target: Path) -> None:
    """Copy a tree with its times: links as links, pipes as pipes."""
    state = source.lstat()
    if stat.S_ISLNK(state.st_mode):
        target.symlink_to(source.readlink())
    elif stat.S_ISFIFO(state.st_mode):
        os.mkfifo(target)
        os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    elif stat.S_ISDIR(state.st_mode):
        target.mkdir(parents=True, exist_ok=True)
        for child in sorted(source.iterdir()):
            clone(child, target / child.name)
        os.utime(target, ns=(state.st_atime_ns, state.st_mtime_ns))
    else:
        shutil.copy2(source, target)
