"""A resumed run is the same run: from any step, by any spelling of its path, from any folder, with its files moved."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml  # type: ignore[import-untyped]
from PIL import Image

from gancli.config import paths
from gancli.metrics.results import protocol_id
from gancli.store import checkpoint
from gancli.store.rundir import RunDir
from tests.conftest import TINY, Gan
from tests.test_train import rows, same_run

# G's weights shrink to nothing at its first step, so that it draws the same for every latent.
DYING = [*TINY, "optimizer=sgd", "optimizer.G.lr=1", "+optimizer.G.weight_decay=0.99", "optimizer.D.lr=1e-3"]
DYING += ["observers.alarms.every=2", "observers.alarms.patience=2", "observers.metrics.every=1"]


def ended(run: str) -> tuple[Any, ...]:
    about = RunDir(Path(run)).about()
    return about["status"], about["reason"].replace(f"{run}/", ""), about["step"]


def test_a_run_that_goes_on_from_its_start_ends_as_one_left_alone(gan: Gan) -> None:
    """An alarm compares samples with those of before the first step, which were seen then only."""
    alone = gan("train", *DYING, "steps=9", "run_dir=alone")
    assert alone.code == 2
    assert "G has generated the same sample for every latent since step" in alone.err
    assert gan("train", *DYING, "steps=0", "run_dir=begun").code == 0
    assert checkpoint.read(RunDir(Path("begun")).checkpoint(0))["observers"] == {}
    assert gan("train", "resume=begun", "steps=9").code == 2
    assert ended("begun") == ended("alone")
    assert rows(Path("begun")) == rows(Path("alone"))


def test_a_run_of_before_a_key_existed_goes_on(gan: Gan, tmp_path: Path) -> None:
    """Frozen blocks, rules for auto keys and new observers came later; a missing value is what it was then."""
    assert gan("train", *TINY, "steps=1", "run_dir=old").code == 0
    file = tmp_path / "old" / "config.yaml"
    config = yaml.safe_load(file.read_text())
    for name in ("G", "D"):
        assert config["model"][name].pop("freeze") == 0
    for key in ("copies", "final"):
        del config["observers"][key]
    del config["auto_rules"]
    file.write_text(yaml.safe_dump(config, sort_keys=False))
    refused = gan("train", "resume=old", "steps=2", "model.D.freeze=1")
    assert refused.code == 2
    assert "(model.D.freeze: 0 -> 1)" in refused.err
    assert gan("train", "resume=old", "steps=2").code == 0


SPELLINGS = ["./r/", "r/../r", "{here}/r", "link/", "link/checkpoints/00000002.pt"]


def test_the_spelling_of_a_path_changes_nothing(gan: Gan, tmp_path: Path) -> None:
    """Neither the bits nor which checkpoint is best by scores on the way."""
    keys = [*TINY, "observers.scores.every=2", "observers.scores.metrics=[swd]", "observers.scores.n=4"]
    keys += ["observers.checkpoints.keep=1", "dataset.size=[1,16,16]", "observers.metrics.every=1"]
    assert gan("train", *keys, "steps=4", "run_dir=alone").code == 0
    assert gan("train", *keys, "steps=2", "run_dir=half").code == 0
    for spelling in SPELLINGS:
        shutil.rmtree(tmp_path / "r", ignore_errors=True)
        (tmp_path / "link").unlink(missing_ok=True)
        shutil.copytree("half", "r")
        (tmp_path / "link").symlink_to("r")
        assert gan("train", f"resume={spelling.format(here=tmp_path)}", "steps=4").code == 0, spelling
        same_run(tmp_path / "alone", tmp_path / "r", 4)
        kept = [{p.name for p in (tmp_path / run / "eval").iterdir()} for run in ("alone", "r")]
        assert kept[0] == kept[1]
        assert list(RunDir(tmp_path / "r").listing()) == list(RunDir(tmp_path / "alone").listing())
        states = [checkpoint.read(RunDir(tmp_path / run).checkpoint(4)) for run in ("alone", "r")]
        assert [states[0][k] for k in ("config", "data", "observers")] == [
            states[1][k] for k in ("config", "data", "observers")
        ]


def test_where_things_lie_is_no_part_of_a_protocol() -> None:
    first = {"n_fake": 4, "fake": {"run": "a", "seed": 0, "step": 3}, "reference": {"file": "x.npz", "sha256": "0"}}
    other = {"n_fake": 4, "fake": {"run": "/b/a", "seed": 0, "step": 5}, "reference": {"file": "/x.npz", "sha256": "0"}}
    assert protocol_id(first) == protocol_id(other)
    assert protocol_id(first) != protocol_id(first | {"fake": {"run": "a", "seed": 1, "step": 3}})
    assert protocol_id(first) != protocol_id(first | {"reference": {"file": "x.npz", "sha256": "1"}})
    assert protocol_id(first | {"reference": None}) == protocol_id(other | {"reference": None})


def pictures(folder: Path, seed: int = 0) -> None:
    folder.mkdir(parents=True)
    draw = np.random.default_rng(seed)
    for k in range(6):
        Image.fromarray(draw.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{k}.png")


FOLDER = ["model=dcgan", "model.ch=4", "dataset=folder", "batch_size=4", "observers.progress=null", "device=cpu"]
FOLDER += ["observers.report=null", "observers.grid=null"]


def test_a_run_goes_on_from_another_folder_and_with_its_data_moved(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "Café & co")
    assert gan("train", *FOLDER, "dataset.root=Café & co", "steps=1", "run_dir=r").code == 0
    config = yaml.safe_load((tmp_path / "r" / "config.yaml").read_text(encoding="utf-8"))
    assert (config["dataset"]["root"], config["run_dir"], config["resume"]) == (str(tmp_path / "Café & co"), None, None)
    assert f"dataset.root='{tmp_path / 'Café & co'}'" in RunDir(tmp_path / "r").about()["overrides"]
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gan("train", f"resume={tmp_path / 'r'}", "steps=2").code == 0
    shutil.move(tmp_path / "Café & co", tmp_path / "moved")
    gone = gan("train", "resume=../r", "steps=3")
    assert (gone.code, "Café & co" in gone.err) == (2, True)
    pictures(tmp_path / "other", seed=1)
    changed = gan("train", "resume=../r", "steps=3", "dataset.root=../other")
    assert changed.code == 2
    assert "the data set has changed since the training" in changed.err
    assert gan("train", "resume=../r", "steps=3", "dataset.root=../moved").code == 0
    assert gan("train", "resume=../r", "steps=4").code == 0


def test_a_folder_of_settings_may_say_where_data_lie_and_may_be_moved(
    gan: Gan, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures(tmp_path / "data")
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    text = "# @package _global_\nbatch_size: 3\ndataset:\n  root: data\n"
    (tmp_path / "conf" / "experiment" / "mine.yaml").write_text(text, encoding="utf-8")
    assert gan("train", "--config-dir", "conf", *FOLDER[:-2], "experiment=mine", "steps=1", "run_dir=r").code == 0
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    assert gan("train", "resume=../r", "steps=2").code == 0
    shutil.move(tmp_path / "conf", tmp_path / "elsewhere" / "settings")
    answer = gan("train", "resume=../r", "steps=3")
    assert answer.code == 2
    assert answer.err == (
        f"gan: resume=../r: the run's --config-dir {tmp_path / 'conf'} does not exist: type its new place,"
        " --config-dir PATH\n"
    )
    assert gan("train", "resume=../r", "steps=3", "--config-dir", "settings").code == 0
    assert gan("train", "resume=../r", "steps=4").code == 0


def test_recorded_paths_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "w.pth").write_bytes(b"")
    options = ["metrics.ppl.lpips=w.pth", "metrics.kid.subset_size=3", "extractor.weights=nowhere.pth"]
    scores = {"weights": "~/w.pth", "options": options}
    before = {"dataset": {"_target_": "x.folder", "root": "./a/../b"}, "observers": {"scores": scores}, "init": "run"}
    found = paths.with_whole(before)
    assert found["dataset"]["root"] == f"{tmp_path}/a/../b"
    assert found["observers"]["scores"]["weights"] == str(Path("~/w.pth").expanduser())
    assert found["observers"]["scores"]["options"] == [f"metrics.ppl.lpips='{tmp_path}/w.pth'", *options[1:]]
    assert paths.with_whole(found) == found
    assert found["init"] == f"{tmp_path}/run"
    assert before["dataset"]["root"] == "./a/../b"  # which is another's
    assert paths.with_whole({"dataset": {"_target_": "gancli.data.hub.hub", "root": "a/b"}})["dataset"]["root"] == "a/b"
    assert paths.with_whole({"observers": {"scores": None}, "dataset": {"root": None}})["dataset"]["root"] is None


def test_what_a_run_started_from_is_recorded_by_its_own_path(gan: Gan, tmp_path: Path) -> None:
    assert gan("train", *TINY, "steps=1").code == 0
    (first,) = (tmp_path / "outputs" / "train").iterdir()
    assert gan("train", *TINY, "steps=1", "init=last", "run_dir=second").code == 0
    assert json.loads((tmp_path / "second" / "run.json").read_text(encoding="utf-8"))["init"] == str(first)


def test_a_name_of_other_bytes_is_kept_or_answered(gan: Gan, tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    for words in ([f"note={name}", "run_dir=r"], [f"run_dir={name}"]):
        answer = gan("train", *TINY, "steps=1", *words)
        assert "unexpected error" not in answer.err
        assert answer.code == 0 or (answer.code, answer.err.count("\n"), list(tmp_path.iterdir())) == (2, 1, [])
