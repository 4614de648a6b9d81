"""How a case has to end: with 0 or 2, one line, soon, and nothing touched that is not the command's own."""

from __future__ import annotations

import os
import re
import socket
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TextIO

import torch

from tests.fuzz.case import Answer, Case, Finding
from tests.fuzz.damage import damage
from tests.fuzz.place import SECRET, Changes, World
from tests.fuzz.pool import DOING

PATIENCE = 20.0  # seconds of computing for one command
LONGEST = 1 << 20  # bytes read of what a command printed
# Words of Python's, Hydra's and OmegaConf's that tell a person nothing.
FOREIGN_WORDS = re.compile(
    r"Traceback|Errno|full_key|object_type|Error merging|_target_=None|NoneType|ConfigLoader|OmegaConf|surrogates"
    r"|unexpected keyword|<class|object at 0x|positional argument|subscriptable|has no attribute|codec can't|_hydra_"
    r"|unexpected error;|missing key loss$|Exceeds the limit|list index|not iterable|unhashable|could not convert"
    r"|Interpolation|invalid literal"
    r"|\b(?:Value|Type|Key|Index|Attribute|Runtime|Overflow|Unicode\w*|Zero\w*|Assertion|Recursion|Memory)Error\b"
)
BEGUN = re.compile(
    r"^(run|sweep|job|skipped:|data|memory|measuring|device|precision|G |step|note:|compile:)", re.MULTILINE
)
WAITING = re.compile(r" \.\.\.$|^\w+: \w+ [\d,]+/[\d,]+$|^checking images of ")  # how a wait or a measurement stands
WORK = ("place/outputs", "place/hurt", "home")  # where commands may write unasked; the last for caches


