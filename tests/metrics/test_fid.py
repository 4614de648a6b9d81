"""Each metric against values worked out by hand, on features that are given."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from torch import Tensor

from gancli.config.build import check, make
from gancli.config.compose import conf_dir
from gancli.errors import ConfigError, MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Fid, Is, Kid, Prc
from gancli.metrics.metric import Metric
from tests.metrics.arithmetic import FLOAT32, singular


def gaussian(n: int, dim: int, seed: int) -> Tensor:
    """float32 [n, dim]."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def test_fid_of_a_set_with_itself_and_with_its_shift(tiny: Extractor) -> None:
    features = gaussian(50, 3, seed=0)
    deviation = float(features.double().T.cov().trace()) ** 0.5
    assert 0 <= Fid().score(features, features, tiny)["fid"] <= singular(deviation, 3)
    # Equal covariances leave the distance of the means: 1 + 4 + 4.
    assert Fid().score(features + torch.tensor([1.0, 2.0, 2.0]), features, tiny)["fid"] == pytest.approx(9, rel=1e-5)
    # Twice the deviation: trace of S + 4 S - 2 · 2 S, and the means' distance.
    covariance, mean = features.double().T.cov(), features.double().mean(0)
    expected = covariance.trace() + mean.square().sum()
    assert Fid().score(2 * features, features, tiny)["fid"] == pytest.approx(expected.item(), rel=1e-5)


def test_kid_is_the_unbiased_estimate(tiny: Extractor) -> None:
    x, y = gaussian(5, 3, seed=1), gaussian(5, 3, seed=2)

    def k(a: Tensor, b: Tensor) -> float:
        return (float(a @ b) / 3 + 1) ** 3

    within = sum(k(s[i], s[j]) for s in (x, y) for i in range(5) for j in range(5) if i != j) / 20
    across = sum(k(a, b) for a in x for b in y) / 25
    found = Kid(subsets=3, subset_size=5).score(x, y, tiny)
    # Sums of 20 and 25 kernels in float32, which cancel.
    rounding = 25 * FLOAT32 * max(abs(k(a, b)) for s in (x, y) for a in s for b in (*x, *y)) * 3
    assert found["kid"] == pytest.approx(within - 2 * across, abs=rounding)
    assert found["kid_std"] == pytest.approx(0, abs=rounding)
    assert Kid(subsets=9, subset_size=2).score(x, y, tiny)["kid_std"] > 0.01


def test_kid_takes_small_sets_whole(tiny: Extractor) -> None:
    x, y = gaussian(6, 3, seed=3), gaussian(4, 3, seed=4)
    kid = Kid(subsets=20, subset_size=1000)
    assert kid.settings(6, 4) == {"subsets": 20, "subset_size": 4, "kernel": "cubic", "seed": 2020}
    assert kid.settings(5000, 4000)["subset_size"] == 1000
    assert kid.score(x, y, tiny) == Kid(subsets=20, subset_size=4).score(x, y, tiny)
    assert kid.check(tiny, 6, 4) == []  # the subsets of the six still differ
    assert kid.check(tiny, 4, 4) == [
        "kid: each subset is all 4 images, so kid_std is 0; type metrics.kid.subset_size=2 for a meaningful one"
    ]


def test_precision_and_recall_tell_collapse_from_noise(tiny: Extractor) -> None:
    real = gaussian(40, 3, seed=5)
    assert Prc().score(real, real, tiny) == {"precision": 1.0, "recall": 1.0}
    assert Prc().score(real + 100, real, tiny) == {"precision": 0.0, "recall": 0.0}
    collapsed = real[:1] + 1e-3 * gaussian(40, 3, seed=6)
    assert Prc().score(collapsed, real, tiny) == {"precision": 1.0, "recall": pytest.approx(1 / 40)}
    half = torch.cat([real[:20], real[20:] + 100])
    assert Prc().score(half, real, tiny)["precision"] == 0.5


def test_precision_and_recall_by_blocks_are_the_same(tiny: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    fake, real = gaussian(30, 3, seed=7), gaussian(30, 3, seed=8)
    whole = Prc().score(fake, real, tiny)
    assert 0 < whole["precision"] < 1
    monkeypatch.setattr("gancli.metrics.fid._WHOLE", 29)
    assert Prc().score(fake, real, tiny) == whole


def test_inception_score_counts_sure_and_even_classes(tiny: Extractor) -> None:
    sure_and_even = torch.eye(3).repeat(4, 1)
    found = Is(splits=1).score(sure_and_even, torch.empty(0, 3), tiny)
    assert found == {"is": pytest.approx(3), "is_std": 0.0}
    assert Is(splits=1).score(torch.zeros(6, 3), torch.empty(0, 3), tiny)["is"] == pytest.approx(1)
    two = torch.eye(3)[[0, 0, 0, 1]]
    entropy = -(0.75 * math.log(0.75) + 0.25 * math.log(0.25))
    assert Is(splits=1).score(two, torch.empty(0, 3), tiny)["is"] == pytest.approx(math.exp(entropy))


def test_warnings_of_small_sets(tiny: Extractor) -> None:
    tiny.dim, tiny.classes = 2048, 1008
    assert Fid().check(tiny, 2048, 3000) == []
    (text,) = Fid().check(tiny, 3000, 2047)
    assert text.startswith("fid: 2047 images are fewer than the 2048 features")
    assert Is(splits=10).check(tiny, 10080, 0) == []
    (text,) = Is(splits=10).check(tiny, 10079, 0)
    assert text.startswith("is: 1007 images in each split are fewer than the 1008 classes")
    assert Prc().check(tiny, 4, 4) == []


@pytest.mark.parametrize(
    ("metric", "n_fake", "n_real", "text"),
    [
        (Fid(), 1, 9, "metrics=fid needs at least 2 samples and 2 real images, got 1 and 9"),
        (Kid(), 9, 1, "metrics=kid needs at least 2 samples"),
        (Prc(neighborhood=5), 9, 5, "metrics=prc needs at least 6 samples"),
        (Is(splits=10), 9, 0, "metrics.is.splits=10 is more than the 9 images: type at most 9"),
    ],
)
def test_too_few_images(tiny: Extractor, metric: Metric, n_fake: int, n_real: int, text: str) -> None:
    with pytest.raises(MetricError, match=text):
        metric.check(tiny, n_fake, n_real)


@pytest.mark.parametrize(
    ("metric", "key", "value", "least"),
    [(Kid, "subsets", 0, 1), (Kid, "subset_size", 1, 2), (Prc, "neighborhood", 0, 1), (Is, "splits", 0, 1)],
)
def test_values_out_of_range(metric: Any, key: str, value: int, least: int) -> None:
    with pytest.raises(ConfigError, match=rf"metrics\.\w+\.{key}={value}: must be at least {least}"):
        metric(**{key: value})


def test_configuration_builds_the_defaults() -> None:
    expected = {"fid": Fid(), "kid": Kid(), "prc": Prc(), "is": Is()}
    for name, metric in expected.items():
        path: Path = conf_dir() / "metrics" / f"{name}.yaml"
        assert path.read_text(encoding="utf-8").splitlines()[0] == f"# @package metrics.{name}"
        node = OmegaConf.to_container(OmegaConf.load(path))
        assert make(node, f"metrics.{name}") == metric  # type: ignore[arg-type]
        assert metric.name == name
    extractor = OmegaConf.to_container(OmegaConf.load(conf_dir() / "extractor" / "inception.yaml"))
    check(extractor, "extractor")  # type: ignore[arg-type]
    assert extractor == {"_target_": "gancli.metrics.extractor.Inception", "weights": None, "batch_size": None}
