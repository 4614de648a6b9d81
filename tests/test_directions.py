"""Directions of styles: the leading eigenvectors of the weights, and paths along them that pass the plain sample."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from gancli.draw import reading
from gancli.draw.directions import factorised
from gancli.serve.service import Edit, Service
from gancli.verbs import editing
from tests import styled
from tests.conftest import Gan


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("styled")
    return {kind: styled.train(folder, kind) for kind in ("stylegan", "stylegan2")}


def last(said: str) -> Path:
    return Path(said.strip().rpartition(": ")[2])


def test_directions_are_the_leading_singular_vectors_of_the_stacked_weights(runs: dict[str, Path]) -> None:
    sampler = reading.load(str(runs["stylegan2"]))
    styles = sampler.game.styles()
    assert styles is not None
    weights = styles.weights(sampler.nets)
    found = factorised(weights).numpy()
    names = [name for name, _ in sampler.nets["G"].named_parameters() if name.endswith("style.weight")]
    assert len(names) == 8  # two of 4×4, three each of 8×8 and 16×16, of which the image's share the next one's
    assert len(weights) == len(styles.sides) == 6
    _, values, right = np.linalg.svd(np.concatenate([weight.detach().double().numpy() for weight in weights]))
    assert (np.diff(values) < -1e-3).all()
    for own, known in zip(found, right, strict=True):
        assert abs(own @ known) == pytest.approx(1, abs=1e-9)
        assert own[np.abs(own).argmax()] > 0
    np.testing.assert_allclose(found @ found.T, np.eye(10), atol=1e-12)
    flipped = [weight.double() * -3 for weight in weights]  # neither signs nor a common factor matter
    np.testing.assert_allclose(factorised(flipped).numpy(), found, atol=1e-9)


@pytest.mark.parametrize("kind", ["stylegan", "stylegan2"])
@pytest.mark.parametrize("words", [[], ["truncation=0.6"]])
def test_the_middle_is_the_plain_sample_to_the_bit(
    gan: Gan, runs: dict[str, Path], kind: str, words: list[str]
) -> None:
    keys = [f"run={runs[kind]}", "seed=5", *words]
    answer = gan("interpolate", *keys, "axis=direction2", "rows=3", "frames=5", "strength=2")
    assert answer.code == 0, answer.err
    with Image.open(last(answer.out)) as file:
        page = np.asarray(file)
    plain = gan("sample", *keys, "n=3")
    with Image.open(last(plain.out)) as file:
        grid = np.asarray(file)
    side = 64 + 2
    for k in range(3):
        top, left = 2 + k // 2 * side, 2 + k % 2 * side
        middle = page[2 + k * side : 66 + k * side, 2 + 2 * side : 66 + 2 * side]
        assert np.array_equal(middle, grid[top : top + 64, left : left + 64])
        assert not np.array_equal(middle, page[2 + k * side : 66 + k * side, 2:66])
    about = json.loads(last(answer.out).with_name("interpolate.json").read_text(encoding="utf-8"))
    assert (about["axis"], about["strength"]) == ("direction2", 2.0)
    assert about["layers"] == list(range(4 if kind == "stylegan" else 6))  # those of the size it has grown to


def test_a_row_moves_along_the_direction_in_the_chosen_layers_only(runs: dict[str, Path]) -> None:
    from gancli.config.build import make_as
    from gancli.config.compose import compose
    from gancli.config.settings import InterpolateSettings

    sampler: Any = reading.load(str(runs["stylegan2"])).truncated(0.5)
    keys = ["axis=direction1", "layers=1-2", "strength=4", "rows=2", "frames=3"]
    settings = make_as(InterpolateSettings, compose("interpolate", keys), "")
    made, pairs, _ = editing.inputs(settings, sampler, 1, None, None)
    weights = sampler.game.styles().weights(sampler.nets)
    along = factorised([weights[1], weights[2]])[0].float()
    assert pairs == [(0, 0)] * 3 + [(0, 1)] * 3
    w = made["w"].unflatten(0, (2, 3))
    mean, z = sampler.game.generator.mapping.mean, sampler.inputs([(0, 0), (0, 1)])["z"]
    own = torch.lerp(mean, sampler.nets["G"].mapping(z), 0.5)
    for k, t in enumerate((-4.0, 0.0, 4.0)):
        for layer in range(6):
            wanted = own + t * along if layer in (1, 2) else own
            torch.testing.assert_close(w[:, k, layer], wanted)
    plain = sampler.sample([(0, 0), (0, 1)])
    # Equal but for the kernels that the library chooses by a row's alignment in memory: float32's rounding.
    torch.testing.assert_close(sampler.generate(made, pairs)["x"][1::3], plain, rtol=0, atol=1e-5)


def test_directions_keep_the_class_of_their_row_and_are_animated(gan: Gan, tmp_path: Path) -> None:
    run = styled.train(tmp_path, "stylegan2", "model.conditioning=projection", "dataset.classes=3")
    words = [f"run={run}", "axis=direction1", "rows=2", "frames=3", "format=gif"]
    answer = gan("interpolate", *words, "classes=2")
    assert answer.code == 0, answer.err
    other = gan("interpolate", *words, "classes=1")
    assert last(answer.out).suffix == ".gif"
    assert last(answer.out).read_bytes() != last(other.out).read_bytes()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["axis=direction11"], "w has 10 dimensions: type direction1 to direction10"),
        (["axis=direction0"], "directions are numbered from 1"),
        (["axis=direction"], "directions are numbered from 1"),
        (["axis=direction1", "layers=0-9"], "layers=0-9: choose some of the 6 layers in use, 0-5"),
        (["axis=direction1", "strength=0"], "strength=0 moves nothing"),
        (["axis=direction1", "mode=lerp"], "mode= has no effect with axis=direction1"),
        (["axis=w", "strength=2"], "strength=2.0 moves along a direction: add axis=direction1"),
        (["layers=0"], "layers=0 moves along a direction"),
        (["axis=u"], "direction1, direction2, ..."),
        (["axis=direction1", "classes=1"], "this generator is unconditional"),
    ],
)
def test_what_does_not_apply_is_refused(gan: Gan, runs: dict[str, Path], words: list[str], said: str) -> None:
    answer = gan("interpolate", f"run={runs['stylegan2']}", *words)
    assert answer.code == 2
    assert said in answer.err


def test_generators_without_styles_have_no_directions(gan: Gan, trained: Path) -> None:
    answer = gan("interpolate", f"run={trained}", "axis=direction1")
    assert answer.code == 2
    assert "axis=direction1: run has no styles: train one with model=stylegan2" in answer.err


def test_tools_of_styles_work_with_stylegan2(gan: Gan, runs: dict[str, Path]) -> None:
    run = f"run={runs['stylegan2']}"
    for words in (
        ["sample", "truncation=0.7", "truncation_layers=2", "n=2"],
        ["sample", "mixing=0-1", "n=2"],
        ["interpolate", "axis=w", "rows=1", "frames=3", "truncation=0.5"],
        ["eval", "metrics=[ppl]", "metrics.ppl.definition=stylegan", "metrics.ppl.space=w", "metrics.ppl.crop=false",
         "n=4", "extractor=efficientnet_lite0"],
    ):  # fmt: skip
        answer = gan(words[0], run, *words[1:])
        assert answer.code == 0, (words, answer.err)
    sampler = reading.load(str(runs["stylegan2"])).truncated(0.5)
    assert sampler.inputs([(0, 0)])["psi"].tolist() == [[0.5] * 6]  # all layers
    assert sampler.layered(2).inputs([(0, 0)])["psi"].tolist() == [[0.5] * 2 + [1.0] * 4]


def test_the_page_moves_a_sample_as_the_command_does(gan: Gan, runs: dict[str, Path], trained: Path) -> None:
    service = Service(reading.load(str(runs["stylegan2"])))
    assert service.edits == 5
    assert Service(reading.load(str(trained))).edits == 0
    answer = gan("interpolate", f"run={runs['stylegan2']}", "axis=direction2", "strength=2", "rows=1", "frames=5")
    with Image.open(last(answer.out)) as file:
        page = np.asarray(file)
    for k, step in enumerate((-2.0, -1.0, 0.0, 1.0, 2.0)):
        with Image.open(io.BytesIO(service.edited(Edit((0, 0), (0.0, step, 0.0, 0.0, 0.0))))) as image:
            drawn = np.asarray(image).repeat(4, 0).repeat(4, 1)
        assert np.array_equal(drawn, page[2:66, 2 + 66 * k : 66 + 66 * k])
    both = service.edited(Edit((0, 0), (1.5, 2.0), 0.7))
    assert both != service.edited(Edit((0, 0), (0.0, 2.0), 0.7))
