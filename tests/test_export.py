"""The generator as a file for others, and that file as a run."""

from __future__ import annotations

import json
import warnings
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from gancli.draw import reading
from gancli.errors import RunError
from gancli.store import export
from tests.conftest import TINY, Gan


@pytest.mark.parametrize("which", ["trained", "labelled"])
def test_safetensors_draw_the_same_images(gan: Gan, request: pytest.FixtureRequest, which: str) -> None:
    run = request.getfixturevalue(which)
    answer = gan("sample", f"run={run}", "format=safetensors", "run_dir=made")
    assert answer.code == 0, answer.err
    assert "read back bit by bit" in answer.out
    path = Path("made/generator.safetensors")
    ours = next(reading.load(str(run)).samples(5, seed=3))
    theirs = reading.load(str(path))
    assert torch.equal(next(theirs.samples(5, seed=3)), ours)
    assert not theirs.whole
    for words in (["sample", "n=4"], ["interpolate", "rows=2", "frames=3"]):
        assert gan(words[0], f"run={path}", *words[1:]).code == 0
    answer = gan("eval", f"run={path}", "metrics=[linear_probe]")
    assert answer.code == 2
    assert "holds the generator only" in answer.err
    answer = gan("sample", f"run={path}", "ema=false")
    assert answer.code == 2
    assert "ema=true" in answer.err


def test_a_discriminator_with_batch_norm_is_not_missed(gan: Gan) -> None:
    keys = [*TINY, "dataset.size=[1,16,16]", "steps=1", "run_dir=r"]
    assert gan("train", *keys).code == 0
    assert gan("sample", "run=r", "format=safetensors", "run_dir=made").code == 0
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        theirs = reading.load("made/generator.safetensors")
    assert [str(w.message) for w in said] == []
    assert any("running_mean" in name for name in theirs.game.nets["D"].state_dict())
    assert torch.equal(next(theirs.samples(3)), next(reading.load("r").samples(3)))


@pytest.mark.parametrize("which", ["trained", "labelled"])
def test_onnx_draws_the_same_images(gan: Gan, request: pytest.FixtureRequest, which: str) -> None:
    run = request.getfixturevalue(which)
    answer = gan("sample", f"run={run}", "format=onnx", "run_dir=made")
    assert answer.code == 0, answer.err
    assert json.loads(Path("made/sample.json").read_text(encoding="utf-8"))["largest_difference"] <= export.CLOSE
    session = onnxruntime.InferenceSession("made/generator.onnx", providers=["CPUExecutionProvider"])
    found = reading.load(str(run))
    pairs = [(9, k) for k in range(11)]
    inputs = found.inputs(pairs)
    given = {name: rows.numpy() for name, rows in inputs.items()}
    assert [i.name for i in session.get_inputs()] == list(given)
    (images,) = session.run(None, given)
    np.testing.assert_allclose(images, found.generate(inputs)["x"].numpy(), atol=1e-4)


def test_another_file_gets_no_name(gan: Gan, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(export, "_safetensors", lambda found: export.about(found) and b"")
    monkeypatch.setattr(export, "_check_safetensors", lambda found, content: (_ for _ in ()).throw(RunError("differs")))
    answer = gan("sample", f"run={trained}", "format=safetensors", "run_dir=made")
    assert (answer.code, answer.err) == (2, "gan: differs\n")
    assert not Path("made").exists()


def test_a_missing_extra_is_named(gan: Gan, trained: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "onnxscript", None)
    answer = gan("sample", f"run={trained}", "format=onnx")
    assert answer.code == 2
    assert "gancli[export]" in answer.err


def test_hostile_safetensors_are_refused(gan: Gan, trained: Path) -> None:
    assert gan("sample", f"run={trained}", "format=safetensors", "run_dir=made").code == 0
    good = Path("made/generator.safetensors")
    with safe_open(good, framework="pt") as file:
        told = json.loads(file.metadata()["gan"])
    tensors = load_file(good)

    def refused(name: str, **changes: object) -> None:
        save_file(tensors, name, metadata={"gan": json.dumps(told | changes)})
        for verb in ("sample", "interpolate", "eval"):
            answer = gan(verb, f"run={name}")
            assert answer.code == 2, (verb, changes)
            assert answer.err.count("\n") == 1

    config = told["config"]
    model = config["model"]
    refused("a.safetensors", config=config | {"model": model | {"G": {"_target_": "os.mkdir", "path": "canary"}}})
    refused("b.safetensors", config=config | {"model": model | {"G": model["G"] | {"ch": 1 << 22}}})
    refused("c.safetensors", config=None)
    refused("d.safetensors", step="x")
    Path("e.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    assert gan("sample", "run=e.safetensors").code == 2
    Path("f.safetensors").write_bytes(good.read_bytes()[:-10])
    assert gan("sample", "run=f.safetensors").code == 2
    assert not Path("canary").exists()
