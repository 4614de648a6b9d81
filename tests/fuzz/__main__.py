"""`python -m tests.fuzz [CASE | lines | damaged] [every=N]`: replay one case, or try all (every Nth) of them."""

from __future__ import annotations

import os
import resource
import sys
import tempfile
import time
from pathlib import Path

from tests.fuzz import pool
from tests.fuzz.case import Case


def main(words: list[str]) -> int:
    """Try what is asked for and print what is wrong; 1 where something is."""
    from tests.fuzz import report

    with tempfile.TemporaryDirectory(prefix="fuzz-") as top:
        if words and words[0].startswith("{"):
            answers = pool.Pool(Path(top), 1).run([Case.load(words[0])])
            print(f"exit {answers[0].code} after {answers[0].seconds:.1f} s; {answers[0].damage}")
        else:
            from tests.fuzz import generate, hostile

            cases = generate.command_lines() if "damaged" not in words else []
            cases += hostile.damaged(generate.DAMAGED) if "lines" not in words else []
            step = next((int(word.partition("=")[2]) for word in words if word.startswith("every=")), 1)
            cases, began = cases[::step], time.monotonic()
            answers = pool.Pool(Path(top)).run(cases)
            print(report.summary(answers))
            print(f"{time.monotonic() - began:.0f} s by the clock")
        print(report.written(answers))
    return int(any(answer.found for answer in answers))


def work(top: Path) -> None:
    """A worker: cases come as lines, answers go as lines; what commands print goes elsewhere."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    cases = os.fdopen(os.dup(0), encoding="utf-8")
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


if __name__ == "__main__":
    if sys.argv[1:2] == ["--worker"]:
        work(Path(sys.argv[2]))
    else:
        sys.exit(main(sys.argv[1:]))
