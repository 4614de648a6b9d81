"""All cases of one try, the same every time."""

from __future__ import annotations

import random
from collections.abc import Sequence

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import hostile, lines
from tests.fuzz.case import Case, Line

SEED = 12
# How many of each: 1,200 lines of any kind, and 1,000 that are each after one kind of fault.
PLAIN: dict[str, tuple[st.SearchStrategy[Line], int]] = {
    "train": (lines.right_train(), 180),
    "points": (lines.right_points(), 100),
    "shown": (lines.right_shown(), 120),
    "drawing": (lines.right_drawing(), 180),
    "right sweeps": (lines.RIGHT_SWEEPS, 40),
    "right words": (lines.RIGHT_WORDS, 30),
    "spoilt": (lines.spoilt(), 420),
    "noise": (lines.noise(), 130),
}
HOSTILE: dict[str, tuple[st.SearchStrategy[Case], int]] = {
    "empty": (hostile.empty(), 100),
    "numbers": (st.one_of(*[hostile.numbers()] * 12, hostile.huge_steps()), 260),
    "sweeps": (hostile.sweeps(), 100),
    "resumes": (hostile.resumes(), 130),
    "targets": (hostile.targets(), 110),
}
LISTED: dict[str, tuple[Sequence[Case], int]] = {
    "counts": (hostile.COUNT_CASES, 40),
    "inputs": (hostile.INPUT_CASES, 190),
    "words": (hostile.WORD_CASES, 110),
}
DAMAGED = 500


def command_lines() -> list[Case]:
    """The generated command lines, well mixed, so that slow ones do not stand together."""
    found = []
    for name, (strategy, count) in PLAIN.items():
        found += [Case(name, line) for line in drawn(strategy, count) if serves_nothing(line)]
    for hostiles, count in HOSTILE.values():
        found += drawn(hostiles, count)
    mix = random.Random(SEED)
    for listed, count in LISTED.values():
        found += mix.sample(listed, min(count, len(listed)))
    mix.shuffle(found)
    return found


def drawn(strategy: st.SearchStrategy[lines.T], count: int) -> list[lines.T]:
    """That many examples; hypothesis chooses them, and judges nothing."""
    found: list[lines.T] = []

    @seed(SEED)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(strategy)
    def keep(example: lines.T) -> None:
        found.append(example)

    keep()
    return found[:count]


def serves_nothing(line: Line) -> bool:
    """Whether a line opens no page, which would wait for visitors as it should."""
    return not any(word.lower().lstrip("+").startswith("serve=t") for word in line)
