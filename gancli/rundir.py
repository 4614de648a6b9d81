"""What a run directory holds, and how to find one.

config.yaml      the whole configuration        metrics.jsonl   a row every so many steps
run.json         what made it, and its status   log.txt         what was said
samples/         grids from fixed latents       checkpoints/    NNNNNNNN.pt, each with its .json
eval/            results of `gan eval`, one file a checkpoint and protocol
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import subprocess
import time
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gancli.best import best_step
from gancli.commands import command, word
from gancli.errors import ConfigError, RunError, suggestion
from gancli.files import add_line, halves, read_json, sync, whole_file, write_json, write_text

OUTPUTS = Path("outputs")
ASIDE = ".aside"  # how the name of a checkpoint ends that the run went back past
LARGEST_YAML, DEEPEST_YAML = 1 << 20, 50  # bytes, and sections within sections


class RunDir:
    """A training run on the disk."""

    def __init__(self, path: Path):
        self.path = path
        self.samples, self.checkpoints, self.results = path / "samples", path / "checkpoints", path / "eval"
        self.metrics, self.log_file = path / "metrics.jsonl", path / "log.txt"
        self._lock: Any = None

    def write_config(self, config: Mapping[str, Any]) -> None:
        """config.yaml: the whole configuration, as it was composed."""
        write_text(self.path / "config.yaml", OmegaConf.to_yaml(OmegaConf.create(dict(config))))

    def config(self) -> dict[str, Any]:
        """The configuration that made this run. Raises RunError."""
        try:
            config = OmegaConf.to_container(OmegaConf.create(_checked_yaml(self.path / "config.yaml")))
        except (OSError, ValueError, OmegaConfBaseException, yaml.YAMLError) as error:
            raise RunError(f"{self.path}: cannot read config.yaml ({' '.join(str(error).split())})") from None
        if not isinstance(config, dict):
            raise RunError(f"{self.path}: config.yaml holds no configuration")
        return {str(name): value for name, value in config.items()}

    def about(self) -> dict[str, Any]:
        """run.json's content. Raises RunError."""
        about = read_json(self.path / "run.json")
        if not isinstance(about, dict):
            raise RunError(f"{self.path / 'run.json'} is damaged: it holds no values by name")
        return about

    def update(self, **values: Any) -> None:
        """Change values in run.json, all at once."""
        path = self.path / "run.json"
        write_json(path, (self.about() if path.exists() else {}) | values)

    def say(self, text: str) -> None:
        """Add a dated line to log.txt. Raises RunError."""
        add_line(self.log_file, f"{datetime.now():%Y-%m-%d %H:%M:%S} {text}")

    def append(self, row: Mapping[str, Any]) -> None:
        """Add a row to metrics.jsonl. Raises RunError."""
        add_line(self.metrics, json.dumps(row))

    def settle(self) -> None:
        """Bring all rows so far onto the disk: a checkpoint never outlives the rows before it."""
        if self.metrics.exists():
            sync(self.metrics)

    def forget_after(self, step: int) -> None:
        """Go back to `step`: drop rows and grids past it, and a row that was cut short; set later checkpoints aside.

        What is seen at step 0 is seen again when a run goes on from there, so its rows are dropped too. Checkpoints
        that were set aside stay until the next one is whole (`drop_aside`).
        """
        # First the checkpoints: were the process killed now, the run would still go on from `step`.
        for number, path in self.listing().items():
            if number > step:
                path.replace(path.with_name(path.name + ASIDE))
                path.with_suffix(".json").unlink(missing_ok=True)
        last = step or -1
        for path in self.samples.glob("*.png"):
            if path.stem.isdecimal() and int(path.stem) > last:
                path.unlink()
        if not self.metrics.exists():
            return
        with self.metrics.open(encoding="utf-8") as lines, whole_file(self.metrics) as kept:
            for line in lines:
                try:
                    if json.loads(line)["step"] <= last:
                        kept.write(line.rstrip("\n").encode() + b"\n")
                except (ValueError, KeyError, TypeError, RecursionError):
                    continue

    def drop_aside(self) -> None:
        """Delete the checkpoints that were set aside: a newer one is whole."""
        for path in self.checkpoints.glob(f"*{ASIDE}"):
            path.unlink(missing_ok=True)

    def lock(self) -> None:
        """Keep other processes from training in this directory. Raises RunError when one already does."""
        try:
            import fcntl
        except ImportError:  # no such thing on this system
            return
        if self._lock is not None:
            return
        path = self.path / ".lock"
        try:
            while self._lock is None:
                file = path.open("w")
                try:
                    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    file.close()
                    raise RunError(f"{self.path}: another process is training here; wait for it or stop it") from None
                except OSError:
                    pass  # a file system without locks
                # Whoever left in the meantime took the file away: a lock on it keeps nobody out.
                if path.exists() and path.stat().st_ino == os.fstat(file.fileno()).st_ino:
                    self._lock = file
                else:
                    file.close()
        except OSError as error:
            raise RunError(
                f"cannot write to {self.path}: {error.strerror}; choose another place with run_dir=PATH"
            ) from None
        for left in [half for folder in (self.path, self.checkpoints, self.samples) for half in halves(folder)]:
            left.unlink(missing_ok=True)  # of a process that was killed

    def unlock(self) -> None:
        """Let others in again."""
        if self._lock is not None:
            with contextlib.suppress(OSError):
                (self.path / ".lock").unlink(missing_ok=True)
            self._lock.close()
            self._lock = None

    def best_by(self) -> str:
        """The metric that this run's best checkpoint is chosen by; fid where its configuration names none."""
        try:
            return str(self.config()["observers"]["checkpoints"].get("best") or "fid")
        except (RunError, KeyError, TypeError, AttributeError):
            return "fid"

    def best(self, metric: str) -> int | None:
        """The step of the checkpoint that is best by a result of `gan eval`; None where none has it."""
        return best_step(self.results, metric, self.listing())

    def listing(self) -> dict[int, Path]:
        """The checkpoint files by step, in order."""
        found = {int(path.stem): path for path in self.checkpoints.glob("*.pt") if path.stem.isdecimal()}
        return dict(sorted(found.items()))

    def checkpoint(self, which: int | str) -> Path:
        """The file of `last`, `best` or a step. Raises RunError naming the steps there are."""
        found = self.listing()
        if not found:
            raise RunError(f"{self.path} holds no checkpoint")
        if which == "last":
            return found[max(found)]
        step: int | str | None = which
        if which == "best":
            metric = self.best_by()
            try:
                step = self.best(metric)
            except ConfigError as error:
                raise RunError(f"{self.path}: {error}") from None
            if step is None:
                typed = command("eval", word("run", self.path), "checkpoint=STEP")
                raise RunError(f"{self.path}: no checkpoint has a {metric} yet; run {typed}")
        if not isinstance(step, int) or step not in found:
            steps = ", ".join(map(str, found))
            raise RunError(f"checkpoint={which}: {self.path.name} has last, best and the steps {steps}")
        return found[step]


