# ruff: noqa: E501
"""What was found, by kind of fault, each with a command that replays it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence

from tests.fuzz.case import Answer, Finding

KINDS = {
    "1 empty value": "an empty value is taken for a path, a new run or no weights",
    "1 silent": "data left out, ignored or changed without a word",
    "2 files of others": "what the command neither made nor owns is written, altered or deleted",
    "3 strangers": "a stranger's directory takes a secret of the environment or breaks a page",
    "4 another run": "a run goes on as another one",
    "5 damaged or odd files": "no one-line answer to a damaged or odd file",
    "6 absurd numbers": "infinite, NaN, negative or absurd numbers are not refused at once",
    "7 half-done": "output or temporary files of a command that was refused",
    "8 words": "words of Python's or Hydra's, or more than one line",
    "other": "a command line that is answered in another way",
}
OF_GROUP = {
    "empty": "1 empty value", "numbers": "6 absurd numbers", "counts": "6 absurd numbers", "inputs": "5 damaged or odd files",
    "damaged": "5 damaged or odd files", "resumes": "4 another run", "targets": "2 files of others", "words": "8 words",
}  # fmt: skip
OF_FORM = {
    "outside": "2 files of others", "of others": "2 files of others", "secret": "3 strangers", "page": "3 strangers", "silent": "1 silent",
    "left behind": "7 half-done", "printed": "7 half-done", "temporary": "7 half-done", "words": "8 words", "lines": "8 words", "unprintable": "8 words",
}  # fmt: skip


def kind_of(answer: Answer, finding: Finding) -> str:
    """The kind of fault that a finding belongs to."""
    group = answer.case.group
    if finding.form in OF_FORM:
        return OF_FORM[finding.form]
    if group == "resumes" and finding.form != "taken":
        return OF_GROUP["damaged"]
    return OF_GROUP.get(group, "other")


def found(answers: Sequence[Answer]) -> dict[str, list[tuple[Answer, Finding]]]:
    """All findings by kind and form, in an order that does not depend on which worker was faster."""
    sorted_out = defaultdict(list)
    for answer in sorted(answers, key=lambda a: a.case.dump()):
        for finding in answer.found:
            sorted_out[f"{kind_of(answer, finding)}: {finding.form}"].append((answer, finding))
    return dict(sorted(sorted_out.items()))


def written(answers: Sequence[Answer], most: int | None = None) -> str:
    """The findings as text; `most` of each kind and form, or all."""
    rows = []
    for title, each in found(answers).items():
        rows.append(f"== {title} ({len(each)}) · {KINDS[title.partition(': ')[0]]}")
        for answer, finding in each[:most]:
            rows.append(f"- {answer.case.shown()}" + (f"   [{answer.damage}]" if answer.damage else ""))
            rows.append(f"    {finding.detail}\n    {answer.case.replay()}")
        if most is not None and len(each) > most:
            rows.append(f"  and {len(each) - most} more")
    return "\n".join(rows)


def summary(answers: Sequence[Answer]) -> str:
    """Counts: how cases of each group ended, and what was found of each kind."""
    ends = Counter((a.case.group, "ended by the watchdog" if a.code is None else f"exit {a.code}") for a in answers)
    rows = [f"{len(answers)} cases, {sum(a.seconds for a in answers):.0f} s of computing"]
    rows += [f"  {group:14} {end:24} {count}" for (group, end), count in sorted(ends.items())]
    rows += [f"{title}: {len(each)}" for title, each in found(answers).items()]
    return "\n".join(rows)
