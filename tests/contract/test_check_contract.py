"""The contract's slow part: two ranks, and every verb, for every model and game that has a file in conf/."""

from __future__ import annotations

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from gancli.data.fields import Image
from gancli.draw import reading
from gancli.draw.sampling import Sampler
from gancli.serve.service import FRAMES, Service, SheetRequest, Walk
from gancli.store import export
from tests.conftest import Answer, Gan
from tests.contract.cast import CASTS, engine_of, with_common
from tests.contract.ranks import on_two_ranks
from tests.contract.test_contract import everything
from tests.test_engine import same

pytestmark = pytest.mark.slow

# -- two ranks ---------------------------------------------------------------------------------------------------------


def played(cast: str) -> dict[str, Any]:
    """Three steps in float64: all weights and averages, and what was logged."""
    engine = engine_of([*CASTS[cast], "optimizer=sgd"], double=True)
    logs = [engine.step() for _ in range(3)]
    return {"weights": everything(engine), "logs": logs}


def all_played() -> dict[str, Any]:
    return {cast: played(cast) for cast in CASTS}


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """What each of two ranks came to, by cast."""
    return on_two_ranks(tmp_path_factory.mktemp("ranks"), all_played)


@pytest.mark.parametrize("cast", CASTS)
def test_two_ranks_are_one(ranks: list[dict[str, Any]], cast: str) -> None:
    first, second = (each[cast] for each in ranks)
    same(first, second)
    alone = played(cast)
    torch.testing.assert_close(first["weights"], alone["weights"], rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(alone["logs"], first["logs"], strict=True):
        assert ours.keys() == theirs.keys()
        for name in ours:
            torch.testing.assert_close(theirs[name].double(), ours[name].double(), rtol=1e-5, atol=1e-6)


# -- verbs -------------------------------------------------------------------------------------------------------------

# What a cast refuses, in a line; all else works. A cast that is new stands here or does everything.
FROM_DATA = ("pix2pix", "cyclegan", "cyclegan_unet")  # whose samples are made of images
REFUSED: dict[str, set[str]] = {cast: {"interpolate"} for cast in FROM_DATA}


def outcome(answer: Answer, folder: str) -> bool:
    """Whether a command worked; where it did not, assert that it said so in a line and left nothing."""
    assert "Traceback" not in answer.err
    if answer.code == 0:
        return True
    assert answer.code == 2
    assert [line.startswith("gan: ") for line in answer.err.splitlines()].count(True) == 1
    assert answer.err.splitlines()[-1].startswith("gan: ")
    assert not Path(folder).exists()
    return False


def judged(field: object) -> str:
    """A metric of what this cast draws."""
    return "swd" if isinstance(field, Image) else "divergences"


def draws(gan: Gan, kind: str, *words: str) -> Callable[[], bool]:
    """`gan sample format=KIND`, and what stands in its file or files."""

    def run() -> bool:
        if not outcome(gan("sample", "run=r", f"format={kind}", "n=3", *words, f"run_dir={kind}"), kind):
            return False
        found = reading.load("r")
        expected = found.field.stored(found.sample([(0, k) for k in range(3)]))
        if kind == "npz":
            with np.load("npz/samples.npz") as file:
                array = file[found.field.words.replace(" ", "_")]
            np.testing.assert_array_equal(array, found.field.array(expected))
        else:
            made = [path for path in Path(kind).iterdir() if path.name != "sample.json"]
            assert len(made) == (1 if kind == "grid" else 3)
        return True

    return run


def exports(gan: Gan, kind: str) -> Callable[[], bool]:
    """`gan sample format=KIND`, and samples of what it wrote."""

    def run() -> bool:
        if not outcome(gan("sample", "run=r", f"format={kind}", f"run_dir={kind}"), kind):
            return False
        found, pairs = reading.load("r"), [(5, k) for k in range(4)]
        if kind == "safetensors":
            exported = reading.load("safetensors/generator.safetensors")
            assert torch.equal(exported.sample(pairs), found.sample(pairs))
            return True
        import onnxruntime

        session = onnxruntime.InferenceSession("onnx/generator.onnx", providers=["CPUExecutionProvider"])
        inputs = found.inputs(pairs)
        made, *_ = session.run(None, {name.replace(".", "_"): rows.numpy() for name, rows in inputs.items()})
        if export.noisy(found):  # the file has fixed noise, and norms of all but constant channels amplify rounding
            with torch.no_grad():
                wanted, near = export._Drawing(found, list(inputs)).eval()(*inputs.values()), 0.05
        else:
            wanted, near = found.generate(inputs, pairs)[found.column], 1e-4
        np.testing.assert_allclose(made, wanted.numpy(), atol=near)
        return True

    return run


def evaluates(gan: Gan, found: Sampler, cast: str) -> bool:
    """`gan eval` by a metric that fits: the same numbers as the scores of the training."""
    metric = judged(found.field)
    keys = [f"metrics=[{metric}]", "n=8", "run_dir=judged"]
    keys += [] if cast in FROM_DATA else ["standing_stats=1"]
    if not outcome(gan("eval", "run=r", *keys), "judged"):
        return False
    result = json.loads(Path("judged/results.json").read_text(encoding="utf-8"))
    assert np.isfinite(result[metric])
    scores = [json.loads(path.read_text(encoding="utf-8")) for path in Path("r/eval").iterdir()]
    same_protocol = [each for each in scores if each["protocol_id"] == result["protocol_id"]]
    assert [each[metric] for each in same_protocol if each["step"] == 2] == [result[metric]]
    return True


def interpolates(gan: Gan) -> bool:
    if not outcome(gan("interpolate", "run=r", "rows=2", "frames=3", "run_dir=paths"), "paths"):
        return False
    assert sorted(path.name for path in Path("paths").iterdir()) == ["interpolate.json", "paths.png"]
    return True


def shows(gan: Gan) -> bool:
    """The latent page's service: its sheet is the command's, its path and archive are whole."""
    service = Service(reading.load("r"))
    sheet = service.sheet(SheetRequest(0, 3))
    assert sheet.png == Path("grid/grid.png").read_bytes()
    if service.column is not None:  # else there is no path
        assert len(service.walk(Walk((0, 0), (0, 1), label=service.label((0, 0))))) == FRAMES
    service.archive(SheetRequest(0, 3), Path("archive.zip"), lambda drawn: None)
    with zipfile.ZipFile("archive.zip") as file:
        names = file.namelist()
        assert names == ["sample.json", *(f"{k:06d}.png" for k in range(3))]
        assert gan("sample", "run=r", "format=png", "n=3", "run_dir=files").code == 0
        assert all(file.read(name) == Path("files", name).read_bytes() for name in names[1:])
    return True


def trains(gan: Gan, keys: Sequence[str], cast: str) -> bool:
    """Two steps with scores on the way; without these where they are refused."""
    large = [key.replace("[1,8,8]", "[1,16,16]") for key in keys]  # as swd wants them
    words = ["train", *with_common(large)]
    words += ["steps=2", "observers.progress=null", "observers.grid.n=4", "observers.metrics.every=1", "run_dir=r"]
    scores = ["observers.scores.every=2", "observers.scores.metrics=[swd]", "observers.scores.n=8"]
    scores += [] if cast in FROM_DATA else ["observers.scores.standing_stats=1"]
    scored = outcome(gan(*words, *scores), "r")
    if not scored:
        assert gan(*words).code == 0
    about = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert (about["status"], about["step"]) == ("finished", 2)
    assert "finished" in Path("r/report.html").read_text(encoding="utf-8")
    assert len(list(Path("r/samples").glob("[0-9]*"))) == 2
    return scored


@pytest.mark.parametrize("cast", CASTS)
def test_every_verb_works_or_says_why_not(gan: Gan, cast: str) -> None:
    works = {"scores": trains(gan, CASTS[cast], cast)}
    found = reading.load("r")
    attempts: dict[str, Callable[[], bool]] = {kind: draws(gan, kind) for kind in ("grid", "npz", "png")}
    attempts |= {kind: exports(gan, kind) for kind in ("safetensors", "onnx")}
    attempts |= {"eval": lambda: evaluates(gan, found, cast), "interpolate": lambda: interpolates(gan)}
    attempts["page"] = lambda: shows(gan)
    works |= {name: attempt() for name, attempt in attempts.items()}
    assert {name for name, worked in works.items() if not worked} == REFUSED.get(cast, set())
