"""Thousands of generated command lines in one process: no traceback, 0 or 2, and nothing written on 2."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, Phase, given, settings
from PIL import Image

from tests.conftest import TINY
from tests.fuzz import LINES, Line

COUNT = 2000
PATIENCE = 30  # seconds of computing for one command
ROOM = 16 << 30  # bytes of address space, so that an absurd size fails at once


class TooLong(BaseException):
    """A command that does not end."""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, labelled: Path) -> Iterator[Path]:
    """A directory with two runs and some pictures, a home without anything, no network and bounded memory."""
    from gancli.cli import main

    top, home = tmp_path_factory.mktemp("place"), tmp_path_factory.mktemp("home")
    shutil.copytree(labelled, top / "outputs" / "train" / "labelled")
    points = [w for w in TINY if not w.startswith(("model", "dataset", "observers.grid"))]
    points += ["model=mlp", "model.hidden=[8]", "model.ema.decay=0.5", "dataset=ring", "dataset.n=50"]
    (top / "pics").mkdir()
    for shade in (0, 90, 200):
        Image.new("RGB", (16, 16), (shade, 9, 255 - shade)).save(top / "pics" / f"{shade}.png")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(top)
        for name in ("HOME", "XDG_CACHE_HOME", "TORCH_HOME"):
            patch.setenv(name, str(home))
        patch.setattr(socket.socket, "connect", refuse_network)
        assert main(["train", *points, "steps=2", "run_dir=outputs/train/points"]) == 0
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (ROOM, before[1]))
        try:
            yield top
        finally:
            resource.setrlimit(resource.RLIMIT_AS, before)


def refuse_network(self: socket.socket, address: object) -> None:
    raise ConnectionRefusedError(111, "no network in this test")


def snapshot(top: Path) -> dict[str, tuple[int, int]]:
    """Every file and folder here and in the home, with its time and size."""
    found = {}
    for folder in (top, Path(os.environ["HOME"])):
        for root, folders, files in os.walk(folder):
            for name in [*folders, *files]:
                state = os.lstat(os.path.join(root, name))  # noqa: PTH118  # a Path a file would take most of the time
                found[os.path.join(root, name)] = (state.st_mtime_ns, state.st_size)  # noqa: PTH118
    return found


def too_long(*_: object) -> None:
    raise TooLong


class Judge:
    """Runs command lines in a place that is as at first before each of them."""

    def __init__(self, top: Path, spare: Path, capsys: pytest.CaptureFixture[str]):
        self.top, self.spare, self.capsys = top, spare, capsys
        shutil.copytree(top, spare, symlinks=True)
        self.before = snapshot(top)
        self.ends: Counter[str] = Counter()

    def __call__(self, line: Line) -> str:
        """What is wrong with the way this line ended; nothing: an empty text."""
        from gancli.cli import main

        self.capsys.readouterr()
        state = torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.get_default_dtype()
        signal.setitimer(signal.ITIMER_PROF, PATIENCE)
        try:
            code = main(line)
        except TooLong:
            return f"took over {PATIENCE} s"
        except BaseException as error:
            return f"{type(error).__name__} escaped: {error}"
        finally:
            signal.setitimer(signal.ITIMER_PROF, 0)
        printed = self.capsys.readouterr()
        wrong = self._wrong(code, printed.out, printed.err)
        if (torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.get_default_dtype()) != state:
            wrong = wrong or "global settings changed"
        self.ends[f"{line[0] if line and len(line[0]) < 12 else '-'} {code}"] += 1
        self.ends[str(code)] += 1
        if code == 0 and line[:1] == ["train"] and "run " in printed.err:
            self.ends["trained"] += 1
        return wrong

    def _wrong(self, code: int, out: str, err: str) -> str:
        after = snapshot(self.top)
        changed = sorted(p for p in {*after, *self.before} if after.get(p) != self.before.get(p))
        if changed:
            self._restore()
        if "Traceback" in err or "Traceback" in out:
            return f"a traceback: {err[-300:]}"
        if code == 0:
            return ""
        if code != 2:
            return f"exit code {code}: {err[-300:]}"
        some_failed = " jobs failed: " in err  # a sweep keeps what its other jobs wrote
        if changed and not some_failed:
            return f"wrote {changed[:3]} and said {err[-200:]}"
        if out and not some_failed:
            return f"printed {out[:100]!r}"
        said = [line for line in err.split("\n") if line.startswith("gan: ")]
        if not some_failed and (err.count("\n") != 1 or len(said) != 1):
            return f"said more than one line: {err[:300]!r}"
        return "" if all(c.isprintable() for c in said[-1]) else f"unprintable: {said[-1]!r}"

    def _restore(self) -> None:
        for folder in (self.top, Path(os.environ["HOME"])):
            for path in folder.iterdir():
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink()
        shutil.copytree(self.spare, self.top, symlinks=True, dirs_exist_ok=True)
        self.before = snapshot(self.top)


@pytest.mark.slow
def test_no_command_line_breaks_it(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    judge = Judge(place, tmp_path / "spare", capsys)
    before = signal.signal(signal.SIGPROF, too_long)

    @settings(
        max_examples=COUNT,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.explicit, Phase.generate, Phase.shrink],
        suppress_health_check=list(HealthCheck),
    )
    @given(LINES)
    def ends_well(line: Line) -> None:
        assert judge(line) == ""

    try:
        ends_well()
    finally:
        signal.signal(signal.SIGPROF, before)
    ends = judge.ends
    assert ends["0"] + ends["2"] >= COUNT
    assert ends["0"] >= 0.28 * COUNT, ends
    assert ends["trained"] >= 0.08 * COUNT, ends
    assert min(ends[f"{verb} 0"] for verb in ("train", "sample", "eval", "interpolate")) >= 20, ends
    assert ends["2"] >= 0.3 * COUNT, ends
