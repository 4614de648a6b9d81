"""Hundreds of damaged data files of every kind: read, or answered in one line that names the file; never a hang."""

from __future__ import annotations

import importlib
import shutil
import signal
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from gancli.data.folder import folder
from gancli.data.layout import printable
from gancli.data.npz import npz
from gancli.data.pairs import pairs
from gancli.data.shards import webdataset
from gancli.data.source import Source, feeds_of
from gancli.data.torchvision import mnist
from gancli.data.zipped import archive
from gancli.errors import GanError
from tests.data.damage import SETS, damaged, write

EACH = 100
PATIENCE = 20  # seconds for one data set
READERS: dict[str, Callable[[Path], Source]] = {
    "folder": lambda top: folder(str(top)),
    "zip": lambda top: archive(str(top / "x.zip")),
    "tar": lambda top: webdataset(str(top / "x.tar")),
    "pairs": lambda top: feeds_of(pairs(str(top), columns={"A.x": "image", "B.x": "image"}))["A"],
    "npz": lambda top: npz(str(top / "x.npz")),
    "mnist": lambda top: mnist(root=str(top)),
}


class TooLong(BaseException):
    """A data set that is not read in time."""


@pytest.fixture
def watched() -> Iterator[None]:
    """A reading that does not end is ended."""

    def too_long(*_: object) -> None:
        raise TooLong

    importlib.import_module("torchvision.datasets")  # which takes seconds, and must not be cut short
    before = signal.signal(signal.SIGALRM, too_long)
    yield
    signal.signal(signal.SIGALRM, before)


def answer(reader: str, top: Path, name: str) -> str:
    """How the reading of a data set ends: `read`, `refused`, or what is wrong with that."""
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        source = READERS[reader](top)
        x, y = source.rows(np.arange(len(source)))["x"], source.labels
        source.fingerprint  # noqa: B018 - asking for it reads everything
        lines = [*source.notes, *source.classes]
        if len(x) != len(y) or not all(line.encode() and line == printable(line) for line in lines):
            return f"{len(x)} images, {len(y)} labels, {lines}"
        return "read"
    except GanError as error:
        text = str(error)
        named = Path(name).name in text or (reader == "mnist" and "dataset=mnist" in text)
        return "refused" if named and text.count("\n") == 0 else f"no name: {text[:300]!r}"
    except TooLong:
        return f"over {PATIENCE} s"
    except BaseException as error:
        return f"{type(error).__name__}: {error}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@pytest.mark.slow
@pytest.mark.usefixtures("watched")
@pytest.mark.parametrize("kind", SETS)
def test_damaged_data_are_read_or_refused_by_name(tmp_path: Path, kind: str) -> None:
    reader, files, name = SETS[kind]
    write(tmp_path / "whole", files)
    assert answer(reader, tmp_path / "whole", name) == "read"
    ends, wrong = Counter[str](), {}
    for seed in range(EACH):
        write(tmp_path / "d", damaged(kind, seed))
        ends[found := answer(reader, tmp_path / "d", name)] += 1
        if found not in ("read", "refused"):
            wrong[seed] = found
        shutil.rmtree(tmp_path / "d")
    assert wrong == {}
    assert ends["refused"] >= EACH // 5, ends  # else the damage does not reach what is read
