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
from gancli.nets.layers.noise import Dropout
from gancli.store import export
from tests.conftest import TINY, Gan


@pytest.mark.parametrize("which", ["trained", "labelled"])
def test_safetensors_draw_the_same_images(gan: Gan, request: pytest.FixtureRequest, which: str) -> None:
    run = request.getfixturevalue(which)
    answer = gan("sample", f"run={run}", "format=safetensors", "run_dir=made")
    assert answer.code == 0, answer.err
    assert "verified bit by bit" in answer.out
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


@pytest.fixture(scope="module")
def translators(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Runs of one step: cyclegan and pix2pix, whose U-Net has dropout from 64 pixels on."""
    from gancli.cli import main

    top = tmp_path_factory.mktemp("translators")
    words = ["steps=1", "dataset.n=6", "dataset=random", "model.ch=4", "batch_size=2", "device=cpu", "observers=none"]
    for name, own in {"cyclegan": ["dataset.size=32", "model.blocks=1"], "pix2pix": ["dataset.size=64"]}.items():
        assert main(["train", f"model={name}", *words, *own, f"run_dir={top / name}"]) == 0
    return top


@pytest.fixture
def no_data(monkeypatch: pytest.MonkeyPatch) -> None:
    """The data of a run are not there any more."""

    def gone(*_: object) -> None:
        raise AssertionError("the data are asked for")

    monkeypatch.setattr("gancli.draw.given.Rows.of_run", gone)


def test_an_export_needs_no_data(gan: Gan, translators: Path, no_data: None) -> None:
    assert gan("sample", f"run={translators / 'cyclegan'}", "format=safetensors", "run_dir=made").code == 0


@pytest.mark.parametrize("direction", ["A2B", "B2A"])
def test_an_export_of_a_direction_holds_its_network_alone(gan: Gan, translators: Path, direction: str) -> None:
    run = translators / "cyclegan"
    answer = gan("sample", f"run={run}", "format=safetensors", f"direction={direction}", "run_dir=made")
    assert answer.code == 0, answer.err
    assert f"generator of cyclegan, direction {direction}, at step 1" in answer.out
    path = "made/generator.safetensors"
    with safe_open(path, framework="pt") as file:
        assert {name.split(".")[1] for name in file.keys()} == {f"G_{direction}"}  # noqa: SIM118  # no dict
    ours, theirs = reading.load(str(run), direction=direction), reading.load(path)
    assert theirs.direction == direction
    assert torch.equal(theirs.sample([(0, 2), (0, 1)]), ours.sample([(0, 2), (0, 1)]))
    assert gan("sample", f"run={path}", "n=3", "run_dir=sheet").code == 0  # without what the other network would add
    assert gan("sample", f"run={path}", "n=3", "format=npz", "run_dir=array").code == 0
    with np.load("array/samples.npz") as made:
        assert "back" not in made
    other = {"A2B": "B2A", "B2A": "A2B"}[direction]
    for verb in ("sample", "eval"):
        answer = gan(verb, f"run={path}", f"direction={other}")
        assert answer.code == 2
        assert answer.err == (
            f"gan: {path} holds the networks of direction {direction} only: type direction={direction}, or leave it"
            " out\n"
        )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "direction", "step"), [("cyclegan", "B2A", 4), ("pix2pix", "A2B", 64)])
def test_onnx_of_a_direction_takes_any_number_and_size(
    gan: Gan, translators: Path, no_data: None, name: str, direction: str, step: int
) -> None:
    answer = gan("sample", f"run={translators / name}", "format=onnx", f"direction={direction}", "run_dir=made")
    assert answer.code == 0, answer.err
    column = {"cyclegan": "B_x", "pix2pix": "A"}[name]
    session = onnxruntime.InferenceSession("made/generator.onnx", providers=["CPUExecutionProvider"])
    (taken,), (given,) = session.get_inputs(), session.get_outputs()
    assert (taken.name, given.name) == (column, "images")
    assert taken.shape == given.shape == ["batch", 3, f"{step}*height", f"{step}*width"]
    found = reading.load(str(translators / name), direction=direction)
    net = found.nets[found.game.drawing(direction)[0]]
    for layer in net.modules():
        if isinstance(layer, Dropout):
            layer.always = False
    for rows, height, width in ((1, 64, 64), (2, 128, 64), (5, 64, 192)):
        x = torch.rand(rows, 3, height, width) * 2 - 1
        (made,) = session.run(None, {column: x.numpy()})
        with torch.no_grad():
            np.testing.assert_allclose(made, net(x).numpy(), atol=export.CLOSE)
    said = "the ONNX file omits dropout, this run's noise"
    assert (said in answer.out) == (name == "pix2pix")


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
    refused("g.safetensors", nets=["D"])
    refused("h.safetensors", direction=3)
    refused("i.safetensors", direction="A2B")
    Path("e.safetensors").write_bytes(b"\xff" * 7 + b"\x7f" + b"{}")
    assert gan("sample", "run=e.safetensors").code == 2
    Path("f.safetensors").write_bytes(good.read_bytes()[:-10])
    assert gan("sample", "run=f.safetensors").code == 2
    assert not Path("canary").exists()
