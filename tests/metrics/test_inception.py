"""The extractor and the metrics on it, against torch-fidelity's own entry point."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch_fidelity
from torch import Tensor
from torch.utils.data import Dataset

from gancli.errors import ConfigError, MetricError
from gancli.metrics.evaluation import evaluate
from gancli.metrics.extractor import Inception
from gancli.metrics.fid import Fid, Is, Kid, Prc
from gancli.metrics.images import ImageSet, three_channels
from tests.metrics.arithmetic import INCEPTION, frechet, kernel, network


class Images(Dataset[Tensor]):
    """A tensor as torch-fidelity wants it."""

    def __init__(self, images: Tensor):
        self.images = images

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> Tensor:
        return self.images[i]


def noise(n: int, channels: int, seed: int, high: int = 256) -> Tensor:
    """uint8 [n, channels, 8, 8]."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, high, (n, channels, 8, 8), dtype=torch.uint8, generator=generator)


def test_numbers_are_torch_fidelitys(
    inception: Inception, weights_file: Path, image_set: Callable[..., ImageSet], capfd: pytest.CaptureFixture[str]
) -> None:
    fake, real = noise(4, 1, seed=1, high=160), noise(5, 1, seed=2)
    metrics = [Fid(), Kid(subsets=4, subset_size=3), Prc(neighborhood=2), Is(splits=2)]
    before = torch.get_rng_state()
    ours = evaluate(metrics, image_set(fake), image_set(real), inception).values
    assert torch.equal(torch.get_rng_state(), before)
    theirs = torch_fidelity.calculate_metrics(
        input1=Images(fake.repeat(1, 3, 1, 1)),
        input2=Images(real.repeat(1, 3, 1, 1)),
        fid=True,
        kid=True,
        prc=True,
        isc=True,
        feature_extractor="inception-v3-compat",
        feature_extractor_weights_path=str(weights_file),
        kid_subsets=4,
        kid_subset_size=3,
        prc_neighborhood=2,
        isc_splits=2,
        batch_size=8,
        cuda=False,
        save_cpu_ram=True,
        verbose=False,
    )
    names = {
        "fid": "frechet_inception_distance",
        "kid": "kernel_inception_distance_mean",
        "kid_std": "kernel_inception_distance_std",
        "precision": "precision",
        "recall": "recall",
        "is": "inception_score_mean",
        "is_std": "inception_score_std",
    }
    assert list(ours) == list(names)
    features = inception.features(three_channels(torch.cat([fake, real])))
    length, deviation = float(features.norm(dim=1).max()), float(features.double().T.cov().trace()) ** 0.5
    share = network(*INCEPTION)  # two forms of the network, each by kernels of this machine's
    kid, logits = kernel(length, 2048, share), share * float(inception.logits(features).norm(dim=1).max())
    tolerance = {
        "fid": frechet(theirs["frechet_inception_distance"], length, deviation, 2048, share),
        "kid": kid,
        "kid_std": kid,
        "precision": 0.0,  # counts
        "recall": 0.0,
        # exp of a mean of Σ p log p/q, which a logit's move moves by at most 2 log 1008 times as much.
        "is": 2 * math.log(1008) * logits * theirs["inception_score_mean"],
        "is_std": 2 * math.log(1008) * logits * theirs["inception_score_mean"],
    }
    for name, name_there in names.items():
        assert ours[name] == pytest.approx(theirs[name_there], rel=0, abs=tolerance[name]), name
    assert capfd.readouterr().err == ""


def test_features_do_not_depend_on_batch_layout_or_channels(inception: Inception) -> None:
    grey = noise(2, 1, seed=3)
    together = inception.features(three_channels(grey))
    assert together.shape == (2, 2048)
    assert together.dtype == torch.float32
    assert torch.equal(together, inception.features(grey.repeat(1, 3, 1, 1)))
    apart = torch.cat([inception.features(three_channels(one)) for one in grey.split(1)])  # type: ignore[no-untyped-call]
    assert (apart - together).norm() <= network(*INCEPTION) * together.norm()
    assert (together[0] - together[1]).abs().max() > 1e-2 * together.abs().max()


def test_protocol_and_sizes(inception: Inception, weights_file: Path) -> None:
    assert inception.protocol() == {
        "extractor": "inception",
        "weights_sha256": hashlib.sha256(weights_file.read_bytes()).hexdigest(),
        "features": "2048 after pooling",
        "resize": "bilinear as in TensorFlow 1, to 299x299",
        "device": "cpu",
    }
    assert (inception.dim, inception.classes, inception.batch_size) == (2048, 1008, 16)


def test_batch_size_is_checked_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"extractor\.batch_size=0: must be at least 1"):
        Inception("nowhere", batch_size=0)


def test_construction_leaves_the_random_state(weights_file: Path) -> None:
    before = torch.get_rng_state()
    assert Inception(str(weights_file), batch_size=7).batch_size == 7
    assert torch.equal(torch.get_rng_state(), before)


def test_inception_score_is_refused_without_logits(
    random_state: dict[str, Tensor], tmp_path: Path, image_set: Callable[..., ImageSet]
) -> None:
    path = tmp_path / "w.pth"
    torch.save(random_state | {"fc.weight": torch.zeros_like(random_state["fc.weight"])}, path)
    extractor = Inception(str(path))
    assert extractor.classes == 0
    with pytest.raises(MetricError, match="metrics=is needs the extractor's class logits"):
        evaluate([Is()], image_set(noise(20, 3, seed=4)), None, extractor)