class Judge:
    """Runs cases in a world that is as at first before each of them."""

    def __init__(self, world: World):
        self.world = world
        self.out, self.err = _captured(world.top, 1), _captured(world.top, 2)
        sys.stdout, sys.stderr = _text(1, "strict"), _text(2, "backslashreplace")
        socket.socket.connect = _refuse_network  # type: ignore[method-assign]
        for kind in (UserWarning, RuntimeWarning, FutureWarning, SyntaxWarning):  # as often as they occur
            warnings.filterwarnings("always", category=kind)

    def __call__(self, case: Case) -> Answer:
        """Put the damage there, run the command, look at everything, put it right again."""
        words, done = case.words, ""
        if case.base is not None:
            where, done = damage(self.world, case.base, case.seed)
            words = [word.replace("{run}", str(where)) for word in words]
        (self.world.top / DOING).write_text(done, encoding="utf-8", errors="surrogateescape")
        before = self.world.snapshot()
        secrets = self._secrets(list(before), case)
        self._empty()
        state, began = _settings(), time.process_time()
        code, found = 1, list[Finding]()
        try:
            code = _run(case.call, words)
        except BaseException as error:
            found.append(Finding("escaped", f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"))
        seconds = time.process_time() - began
        out, err = self._printed()
        changes = self.world.changes(before)
        if _settings() != state or Path.cwd() != self.world.place:
            found.append(Finding("settings", "global settings or the working directory are others"))
            os.chdir(self.world.place)
        found += ended(case, code, out, err) if not found else []
        found += left(case, code, changes, words, out + err)
        found += self._content(changes, secrets, out + err)
        if seconds > PATIENCE:
            found.append(Finding("slow", f"{seconds:.0f} s"))
        self.world.restore(changes)
        trained = code == 0 and case.words[:1] == ["train"] and "run " in err
        return Answer(case, code, seconds, done, found, trained)

    def _empty(self) -> None:
        for number in (1, 2):
            os.ftruncate(number, 0)
            os.lseek(number, 0, os.SEEK_SET)

    def _printed(self) -> tuple[str, str]:
        sys.stdout.flush()
        sys.stderr.flush()
        return tuple(path.read_bytes()[:LONGEST].decode("utf-8", "replace") for path in (self.out, self.err))  # type: ignore[return-value]

    def _secrets(self, paths: list[str], case: Case) -> set[str]:
        """Files that hold the secret before, which none should."""
        return {
            path for path in paths if case.base and path.startswith("place/hurt/") and _holds(self.world.live / path)
        }

    def _content(self, changes: Changes, secrets: set[str], said: str) -> list[Finding]:
        """What is wrong inside of what was written."""
        found = []
        written = [path for path in [*changes.new, *changes.altered] if path not in secrets]
        telling = [path for path in written if _holds(self.world.live / path)]
        if telling or SECRET in said:
            found.append(Finding("secret", f"an environment variable stands in {telling[:3] or 'what was printed'}"))
        for path in written:
            if path.endswith(".html") and (self.world.live / path).is_file():
                page = (self.world.live / path).read_text(encoding="utf-8", errors="replace")
                data = re.search(r'<script id="data"[^>]*>(.*?)</script>', page, re.DOTALL)
                if data and "<!--" in data[1]:
                    found.append(Finding("page", f"{path}: <!-- stands unescaped in the page's data"))
        return found


def ended(case: Case, code: int, out: str, err: str) -> list[Finding]:
    """What is wrong with an exit code and with what was said."""
    found = []
    last = err.strip().rpartition("\n")[2]
    if "Traceback (most recent" in err or "Traceback (most recent" in out:
        found.append(Finding("traceback", last[-200:]))
    if re.search(r"^\S+:\d+: \w*Warning: ", err, re.MULTILINE):
        found.append(Finding("warning", re.findall(r"^\S+:\d+: \w*Warning: .*", err, re.MULTILINE)[0][-200:]))
    if code not in (0, 2):
        return [*found, Finding(f"exit {code}", last[:250])]
    if code == 0:
        if case.refused:
            found.append(Finding("taken", f"exit 0, said {(out + err).strip()[-150:]!r}"))
        elif case.named and not any(word.lower() in (out + err).lower() for word in case.named):
            found.append(Finding("silent", f"none of {case.named} is said; {' '.join((out + err).split())[:150]!r}"))
        return found
    said = [line for line in err.split("\n") if line.startswith("gan: ")]
    others = sum(not line.startswith("gan: ") and not WAITING.search(line) for line in err.split("\n")[:-1])
    some_failed = bool(re.search(r" of \d+ jobs ", err))
    if len(said) != 1 or not last.startswith("gan: ") or (others and not BEGUN.search(err)):
        found.append(Finding("lines", f"{err[:250]!r}"))
    if said and not all(c.isprintable() for c in said[-1]):
        found.append(Finding("unprintable", f"{said[-1]!r}"[:250]))
    if said and FOREIGN_WORDS.search(said[-1]):
        found.append(Finding("words", f"{FOREIGN_WORDS.findall(said[-1])[0]}: {said[-1][:250]}"))
    if out and not some_failed and "cannot write" not in err:
        found.append(Finding("printed", f"{out[:150]!r}, then {last[:100]!r}"))
    return found


def left(case: Case, code: int | None, changes: Changes, words: list[str], said: str) -> list[Finding]:
    """What is wrong with what was written and deleted. code: None for a command that was ended from outside."""
    found = []
    meant = "outside/empty/" if any(word.endswith("=to_empty") for word in words) else "-"  # a link that was typed
    outside = [path for path in changes.under("outside") if not path.startswith(meant)]
    if outside:
        found.append(Finding("outside", f"changed {outside[:4]}"))
    old = [path for path in [*changes.gone, *changes.altered] if not path.startswith(WORK) and path not in outside]
    if old:
        found.append(Finding("of others", f"changed {old[:4]}"))
    among = changes.under("place/foreign", "place/pics", "place/in", "place/classes")
    new_among = [path for path in among if path in changes.new]
    if new_among:
        found.append(Finding("of others", f"wrote {new_among[:4]}"))
    halves = [path for path in changes.new if path.startswith("tmp/") or path.endswith((".half", ".lock"))]
    if halves and code is not None:
        found.append(Finding("temporary", f"left {halves[:4]}"))
    if code == 2:
        failed = re.search(r"(\d+) of (\d+) jobs ", said)
        began = any(path.endswith("run.json") for path in changes.new) or case.base == "two"
        if (failed and began) or "the results are shown above" in said:
            return found  # a sweep keeps what its other jobs wrote, an evaluation what could be
        mine = [*new_among, *halves, *outside]
        more = [path for path in changes.new if path not in mine and not path.startswith("home/gan")]  # the cache
        if more:
            found.append(Finding("left behind", f"{more[:4]}; said {said.strip()[-150:]!r}"))
        elif not case.base and not old and (changes.altered or changes.gone):
            found.append(
                Finding("left behind", f"changed {[*changes.altered, *changes.gone][:4]}; said {said.strip()[-150:]!r}")
            )
    return found


def _run(call: str, words: list[str]) -> int:
    """The command in this process; its exit code. `gancli.load` answers 2 by raising GanError, as it should."""
    if call == "report":
        from gancli.report.__main__ import main as report

        return report(words)
    if call == "load":
        return _load(*words)
    if call in TRIED:
        return TRIED[call](*words)
    from gancli.cli import main

    return main(words)


def _python(code: str) -> int:
    """Run some code; what it calls `code` is its exit code, or 0."""
    names: dict[str, int] = {}
    exec(code, names)
    return names.get("code", 0)


def _spin() -> int:
    return sum(range(10**12))


def _wait(pipe: str) -> int:
    return len(os.read(os.open(pipe, os.O_RDONLY), 1))


# What the tests of the watchdog and of these rules try.
TRIED: dict[str, Callable[..., int]] = {"python": _python, "spin": _spin, "wait": _wait, "die": lambda: os._exit(3)}


def _load(run: str, checkpoint: str = "last") -> int:
    import gancli
    from gancli.errors import GanError

    try:
        generator = gancli.load(run, int(checkpoint) if checkpoint.isdecimal() else checkpoint)
        next(generator.samples(n=2, seed=0))
    except GanError as error:
        print(f"gan: {' '.join(str(error).split())}", file=sys.stderr)
        return 2
    return 0


def _settings() -> tuple[object, ...]:
    return torch.backends.cudnn.benchmark, torch.get_num_threads(), torch.get_default_dtype(), torch.is_grad_enabled()


def _holds(path: Path) -> bool:
    """Whether a plain file of a bearable size has the secret in it."""
    if path.is_symlink() or not path.is_file() or path.stat().st_size > 1 << 26:
        return False
    return SECRET.encode() in path.read_bytes()


def _refuse_network(self: socket.socket, address: object) -> None:
    raise ConnectionRefusedError(111, "no network in this test")


def _captured(top: Path, number: int) -> Path:
    """Let a file descriptor write into a file."""
    path = top / f"said{number}"
    handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND)
    os.dup2(handle, number)
    os.close(handle)
    return path


def _text(number: int, errors: str) -> TextIO:
    """Python's stream of a file descriptor, as a UTF-8 locale makes it."""
    return open(number, "w", encoding="utf-8", errors=errors, buffering=1, closefd=False)
