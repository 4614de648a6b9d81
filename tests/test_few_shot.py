"""The recipe for few images: how a run ends, and how its copies are found."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from gancli.compute.dist import World
from gancli.errors import MetricError, RunError
from gancli.store.rundir import RunDir
from gancli.verbs import ending, measuring
from gancli.verbs.session import Session
from tests.conftest import TINY, Gan
from tests.few import FEW, QUIET, Pooled, mixed, pooled, results, rows, status  # noqa: F401

# -- the end of a run --------------------------------------------------------------------------------------------------


def test_the_best_checkpoint_is_evaluated_as_eval_does(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    mixed(Path("mixed"))
    answer = gan("train", *FEW, *QUIET, "steps=4", "run_dir=r")
    assert answer.code == 0, answer.err
    assert status("r") == ("finished", None)
    assert pooled.made == 1  # scores, copies and the final evaluation share it
    scored = {each["step"]: each["kid"] for each in results("r") if "precision" not in each}
    best = min(scored, key=lambda step: (scored[step], step))
    words = ["checkpoint=best", "metrics=[kid,prc,memorisation]", "n=12", "metrics.kid.subset_size=100", "device=cpu"]
    (final,) = [each for each in results("r") if "precision" in each]
    assert final["step"] == best
    assert gan("eval", "run=r", *words, "run_dir=e").code == 0
    told = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    apart = ("protocol", "reference_was_cached")  # the protocol has the time of day
    assert {k: v for k, v in told.items() if k not in apart} == {k: v for k, v in final.items() if k not in apart}
    sheet = Path(f"r/eval/{best:08d}-memorisation.png")
    assert sheet.read_bytes() == Path("e/memorisation.png").read_bytes()
    low, high = final["intervals"]["kid"]
    lines = answer.err.splitlines()
    at = lines.index(f"best checkpoint, by kid: step {best}; 12 samples against 12 real images, inception")
    copies = f"{round(12 * final['memorisation'])} of 12 samples (of new images 0.05 would be)"
    copies += "; too many" if final["memorised"] else ""
    table = [tuple(line.split(maxsplit=1)) for line in lines[at + 1 : at + 6]]
    assert table == [
        ("kid", f"{final['kid']:.4f}  ({low:.4f} to {high:.4f})"),
        ("kid_std", f"{final['kid_std']:.4f}"),
        ("precision", f"{final['precision']:.4f}"),
        ("recall", f"{final['recall']:.4f}"),
        ("copies", copies),
    ]
    assert f"  sheet: {sheet}" in lines
    assert "next: gan sample run=r checkpoint=best" in lines
    assert lines[-1].startswith("finished at step 4")


def test_a_run_that_max_time_ends_is_evaluated_too(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    mixed(Path("mixed"))
    answer = gan("train", *FEW, *QUIET, "max_time=0", "steps=90", "run_dir=r")
    assert answer.code == 0, answer.err
    assert status("r") == ("stopped", "max_time=0 minutes have passed")
    assert sum("precision" in each for each in results("r")) == 1


def test_a_kill_at_the_end_is_made_good_by_resuming(
    gan: Gan,
    pooled: type[Pooled],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed(Path("mixed"))

    def killed(session: Session) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("gancli.verbs.train.evaluate_best", killed)
        assert gan("train", *FEW, *QUIET, "steps=2", "run_dir=r").code != 0
    assert status("r") == ("stopped", "interrupted")
    assert not any("precision" in each for each in results("r"))
    answer = gan("train", "resume=r")
    assert answer.code == 0, answer.err
    assert status("r") == ("finished", None)
    assert sum("precision" in each for each in results("r")) == 1
    again = gan("train", "resume=r")
    assert (again.code, "the run is at step 2 of 2; continue with steps=N" in again.err) == (2, True)


def test_an_evaluation_that_fails_says_that_the_run_is_complete(
    gan: Gan,
    pooled: type[Pooled],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed(Path("mixed"))

    def failing(*given: object) -> None:
        raise MetricError("metrics=kid is not a finite number")

    with monkeypatch.context() as patch:
        patch.setattr("gancli.verbs.measuring.evaluate", failing)
        answer = gan("train", *FEW, *QUIET, "steps=2", "run_dir=r")
    assert answer.code == 2
    assert "the run is complete, but not its evaluation by observers.final: metrics=kid is not" in answer.err
    assert status("r")[0] == "failed"
    assert gan("train", "resume=r", "observers.final.metrics=[kid]").code == 0
    assert status("r") == ("finished", None)


def test_metrics_that_eval_would_refuse_are_refused_before_the_first_step(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    mixed(Path("mixed"))
    for words, told in (
        (["observers.final.metrics=[kid,class_accuracy]"], "metrics=class_accuracy compares samples with their"),
        (["observers.final.metrics=[kid,fld]"], "needs held-out images, and this run was trained on all of its data"),
        (["observers.final.metrics=[kid,l1]"], "metrics=l1 needs a game with input images"),
        (
            ["observers.final.metrics=[dc]", 'observers.final.options=["metrics.dc.neighborhood=12"]'],
            "neighborhood=12 needs at least 13 real images, got 12",
        ),
        (["observers.final.n=1000000000000000"], "observers.final.n=1000000000000000: must be at most"),
        (["observers.final.n=1000000000"], "observers.final.n=1000000000"),
        (['observers.final.options=["n=5"]'], "give observers.final.n=5 instead"),
        (['observers.final.options=["extractor=random"]'], "give observers.final.extractor=random instead"),
        (['observers.final.options=["checkpoint=last"]'], "give other keys to gan eval, after the training"),
    ):
        answer = gan("train", *FEW, *QUIET, *words, "steps=2", "run_dir=r")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert "observers.final" in answer.err
        assert told in answer.err, answer.err
        assert not Path("r").exists()


def test_results_that_cannot_be_stored_end_all_ranks_alike(
    gan: Gan,
    pooled: type[Pooled],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed(Path("mixed"))

    def full(run: RunDir, values: Any) -> None:
        raise RunError("the disk is full")

    kept: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(measuring, "results", SimpleNamespace(finished=measuring.results.finished, keep=full))
        patch.setattr(World, "from_first", lambda world, work: kept.append(work()) or kept[-1])
        answer = gan("train", *FEW, *QUIET, "steps=2", "run_dir=r")
    assert answer.code == 2
    assert "the disk is full" in answer.err
    assert isinstance(kept[-1], RunError)  # what the other ranks get, and raise, too


def test_the_table_of_a_result_without_intervals_or_pictures(tmp_path: Path) -> None:
    protocol = {"n_fake": 50, "n_real": 0, "memorisation": {"quantile": 0.1}}
    result = {"memorisation_clip": 0.5, "memorised": True, "warnings": ["rough"], "protocol": protocol}
    assert ending.table(RunDir(tmp_path / "a b"), 1000, result, []) == [
        "best checkpoint, by fid: step 1,000; 50 samples, no extractor",
        "  copies  25 of 50 samples (of new images 0.1 would be); too many",
        "  note: rough",
        f"next: gan sample run='{tmp_path / 'a b'}' checkpoint=best",
    ]


# -- copies ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def planted(monkeypatch: pytest.MonkeyPatch) -> None:
    """Samples that the check for copies sees are the first training images."""
    from gancli.metrics.images import from_source
    from gancli.train.streams import data_set

    def training(sampler: Any, n: int, seed: int) -> Any:
        return from_source(data_set(sampler.config["dataset"], sampler.config["game"]), n, seed)

    monkeypatch.setattr("gancli.observers.copies.from_sampler", training)


OFF = [
    "observers.final.metrics=null",
    "observers.scores.every=null",
    "observers.copies.every=2",
    "observers.copies.n=12",
]


def test_a_run_that_copies_is_stopped_without_an_error(gan: Gan, pooled: type[Pooled], planted: None) -> None:  # noqa: F811
    mixed(Path("mixed"))
    answer = gan("train", *FEW, *QUIET, "observers.copies.n=12", "observers.scores.n=10", "steps=20", "run_dir=r")
    assert answer.code == 0, answer.err
    assert rows("r", "copies") == {2: 1.0, 4: 1.0, 6: 1.0}
    alarm = "12 of 12 samples copy training images, above the limit of 0.2; of new images 0.05 would"
    assert rows("r", "alarm") == {2: "copies"}
    assert f"alarm at step 2: {alarm}" in answer.err
    state, reason = status("r")
    assert state == "stopped"
    assert reason is not None
    assert reason.startswith("12 of 12 samples copy training images, above observers.copies.limit=0.2 for 3 checks")
    assert Path("r/checkpoints/00000006.pt").exists()
    assert sum("precision" in each for each in results("r")) == 1  # the end comes all the same
    assert "stopped at step 6 of 20: 12 of 12 samples" in answer.err


@pytest.mark.parametrize("which", ["mirrored", "twice"])
def test_copies_of_mirrored_images_and_of_images_there_twice_are_copies(
    gan: Gan,
    pooled: type[Pooled],  # noqa: F811
    planted: None,
    monkeypatch: pytest.MonkeyPatch,
    which: str,
) -> None:
    from gancli.metrics.images import mirrored
    from gancli.observers import copies

    folder = mixed(Path("mixed"))
    if which == "mirrored":
        shown = copies.from_sampler  # type: ignore[attr-defined]
        monkeypatch.setattr(copies, "from_sampler", lambda *words: mirrored(shown(*words)))
    else:
        for path in list(folder.iterdir()):
            (folder / f"{path.stem}-again.png").write_bytes(path.read_bytes())
    assert gan("train", *FEW, *QUIET, *OFF, "steps=2", "run_dir=r").code == 0
    assert rows("r", "copies") == {2: 1.0}


def test_the_count_of_checks_goes_on_when_resumed(gan: Gan, pooled: type[Pooled], planted: None) -> None:  # noqa: F811
    mixed(Path("mixed"))
    assert gan("train", *FEW, *QUIET, *OFF, "steps=4", "run_dir=r").code == 0
    assert status("r") == ("finished", None)
    answer = gan("train", "resume=r", "steps=20")
    assert answer.code == 0, answer.err
    assert rows("r", "copies") == {2: 1.0, 4: 1.0, 6: 1.0}
    assert status("r")[0] == "stopped"
    on = gan("train", "resume=r", "observers.copies.every=null", "steps=8")
    assert (on.code, status("r")) == (0, ("finished", None)), on.err


def test_the_share_is_that_of_eval(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    """Of noise a share near the quantile: with a quantile of 0.9 most samples are below it."""
    mixed(Path("mixed"))
    keys = [*OFF, "observers.copies.quantile=0.9", "observers.copies.limit=0.99", "observers.copies.n=30"]
    assert gan("train", *FEW, *QUIET, *keys, "steps=2", "run_dir=r").code == 0
    words = ["metrics=[memorisation]", "metrics.memorisation.quantile=0.9", "n=30", "device=cpu"]
    assert gan("eval", "run=r", *words, "run_dir=e").code == 0
    found = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert found["memorisation"] == rows("r", "copies")[2]
    assert 0 < found["memorisation"] <= 1


def test_samples_of_the_scores_are_used_again(
    gan: Gan,
    pooled: type[Pooled],  # noqa: F811
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mixed(Path("mixed"))
    keys = ["observers.final.metrics=null", "observers.copies.quantile=0.9", "observers.copies.limit=0.99", "steps=2"]
    assert (
        gan("train", *FEW, *QUIET, *keys, "observers.copies.n=12", "run_dir=alone", "observers.scores.n=10").code == 0
    )
    monkeypatch.setattr("gancli.observers.copies.from_sampler", None)
    assert gan("train", *FEW, *QUIET, *keys, "run_dir=shared").code == 0
    assert rows("shared", "copies") == rows("alone", "copies")


def test_checks_and_evaluation_leave_the_run_as_it_is(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811

    mixed(Path("mixed"))
    assert gan("train", *FEW, *QUIET, "observers.copies.n=12", "steps=4", "run_dir=watched").code == 0
    assert gan("train", *FEW, "observers=none", "steps=4", "run_dir=alone").code == 0
    watched, alone = (
        torch.load(f"{run}/checkpoints/00000004.pt", weights_only=True)["game"] for run in ("watched", "alone")
    )
    assert watched.keys() == alone.keys()
    assert all(np.array_equal(watched[name], alone[name]) for name in watched)


def test_copies_are_of_images_drawn_from_latents(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    few = gan("train", *TINY, "dataset.n=9", "observers.copies.every=2", "steps=2", "run_dir=r")
    assert (few.code, "observers.copies needs at least 10 training images, got 9" in few.err) == (2, True)
    pairs = ["model=pix2pix", "dataset=random", "dataset.size=[3,32,32]", "model.ch=4", "device=cpu", "steps=1"]
    made = gan("train", *pairs, "observers.copies.every=2", "run_dir=r")
    assert made.code == 2
    assert "observers.copies" in made.err
    idle = gan("train", *TINY, "observers.copies.n=12", "observers.final.n=12", "steps=0", "run_dir=r")
    assert "observers.copies.n has no effect with observers.copies.every=null" in idle.err
    assert "observers.final.n has no effect with observers.final.metrics=null" in idle.err
