"""Density, coverage and the memorisation ratio on points whose values can be counted."""

from __future__ import annotations

import pytest
import torch

from gancli.errors import ConfigError, MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.memorisation import Memorisation, _chosen, among_training, judged, left_out
from gancli.metrics.neighbours import DensityCoverage, nearest
from tests.metrics.arithmetic import FLOAT32


def line(*values: float) -> torch.Tensor:
    """Points on a line, [N, 1]."""
    return torch.tensor(values, dtype=torch.float32).view(-1, 1)


def test_density_and_coverage_count_balls(tiny: Extractor) -> None:
    # Balls to the nearest neighbour: radius 1 at 0 and 1, radius 2 at 3, radius 7 at 10.
    real, metric = line(0, 1, 3, 10), DensityCoverage(neighborhood=1)
    # 0.5 lies in those of 0 and 1; 4 in those of 3 and 10; 30 in none.
    assert metric.score(line(0.5, 4, 30), real, tiny) == {"density": 4 / 3, "coverage": 1.0}
    assert metric.score(line(0.5, 0.5), real, tiny) == {"density": 2.0, "coverage": 0.5}
    assert metric.score(line(99), real, tiny) == {"density": 0.0, "coverage": 0.0}


def test_an_outlier_spoils_neither(tiny: Extractor) -> None:
    cloud = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    far = cloud.clone()
    far[0] += 50
    found = DensityCoverage().score(cloud + 20, far, tiny)
    assert found["density"] < 0.25
    assert found["coverage"] <= 1 / 60


def test_another_extractor_gives_its_name(tiny: Extractor) -> None:
    from gancli.metrics.fid import Fid, Is, Kid, Prc

    tiny.name = "clip"
    x, y = (torch.randn(30, 3, generator=torch.Generator().manual_seed(s)) for s in (1, 2))
    names = [name for m in (Fid(), Kid(subsets=2), Prc(), DensityCoverage()) for name in m.score(x, y, tiny)]
    names += Is(splits=1).score(x, y, tiny)
    assert names == [
        "fd_clip", "kd_clip", "kd_clip_std", "precision_clip", "recall_clip", "density_clip", "coverage_clip",
        "is_clip", "is_clip_std",
    ]  # fmt: skip
    tiny.dim = 2048
    assert Fid().check(tiny, 5, 5)[0].startswith("fd_clip: 5 images")
    tiny.classes = 0
    with pytest.raises(MetricError, match="clip does not have: leave is out"):
        Is().check(tiny, 50, 0)


def test_too_few_real_images(tiny: Extractor) -> None:
    with pytest.raises(MetricError, match="needs at least 6 real images, got 5"):
        DensityCoverage().check(tiny, 9, 5)
    with pytest.raises(ConfigError, match=r"metrics\.dc\.neighborhood=0"):
        DensityCoverage(neighborhood=0)


def test_nearest_goes_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    points = torch.randn(30, 4, generator=torch.Generator().manual_seed(0))
    whole = nearest(points, points, 3)
    assert (whole[0][:, 0] == 0).all()
    monkeypatch.setattr("gancli.metrics.neighbours._BLOCK", 7)
    parts = nearest(points, points, 3)
    assert torch.equal(parts[1], whole[1])
    # By a product |a|² + |b|² - 2 a·b in float32, whose rounding stays where the distance is 0, under a root.
    rounding = 8 * 2 * float(points.square().sum(1).max()) * FLOAT32
    assert (parts[0] - whole[0]).abs().max() <= rounding**0.5


