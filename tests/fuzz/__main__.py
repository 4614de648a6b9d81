"""`python -m tests.fuzz CASE` replays one case; `python -m tests.fuzz` tries all of them.

`lines` or `damaged`: only those; groups=empty,numbers: those groups; every=10: every tenth; patience=8 idle=5: seconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import pool
from tests.fuzz.case import Answer, Case


def main(words: list[str]) -> int:
    """Try what is asked for and print what is wrong; 1 where something is."""
    from tests.fuzz import report

    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        if words and words[0].startswith("{"):
            answers = pool.Pool(Path(top), 1).run([Case.load(words[0])])
            print(f"exit {answers[0].code} after {answers[0].seconds:.1f} s; {answers[0].damage}")
        else:
            from tests.fuzz import generate, hostile

            given = dict(word.split("=") for word in words if "=" in word)
            cases = generate.command_lines() if "damaged" not in words else []
            cases += hostile.damaged(generate.DAMAGED) if "lines" not in words else []
            cases = [case for case in cases if case.group in given.get("groups", case.group).split(",")]
            patience, idle = float(given.get("patience", pool.PATIENCE)), float(given.get("idle", pool.IDLE))
            began = time.monotonic()
            answers = pool.Pool(Path(top)).run(cases[:: int(given.get("every", 1))], patience, idle, _say)
            print(report.summary(answers))
            print(f"{time.monotonic() - began:.0f} s by the clock")
        print(report.written(answers))
    return int(any(answer.found for answer in answers))


def _say(answer: Answer) -> None:
    """What is wrong, as it is found: who stops this half-way has the findings so far."""
    from tests.fuzz import report

    if answer.found:
        print(report.written([answer]), file=sys.stderr, flush=True)


def work(top: Path) -> None:
    """A worker: cases come as lines, answers go as lines; what commands print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    cases = os.fdopen(os.dup(0), encoding="utf-8")
    _end_with_parent()
    nothing = os.open(os.devnull, os.O_RDONLY)
    os.dup2(nothing, 0)
    os.dup2(2, 1)  # what is said while the world is made
    from tests.fuzz.judge import Judge
    from tests.fuzz.place import World

    world = World(top)
    world.enter()
    judge = Judge(world)
    size = int(Path("/proc/self/statm").read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + pool.MEMORY, resource.getrlimit(resource.RLIMIT_AS)[1]))
    print("{}", file=answers, flush=True)
    for line in cases:
        case = Case.load(line)
        print(judge(case).dump(), file=answers, flush=True)


def _end_with_parent() -> None:
    """Die when the parent does, whatever the case at hand waits for; on Linux only."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1:]))
