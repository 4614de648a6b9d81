"""Singular values of the weights over a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from gancli.errors import ConfigError
from gancli.nets.resnet import Discriminator
from gancli.observers.spectra import Spectra, singular_values, spectra
from tests.conftest import TINY, Gan


@pytest.mark.parametrize("shape", [(5, 40), (40, 5), (6, 6)])
def test_values_are_those_of_the_decomposition(shape: tuple[int, int]) -> None:
    matrix = torch.randn(*shape, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(singular_values(matrix), torch.linalg.svdvals(matrix.double()), rtol=1e-8, atol=1e-10)


def test_every_weight_is_looked_at_and_none_is_changed() -> None:
    D = Discriminator((3, 8, 8), ch=4)
    before = {k: v.clone() for k, v in D.state_dict().items()}
    found = spectra(D, 2)
    assert all(torch.equal(before[k], v) for k, v in D.state_dict().items())
    assert set(found) == {n.removesuffix(".weight") for n, p in D.named_parameters() if p.dim() > 1}
    assert len(found["blocks.1.conv1"]) == 2
    assert len(found["head.logit"]) == 1  # a vector has one
    largest = torch.linalg.matrix_norm(D.blocks[1].conv1.weight.flatten(1), 2).item()
    assert found["blocks.1.conv1"][0] == pytest.approx(largest, rel=1e-5)


def test_rows_and_a_chart_and_the_same_training(gan: Gan) -> None:
    keys = ["observers=spectra", "observers.spectra.every=2", "observers.metrics.every=1"]
    assert gan("train", *TINY, *keys, "steps=4", "run_dir=watched").code == 0
    assert gan("train", *TINY, "steps=4", "run_dir=alone").code == 0
    rows = [json.loads(line) for line in Path("watched/metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    looked = [row for row in rows if "spectra" in row]
    assert [row["step"] for row in looked] == [0, 2, 4]
    assert set(looked[0]["spectra"]) == {"G", "D"}
    assert all(len(v) <= 3 and v == sorted(v, reverse=True) for v in looked[0]["spectra"]["G"].values())
    with Image.open("watched/samples/spectra.png") as picture:
        assert picture.size == (2 * 380, 280)
    a, b = (torch.load(f"{r}/checkpoints/00000004.pt", weights_only=True)["game"] for r in ("watched", "alone"))
    assert all(torch.equal(a[k], b[k]) for k in a)
    with pytest.raises(ConfigError, match="every=0"):
        Spectra(every=0)
