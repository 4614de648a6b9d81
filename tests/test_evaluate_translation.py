"""`gan eval` of games that make images of images: held-out rows, directions, controls, and the same while training."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gancli.cli import main
from gancli.data import imagefile
from gancli.metrics.results import numbers
from gancli.store.rundir import RunDir
from tests.conftest import Gan

SMALL = ["dataset.size=32", "dataset.limit=40", "device=cpu", "observers.progress=null", "observers.report=null"]
PAIRS = ["train", "model=pix2pix", "model.ch=2", "model.D.layers=1", *SMALL]
CYCLE = ["train", "model=cyclegan", "model.ch=2", "model.blocks=0", "model.layers=1", *SMALL]
FEW = ["metrics.swd.patches=4", "metrics.swd.projections=4"]
SCORED = [f"observers.scores.options={json.dumps(FEW)}", "observers.scores.every=1"]
SCORED += ["observers.scores.metrics=[l1,ssim,swd]", "observers.checkpoints.best=ssim"]


def trained(folder: Path, *words: str) -> Path:
    before = Path.cwd()
    os.chdir(folder)
    try:
        assert main([*words, "run_dir=r"]) == 0
    finally:
        os.chdir(before)
    return folder / "r"


@pytest.fixture(scope="module")
def paired(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A pix2pix of one step, evaluated on the way."""
    return trained(tmp_path_factory.mktemp("pix2pix"), *PAIRS, *SCORED, "steps=1")


