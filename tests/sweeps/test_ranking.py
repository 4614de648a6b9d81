"""What a sweep may be ranked by, who shares a place, and what is said of it."""

from __future__ import annotations

import csv
import json
import os
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from gancli.config.compose import compose
from gancli.errors import ConfigError, RunError
from gancli.store.files import csv_text
from gancli.sweeps import ranking, record
from gancli.sweeps.objective import refuse_rank
from gancli.sweeps.record import Sweep
from gancli.sweeps.results import Findings, Result
from tests.conftest import TINY, Gan
from tests.sweeps.test_parts import evaluate, sweep_of

POINTS = ["model=mlp", "model.hidden=[8,8]", "dataset=ring", "dataset.n=50", "batch_size=8", "device=cpu"]


def of_fids(path: Path, fids: dict[str, list[float]], key: str = "optimizer") -> Sweep:
    choices = [{key: word, "seed": str(k)} for word, values in fids.items() for k, _ in enumerate(values)]
    sweep = sweep_of(path, choices)
    for number, value in enumerate([v for values in fids.values() for v in values], 1):
        evaluate(sweep, number, 4, fid=value)
    return sweep


def test_ties_share_a_place(tmp_path: Path) -> None:
    """307.8 ± 3.8 and 307.8 ± 3.9; each is compared with the first of a place, so that ties do not chain."""
    fids = {"a": [10.0, 12.0], "b": [12.0, 12.2], "c": [12.5, 12.9], "d": [13.0], "e": [13.0004], "f": [13.01]}
    made = ranking.rank(of_fids(tmp_path / "s", fids), None, "auto")
    assert [(g.choices["optimizer"], g.place) for g in made.groups] == [
        ("a", 1), ("b", 1), ("c", 3), ("d", 4), ("e", 4), ("f", 6),
    ]  # fmt: skip
    assert made.legend == (
        "mean ± standard deviation over seeds; means that differ by at most the larger deviation share a place"
    )


def test_one_seed_each_has_no_spread(tmp_path: Path) -> None:
    made = ranking.rank(of_fids(tmp_path / "s", {"a": [1.0], "b": [1.00001], "c": [2.0]}), None, "auto")
    assert [g.place for g in made.groups] == [1, 1, 3]
    assert made.legend == "values that are equal in the digits shown share a place"


@pytest.mark.parametrize("key", ["loss", "penalty", "game", "model", "experiment", "penalty.r1.weight"])
def test_losses_of_different_objectives_are_not_ranked(tmp_path: Path, key: str) -> None:
    sweep = sweep_of(tmp_path / "s", [{key: "a"}, {key: "b"}])
    for number, job in enumerate(sweep.jobs, 1):
        sweep.run_of(job).metrics.write_text(json.dumps({"step": 1, "loss_G": 1.0 / number}), encoding="utf-8")
    made = ranking.rank(sweep, None, "auto")
    assert made.how == f"not ranked: losses are not comparable between values of {key}"
    assert [g.place for g in made.groups] == [None, None]
    assert made.caveats() == [
        f"to rank by sample quality: gan eval run={sweep.path} 'metrics=[fid]', then gan train -m"
        f" resume_sweep={sweep.path} rank=fid"
    ]
    assert not ranking.write_plot(sweep, made)
    asked = ranking.rank(sweep, "loss_G", "auto")
    assert [g.place for g in asked.groups] == [1, 2]
    assert asked.caveats()[0].endswith(f"does not measure sample quality; it is not comparable between values of {key}")
    evaluate(sweep, 1, 4, fid=3.0)
    assert ranking.rank(sweep, None, "auto").name == "fid"


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (
            ["rank=fid"],
            "rank=fid: training does not compute it, gan eval does. Let the jobs",
        ),
        (
            ["rank=fd_clip"],
            "'observers.scores.metrics=[fid]' observers.scores.extractor=clip), or leave rank out and afterwards",
        ),
        (["rank=recall", "observers.scores.every=1", "observers.scores.metrics=[swd]"], "metrics=[prc]"),
        (["rank=los_G"], "rank=los_G: no run has such a result; did you mean loss_G?"),
        (["rank=loss_G", "observers.metrics=null"], "rank=loss_G: observers.metrics=null writes no such column"),
        (
            ["search=optuna"],
            "search=optuna: losses are not comparable between values of loss, and nothing else is measured",
        ),
    ],
)
def test_a_rank_that_no_job_will_have_is_refused_first(gan: Gan, words: list[str], said: str) -> None:
    answer = gan("train", "-m", *TINY, "steps=1", "loss=ns,hinge", *words)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert list(Path().iterdir()) == []


def test_train_evaluate_rank_again(gan: Gan) -> None:
    assert gan("train", "-m", *POINTS, "observers=none", "steps=1", "loss=ns,hinge", "sweep_dir=a sweep").code == 0
    assert gan("train", "-m", "resume_sweep=a sweep", "rank=modes").code == 2
    assert gan("eval", "run=a sweep", "metrics=[modes]", "n=50", "run_dir=evaluated").code == 0
    assert len(json.loads(Path("evaluated/comparison.json").read_text(encoding="utf-8"))) == 2
    answer = gan("train", "-m", "resume_sweep=a sweep", "rank=modes")
    assert answer.code == 0
    assert "ranked by modes, higher is better" in answer.out
    with Path("a sweep/ranking.csv").open(encoding="utf-8") as file:
        assert {row["mean modes"] for row in csv.DictReader(file)} == {"0"}


