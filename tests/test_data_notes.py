"""What a data set leaves out is said where it is used, and kept with the run."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from PIL import Image

from tests.conftest import Gan

TINY = ["model=dcgan", "model.ch=4", "batch_size=2", "observers=none", "device=cpu", "steps=0"]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes, one of them of a name that is no UTF-8, and a file that is not read."""
    for k, name in enumerate((os.fsdecode(b"caf\xe9"), "tea")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for i in range(2):
            Image.new("L", (16, 16), 50 * k + i).save(tmp_path / "photos" / name / f"{i}.png")
    (tmp_path / "photos" / "tea" / "raw.cr3").write_bytes(b"x")
    return tmp_path / "photos"


def test_a_training_says_it_and_keeps_it(gan: Gan, photos: Path) -> None:
    answer = gan("train", *TINY, "dataset=folder", "dataset.root=photos", "dataset.limit=9", "run_dir=run")
    assert answer.code == 0, answer.err
    told = ["left out: 1 .cr3", "dataset.limit=9: there are only 4, all are used"]
    lines = answer.err.splitlines()
    assert [line for line in lines if line in told] == told
    about = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    assert about["notes"][:2] == told
    assert about["data"]["fields"]["y"]["names"] == [r"caf\xe9", "tea"]
    assert all(line in Path("run/log.txt").read_text(encoding="utf-8") for line in told)


def test_a_class_of_another_name_is_trained_and_drawn(gan: Gan, photos: Path) -> None:
    words = ["model=sngan", "model.ch=4", "model.conditioning=projection", "dataset.size=[3,16,16]", *TINY[2:]]
    answer = gan("train", *words, "dataset=folder", f"dataset.root={photos}", "run_dir=run")
    assert answer.code == 0, answer.err
    assert gan("train", "resume=run", "steps=1").code == 0
    answer = gan("sample", "run=run", r"classes=caf\xe9", "n=1", "standing_stats=0", "run_dir=drawn")
    assert answer.code == 0, answer.err
    assert json.loads(Path("drawn/sample.json").read_text(encoding="utf-8"))["classes"] == [0]


def test_an_evaluation_of_folders_says_it(gan: Gan, photos: Path) -> None:
    answer = gan("eval", "input=photos", "reference=photos", "metrics=[swd]", "n=4", "metrics.swd.patches=4")
    assert "left out: 1 .cr3" in answer.out + answer.err