def refuse_taken(chosen: str | None) -> None:
    """Raise RunError where `run_dir` cannot be used, before any work is done for it."""
    if chosen is None:
        return
    if not chosen.strip():
        raise RunError("run_dir= is empty: give a path, or leave it out")
    path = Path(chosen).expanduser()
    if (path / "run.json").exists():
        raise RunError(
            f"run_dir={chosen} holds a run already: {word('resume', chosen)} goes on with it; or choose another"
        )
    if any(RunDir(path).listing()):
        raise RunError(f"run_dir={chosen} holds checkpoints of a run without its run.json: choose another place")
    if path.exists() and not path.is_dir():
        raise RunError(f"run_dir={chosen} is a file: choose another place")


def new_directory(verb: str, name: str, chosen: str | None) -> Path:
    """Make the directory a verb writes to: `run_dir`, or outputs/VERB/DATE_TIME-NAME. Raises RunError."""
    refuse_taken(chosen)
    try:
        if chosen is not None:
            path = Path(chosen).expanduser()
            path.mkdir(parents=True, exist_ok=True)
            if not os.access(path, os.W_OK | os.X_OK):
                raise PermissionError(13, "Permission denied")
            return path
        stem = f"{datetime.now():%Y-%m-%d_%H-%M-%S}-{name}"
        for suffix in ["", *(f"-{k}" for k in range(2, 1000))]:
            path = OUTPUTS / verb / f"{stem}{suffix}"
            try:
                path.mkdir(parents=True)
                return path
            except FileExistsError:
                continue
    except OSError as error:
        raise RunError(f"cannot make {path}: {error.strerror}; choose another place with run_dir=PATH") from None
    raise RunError(f"{OUTPUTS / verb} holds too many runs of this second; wait a moment")