def test_scores_while_training_can_be_ranked_by() -> None:
    every = "observers.scores.every=5"
    jobs = [compose("train", [every, f"observers.scores.metrics={names}"]) for names in ("[swd,kid]", "[swd]")]
    for rank in ("swd", "swd_16"):
        refuse_rank(rank, ["loss"], True, jobs, {})
    with pytest.raises(ConfigError, match=r"rank=kid: training does not compute it"):
        refuse_rank("kid", ["loss"], False, jobs, {})
    other = [compose("train", [every, "observers.scores.metrics=[fid]", "observers.scores.extractor=clip"])]
    refuse_rank("fd_clip", [], False, other, {})
    refuse_rank(None, ["loss"], True, jobs, {})
    refuse_rank("fid", ["loss"], False, jobs, {1: Findings((Result(3, 0, "k", {"fid": 2.0}),), {})})


def test_choices_with_signs_of_others(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Brackets are no markup, dollars no formula of matplotlib's, and an equals sign none of a spreadsheet's."""
    words = ["[kid]", "[/x]", "$a_$^", ":smile:", "=1+1", "名前" * 30]
    sweep = of_fids(tmp_path / "s", {word: [float(k)] for k, word in enumerate(words)}, "note")
    made = ranking.rank(sweep, None, "auto")
    ranking.print_table(made)
    out = capsys.readouterr().out
    assert all(word in out for word in words[:5])
    assert ranking.write_plot(sweep, made)
    with Image.open(sweep.path / "ranking.png") as picture:
        picture.load()
    ranking.write_csv(sweep, made)
    rows = list(csv.DictReader((sweep.path / "ranking.csv").read_text(encoding="utf-8").splitlines()))
    assert [row["note"] for row in rows] == [*words[:4], "'=1+1", words[5]]


def test_numbers_are_no_formulas() -> None:
    assert csv_text([["-1e-4", "@x", Path("+a"), -3, None]]) == "-1e-4,'@x,'+a,-3,\n"


VALUES: list[Any] = ["x", None, True, -1, 10**400, float("nan"), [], {}, "\ud800", "a\0b", "../x", [["x"]], 3.5]


def test_a_damaged_sweep_is_said_in_one_line(tmp_path: Path) -> None:
    """Every value of sweep.json as every other kind: the sweep, or an error that names the file."""
    sweep = of_fids(tmp_path / "s", {"a": [1.0, 2.0], "b": [3.0]})
    sweep.save()
    whole = json.loads((sweep.path / "sweep.json").read_text(encoding="utf-8"))
    damaged = [whole | {key: value} for key in whole for value in VALUES]
    damaged += [whole | {"jobs": [job | {key: value}]} for job in whole["jobs"][:1] for key in job for value in VALUES]
    damaged += [whole | {"jobs": [whole["jobs"][0] | {"choices": {"k": value}}]} for value in VALUES]
    damaged += [
        [],
        3,
        None,
        {},
        whole | {"jobs": [whole["jobs"][0], whole["jobs"][1] | {"run": whole["jobs"][0]["run"]}]},
    ]
    right, said = 0, list[str]()
    for about in damaged:
        (sweep.path / "sweep.json").write_text(json.dumps(about), encoding="utf-8")
        try:
            found = record.load(sweep.path)
        except RunError as error:
            said.append(str(error))
            continue
        right += 1
        found.take_stock()
        ranking.write_csv(found, ranking.rank(found, None, "auto"))
        found.save()
    assert all(line.startswith(f"{sweep.path / 'sweep.json'} is damaged: ") and "\n" not in line for line in said)
    assert 10 < right < len(damaged) / 2


@pytest.mark.parametrize("kind", ["pipe", "bytes", "kinds", "folder"])
def test_a_damaged_state_counts_for_nothing(tmp_path: Path, kind: str) -> None:
    sweep = of_fids(tmp_path / "s", {"a": [1.0]})
    file = record.state_file(sweep.path, 1)
    file.parent.mkdir()
    if kind == "pipe":
        os.mkfifo(file)
    elif kind == "folder":
        file.mkdir()
    else:
        file.write_bytes(b"\xff{" if kind == "bytes" else b'{"status": 3, "seconds": 1e999, "reason": [], "pid": -1}')
    assert record.read_state(sweep.path, 1) == {}
    sweep.take_stock()
    assert (sweep.jobs[0].status, sweep.jobs[0].seconds) == ("finished", 2.0)


def test_results_that_cannot_be_read_count_for_nothing(tmp_path: Path) -> None:
    sweep = of_fids(tmp_path / "s", {"a": [1.0], "b": [2.0]})
    first, second = (sweep.run_of(job) for job in sweep.jobs)
    for file in first.results.iterdir():
        file.unlink()
    os.mkfifo(first.results / "00000009-x.json")
    (first.results / "00000008-x.json").write_text('{"step": 1e999, "protocol": {"fake": {}}}', encoding="utf-8")
    second.metrics.write_bytes(b'\xff\n{"loss_G": 1' + b"0" * 400 + b'}\n[]\n{"loss_G": NaN}\n{"loss_G": 2}\n{"lo')
    made = ranking.rank(sweep, None, "auto")
    assert [(g.choices["optimizer"], g.place) for g in made.groups] == [("b", 1), ("a", None)]
    assert made.found[2].trained == {"loss_G": 2.0}
