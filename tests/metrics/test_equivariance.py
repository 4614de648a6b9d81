"""Equivariance: the operators on analytic images, and the metrics on a generator that can be moved exactly."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gancli.compute.rng import key
from gancli.errors import ConfigError, MetricError
from gancli.metrics import equivariance, moved_images
from gancli.metrics.equivariance import EqR, EqT, EqTFrac, Equivariance
from tests.conftest import Gan
from tests.metrics.waves import COUNT, Waves, waves

METRICS: list[type[Equivariance]] = [EqT, EqTFrac, EqR]


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def some(height: int, width: int) -> tuple[Tensor, Tensor]:
    z = torch.rand(1, COUNT, 3, generator=torch.Generator().manual_seed(3))
    return z, waves(z, height, width)[0]


def psnr(a: Tensor, b: Tensor, mask: Tensor) -> float:
    error = ((a - b).double().square() * mask).sum() / mask.sum()
    return 20 * math.log10(2) - 10 * math.log10(max(float(error), 1e-20))


@pytest.mark.parametrize(("right", "down"), [(2, 1), (-3, 0), (0, -4), (9, 1)])
def test_whole_pixels_are_copied(right: int, down: int) -> None:
    x = torch.arange(1, 2 * 5 * 7 + 1).view(2, 5, 7).float()
    moved, mask = moved_images.by_pixels(x, right, down)
    for row in range(5):
        for column in range(7):
            i, j = row - down, column - right
            inside = 0 <= i < 5 and 0 <= j < 7
            assert mask[row, column] == inside
            assert moved[:, row, column].tolist() == (x[:, i, j].tolist() if inside else [0, 0])


@pytest.mark.parametrize(("right", "down"), [(0.4, 0.0), (-2.7, 1.5), (3.0, -0.01)])
def test_a_translation_by_fractions_moves_waves(right: float, down: float) -> None:
    z, x = some(24, 36)
    moved, mask = moved_images.by_fractions(x, right, down)
    exact = waves(z, 24, 36, torch.tensor([[right / 24, down / 24, 0.0]]))[0]
    assert psnr(moved, exact, mask) > 52  # Lanczos' filter
    assert psnr(x, exact, mask) < 45
    rows, columns = (
        torch.arange(max(math.floor(d) + 3, 0), n + min(math.floor(d) - 2, 0)) for d, n in ((down, 24), (right, 36))
    )
    assert torch.equal(mask.nonzero(), torch.cartesian_prod(rows, columns))


@pytest.mark.parametrize("degrees", [30.0, -77.5, 90.0, 180.0])
def test_a_rotation_turns_waves(degrees: float) -> None:
    z, x = some(32, 40)
    turned, mask = moved_images.rotated(x, degrees)
    exact = waves(z, 32, 40, torch.tensor([[0.0, 0.0, degrees]]))[0]
    assert psnr(turned, exact, mask) > 58
    assert psnr(x, exact, mask) < 25
    assert mask.mean() > 0.3
    same, inner = moved_images.as_if_rotated(exact, degrees)  # waves are far below the limit
    assert psnr(same, exact, inner) > 58
    assert inner.sum() == (32 - 10) * (40 - 10)


def test_a_rotation_is_counter_clockwise() -> None:
    x = torch.zeros(1, 33, 33)
    x[0, 16, 23:26] = 1  # right of the centre
    turned, mask = moved_images.rotated(x, 90.0)
    assert mask[9, 16] == 1
    assert turned[0, 7:10, 16].mean() > 0.7  # above it
    assert turned[0, 23:26, 16].abs().max() < 0.05


def test_the_identity_changes_no_image() -> None:
    x = torch.randn(3, 20, 28, generator=torch.Generator().manual_seed(0))
    for moved, mask in (
        moved_images.by_pixels(x, 0, 0),
        moved_images.by_fractions(x, 0.0, 0.0),
        moved_images.as_if_rotated(x, 0.0),
    ):
        assert mask.any()
        torch.testing.assert_close(moved * mask, x * mask)
    _, x = some(20, 28)
    moved, mask = moved_images.rotated(x, 0.0)
    assert psnr(moved, x, mask) > 100


def test_the_filter_is_that_of_plain_sums() -> None:
    degrees, fine, half = 25.0, 2, 64
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    taps = (np.arange(2 * half * fine - 1) - (half * fine - 1)) / fine
    x, y = taps[None, :], taps[:, None]

    def convolved(shape: Any) -> Any:
        turned = shape(cos * x + sin * y) * shape(cos * y - sin * x)
        line, n = shape(taps), len(taps)
        circle = np.stack([np.roll(line, k - n // 2) for k in range(n)])  # [from, to]
        return circle.T @ turned @ circle

    whole = convolved(np.sinc) * convolved(lambda t: np.where(abs(t) < 3, np.sinc(t / 3), 0))
    middle = len(taps) // 2
    kernel = whole[middle - 11 : middle + 12, middle - 11 : middle + 12].copy()
    for i in range(fine):
        for j in range(fine):
            kernel[i::fine, j::fine] /= kernel[i::fine, j::fine].sum() * fine**2
    np.testing.assert_allclose(moved_images.band_limit(degrees, fine), kernel, atol=1e-12)


def lanczos(t: float) -> float:
    return float(np.sinc(t) * np.sinc(t / 3)) if abs(t) < 3 else 0.0


def directly(kind: str, plain: Any, made: Any, move: Any) -> tuple[float, int]:
    """The sum of squared errors of one grey sample, and its pixels: with loops over pixels, in float64."""
    height, width = plain.shape
    if kind == "eq_r":
        return turned_directly(plain, made, float(move[2]))
    right, down = float(move[0]), float(move[1])
    total, count = 0.0, 0
    sides = ((down, height), (right, width))
    for place in np.ndindex(height, width):
        if kind == "eq_t":
            source = [p - round(d) for p, (d, _) in zip(place, sides, strict=True)]
            if not all(0 <= s < n for s, (_, n) in zip(source, sides, strict=True)):
                continue
            value = plain[source[0], source[1]]
        else:
            near = [[p - math.floor(d) - k for k in range(-2, 4)] for p, (d, _) in zip(place, sides, strict=True)]
            if not all(0 <= s < n for each, (_, n) in zip(near, sides, strict=True) for s in each):
                continue
            share = [
                np.array([lanczos(p - d - s) for s in each]) for p, each, (d, _) in zip(place, near, sides, strict=True)
            ]
            rows, columns = (each / each.sum() for each in share)
            value = rows @ plain[np.ix_(*near)] @ columns
        total, count = total + (value - made[place]) ** 2, count + 1
    return total, count


def turned_directly(plain: Any, made: Any, degrees: float) -> tuple[float, int]:
    height, width = plain.shape
    kernel, own = (moved_images.band_limit(d, fine).numpy() for d, fine in ((degrees, 4), (-degrees, 1)))
    fine = np.zeros((4 * height + 43, 4 * width + 43))
    for i, j in np.ndindex(height, width):
        fine[4 * i : 4 * i + 47, 4 * j : 4 * j + 47] += 16 * plain[i, j] * kernel
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    total, count = 0.0, 0
    for i in range(5, height - 5):
        for j in range(5, width - 5):
            x, y = j - (width - 1) / 2, i - (height - 1) / 2
            down, right = (
                23 + 4 * (s + (n - 1) / 2) for s, n in ((sin * x + cos * y, height), (cos * x - sin * y, width))
            )
            if not (45 <= round(down) <= 4 * height - 4 and 45 <= round(right) <= 4 * width - 4):
                continue
            r, c = math.floor(down), math.floor(right)
            square, (a, b) = fine[r : r + 2, c : c + 2], (down - r, right - c)
            value = np.array([1 - a, a]) @ square @ np.array([1 - b, b])
            limited = (made[i - 5 : i + 6, j - 5 : j + 6] * own[::-1, ::-1]).sum()
            total, count = total + (value - limited) ** 2, count + 1
    return total, count


@pytest.mark.parametrize("kind", METRICS)
@pytest.mark.parametrize(("height", "width", "follows"), [(20, 20, True), (16, 24, False)])
def test_results_are_those_of_plain_loops(
    kind: type[Equivariance], height: int, width: int, follows: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equivariance, "BATCH", 3)
    sampler: Any = Waves(height, width, follows)
    found = kind().measure(sampler, 4, 7, quiet)  # type: ignore[call-arg]
    total, count = 0.0, 0
    used = torch.cat(sampler.transforms).double()
    for k in range(4):
        # Each sample's move has its own key: seed, metric, number.
        draw = torch.Generator().manual_seed(key(7, kind.name, k, "uniform", "move", 2))
        share = 2 * torch.rand(2, generator=draw, dtype=torch.float64) - 1
        move = torch.zeros(3, dtype=torch.float64)
        if kind is EqR:
            move[2] = share[0] * 180
        else:
            move[:2] = share / 8 * torch.tensor([width, height])
            move = move.round() if kind is EqT else move
        transform = move / torch.tensor([min(height, width), min(height, width), 1])
        torch.testing.assert_close(used[k], transform, atol=1e-5, rtol=0)
        z = sampler.inputs([(7, k)])["z"]
        plain = waves(z, height, width)[0, 0].double().numpy()
        made = waves(z, height, width, used[k : k + 1] if follows else None)[0, 0].double().numpy()
        errors, pixels = directly(kind.name, plain, made, move)
        total, count = total + errors, count + pixels
    expected = 20 * math.log10(2) - 10 * math.log10(max(total / count, 2**-46))
    assert found.values == {kind.name: pytest.approx(expected, abs=0.02)}
    assert found.details == {f"{kind.name}_samples": 4}


@pytest.mark.parametrize(("kind", "least"), [(EqT, 140), (EqTFrac, 55), (EqR, 60)])
def test_a_generator_that_follows_is_known_from_one_that_does_not(
    kind: type[Equivariance], least: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    right: Any = Waves(32, 32)
    found = kind().measure(right, 6, 0, quiet)  # type: ignore[call-arg]
    assert found.values[kind.name] > least
    wrong: Any = Waves(32, 32, follows=False)
    assert kind().measure(wrong, 6, 0, quiet).values[kind.name] < 20  # type: ignore[call-arg]
    monkeypatch.setattr(equivariance, "BATCH", 4)
    assert kind().measure(right, 6, 0, quiet).values == found.values  # type: ignore[call-arg]
    assert kind().measure(right, 6, 1, quiet).values != found.values or kind is EqT  # type: ignore[call-arg]


def test_what_cannot_be_measured_is_refused() -> None:
    still: Any = Waves(32, 32, moves=False)
    with pytest.raises(MetricError, match=r"metrics=eq_t moves samples, .* waves cannot: train one with model=styleg"):
        EqT().measure(still, 4, 0, quiet)
    small: Any = Waves(12, 32)
    with pytest.raises(MetricError, match=r"metrics=eq_r needs images of at least 16 pixels per side"):
        EqR().refuse(small)
    EqTFrac().refuse(small)
    for reach in (0.0, 0.6):
        with pytest.raises(ConfigError, match=r"metrics\.eq_t_frac\.reach=.*at most 0\.5 of each side"):
            EqTFrac(reach=reach)
    broken: Any = Waves(16, 16)
    broken.generate_here = lambda inputs, pairs: {"x": torch.full((len(pairs), 1, 16, 16), math.nan)}
    with pytest.raises(MetricError, match=r"samples of waves are not finite numbers: type checkpoint="):
        EqT().measure(broken, 2, 0, quiet)


def test_settings_tell_the_number_of_samples_and_the_reach() -> None:
    told = EqR(reach=45.0).settings(300, 0)
    assert (told["samples"], told["reach"], told["unit"]) == (300, 45.0, "degrees")
    assert EqT().settings(2, 0)["reach"] == 0.125


def test_from_the_shell_a_run_that_cannot_move_samples_is_refused(gan: Gan, trained: Path) -> None:
    for kind in METRICS:
        answer = gan("eval", f"run={trained}", f"metrics=[{kind.name}]", "n=2")
        assert answer.code == 2
        assert f"metrics={kind.name} moves samples" in answer.err