def test_ratio_of_copies_and_of_training_images_among_themselves() -> None:
    training = line(0, 1, 10, 14, 30)
    found = judged(line(14, 2, 21), training, 1.0)
    assert found.ratio.tolist() == [0, 1, 1.75]
    assert found.distance.tolist() == [0, 1, 7]
    assert found.row.tolist() == [3, 1, 3]
    assert found.copied.tolist() == [True, False, False]
    # Without 0, 1 is 9 from 10; without 1, 0 is 10 from 10; without 10, 14 is 13 from 1; without 14, 10 is 9 from 1.
    among, apart = left_out(training, torch.arange(5))
    assert apart.tolist() == [1, 1, 4, 4, 16]
    assert among.tolist() == pytest.approx([1 / 9, 1 / 10, 4 / 13, 4 / 9, 16 / 4])


def test_equal_training_images_are_no_copies_of_each_other() -> None:
    training = line(5, 5, 5, 5, 9)
    among, apart = left_out(training, torch.arange(5))
    assert apart.tolist() == [0, 0, 0, 0, 4]
    assert among[:4].tolist() == [1, 1, 1, 1]


def test_copies_of_images_that_the_data_hold_twice_are_copies() -> None:
    """The bar falls to 0, and the ratio of such a copy is 1: only equal features tell."""
    training = torch.cat([line(0, 1, 10, 14, 30), line(0, 1, 10, 14, 30)])
    training[0] = training[5] = 2  # a feature vector of 0 equals another only exactly
    assert among_training(training, 0.05).bar == 0
    found = judged(training, training, 0.0)
    assert (found.ratio.tolist(), found.share) == ([1.0] * 10, 1.0)
    assert judged(training + 0.5, training, 0.0).share == 0


def test_mirrored_images_are_searched_and_the_scale_is_that_of_images_as_they_are() -> None:
    training, mirrored = line(10, 14, 30), line(-10, -14, -30)
    found = judged(line(-14, 13, -20), training, 0.5, mirrored)
    assert found.mirrored.tolist() == [True, False, True]
    assert found.row.tolist() == [1, 1, 1]
    assert found.ratio.tolist() == [0, 0.25, 1.5]
    assert found.equal.tolist() == [True, False, False]
    assert judged(line(-14, 13, -20), training, 0.5).copied.tolist() == [False, True, False]
    # A symmetric image is its own mirror: it is the image as it is.
    assert judged(line(14), training, 0.5, training).mirrored.tolist() == [False]


@pytest.mark.parametrize("n", [50, 400])
def test_copies_are_told_from_fresh_draws_typical_ones_and_noise(n: int) -> None:
    """Of fresh draws a share of about q, of copies all; a narrow generator and a bad one are not taken for one."""
    draw = torch.Generator().manual_seed(0)
    widths = torch.tensor([0.1, 1.0, 10.0])  # the data lie dense in one place, thinly in another

    def data(count: int) -> torch.Tensor:
        group = torch.randint(3, (count, 1), generator=draw)
        return 100 * group + widths[group] * torch.randn(count, 12, generator=draw)

    training = data(n)
    bar = among_training(training, 0.05).bar

    def share(samples: torch.Tensor) -> float:
        return judged(samples, training, bar).share

    assert share(data(1000)) < 0.12
    copies = training[torch.randint(n, (300,), generator=draw)]
    assert share(copies) == 1
    assert share(copies + 0.01 * torch.randn(copies.shape, generator=draw)) == 1
    assert share(0.1 * torch.randn(1000, 12, generator=draw)) < 0.12  # the dense place only
    assert share(100 * torch.randn(1000, 12, generator=draw)) < 0.05


def test_the_sheet_shows_the_nearest_first_then_the_first_drawn() -> None:
    assert _chosen(torch.tensor([0.5, 0.1, 0.9, 0.2, 0.7]), 4).tolist() == [1, 3, 0, 2]


@pytest.mark.parametrize(("key", "value"), [("quantile", 0.0), ("limit", 1.0), ("rows", 0), ("images", 9)])
def test_values_out_of_range(key: str, value: float) -> None:
    with pytest.raises(ConfigError, match=rf"metrics\.memorisation\.{key}="):
        Memorisation(**{key: value})
