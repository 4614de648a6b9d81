"""One thing to try, as plain values that go to a worker and into a command that replays it."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict, dataclass, field
from typing import Any

Line = list[str]


@dataclass(frozen=True)
class Case:
    """Words for `gan` (or `python -m gancli.report`, or a run for `gancli.load`), and what is known of their end.

    group: what it is about. refused: must exit with 2. named: where it exits with 0, one of these is said (any case).
    base, seed: the run or sweep that is damaged before, and what draws the damage.
    """

    group: str
    words: Line
    call: str = "gan"
    refused: bool = False
    named: list[str] = field(default_factory=list)
    base: str | None = None
    seed: int = 0

    def dump(self) -> str:
        """As one line of ASCII; names that are no UTF-8 survive it."""
        return json.dumps(asdict(self))

    @staticmethod
    def load(text: str) -> Case:
        """What `dump` gave."""
        return Case(**json.loads(text))

    def shown(self) -> str:
        """For people, cut where it is long."""
        words = " ".join(repr(w)[1:-1] if not w.isprintable() else w for w in self.words)
        start = {"report": "python -m gancli.report ", "load": "gancli.load "}.get(self.call, "gan ")
        return start + (words if len(words) < 300 else words[:200] + " ... " + words[-90:])

    def replay(self) -> str:
        """A command that tries it again, alone."""
        plain = {k: v for k, v in asdict(self).items() if v != Case.__dataclass_fields__[k].default and v != []}
        return f"python -m tests.fuzz {shlex.quote(json.dumps(plain))}"


@dataclass(frozen=True)
class Finding:
    """What is wrong with the way a case ended. form: in a word or two; detail: what was seen."""

    form: str
    detail: str


@dataclass(frozen=True)
class Answer:
    """How a case ended: exit code (None: the watchdog ended it), CPU seconds, what was damaged, what is wrong."""

    case: Case
    code: int | None
    seconds: float
    damage: str
    found: list[Finding]
    trained: bool = False

    def dump(self) -> str:
        """As one line of ASCII, without the case."""
        kept = {k: v for k, v in asdict(self).items() if k != "case"}
        return json.dumps(kept)

    @staticmethod
    def load(case: Case, text: str) -> Answer:
        """What `dump` gave."""
        values: dict[str, Any] = json.loads(text)
        return Answer(case=case, **{**values, "found": [Finding(**f) for f in values["found"]]})