@pytest.fixture(scope="module")
def cycled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CycleGAN of one step."""
    return trained(tmp_path_factory.mktemp("cyclegan"), *CYCLE, "steps=1")


def result(folder: Path, name: str = "results") -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    return found


def test_all_held_out_rows_beside_their_controls(gan: Gan, paired: Path, tmp_path: Path) -> None:
    said = gan("eval", f"run={paired}", "metrics=[l1,psnr,ssim,swd]", *FEW, "controls=true", "run_dir=e", "device=cpu")
    assert said.code == 0, said.err
    assert "r at step 1, A2B: 200 samples against 200 real images, no extractor" in said.out
    found = result(tmp_path / "e")
    names = {f"{word}{end}" for word in ("l1", "psnr", "ssim") for end in ("", "_copy", "_mean", "_nearest")}
    assert set(found["intervals"]) == names
    assert names | {"swd", "swd_copy"} <= set(found)
    assert "swd_mean" not in found
    told = found["protocol"]
    assert (told["fake"]["split"], told["fake"]["direction"]) == ("test", "A2B")
    assert (told["reference"]["column"], told["reference"]["split"]) == ("B", "test")
    assert all(low <= found[name] <= high for name, (low, high) in found["intervals"].items())
    more = gan("eval", f"run={paired}", "metrics=[l1]", "n=201", "device=cpu")
    assert (more.code, "type n=200 or less" in more.err) == (2, True)


def test_scores_on_the_way_are_those_of_the_command(gan: Gan, paired: Path, tmp_path: Path) -> None:
    kept = {path.name: json.loads(path.read_text(encoding="utf-8")) for path in (paired / "eval").glob("*.json")}
    on_the_way = next(r for r in kept.values() if r["step"] == 1 and "l1" in r and "l1_copy" not in r)
    said = gan("eval", f"run={paired}", "metrics=[l1,ssim,swd]", *FEW, "run_dir=e", "device=cpu")
    assert said.code == 0, said.err
    found = result(tmp_path / "e")
    assert found["protocol_id"] == on_the_way["protocol_id"]
    assert {k: found[k] for k in ("l1", "ssim", "swd")} == {k: on_the_way[k] for k in ("l1", "ssim", "swd")}
    values = {r["step"]: r["ssim"] for r in kept.values() if "l1_copy" not in r}
    assert len(values) == 2
    run = RunDir(paired)
    assert (run.best_by(), run.checkpoint("best").stem) == ("ssim", f"{max(values, key=lambda s: values[s]):08d}")


def test_each_direction_against_its_own_domain(gan: Gan, cycled: Path, tmp_path: Path) -> None:
    words = ["metrics=[swd,l1,cycle,class_accuracy]", "metrics.class_accuracy.images=64", *FEW, "controls=true"]
    said = gan("eval", f"run={cycled}", *words, "direction=all", "n=40", "run_dir=e", "device=cpu")
    assert said.code == 0, said.err
    assert "r at step 1, A2B: 40 samples against 200 real images" in said.out
    assert "r at step 1, B2A: 40 samples against 200 real images" in said.out
    ways = {way: result(tmp_path / "e", f"results-{way}") for way in ("A2B", "B2A")}
    assert {way: r["protocol"]["reference"]["column"] for way, r in ways.items()} == {"A2B": "B.x", "B2A": "A.x"}
    for found in ways.values():
        assert found["cycle_copy"] == 0.0
        assert {"l1_copy", "l1_mean", "swd_copy", "class_accuracy_copy"} <= set(found)
        assert "controls: training rows are not paired, so there is no _nearest" in found["warnings"]
    assert ways["A2B"]["l1_copy"] == ways["B2A"]["l1_copy"]
    one = gan("eval", f"run={cycled}", "metrics=[cycle]", "direction=B2A", "n=40", "run_dir=one", "device=cpu")
    assert one.code == 0, one.err
    assert result(tmp_path / "one")["cycle"] == ways["B2A"]["cycle"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["metrics=[cycle]"], "metrics=cycle compares inputs with their cycle reconstructions, and this game"),
        (["metrics=[cas]"], "metrics=cas needs samples conditioned on a class"),
        (["metrics=[l1]", "direction=B2A"], "direction=B2A: this game has no such direction"),
        (["metrics=[ppl]"], "latent"),
        (["metrics=[l1]", "truncation=0.5"], "truncation=0.5: this game has no latents"),
        (["metrics=[swd]", "truncation=[null,1.0]"], "truncation=1: this game has no latents"),
        (["metrics=[swd]", "n_real=201"], "n_real=201 is more than the 200 images of emoji_pairs"),
        (["metrics=[lpips]"], "downloads none: type metrics.lpips.weights=FILE"),
        (["metrics=[fcn]"], "which is not downloaded: type metrics.fcn.weights=FILE"),
    ],
)
def test_what_a_translation_has_not_is_said_in_a_line(gan: Gan, paired: Path, words: list[str], said: str) -> None:
    answer = gan("eval", f"run={paired}", *words, "device=cpu")
    assert (answer.code, answer.err.strip().count("gan: ")) == (2, 1)
    assert said in answer.err


def test_what_noise_has_not_is_said_in_a_line(gan: Gan, trained: Path, tmp_path: Path) -> None:
    for words, said in [
        (["metrics=[l1]"], "metrics=l1 needs a game with input images, and this one has none"),
        (["metrics=[swd]", "controls=true"], "controls=true: these samples have no input"),
        (["metrics=[swd]", "direction=all"], "direction=all: this game has no named directions"),
    ]:
        answer = gan("eval", f"run={trained}", *words, "device=cpu")
        assert (answer.code, said in answer.err) == (2, True), answer.err
    (tmp_path / "images").mkdir()
    answer = gan("eval", "input=images", "reference=images", "metrics=[l1]")
    assert (answer.code, "metrics=l1 needs a run's inputs: give run= instead of input=" in answer.err) == (
        2,
        True,
    )


def test_scores_that_a_run_cannot_have_leave_nothing(gan: Gan, tmp_path: Path) -> None:
    every = ["observers.scores.every=1", "observers.scores.metrics=[cycle]", "steps=1"]
    answer = gan(*PAIRS, *every)
    assert (answer.code, "this game translates in one direction" in answer.err) == (2, True)
    noise = ["train", "model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]", "device=cpu"]
    answer = gan(*noise, *every)
    assert (answer.code, "cycle needs a game with input images, and this one has none" in answer.err) == (
        2,
        True,
    )
    assert not (tmp_path / "outputs").exists()


def images(folder: Path, first: int) -> None:
    for number, path in enumerate([folder / s / d / f"{k}" for s in ("train", "val") for d in "AB" for k in range(2)]):
        imagefile.write(
            path.parent, path.name, np.random.default_rng(first + number).integers(0, 256, (3, 32, 32), "u1")
        )


def test_data_may_lie_elsewhere(gan: Gan, tmp_path: Path) -> None:
    images(tmp_path / "p1", 0)
    images(tmp_path / "p2", 0)
    for k in range(2):  # other held-out targets
        shutil.copy(tmp_path / f"p2/val/A/{k}.png", tmp_path / f"p2/val/B/{k}.png")
    trained(tmp_path, *PAIRS, "dataset=pairs", "dataset.root=p1", "observers=none", "batch_size=2", "steps=0")
    words = ["eval", "run=r", "metrics=[l1]", "device=cpu"]
    assert gan(*words, "run_dir=one").code == 0
    assert gan(*words, "run_dir=two", "dataset.root=p2").code == 0
    assert result(tmp_path / "one")["l1"] != result(tmp_path / "two")["l1"]
    (tmp_path / "p1").rename(tmp_path / "p3")
    assert gan(*words).code == 2
    assert gan(*words, "run_dir=three", "dataset.root=p3").code == 0
    assert result(tmp_path / "three")["l1"] == result(tmp_path / "one")["l1"]
    drawn = ["sample", "run=r", "device=cpu"]
    assert gan(*drawn).code == 2
    assert gan(*drawn, "dataset.root=p3", "run_dir=s").code == 0
    for word, said in (
        ("dataset.root_B=p3", "dataset.root_B=p3: the data of r (pairs) have no such key: leave it out"),
        ("dataset.root=", "dataset.root= is empty"),
    ):
        answer = gan(*drawn, word)
        assert (answer.code, said in answer.err) == (2, True), answer.err


def test_what_says_nothing_of_data_is_refused(gan: Gan, trained: Path) -> None:
    for words, said in (
        ([], "need no folder: leave it out"),
        (["format=safetensors"], "leave dataset.root out"),
        (["input=a.png"], "dataset.root= and input="),
    ):
        answer = gan("sample", f"run={trained}", "dataset.root=x", *words)
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert said in answer.err


def test_domains_of_two_folders_may_lie_elsewhere(gan: Gan, tmp_path: Path) -> None:
    images(tmp_path / "p", 0)
    words = ["dataset=unpaired", "dataset.root=p/train/A", "dataset.root_B=p/train/B", "observers=none"]
    trained(tmp_path, *CYCLE, *words, "batch_size=2", "steps=0")
    (tmp_path / "p").rename(tmp_path / "q")
    there = ["dataset.root=q/train/A", "dataset.root_B=q/train/B"]
    words = ["eval", "run=r", "metrics=[cycle]", "device=cpu"]
    assert gan(*words, there[0]).code == 2
    assert gan(*words, *there, "run_dir=e").code == 0


def test_a_run_trained_on_val_has_no_held_out_rows(gan: Gan, tmp_path: Path) -> None:
    images(tmp_path / "p", 0)
    words = ["dataset=pairs", "dataset.root=p", "dataset.split=val", "observers=none", "steps=0", "dataset.limit=1"]
    trained(tmp_path, *PAIRS, *words, "batch_size=1")
    answer = gan("eval", "run=r", "metrics=[l1]", "device=cpu", "run_dir=e")
    assert answer.code == 0, answer.err
    assert "this run's data set has no held-out rows" in answer.err
    assert result(tmp_path / "e")["protocol"]["fake"]["split"] == "val"


def test_directions_are_of_one_run(gan: Gan, paired: Path, cycled: Path) -> None:
    answer = gan("eval", f"run=[{paired},{cycled}]", "metrics=[cycle]", "direction=all")
    assert (answer.code, "direction=all compares the directions of one run" in answer.err) == (2, True)


@pytest.mark.slow
def test_two_ranks_find_what_one_finds(gan: Gan, paired: Path, tmp_path: Path) -> None:
    words = ["eval", f"run={paired}", "metrics=[l1,ssim,class_accuracy]", "metrics.class_accuracy.images=64"]
    words += ["controls=true", "device=cpu"]
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", "-m", "gancli"]
    env = os.environ | {"GLOO_SOCKET_IFNAME": "lo", "PYTHONPATH": str(Path(__file__).parent.parent)}
    said = subprocess.run([*launch, *words, "run_dir=two"], cwd=tmp_path, env=env, capture_output=True, text=True)
    assert said.returncode == 0, said.stderr
    assert gan(*words, "run_dir=one").code == 0
    one, two = (result(tmp_path / name) for name in ("one", "two"))
    assert numbers(one) == numbers(two)
    assert one["intervals"] == two["intervals"]
    assert one["protocol_id"] == two["protocol_id"]
