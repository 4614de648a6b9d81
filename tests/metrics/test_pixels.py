"""Sliced Wasserstein distance and MS-SSIM against values worked out by hand, and against a library."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from gancli.errors import ConfigError, MetricError
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.images import ImageSet
from gancli.metrics.pixels import MsSsim, Swd, ms_ssim, normalised, patches, pyramid, sliced_wasserstein
from tests.metrics.arithmetic import FLOAT32


def noise(n: int, side: int, seed: int, channels: int = 1) -> Tensor:
    """uint8 [n, channels, side, side]."""
    draw = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (n, channels, side, side), dtype=torch.uint8, generator=draw)


def test_equal_sets_have_no_distance(image_set: Callable[..., ImageSet]) -> None:
    images = noise(5, 32, 0, 3)
    values, _ = Swd(patches=4, projections=8).look(image_set(images), image_set(images))
    assert values == {"swd": 0.0, "swd_32": 0.0, "swd_16": 0.0}


def test_distance_of_other_images_is_above_0_and_tells_scales_apart(image_set: Callable[..., ImageSet]) -> None:
    grey = noise(8, 32, 1)
    smooth = torch.nn.functional.avg_pool2d(noise(8, 32, 2).float(), 5, 1, 2).to(torch.uint8)
    metric = Swd(patches=32, projections=64)
    alike = metric.look(image_set(noise(8, 32, 3)), image_set(grey))[0]
    unlike = metric.look(image_set(smooth), image_set(grey))[0]
    assert 0 < alike["swd"] < unlike["swd"]
    assert unlike["swd"] == (unlike["swd_32"] + unlike["swd_16"]) / 2
    assert metric.settings(8, 5) == {"patches": 32, "projections": 64, "images": 5}


def test_a_shift_along_one_axis_is_its_mean_projection() -> None:
    # In the plane the mean of |cos| over all directions is 2/pi.
    points = torch.randn(50, 2, generator=torch.Generator().manual_seed(0))
    found = sliced_wasserstein(points, points + torch.tensor([3.0, 0.0]), 4000, 0)
    assert found == pytest.approx(3 * 2 / torch.pi, rel=0.02)


def test_the_pyramid_adds_up_again() -> None:
    from gancli.metrics.pixels import _blur

    image = noise(2, 32, 4, 3).float()
    fine, rest = pyramid(image, 2)
    assert (fine.shape, rest.shape) == ((2, 3, 32, 32), (2, 3, 16, 16))
    spread = torch.zeros_like(image)
    spread[:, :, ::2, ::2] = rest
    # float32 sums of 25 products of up to 4 · 255.
    assert (fine + _blur(spread, 4) - image).abs().max() <= 25 * 4 * 255 * FLOAT32


def test_patches_are_cut_from_their_own_image_and_normalised() -> None:
    images = torch.arange(3.0).view(3, 1, 1, 1).expand(3, 2, 9, 9)
    cut = patches(images, 4, seed=0)
    assert cut.shape == (12, 2, 7, 7)
    assert cut.flatten(1).mean(1).tolist() == [0.0] * 4 + [1.0] * 4 + [2.0] * 4
    ramp = torch.arange(81.0).view(1, 1, 9, 9)
    one = patches(ramp, 1, seed=1)[0, 0]
    assert torch.equal(one - one[0, 0], ramp[0, 0, :7, :7])
    rows = normalised(cut).view(12, 2, 49)
    # Sums of 588 numbers in float32, and of their squares.
    assert rows.mean((0, 2)).abs().max() <= 588 * FLOAT32
    assert (rows.std((0, 2), correction=0) - 1).abs().max() <= 588 * FLOAT32


def test_what_the_distance_cannot_judge(image_set: Callable[..., ImageSet]) -> None:
    with pytest.raises(MetricError, match="reference=FOLDER"):
        Swd().look(image_set(noise(2, 32, 0)), None)
    with pytest.raises(MetricError, match="16x16 and 32x32"):
        Swd().look(image_set(noise(2, 16, 0)), image_set(noise(2, 32, 0)))
    with pytest.raises(MetricError, match="at least 16 pixels"):
        Swd().look(image_set(noise(2, 8, 0)), image_set(noise(2, 8, 0)))
    with pytest.raises(ConfigError, match=r"metrics\.swd\.patches=0"):
        Swd(patches=0)
    with pytest.raises(ConfigError, match=r"metrics\.swd\.projections=1000000: must be at most 100000"):
        Swd(projections=1_000_000)


def test_similarity_of_equal_and_of_other_images() -> None:
    images = noise(3, 28, 5, 3)
    assert ms_ssim(images, images).tolist() == [1.0] * 3
    other = ms_ssim(images, noise(3, 28, 6, 3))
    assert (other >= 0).all()
    assert (other < 0.5).all()


def test_similarity_is_the_librarys_where_that_takes_the_images() -> None:
    import pytorch_msssim as library

    a = torch.nn.functional.avg_pool2d(noise(2, 186, 7, 3).float(), 9, 1)
    b = (a + torch.randn(a.shape, generator=torch.Generator().manual_seed(0)) * 9).clamp(0, 255)
    assert a.shape[2] > 160
    found = library.ms_ssim(a, b, 255, size_average=False)
    # The library's float32: means of squares up to 255², of which two are subtracted, over 7.65² at least.
    assert ms_ssim(a, b).tolist() == pytest.approx(found.tolist(), rel=4 * 255**2 * FLOAT32 / 7.65**2)


def test_samples_all_alike_are_more_similar_than_real_ones(image_set: Callable[..., ImageSet]) -> None:
    alike = noise(1, 28, 8).expand(6, -1, -1, -1).contiguous()
    evaluator = Evaluator([MsSsim(), Swd(patches=2, projections=4)], image_set(noise(7, 28, 9)), None)
    found = evaluator.evaluate(image_set(alike)).as_json()
    assert found["ms_ssim"] == 1
    assert 0 <= found["ms_ssim_real"] < 0.5
    assert found["swd_28"] == found["swd"] > 0
    assert found["protocol"]["ms_ssim"] == {
        "pairs": 3,
        "pairs_real": 3,
        "form": "progressive growing's released code",
    }
