"""How long an evaluation will take, by a clock that the test turns."""

from __future__ import annotations

import pytest

from gancli.verbs.time_left import Remaining


class Clock:
    """Seconds, as they are set."""

    def __init__(self) -> None:
        self.at = 100.0

    def __call__(self) -> float:
        return self.at


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().err.splitlines()


def test_the_time_left_is_that_of_all_images(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = Remaining({"real images": 100, "samples": 300}, every=5, now=clock)
    for done in (10, 20, 30):  # ten in two seconds
        report("real images", done, 100)
        clock.at += 2
    assert lines(capsys) == ["real images 10/100", "real images 20/100 · about 1:16 left"]
    clock.at += 9 * 2 - 2  # the next seventy at the same pace, unseen
    report("real images", 100, 100)
    assert lines(capsys) == ["real images 100/100 · about 1:13 left"]  # 300 to come, 90 in 22 seconds
    clock.at += 6
    report("samples", 10, 100)
    clock.at += 6
    report("samples", 20, 100)  # the first of a set is no measure: 290 by the pace before, 280 at 100 in 28 seconds
    assert lines(capsys) == ["samples 10/100 · about 1:11 left", "samples 20/100 · about 1:18 left"]
    report("samples", 100, 100)
    clock.at += 10
    report("samples", 10, 100)  # another threshold: 190 of 300 are left
    assert "about" in lines(capsys)[-1]
    assert report._seen == 110


def test_kept_features_leave_the_samples(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = Remaining({"real images": 100, "samples": 60}, now=clock)
    report("samples", 20, 60)
    clock.at += 10
    report("samples", 30, 60)
    assert lines(capsys) == ["samples 20/60", "samples 30/60 · about 0:30 left"]


def test_other_work_has_a_time_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    clock = Clock()
    report = Remaining(now=clock)
    report("ppl: paths", 16, 100)
    clock.at += 4
    report("ppl: paths", 32, 100)
    clock.at += 1
    report("ppl: paths", 48, 100)  # within five seconds of the last line
    clock.at += 5
    report("classifier", 1, 10)
    assert lines(capsys) == [
        "ppl: paths 16/100",
        "ppl: paths 32/100 · about 0:17 left of this part",
        "classifier 1/10",
    ]
