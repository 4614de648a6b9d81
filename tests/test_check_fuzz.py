"""Thousands of generated command lines and hundreds of damaged directories: 0 or 2, one line, soon, nothing touched.

Each runs in a worker process (`tests.fuzz`) that a watchdog may end. All that is wrong is listed at the end, by kind of
fault, with a command that replays it.
"""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

import pytest

from tests.fuzz import generate, hostile
from tests.fuzz.case import Answer, Case
from tests.fuzz.lines import VERBS
from tests.fuzz.pool import Pool
from tests.fuzz.report import summary, written

pytestmark = pytest.mark.slow


def test_no_command_line_and_no_damaged_directory_breaks_it(tmp_path: Path) -> None:
    """One test, since pytest's own workers would each make what several tests share."""
    answers = Pool(tmp_path).run([*generate.command_lines(), *hostile.damaged(generate.DAMAGED)])
    print(summary(answers))
    wrong = [answer for answer in answers if answer.found]
    assert not wrong, f"{len(wrong)} of {len(answers)} cases\n{written(wrong)}"
    _reach_what_they_are_for(answers)


def _reach_what_they_are_for(answers: list[Answer]) -> None:
    """Enough lines are right, every verb runs, and every group of cases and kind of damage is there."""
    plain = [answer for answer in answers if answer.case.group in generate.PLAIN]
    ends = Counter(answer.code for answer in plain)
    assert len(plain) >= 1000
    assert ends[0] >= 0.28 * len(plain), ends
    assert ends[2] >= 0.3 * len(plain), ends
    assert sum(answer.trained for answer in plain) >= 0.08 * len(plain)
    verbs = Counter(answer.case.words[0] for answer in plain if answer.code == 0 and answer.case.words)
    assert min(verbs[verb] for verb in VERBS) >= 20, verbs
    groups = Counter((answer.case.group, answer.code) for answer in answers)
    both = ("numbers", "sweeps", "resumes", "inputs", "targets", "words", "damaged")
    assert min(groups[group, code] for group in both for code in (0, 2)) >= 10, groups
    assert min(groups[group, 2] for group in ("empty", "counts")) >= 30, groups
    damages = [answer.damage for answer in answers if answer.case.base is not None]
    assert len(damages) == generate.DAMAGED
    files = "config.yaml run.json metrics.jsonl log.txt checkpoints/ samples/ eval/ sweep.json .jobs/ ranking.csv .lock"
    for part in (*files.split(), "pipe", "link", "no UTF-8", "huge"):
        assert any(part in damage for damage in damages), part


def test_the_watchdog_ends_and_counts_what_hangs(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    cases = [Case("waits", [str(pipe)], call="wait"), Case("spins", [], call="spin"), Case("dies", [], call="die")]
    answers = Pool(tmp_path, 1).run([*cases, Case("right", ["--version"])], patience=2, idle=2)
    forms = [(answer.case.group, [finding.form for finding in answer.found]) for answer in answers]
    assert forms == [("waits", ["hang"]), ("spins", ["hang"]), ("dies", ["died"]), ("right", [])]


def test_what_is_wrong_is_seen(tmp_path: Path) -> None:
    """Each rule finds the fault it is for, and the world is as it was afterwards."""
    faults = {
        "outside": "open('../outside/victim', 'a').write('x')",
        "of others": "open('foreign/notes.txt', 'a').write('x')",
        "temporary": "import tempfile; tempfile.mkdtemp()",
        "secret": "import os; open('outputs/x', 'w').write(os.environ['SECRET'])",
        "left behind": "open('x', 'w').write('x'); import sys; print('gan: no', file=sys.stderr); code = 2",
        "printed": "import sys; print('x'); print('gan: no', file=sys.stderr); code = 2",
        "lines": "import sys; print('gan: no\\ngan: no', file=sys.stderr); code = 2",
        "words": "import sys; print('gan: [Errno 2] x', file=sys.stderr); code = 2",
        "exit 1": "code = 1",
        "escaped": "1 / 0",
        "warning": "import warnings; warnings.warn('x')",
        "settings": "import torch; torch.set_num_threads(2)",
        "taken": "code = 0",
    }
    cases = [Case(name, [code], call="python", refused=name == "taken") for name, code in faults.items()]
    answers = Pool(tmp_path, 1).run([*cases, Case("right", ["sample", "run=outputs/train/full", "n=1", "device=cpu"])])
    found = {answer.case.group: [finding.form for finding in answer.found] for answer in answers}
    assert found == {name: [name] for name in faults} | {"right": []}
