"""Checkpoints, exports and runs of an earlier form are refused in one line by every verb that reads them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from gancli.store import checkpoint
from tests.conftest import TINY, Gan

EARLIER = {"name": "random", "shape": [1, 8, 8], "classes": ["0"], "fingerprint": "f", "images": 24}
SAID = "was made by an earlier version of gan, which this one cannot read: train it again"


@pytest.fixture
def earlier(gan: Gan) -> Path:
    """A run whose checkpoint tells of its data as it was done before data had columns."""
    assert gan("train", *TINY, "steps=1", "run_dir=run").code == 0
    path = Path("run/checkpoints/00000001.pt")
    state = torch.load(path, weights_only=True) | {"data": EARLIER}
    checkpoint.save(path.parent, state, {})
    return path


COMMANDS = {
    "resume": ["train", "resume=run", "steps=2"],
    "init": ["train", *TINY, "init=run", "run_dir=new"],
    "sample": ["sample", "run=run", "n=2"],
    "interpolate": ["interpolate", "run=run"],
    "eval": ["eval", "run=run", "n=2"],
}


@pytest.mark.parametrize("command", COMMANDS.values(), ids=COMMANDS)
def test_every_verb_refuses_it(gan: Gan, earlier: Path, command: list[str]) -> None:
    answer = gan(*command)
    assert answer.code == 2
    assert answer.err.splitlines()[-1].endswith(f"{earlier} {SAID}")
    assert not Path("new").exists()


def test_a_resume_sees_it_before_keys_that_came_later(gan: Gan, earlier: Path) -> None:
    about = json.loads(Path("run/run.json").read_text(encoding="utf-8"))
    Path("run/run.json").write_text(json.dumps(about | {"data": EARLIER}), encoding="utf-8")
    config = Path("run/config.yaml")
    config.write_text(config.read_text(encoding="utf-8").replace("jitter: 0", "older: 0"), encoding="utf-8")
    answer = gan("train", "resume=run", "steps=2")
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"gan: run {SAID}")


def test_an_export_of_it_is_refused(gan: Gan) -> None:
    from safetensors import safe_open
    from safetensors.torch import save_file

    assert gan("train", *TINY, "steps=1", "run_dir=run").code == 0
    assert gan("sample", "run=run", "format=safetensors", "run_dir=out").code == 0
    path = "out/generator.safetensors"
    with safe_open(path, framework="pt") as file:
        told = json.loads(file.metadata()["gan"])
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    assert told["data"]["fields"]["x"]["kind"] == "image"
    save_file(tensors, path, {"gan": json.dumps(told | {"data": EARLIER})})
    answer = gan("sample", f"run={path}", "n=1")
    assert (answer.code, answer.err.splitlines()[-1]) == (2, f"gan: {path} {SAID}")
