"""The Parzen window's width is chosen on images that the run was not trained on."""

from __future__ import annotations

import gzip
import json
import math
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.special import logsumexp

from gancli.config.build import make
from gancli.config.compose import compose
from gancli.data.source import Source
from gancli.draw.reading import load
from gancli.metrics.parzen import Parzen
from gancli.metrics.run_metric import left_out
from tests.conftest import TINY, Gan

N, KEPT = 40, 25


def digits(root: Path) -> Path:
    """MNIST's four files with 40 training and 30 test images, each of another grey, no two alike."""
    for name, count, first in (("train", N, 0), ("t10k", 30, 100)):
        images = np.full((count, 28, 28), 0, np.uint8)
        images[:] = (first + np.arange(count))[:, None, None]
        folder = root / "MNIST" / "raw"
        folder.mkdir(parents=True, exist_ok=True)
        for kind, header, content in (
            ("images-idx3", struct.pack(">IIII", 2051, count, 28, 28), images),
            ("labels-idx1", struct.pack(">II", 2049, count), np.arange(count, dtype=np.uint8) % 10),
        ):
            (folder / f"{name}-{kind}-ubyte").write_bytes(header + content.tobytes())
            (folder / f"{name}-{kind}-ubyte.gz").write_bytes(gzip.compress(header + content.tobytes()))
    return root


def run_of(gan: Gan, *keys: str) -> Any:
    tiny = [key for key in TINY if not key.startswith("dataset")]
    made = gan("train", *tiny, *keys, "steps=0", "run_dir=r")
    assert made.code == 0, made.err
    return load("r")


def greys(source: Source, rows: Any) -> set[int]:
    return {int(image.flatten()[0]) for image in source.rows(rows)["x"]}


def test_what_a_limit_keeps_from_a_run_is_none_of_what_it_is_trained_on(gan: Gan, tmp_path: Path) -> None:
    root = digits(tmp_path / "data")
    found = run_of(gan, "dataset=mnist", f"dataset.root={root}", f"dataset.limit={KEPT}")
    trained = make(found.config["dataset"], "dataset")
    whole, rest = left_out(found, trained)
    seen, others = greys(trained, np.arange(KEPT)), greys(whole, rest)
    assert (len(seen), len(others)) == (KEPT, N - KEPT)
    assert not seen & others
    assert seen | others == set(range(N))


def test_data_drawn_by_seed_are_limited_by_their_count(gan: Gan) -> None:
    found = run_of(gan, "dataset=random", "dataset.size=[1,8,8]", "dataset.n=30", "dataset.limit=11")
    trained = make(found.config["dataset"], "dataset")
    whole, rest = left_out(found, trained)
    assert rest.tolist() == list(range(11, 30))
    assert whole.rows(np.arange(11))["x"].equal(trained.rows(np.arange(11))["x"])


def by_hand(points: Any, samples: Any, sigma: float) -> Any:
    """The log of the mean of Gaussians, float64, by differences."""
    squares = ((points[:, None] - samples[None]) ** 2).sum(2)
    constant = math.log(len(samples)) + samples.shape[1] * math.log(sigma * math.sqrt(2 * math.pi))
    return logsumexp(-squares / (2 * sigma**2), axis=1) - constant


def test_the_width_is_chosen_on_what_the_run_has_not_seen(gan: Gan, tmp_path: Path) -> None:
    root = digits(tmp_path / "data")
    generator = run_of(gan, "dataset=mnist", f"dataset.root={root}", f"dataset.limit={KEPT}")
    answer = gan("eval", "run=r", "metrics=[parzen]", "metrics.parzen.sigmas=4", "n=16", "run_dir=e")
    assert answer.code == 0, answer.err
    told = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert told["sigma_chosen_on"] == {"images": 15, "which": "training split, kept from the run by dataset.limit"}
    assert told["warnings"] == [
        "parzen: σ was chosen on 15 images instead of n_valid=1,000",
        "parzen: evaluated on 30 test images instead of n_test=10,000",
    ]
    unseen = sorted(set(range(N)) - greys(make(generator.config["dataset"], "dataset"), np.arange(KEPT)))
    samples = np.concatenate(list(generator.samples(16, 0))).reshape(16, -1) / 255
    valid, test = (np.repeat(np.array(g)[:, None] / 255, 784, 1) for g in (unseen, range(100, 130)))
    for sigma in np.logspace(-1, 0, 4):
        # float32: |p|² + |s|² - 2 p·s of numbers up to 784, over 2 σ²; some ten roundings of each.
        error = 784 * 10 * 2**-24 / (2 * sigma**2)
        assert told["valid"][f"{sigma:.3f}"] == pytest.approx(by_hand(valid, samples, sigma).mean(), abs=error)
    values = by_hand(test, samples, told["sigma"])
    assert told["parzen"] == pytest.approx(values.mean(), abs=784 * 10 * 2**-24 / (2 * told["sigma"] ** 2))
    assert told["parzen_error"] == pytest.approx(values.std(ddof=1) / math.sqrt(30), rel=1e-3)


def test_a_width_chosen_on_images_that_the_run_has_seen_is_said(gan: Gan, tmp_path: Path) -> None:
    run_of(gan, "dataset=mnist", f"dataset.root={digits(tmp_path / 'data')}")
    answer = gan("eval", "run=r", "metrics=[parzen]", "metrics.parzen.n_valid=7", "n=4", "run_dir=e")
    assert answer.code == 0, answer.err
    assert answer.out.count("note: parzen: σ was chosen on training images") == 1
    told = json.loads(Path("e/results.json").read_text(encoding="utf-8"))
    assert told["sigma_chosen_on"] == {"images": 7, "which": "images that the run was trained on"}


@pytest.mark.parametrize("split", ["test"])
def test_a_run_on_the_test_images_is_not_judged_by_them(gan: Gan, tmp_path: Path, split: str) -> None:
    run_of(gan, "dataset=mnist", f"dataset.root={digits(tmp_path / 'data')}", f"dataset.split={split}")
    answer = gan("eval", "run=r", "metrics=[parzen]", "n=4", "run_dir=e")
    assert answer.code == 2
    assert "which the run was trained on (dataset.split=test): train with dataset.split=train" in answer.err
    assert not Path("e").exists()


def test_the_released_protocol() -> None:
    config = compose("train", ["experiment=gan_mnist_parzen"])
    assert (config["dataset"]["limit"], config["dataset"]["split"]) == (50_000, "train")
    assert Parzen().n_valid == 1000
