"""References as files, ours and others'; features that are kept; intervals."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gancli.errors import MetricError
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.extractor import Extractor
from gancli.metrics.feature_cache import FeatureCache
from gancli.metrics.fid import Fid, Kid, Prc
from gancli.metrics.frechet import frechet_influences, interval, kernel_influences
from gancli.metrics.images import ImageSet
from gancli.metrics.reference import read, statistics, write

Images = Callable[..., ImageSet]


def noise(n: int, seed: int) -> Tensor:
    """uint8 [n, 3, 2, 2]."""
    return torch.randint(0, 256, (n, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed))


def gaussian(n: int, dim: int, seed: int) -> Tensor:
    """float32 [n, dim]."""
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


def distance(fake: Tensor, real: Tensor) -> float:
    """The Fréchet distance, its root by singular values, as the influences have it."""
    (a, mean), (b, other) = (((x - x.mean(0)) / (len(x) - 1) ** 0.5, x.mean(0)) for x in (fake.double(), real.double()))
    root = torch.linalg.svdvals(a @ b.T).sum()
    return float((mean - other).square().sum() + a.square().sum() + b.square().sum() - 2 * root)


def evaluated(tiny: Extractor, fake: ImageSet, real: Any, *metrics: Any, **options: Any) -> Any:
    return Evaluator(metrics or [Fid()], real, tiny, **options).evaluate(fake)


def test_an_exported_reference_gives_the_same_numbers(tiny: Extractor, image_set: Images, tmp_path: Path) -> None:
    fake, real = image_set(noise(9, 0)), image_set(noise(8, 1), fingerprint="f", seed=3)
    evaluator = Evaluator([Fid(), Kid(subsets=2), Prc()], real, tiny)
    there = evaluator.evaluate(fake)
    write(tmp_path / "r.npz", evaluator.features_of_real(), real.protocol, tiny)
    given = read(tmp_path / "r.npz")
    here = evaluated(tiny, fake, given, Fid(), Kid(subsets=2), Prc())
    assert here.values == there.values
    assert here.warnings == ()
    assert here.protocol["n_real"] == 8
    told = here.protocol["reference"]
    assert (told["file"], told["fingerprint"], told["seed"]) == (str(tmp_path / "r.npz"), "f", 3)
    assert len(told["sha256"]) == 64


def test_statistics_alone_are_enough_for_fid(tiny: Extractor, image_set: Images, tmp_path: Path) -> None:
    fake, real = image_set(noise(9, 0)), image_set(noise(8, 1))
    mu, sigma = statistics(tiny.features(noise(8, 1)))
    np.savez(tmp_path / "stylegan.npz", mu=mu, sigma=sigma)
    torch.save({"mu": mu.astype(np.float32), "sigma": sigma}, tmp_path / "fidelity.pt")
    torch.save(tiny.features(noise(8, 1)), tmp_path / "features.pt")
    whole = evaluated(tiny, fake, real).values["fid"]
    for name in ("stylegan.npz", "fidelity.pt", "features.pt"):
        found = evaluated(tiny, fake, read(tmp_path / name))
        assert found.values["fid"] == pytest.approx(whole, rel=1e-6)
        assert "does not state its extractor" in found.warnings[0]
    assert evaluated(tiny, fake, read(tmp_path / "stylegan.npz")).protocol["n_real"] is None
    assert evaluated(tiny, fake, read(tmp_path / "features.pt"), Prc()).protocol["n_real"] == 8
    with pytest.raises(MetricError, match="has only their mean and covariance, which are enough for fid"):
        evaluated(tiny, fake, read(tmp_path / "stylegan.npz"), Fid(), Kid())


def test_a_reference_of_another_extractor_is_refused(tiny: Any, image_set: Images, tmp_path: Path) -> None:
    write(tmp_path / "r.npz", tiny.features(noise(8, 1)), {}, tiny)
    np.savez(tmp_path / "wide.npz", mu=np.zeros(5), sigma=np.eye(5))
    tiny.name = "another"
    with pytest.raises(MetricError, match=r"made by another extractor \(extractor inception\): export it again"):
        evaluated(tiny, image_set(noise(9, 0)), read(tmp_path / "r.npz"))
    with pytest.raises(MetricError, match="has 5 features and the extractor another has 3"):
        evaluated(tiny, image_set(noise(9, 0)), read(tmp_path / "wide.npz"))


def test_files_that_hold_no_reference(tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> Any:
            return (print, ("harm",))

    torch.save({"mu": Harm()}, tmp_path / "harm.pt")
    (tmp_path / "cut.npz").write_bytes(b"PK\x03\x04")
    np.savez(tmp_path / "pickled.npz", mu=np.array([{}], dtype=object), sigma=np.eye(1))
    np.savez(tmp_path / "odd.npz", mu=np.zeros(3), sigma=np.eye(2))
    np.savez(tmp_path / "nan.npz", mu=np.array([np.nan]), sigma=np.eye(1))
    np.savez(tmp_path / "empty.npz", x=np.zeros(3))
    for name in ("harm.pt", "cut.npz", "pickled.npz", "odd.npz", "nan.npz", "empty.npz"):
        with pytest.raises(MetricError, match=r"reference=.* is not a reference that can be read safely"):
            read(tmp_path / name)
    (tmp_path / "stylegan.pkl").write_bytes(b"")
    with pytest.raises(MetricError, match="can run code"):
        read(tmp_path / "stylegan.pkl")


def test_kept_features_are_used_and_made_anew_when_damaged(tiny: Any, image_set: Images, tmp_path: Path) -> None:
    kept = FeatureCache(tmp_path / "features")
    fake, real = image_set(noise(9, 0)), image_set(noise(8, 1), fingerprint="f", seed=3)
    looks: list[int] = []
    plain = type(tiny).features

    def watched(images: Tensor) -> Tensor:
        looks.append(len(images))
        return plain(tiny, images)

    tiny.features = watched
    first = Evaluator([Fid()], real, tiny, kept=kept)
    values = first.evaluate(fake).values
    assert (sum(looks), first.was_kept) == (17, False)
    second = Evaluator([Fid()], real, tiny, kept=kept)
    assert second.evaluate(fake).values == values
    assert (sum(looks), second.was_kept) == (26, True)
    (file,) = (tmp_path / "features").iterdir()
    content = bytearray(file.read_bytes())
    content[200] ^= 1
    for damaged in (bytes(content), bytes(content[:100]), b""):
        file.write_bytes(damaged)
        third = Evaluator([Fid()], real, tiny, kept=kept)
        assert third.evaluate(fake).values == values
        assert not third.was_kept
    assert kept.load(real, tiny) is not None  # written anew
    for other in (image_set(noise(8, 1), fingerprint="g", seed=3), image_set(noise(8, 1), fingerprint="f", seed=4)):
        assert kept.load(other, tiny) is None
    tiny.name = "another"
    assert kept.load(real, tiny) is None


def test_the_folder_of_kept_features_may_be_a_link(
    tiny: Extractor, image_set: Images, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    (tmp_path / "gan").mkdir()
    (tmp_path / "gan" / "features").symlink_to(tmp_path / "large")
    images, features = image_set(noise(8, 0), fingerprint="f"), tiny.features(noise(8, 0))
    FeatureCache().store(images, tiny, features)
    assert [file.suffix for file in (tmp_path / "large").iterdir()] == [".npz"]
    kept = FeatureCache().load(images, tiny)
    assert kept is not None
    assert torch.equal(kept, features)


def test_kept_features_have_a_limit(tiny: Extractor, image_set: Images, tmp_path: Path) -> None:
    kept = FeatureCache(tmp_path, limit=1000)
    sets = [image_set(noise(8, k), fingerprint=str(k)) for k in range(4)]
    for k, images in enumerate(sets):
        kept.store(images, tiny, tiny.features(noise(8, k)))
        path = kept.path(images, tiny)
        assert path is not None
        assert path.exists()
    assert kept.load(sets[3], tiny) is not None
    assert kept.load(sets[0], tiny) is None
    assert sum(file.stat().st_size for file in tmp_path.iterdir()) <= 1000
    assert FeatureCache(tmp_path, limit=100).store(sets[0], tiny, tiny.features(noise(8, 0))) is None
    assert kept.load(sets[0], tiny) is None  # larger than half of the limit
    assert kept.path(image_set(noise(8, 0)), tiny) is None
    blocked = tmp_path / "file"
    blocked.write_text("")
    FeatureCache(blocked / "below").store(sets[0], tiny, torch.zeros(8, 3))  # cannot be written: no error


@pytest.mark.parametrize(("n", "m"), [(30, 40), (90, 40), (30, 90), (90, 80)])
def test_the_distance_by_singular_values_is_torch_fidelitys(n: int, m: int) -> None:
    from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric

    fake, real = gaussian(n, 64, 0), 2 * gaussian(m, 64, 1) + 1
    there = fid_statistics_to_metric(fid_features_to_statistics(fake), fid_features_to_statistics(real), verbose=False)
    assert distance(fake, real) == pytest.approx(there["frechet_inception_distance"], rel=1e-6)
    assert distance(fake, fake) == pytest.approx(0, abs=1e-9)


def test_influences_are_derivatives_in_an_images_weight() -> None:
    fake, real = gaussian(12, 5, 0), 2 * gaussian(9, 5, 1) + 1

    def weighted(weights: Tensor) -> float:
        x, w = fake.double(), weights / weights.sum()
        mean = w @ x
        sigma = (x - mean).T @ ((x - mean) * w[:, None]) * 12 / 11
        other, cov = real.double().mean(0), real.double().T.cov()
        root = torch.linalg.eigvals(sigma @ cov).real.clamp_min(0).sqrt().sum()
        return float((mean - other).square().sum() + sigma.trace() + cov.trace() - 2 * root)

    ours, theirs = frechet_influences(fake, real)
    assert theirs.tolist() == pytest.approx(frechet_influences(real, fake)[0].tolist(), rel=1e-9, abs=1e-9)
    for i in range(3):
        step = torch.ones(12, dtype=torch.float64)
        up, down = step.clone(), step.clone()
        up[i], down[i] = 1 + 1e-4, 1 - 1e-4
        assert (weighted(up) - weighted(down)) / 2e-4 * 12 == pytest.approx(float(ours[i]), rel=1e-4, abs=1e-4)
    assert all(abs(float(part.mean())) < 1e-9 for part in (ours, theirs))


def test_intervals_hold_the_expected_number_and_shrink() -> None:
    """Of thirty draws nine in ten hold the mean, which stands for the expectation; the widths fit the draws' spread."""

    def draw(n: int, seed: int) -> tuple[Tensor, Tensor]:
        return gaussian(n, 8, 2 * seed) * 1.3 + 0.2, gaussian(n, 8, 2 * seed + 1)

    for number, influences in ((distance, frechet_influences), (kernel_distance, kernel_influences)):
        pairs = [draw(100, k) for k in range(30)]
        values = [number(*pair) for pair in pairs]
        bounds = [interval(value, influences(*pair)) for value, pair in zip(values, pairs, strict=True)]
        inside = [low <= np.mean(values) <= high for low, high in bounds]
        assert sum(inside) >= 24
        widths = [high - low for low, high in bounds]
        assert np.mean(widths) / 3.92 == pytest.approx(np.std(values), rel=0.5)
        large = draw(1600, 99)
        low, high = interval(number(*large), influences(*large))
        assert (high - low) < 0.5 * np.mean([b - a for a, b in bounds])
    assert interval(1.0, influences(*large)) == interval(1.0, influences(*large))


def kernel_distance(fake: Tensor, real: Tensor) -> float:
    from torch_fidelity.metric_kid import kid_features_to_metric

    size = min(len(fake), len(real))
    found = kid_features_to_metric(fake, real, kid_subsets=1, kid_subset_size=size, verbose=False)
    return float(found["kernel_inception_distance_mean"])


def test_intervals_stand_beside_fid_and_kid_of_few_images(tiny: Extractor, image_set: Images) -> None:
    fake, real = image_set(noise(9, 0)), image_set(noise(8, 1))
    found = evaluated(tiny, fake, real, Fid(), Kid(subsets=2), Prc(), intervals=True).as_json()
    assert list(found["intervals"]) == ["fid", "kid"]
    assert found["intervals"]["fid"][0] < found["fid"] < found["intervals"]["fid"][1]
    assert found["intervals_by"]["level"] == 0.95
    assert "intervals" not in evaluated(tiny, fake, real, Prc(), intervals=True).as_json()