def find(which: str, key: str = "run") -> tuple[RunDir, Path | None]:
    """A run by its directory, a checkpoint file in it, or `last`; the file too when one was named. Raises RunError."""
    if which == "last":
        runs = [p.parent for place in ("train", "sweeps/*") for p in OUTPUTS.glob(f"{place}/*/run.json")]
        if not runs:
            raise RunError(
                f"{key}=last: no run under {OUTPUTS / 'train'} yet; start one with gan train, or give its path"
            )
        return RunDir(
            max(
                runs,
                key=lambda p: ((p / "config.yaml").stat().st_mtime_ns if (p / "config.yaml").exists() else 0, p.name),
            )
        ), None
    path = Path(which).expanduser()
    if path.is_file():
        if path.suffix == ".json":
            raise RunError(f"{key}={which} is no checkpoint: give a run directory, or a file of its checkpoints/")
        inside = (path.parent.parent / "run.json").is_file()
        return RunDir(path.parent.parent if inside else path), path
    if not path.is_dir():
        there = [p.name for p in OUTPUTS.glob("train/*") if p.is_dir() and p.name != "sweeps"]
        hint = suggestion(path.name, there) if there else "start one with gan train"
        raise RunError(f"{key}={which}: no such run; {hint}")
    if not (path / "run.json").is_file():
        raise RunError(f"{key}={which} is not a run directory: it has no run.json")
    return RunDir(path), None


def names(paths: Sequence[Path]) -> list[str]:
    """A name for each path, different for different ones: the shortest endings of the paths that tell them apart.

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


def _checked_yaml(path: Path) -> str:
    """A YAML file's text, of plain values only. Raises OSError, ValueError or YAMLError.

    Aliases, which our files never have, turn a few lines into more values than any memory holds.
    """
    if path.stat().st_size > LARGEST_YAML:
        raise ValueError(f"over {LARGEST_YAML >> 20} MiB")
    text, depth = path.read_text(encoding="utf-8"), 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        tagged = isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None
        if isinstance(event, yaml.AliasEvent) or tagged or depth > DEEPEST_YAML:
            raise ValueError("aliases, tags, or sections too deep in each other")
    return text


def environment() -> dict[str, Any]:
    """Versions, host and git commit: what a number depends on beside its configuration."""
    names = ("gancli", "torch", "torchvision", "hydra-core", "torch-fidelity", "numpy")
    versions = {name: _version(name) for name in names}
    return {
        "versions": {"python": platform.python_version(), **versions},
        "git": _git_commit(),
        "host": platform.node(),
        "platform": platform.platform(),
        "processor": f"{os.cpu_count()} cores",
        "time": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _git_commit() -> str | None:
    """The commit of the checkout this package runs from, with a + when it is changed; None for an installed package."""
    here = Path(__file__).resolve().parent.parent
    if not (here / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "describe", "--always", "--dirty=+", "--abbrev=12"],
            cwd=here,
            capture_output=True,
            text=True,
            timeout=10,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
