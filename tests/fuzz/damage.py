# ruff: noqa: E501
"""Runs and sweeps with something wrong in them: a file is changed as its type allows, or a name, or what stands there."""

from __future__ import annotations

import os
import random
from pathlib import Path

from tests.fuzz.anyfile import ANY, CSV, PNG, TXT, Damage, plain_files
from tests.fuzz.checkpoints import CHECKPOINT
from tests.fuzz.place import HURT, World, clone, exists, remove
from tests.fuzz.values import JSON, KNOWN, NAMES, ROWS, SAID, YAML, short

Random = random.Random
BASES = {
    "full": "outputs/train/full",
    "labelled": "outputs/train/labelled",
    "points": "outputs/train/points",
    "two": "outputs/sweeps/two",
}

TYPED: dict[str, dict[str, Damage]] = {
    ".json": JSON,
    ".jsonl": ROWS,
    ".yaml": YAML,
    ".png": PNG,
    ".csv": CSV,
    ".txt": TXT,
    ".pt": CHECKPOINT,
}


def damage(world: World, base: str, seed: int) -> tuple[Path, str]:
    """Put a damaged copy of a run or sweep into the working directory; where it is, and what was done to it."""
    draw = Random(f"{base} {seed}")
    target = world.place / HURT
    target.parent.mkdir(exist_ok=True)
    clone(world.spare / "place" / BASES[base], target)
    done: set[Path] = set()
    said = [_one(world, target, base, draw, done) for _ in range(draw.choice([1, 1, 1, 2]))]
    if draw.random() < 0.05:
        name = draw.choice(
            [name for name in NAMES if name != SAID and "/" not in name]
        )  # typed, it is asked of the environment as it should
        target = target.rename(target.with_name(name))
        said.append(f"it is called {name!r}")
    return target.relative_to(world.place), "; ".join(said)


def _one(world: World, top: Path, base: str, draw: Random, done: set[Path]) -> str:
    """One damage, of a file that is chosen by kind first, so that many checkpoints do not outweigh one run.json."""
    files = [path for path in plain_files(top) if path not in done]
    kinds = sorted({_kind(path) for path in files})
    if draw.random() < 0.22 or not kinds:
        return _structure(world, top, base, draw)
    kind = draw.choice(kinds)
    path = draw.choice([f for f in files if _kind(f) == kind])
    usual = draw.random() < 0.3
    table = ANY if usual else {**TYPED.get(path.suffix, {}), **KNOWN.get(path.name, {})} or ANY
    name = draw.choice(sorted(table))
    done |= {path, path.with_suffix(".json")}
    return f"{path.relative_to(top)}: {name}{_colon(table[name](path, draw))}"


def _kind(path: Path) -> str:
    """Checkpoints of all steps are of one kind, run.json is of its own."""
    if path.parent.name == "checkpoints":
        return f"checkpoints{path.suffix}"
    return path.parent.name if path.parent.name in ("samples", "eval", ".jobs") else path.name


def _colon(text: str) -> str:
    return f": {text}" if text else ""


def _structure(world: World, top: Path, base: str, draw: Random) -> str:
    """Folders, locks and names: missing, of another kind, or links that lead outside."""
    run = (
        top
        if base != "two"
        else draw.choice(sorted(p for p in top.iterdir() if p.name[:2] in ("01", "02") and p.is_dir()) or [top])
    )
    folders = (
        ["samples", "checkpoints", "eval"]
        if base != "two"
        else [".jobs", run.name, f"{run.name}/checkpoints", f"{run.name}/samples"]
    )
    place = top / draw.choice(folders)
    outside = world.outside
    how = draw.choice(
        [
            "gone",
            "file",
            "pipe",
            "link",
            "link",
            "link",
            "dangling",
            "circle",
            "lock",
            "lock",
            "new link",
            "new link",
            "name",
            "name",
            "half",
            "log",
        ]
    )
    if how in ("gone", "file", "pipe", "link", "dangling", "circle"):
        remove(place)
        if how == "file":
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(b"x")
        elif how == "pipe":
            os.mkfifo(place)
        elif how != "gone":
            targets = {
                "link": outside / draw.choice(["photos", "project", "empty"]),
                "dangling": outside / "nothing_here",
            }
            place.symlink_to(targets.get(how, Path(place.name)))
        return f"{place.relative_to(top)}: {how}"
    if how == "lock":
        kind = draw.choice(["link", "dangling", "pipe", "folder", "file"])
        lock = draw.choice([top, run]) / ".lock"
        _as(lock, kind, outside)
        return f"{lock.relative_to(top)}: {kind}"
    if how in ("new link", "half", "log"):
        names = [
            "report.html",
            "comparison.html",
            "ranking.csv",
            "ranking.png",
            ".stop",
            "metrics.jsonl",
            "log.txt",
            "run.json",
            "config.yaml",
            "logs",
        ]
        names += [
            "samples/film.gif",
            "samples/00000005.png",
            "checkpoints/00000005.pt",
            "checkpoints/00000002.json",
            "eval/x.json",
        ]
        name = {"half": ".run.json.abc.half", "log": "log.txt"}.get(how) or draw.choice(names)
        target = (run if draw.random() < 0.6 else top) / name
        kind = draw.choice(["link", "dangling", "pipe", "folder", "photo"])
        if target.parent.is_dir() and not target.parent.is_symlink():
            remove(target)
            _as(target, kind, outside)
        return f"{name}: {kind}"
    names = [
        "٣",
        "²",
        "9" * 30,
        "9" * 200,
        "-1",
        "1e3",
        "00000002x",
        "<!--<script>",
        "caf\udce9",
        "00000009",
        "+5",
        "0x5",
        " 6",
        "1_0",
    ]
    folder = draw.choice([f for f in (run / "samples", run / "checkpoints", run / "eval") if f.is_dir()] or [run])
    files = [f for f in plain_files(folder) if f.parent == folder]
    name = draw.choice(names)
    if files:
        old = draw.choice(files)
        clone(old, old.with_name(name + old.suffix))
        if draw.random() < 0.5:
            old.unlink()
    return f"{folder.name}: a file called {short(name)}"


def _as(path: Path, kind: str, outside: Path) -> None:
    remove(path)
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
        (path / "x").write_bytes(b"x")
    elif kind == "file":
        path.write_bytes(b"x")
    else:
        path.symlink_to(outside / {"link": "victim", "dangling": "nothing_here", "photo": "photos/20231224.png"}[kind])
    assert exists(path)
