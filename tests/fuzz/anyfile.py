# ruff: noqa: E501
"""Damage that any file can take, and that of pictures and tables."""

from __future__ import annotations

import os
import random
from collections.abc import Callable
from pathlib import Path

from tests.fuzz.inputs import coded, noise, sized

Random = random.Random
Damage = Callable[[Path, Random], str]  # changes the file, says how


def plain_files(folder: Path) -> list[Path]:
    """Plain files of a size that can be read and copied."""
    found = [path for path in sorted(folder.rglob("*")) if path.is_file() and not path.is_symlink()]
    return [path for path in found if path.stat().st_size < 1 << 26]


def _write(data: bytes) -> Damage:
    def done(path: Path, draw: Random) -> str:
        path.write_bytes(data)
        return ""

    return done


def _cut(path: Path, draw: Random) -> str:
    data = path.read_bytes()
    keep = draw.randrange(len(data) + 1)
    path.write_bytes(data[:keep])
    return f"{keep} of {len(data)} bytes"


def _flip(path: Path, draw: Random) -> str:
    data = bytearray(path.read_bytes())
    places = sorted(draw.randrange(len(data)) for _ in range(draw.choice([1, 3, 20]))) if data else []
    for place in places:
        data[place] = draw.randrange(256)
    path.write_bytes(data)
    return f"bytes {places}"


def _insert(path: Path, draw: Random) -> str:
    data, more = (
        path.read_bytes(),
        draw.choice([b"\xff\xfe\x00", b"\x00" * 9, b"\xed\xa0\x80", b"\n\n", b"9" * 400, b"[" * 100_000]),
    )
    place = draw.choice([0, len(data), draw.randrange(len(data) + 1)])
    path.write_bytes(data[:place] + more + data[place:])
    return f"{len(more)} of {more[:3]!r} at {place}"


def _folder(path: Path, draw: Random) -> str:
    path.unlink()
    path.mkdir()
    return ""


def _pipe(path: Path, draw: Random) -> str:
    path.unlink()
    os.mkfifo(path)
    return ""


def _link(path: Path, draw: Random) -> str:
    path.unlink()
    where = draw.choice(
        ["outside/victim", "outside/nothing_here", "outside/photos", "outside/empty", path.name, "/dev/zero"]
    )
    target = _outside(path) / where.partition("/")[2] if where.startswith("outside") else Path(where)
    path.symlink_to(target)
    return f"to {where}"


def _outside(path: Path) -> Path:
    """What lies beside the working directory that holds `hurt`."""
    return path.parents[[p.name for p in path.parents].index("hurt")].parent.parent / "outside"


def _sparse(path: Path, draw: Random) -> str:
    os.truncate(path, 6 << 30)
    return "zeros up to 6 GiB, none on the disk"


def _swapped(path: Path, draw: Random) -> str:
    top = path.parents[[p.name for p in path.parents].index("hurt") - 1]
    other = draw.choice(plain_files(top))
    path.write_bytes(other.read_bytes())
    return f"holds {other.name}"


def _gone(path: Path, draw: Random) -> str:
    path.unlink()
    return ""


ANY: dict[str, Damage] = {
    "empty": _write(b""), "cut": _cut, "bytes changed": _flip, "bytes put in": _insert, "no UTF-8": _write(b"\xff\xfegarbage\n"),
    "a folder": _folder, "a pipe": _pipe, "a link": _link, "huge": _sparse, "another file": _swapped, "missing": _gone,
    "zeros": _write(bytes(5000)), "a text": _write(b"hello\n"), "a pipe too": _pipe, "a link too": _link,
}  # fmt: skip


def _picture(path: Path, draw: Random) -> str:
    name = draw.choice(
        [
            "60000 x 60000",
            "2 GB a side",
            "none",
            "a jpeg",
            "three colours",
            "stream cut",
            "no end",
            "one pixel",
            "palette",
        ]
    )
    data = path.read_bytes()
    if name == "a jpeg":
        noise(40).save(path, "JPEG")
    elif name == "palette":
        noise().convert("P").save(path, "PNG")
    else:
        shapes = {
            "60000 x 60000": (60_000, 60_000),
            "2 GB a side": (2**31 - 1, 2**31 - 1),
            "none": (0, 0),
            "one pixel": (1, 1),
        }
        cuts = {"three colours": coded(24), "stream cut": data[: len(data) // 2], "no end": data[:-12]}
        path.write_bytes(cuts[name] if name in cuts else sized(data, *shapes[name]))
    return name


def _table(path: Path, draw: Random) -> str:
    rows = [b'"', b"a,b\n" * 3, b"\xff\xfe,\n", b"x" * 200_000, b"=cmd(),1\n", b"\0\n"]
    path.write_bytes(path.read_bytes() + draw.choice(rows))
    return ""


PNG: dict[str, Damage] = {"a picture": _picture, "another picture": _picture, "bytes changed": _flip}
CSV: dict[str, Damage] = {"rows": _table}
TXT: dict[str, Damage] = {"bytes put in": _insert, "huge": _sparse, "a link": _link, "a pipe": _pipe}
