"""Metrics are what their released codes compute, each against a form of its own written here, in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from scipy.signal import fftconvolve
from torch import Tensor

from gancli.compute.rng import Rng
from gancli.data.embedded import emoji
from gancli.data.source import order
from gancli.errors import ConfigError, MetricError
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Fid
from gancli.metrics.images import from_source
from gancli.metrics.neighbours import DensityCoverage
from gancli.metrics.pixels import MsSsim, ms_ssim
from gancli.metrics.ppl import Ppl, full_lengths
from gancli.metrics.reference import Reference, statistics
from tests.metrics.fakes import Drawn


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def released_ms_ssim(a: Any, b: Any) -> Any:
    """MS-SSIM of [B, C, H, W] with even sides: square windows, whole maps, one number an image and level."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    found = np.ones(len(a))
    for level, weight in enumerate((0.0448, 0.2856, 0.3001, 0.2363, 0.1333)):
        size = min(11, *a.shape[2:])
        first = -(size // 2) + (0.5 if size % 2 == 0 else 0.0)
        row, column = np.mgrid[first : first + size, first : first + size]
        window = np.exp(-(row**2 + column**2) / (2 * (1.5 * size / 11) ** 2))
        window = (window / window.sum())[None, None]
        u, v, uu, vv, uv = (fftconvolve(x, window, "valid") for x in (a, b, a * a, b * b, a * b))
        structure = (2 * (uv - u * v) + 7.65**2) / (uu - u * u + vv - v * v + 7.65**2)
        whole = structure * (2 * u * v + 2.55**2) / (u * u + v * v + 2.55**2)
        part = (whole if level == 4 else structure).mean((1, 2, 3))
        found *= np.clip(part, 0, None) ** weight
        if level < 4:
            a, b = ((x[..., ::2, ::2] + x[..., 1::2, ::2] + x[..., ::2, 1::2] + x[..., 1::2, 1::2]) / 4 for x in (a, b))
    return found


@pytest.mark.parametrize(("side", "pairs", "mean"), [(64, 40, 0.0491), (32, 200, 0.0814)])
def test_similarity_below_176_pixels_is_progans(side: int, pairs: int, mean: float) -> None:
    source = emoji(size=side)
    chosen = from_source(source, 2 * pairs, 0)
    images = torch.cat(list(chosen.chunks()))
    first, second = images[torch.from_numpy(order(2 * pairs, "ms_ssim")).view(-1, 2)].unbind(1)
    expected = released_ms_ssim(first.numpy(), second.numpy())
    # Sums of squares up to 255² in float64 over a least denominator of 7.65², through an FFT there: below 1e-10.
    assert ms_ssim(first, second).numpy() == pytest.approx(expected, abs=1e-10)
    assert MsSsim().look(chosen, None)[0]["ms_ssim"] == pytest.approx(expected.mean(), abs=1e-10)
    assert round(expected.mean(), 4) == mean


@pytest.mark.parametrize("shape", [(1, 176, 176), (3, 48, 80), (3, 16, 32)])
def test_similarity_of_other_sides(shape: tuple[int, ...]) -> None:
    draw = torch.Generator().manual_seed(sum(shape))
    a = torch.randint(0, 256, (2, *shape), generator=draw)
    b = (a + 40 * torch.randn(2, *shape, generator=draw)).clamp(0, 255).round()
    assert ms_ssim(a, b).numpy() == pytest.approx(released_ms_ssim(a.numpy(), b.numpy()), abs=1e-10)


def density_coverage(fake: Any, real: Any, k: int) -> tuple[float, float]:
    """Naeem et al. 2020, eq. 3 and 4, with strictly nearer samples."""

    def distances(a: Any, b: Any) -> Any:
        return np.sqrt(((a[:, None] - b[None]) ** 2).sum(2))

    within = distances(real, real)
    np.fill_diagonal(within, np.inf)
    radius = np.sort(within, 1)[:, k - 1]
    inside = distances(real, fake) < radius[:, None]
    return inside.sum(0).mean() / k, inside.any(1).mean()


def test_density_counts_strictly_nearer_samples(tiny: Extractor) -> None:
    draw = np.random.default_rng(0)
    for k in (1, 3, 5):
        real, fake = (draw.integers(-3, 4, (50, 3)).astype(np.float32) for _ in range(2))  # many at equal distances
        found = DensityCoverage(k).score(torch.from_numpy(fake), torch.from_numpy(real), tiny)
        assert (found["density"], found["coverage"]) == pytest.approx(density_coverage(fake, real, k), abs=1e-12)


@pytest.mark.parametrize(("n", "limit"), [(300, 1024), (300, 16)])
def test_a_set_has_a_density_of_1_against_itself(
    tiny: Extractor, n: int, limit: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gancli.metrics.neighbours._BLOCK", limit)  # 16: blocks, and distances by products
    points = torch.randn(n, 17, generator=torch.Generator().manual_seed(n))
    assert DensityCoverage().score(points, points, tiny) == {"density": 1.0, "coverage": 1.0}


def test_fid_of_a_set_with_itself_is_never_below_0(tiny: Extractor) -> None:
    for seed in range(8):
        # Fewer images than features: the root of a singular product is what rounds below 0.
        features = 100 * torch.randn(12, 40, generator=torch.Generator().manual_seed(seed))
        trace = float(features.double().T.cov().trace())
        mu, sigma = statistics(features)
        given = Reference(mu, sigma, 12, None)
        for found in (Fid().score(features, features, tiny), Fid().score_statistics(features, given, tiny)):
            # The eigenvalues of a product of rank 11, each off by the largest times 2⁻⁵², under a root.
            assert 0 <= found["fid"] <= 40 * 2**-26 * trace


class Linear(Drawn):
    """G(z) = z as an image of 3 · side² numbers, in grey levels of 127.5 a unit."""

    def image(self, z: Tensor) -> Tensor:
        return z.view(-1, *self.field.shape) - 1


def squared(a: Tensor, b: Tensor) -> Tensor:
    return (a.double() - b.double()).flatten(1).square().sum(1)


def test_stylegans_path_length_is_of_great_circles() -> None:
    found, n = Linear(2, classes=5), 40
    lengths = full_lengths(found, squared, n, 0.05, 3, False, quiet)  # type: ignore[arg-type]
    rng = Rng(3, "ppl", total=n, dtype=torch.float64)
    a, b = (rng.normal(f"end {k}", 12) for k in (0, 1))
    angle = torch.nn.functional.cosine_similarity(a, b).acos()
    # Two places at an angle of ε θ on a sphere of radius √12 are 2 √12 sin(ε θ / 2) apart, wherever t is.
    expected = 127.5**2 * 12 * (2 * (0.05 * angle / 2).sin()) ** 2 / 0.05**2
    # Images are float32: each number off by 127.5 · 2⁻²³, of steps of 127.5 · 0.05 · θ.
    assert lengths == pytest.approx(expected.numpy(), rel=2 * 2**-23 / 0.05 / float(angle.min()) * 12)
    for labels in found.asked:
        first, second = labels.chunk(2)
        assert torch.equal(first, second)  # both ends of a step are of one class
    assert len(torch.cat(found.asked).unique()) == 5


def test_stylegans_path_length_looks_at_faces_and_at_256_pixels() -> None:
    seen: list[Tensor] = []

    def look(a: Tensor, b: Tensor) -> Tensor:
        seen.append(a)
        return torch.ones(len(a))

    class Ramp(Drawn):
        """Every image holds its own rows and columns."""

        def image(self, z: Tensor) -> Tensor:
            side = self.field.height
            at = torch.arange(float(side))
            image = torch.stack([at[:, None].expand(side, side), at.expand(side, side), torch.zeros(side, side)])
            return image.expand(len(z), 3, side, side) / 127.5 - 1

    ramp = Ramp(64, dim=4)
    full_lengths(ramp, look, 2, 0.1, 0, True, quiet)  # type: ignore[arg-type]
    assert seen[-1].shape == (2, 3, 32, 32)
    rows, columns = seen[-1][0, :2]
    assert rows[:, 0].tolist() == pytest.approx(range(24, 56), abs=1e-3)
    assert columns[0].tolist() == pytest.approx(range(16, 48), abs=1e-3)
    ramp = Ramp(1024, dim=4)
    full_lengths(ramp, look, 1, 0.1, 0, True, quiet)  # type: ignore[arg-type]
    assert seen[-1].shape == (1, 3, 256, 256)
    assert seen[-1][0, 1, 0, :2].tolist() == pytest.approx([256.5, 258.5], abs=1e-3)
    full_lengths(ramp, look, 1, 0.1, 0, False, quiet)  # type: ignore[arg-type]
    assert seen[-1].shape == (1, 3, 256, 256)
    assert seen[-1][0, 1, 0, :2].tolist() == pytest.approx([1.5, 5.5], abs=1e-3)


def test_a_path_length_names_its_definition(tiny: Any) -> None:
    own = Ppl(definition="stylegan")
    found = own.measure(tiny, Linear(32), 4, 0, quiet)  # type: ignore[arg-type]
    assert list(found.values) == ["ppl_zfull_inception", "ppl_zfull_inception_std"]
    told = own.settings(4, 0)
    assert (told["definition"], told["interpolation"], told["t"]) == ("stylegan", "slerp in z", "uniform in [0, 1]")
    assert told["crop"] is True
    assert "seed" not in told
    by_lpips = Ppl(definition="stylegan", distance="lpips", crop=False).settings(4, 0)
    assert (by_lpips["pixels"], by_lpips["crop"], by_lpips["epsilon"]) == (
        "averaged over blocks of side // 256",
        False,
        1e-4,
    )
    assert Ppl(distance="lpips").settings(4, 0)["pixels"] == "64 at most"
    assert Ppl().settings(4, 0)["definition"] == "torch_fidelity"


def test_what_stylegans_path_length_cannot_judge() -> None:
    small = Linear(16)
    with pytest.raises(MetricError, match=r"at least 32 pixels, and these have 16x16: type metrics\.ppl\.crop=false"):
        Ppl(definition="stylegan").refuse(small)  # type: ignore[arg-type]
    Ppl(definition="stylegan", crop=False).refuse(small)  # type: ignore[arg-type]
    small.law = "uniform"
    with pytest.raises(MetricError, match=r"latents, and this run's are uniform: type metrics\.ppl\.definition=torch"):
        Ppl(definition="stylegan", crop=False).refuse(small)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"metrics\.ppl\.crop=true needs metrics\.ppl\.definition=stylegan"):
        Ppl(crop=True)
    assert math.isclose(Ppl(epsilon=0.5).settings(1, 1)["epsilon"], 0.5)
