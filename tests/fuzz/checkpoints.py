# ruff: noqa: E501
"""Checkpoints with other content than theirs, most of them with a check sum that fits."""

from __future__ import annotations

import hashlib
import io
import json
import random
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

Random = random.Random


def sign(path: Path) -> None:
    """Let a checkpoint's JSON say the SHA-256 that its file has now, where it still can be read."""
    beside = path.with_suffix(".json")
    if not beside.is_file() or beside.stat().st_size > 1 << 20:
        return
    try:
        about = json.loads(beside.read_text(encoding="utf-8"))
        about["sha256"] = hashlib.sha256(path.read_bytes()).hexdigest()
        beside.write_text(json.dumps(about), encoding="utf-8")
    except (OSError, ValueError, TypeError, RecursionError):
        return


def places(node: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The path of each value within values."""
    found = [path] if path else []
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for key, child in children:
        found += places(child, (*path, key))
    return found


def _odd(old: Any, draw: Random) -> Any:
    """Something else than `old`: of a tensor another shape, type or number, of others another kind."""
    if isinstance(old, Tensor) and draw.random() < 0.8:
        made: list[Callable[[], Any]] = [
            lambda: old.float() * float("nan"), lambda: old.float() + float("inf"), lambda: old.double(), lambda: old.to(torch.int64),
            lambda: old.flatten()[:1], lambda: old.unsqueeze(0), lambda: torch.empty(0), lambda: old.to(torch.complex64), lambda: old.bool(),
            lambda: torch.zeros(3, 1, 1).expand(3, 10**5, 10**5), lambda: old.float().to_sparse(), lambda: torch.tensor(10**15),
            lambda: torch.quantize_per_tensor(old.float(), 1.0, 0, torch.qint8), lambda: torch.nn.Parameter(old.float()), lambda: old.to("meta"),
        ]  # fmt: skip
        return draw.choice(made)()
    many: list[Any] = [
        None, True, -1, 0, 0.5, float("nan"), float("inf"), 10**15, 10**400, 1 << 63, "", "x", "<!--<script>", [], {}, [1, [2]], {"a": 1}, (1,),
        {1: 2}, {None: 1}, torch.zeros(2), "9" * 400, -(10**30), 1 + 2j, b"x", {"a": {"b": {}}}, "\ud800", torch.Size([1]), torch.float32,
    ]  # fmt: skip
    return draw.choice(many)


def _state(path: Path, draw: Random) -> str:
    """One value of the content is another, or missing, or under another name."""
    state = torch.load(path, map_location="cpu", weights_only=True)
    found = places(state)
    depth = draw.choice(sorted({len(p) for p in found}))
    *above, key = draw.choice([p for p in found if len(p) == depth])
    node = state
    for part in above:
        node = node[part]
    where = ".".join(map(str, [*above, key]))
    if isinstance(node, tuple):
        return f"{where} as it was"
    how = draw.random()
    if how < 0.15:
        del node[key]
        said = "is missing"
    elif how < 0.25 and isinstance(node, dict):
        node[draw.choice(["x", 3, "<!--<script>", "", "G", None])] = node.pop(key)
        said = "has another name"
    else:
        old, node[key] = node[key], _odd(node[key], draw)
        said = f"was {_short(old)} and is {_short(node[key])}"
    return f"{where} {said}" + _save(path, state, draw)


def _short(value: Any) -> str:
    text = f"{tuple(value.shape)} of {value.dtype}" if isinstance(value, Tensor) else repr(value)
    return text if len(text) < 50 else f"{text[:40]}..."


def _save(path: Path, value: Any, draw: Random) -> str:
    try:
        torch.save(value, path)
    except Exception as error:  # some values cannot be written: then the file is cut short
        return f" (cut: {type(error).__name__})"
    return _signed(path, draw)


def _signed(path: Path, draw: Random) -> str:
    if draw.random() < 0.15:
        return " (its check sum does not fit)"
    sign(path)
    return ""


def _whole(path: Path, draw: Random) -> str:
    """All of the content is something else."""
    shared: Any = [1]
    for _ in range(30):
        shared = [shared, shared]
    deep: Any = []
    for _ in range(900):
        deep = [deep]
    name, value = draw.choice(
        [
            ("{}", {}), ("[]", []), ("3", 3), ("None", None), ("a tensor", torch.zeros(3)), ("shared lists", shared),
            ("a format and a step", {"format": 1, "step": 4}), ("a step of 400 digits", {"format": 1, "step": 10**400}),
            ("shared lists as the game", {"format": 1, "step": 4, "game": shared}), ("deep lists", deep), ("a format of 2", {"format": 2, "step": 4}),
            ("a step below 0", {"format": 1, "step": -4}), ("keys that are numbers", {1: 2}),
        ]
    )  # fmt: skip
    return name + _save(path, value, draw)


def _pickle(path: Path, draw: Random) -> str:
    """The pickle inside would run a command, or is no pickle."""
    name, code = draw.choice(
        [
            ("os.system", b"cos\nsystem\n(S'touch ../outside/pwned'\ntR."), ("eval", b"cbuiltins\neval\n(S'1/0'\ntR."), ("empty", b""),
            ("garbage", b"\xff" * 90), ("endless", b"(" * 200_000 + b"."), ("a long number", b"L" + b"9" * 5000 + b"L\n."),
            ("memo bomb", b"\x80\x02]q\x00" + b"(h\x00h\x00h\x00l" * 2000 + b"."), ("huge bytes", b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x0f."),
        ]
    )  # fmt: skip
    entries = _entries(path)
    inner = next((entry for entry in entries if entry.endswith("data.pkl")), None)
    if inner is None or draw.random() < 0.2:
        path.write_bytes(code)
    else:
        entries[inner] = code
        _pack(path, entries)
    return name + _signed(path, draw)


def _archive(path: Path, draw: Random) -> str:
    """An entry of the archive is missing, cut, packed or there twice."""
    entries = _entries(path)
    if not entries:
        return "as it was"
    name, how = draw.choice(sorted(entries)), draw.choice(["missing", "cut", "longer", "packed", "climbs", "many"])
    if how == "missing":
        del entries[name]
    elif how == "cut":
        entries[name] = entries[name][: len(entries[name]) // 2]
    elif how == "longer":
        entries[name] += bytes(1 << 20)
    elif how == "climbs":
        entries["../../../outside/pwned"] = b"x"
    elif how == "many":
        entries |= {f"archive/data/x{k}": b"" for k in range(20_000)}
    _pack(path, entries, zipfile.ZIP_DEFLATED if how == "packed" else zipfile.ZIP_STORED)
    return f"{name} {how}" + _signed(path, draw)


def _entries(path: Path) -> dict[str, bytes]:
    try:
        with zipfile.ZipFile(path) as archive:
            return {name: archive.read(name) for name in archive.namelist()}
    except (zipfile.BadZipFile, OSError):
        return {}


def _pack(path: Path, entries: dict[str, bytes], how: int = zipfile.ZIP_STORED) -> None:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", how) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    path.write_bytes(file.getvalue())


def _bytes(path: Path, draw: Random) -> str:
    data = bytearray(path.read_bytes())
    for _ in range(draw.choice([1, 5, 50])):
        data[draw.randrange(len(data))] = draw.randrange(256)
    path.write_bytes(data[: draw.choice([len(data), len(data), draw.randrange(len(data))])])
    return "bytes changed" + _signed(path, draw)


CHECKPOINT: dict[str, Callable[[Path, Random], str]] = {
    "one value": _state, "another value": _state, "some value": _state, "one more value": _state, "content": _whole, "pickle": _pickle,
    "archive": _archive, "bytes": _bytes,
}  # fmt: skip
