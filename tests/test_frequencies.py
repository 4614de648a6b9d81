"""Power spectra of images: what has a known one, the picture of a run, and the page that shows it."""

from __future__ import annotations

import math
import re
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.draw import frequencies
from gancli.draw.frequencies import decibels, power, radial
from gancli.report import page
from tests.conftest import TINY, Gan

RUN = [word for word in TINY if word not in ("dataset.size=[1,8,8]", "observers.report=null")]


def noise(n: int, height: int, width: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 3, height, width, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("height", "width"), [(32, 32), (24, 40), (33, 17)])
def test_white_noise_is_flat_at_its_variance(height: int, width: int) -> None:
    """Of n images of 3 channels a bin is a mean of 3n values |N|², whose deviation is 1 / √(3n), √2 of that where real.

    The mean that is subtracted is missing within the window's main lobe.
    """
    n = 400
    spectrum = power(noise(n, height, width) * 0.5)
    assert spectrum.shape == (height, width)
    down, across = ((torch.arange(side) - side // 2).abs() for side in (height, width))
    away = (down[:, None] > 5) | (across > 5)
    assert float((spectrum[away] / 0.25 - 1).abs().max()) < 5 * math.sqrt(2 / (3 * n))
    for frequency, value in radial(spectrum):
        low = frequency * min(height, width) < 6
        assert value / 0.25 == pytest.approx(1, abs=0.7 if low else 0.1)


def test_a_constant_has_no_power_and_images_count_alike() -> None:
    assert float(decibels(power(torch.full((2, 1, 16, 16), 0.7))).max()) <= -99
    a, b = noise(3, 16, 16), noise(3, 16, 16, seed=1)
    assert torch.allclose(power(torch.cat([a, b])), (power(a) + power(b)) / 2, rtol=1e-6)
    assert torch.allclose(power(a[:, :1]) + power(a[:, 1:2]) + power(a[:, 2:]), 3 * power(a), rtol=1e-6)
    assert torch.allclose(power(4 * a), 16 * power(a), rtol=1e-5)


@pytest.mark.parametrize(("height", "width"), [(32, 32), (16, 48)])
def test_a_checkerboard_peaks_in_the_corner(height: int, width: int) -> None:
    board = (-1.0) ** (torch.arange(height)[:, None] + torch.arange(width))
    spectrum = power(board.expand(2, 3, height, width))
    assert divmod(int(spectrum.argmax()), width) == (0, 0)  # half a cycle per pixel in both directions
    assert max(value for _, value in radial(spectrum)) < float(spectrum.max()) / 10  # beyond its circles


@pytest.mark.parametrize(("height", "width"), [(32, 32), (32, 64), (48, 24)])
@pytest.mark.parametrize("cycles", [5, 8, 11])
def test_a_wave_stands_in_its_bin(height: int, width: int, cycles: int) -> None:
    """Of `cycles` on the shorter side, in either direction; the window spreads it over 2.7 bins to either side."""
    side = min(height, width)
    for axis, length in ((0, height), (1, width)):
        wave = torch.sin(2 * math.pi * cycles / side * torch.arange(length) + 1)
        image = wave[:, None].expand(height, width) if axis == 0 else wave.expand(height, width)
        curve = radial(power(image[None, None]))
        assert [frequency * side for frequency, _ in curve] == pytest.approx(range(side // 2 + 1))
        assert max(curve, key=lambda point: point[1])[0] == pytest.approx(cycles / side)
        far = [value for frequency, value in curve if abs(frequency * side - cycles) > 4]
        assert max(far) < max(value for _, value in curve) * 1e-4


def test_upsampling_leaves_its_traces() -> None:
    """Of noise: repeating pixels multiplies its power by cos² of half a cycle, zeros between them by nothing."""
    small, n = noise(200, 32, 32), 64
    nearest = power(small.repeat_interleave(2, 2).repeat_interleave(2, 3))
    at = torch.arange(n) - n // 2
    form = 4 * torch.cos(math.pi * at / n).square()
    wanted = form[:, None] * form / 4  # the variance of a repeated pixel is shared by four places
    inside = wanted > 0.4
    inside[n // 2 - 6 : n // 2 + 7, n // 2 - 6 : n // 2 + 7] = False
    assert float((nearest / wanted)[inside].log().abs().max()) < 0.45  # the window's width, and 600 values
    assert float(nearest[0, n // 2 :: 8].max()) < 0.05 * float(nearest[n // 2 + 8, n // 2 :: 8].max())
    zeros = torch.zeros(20, 1, n, n)
    zeros[:, :, ::2, ::2] = torch.linspace(0.1, 1, 20)[:, None, None, None]
    grid = power(zeros)  # of a constant, zeros between pixels leave peaks at the grid's frequencies
    assert {divmod(k, n) for k in grid.flatten().topk(3).indices.tolist()} == {(0, 0), (0, n // 2), (n // 2, 0)}


@pytest.mark.parametrize(("height", "width"), [(16, 16), (24, 40), (300, 500), (256, 1024)])
def test_pictures_of_any_size_stand_on_one_page(height: int, width: int) -> None:
    made = frequencies.page(power(noise(1, height, width)), power(noise(1, height, width, 1)), 1500, 1)
    assert made.shape == (frequencies.HIGH, 2 * (frequencies.SIDE + frequencies.GAP) + frequencies.GAP + 380, 3)
    empty = torch.zeros(height, width)
    assert frequencies.page(empty, empty, 0, 1).shape == made.shape


# -- runs --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from gancli.cli import main

    run = tmp_path_factory.mktemp("drawn") / "r"
    words = ["dataset.size=[1,16,16]", "observers.grid.every=2", "steps=4", f"run_dir={run}"]
    assert main(["train", *RUN, *words]) == 0
    return run


def test_a_run_draws_the_spectrum_of_its_last_samples(drawn: Path) -> None:
    with Image.open(drawn / "samples" / "frequencies.png") as picture:
        assert picture.size == (852, 280)
    text = (drawn / "report.html").read_text(encoding="utf-8")
    assert "<h2>Frequencies</h2>" in text
    assert re.search(r'<img src="data:image/webp;base64,[A-Za-z0-9+/=]{1000,}" alt="power spectra', text)
    assert not re.search(r'(src|href)="(?!data:)', text)


@pytest.mark.parametrize("content", [None, b"", b"no picture", "link"])
def test_a_picture_that_is_missing_or_damaged_is_left_out(
    drawn: Path, tmp_path: Path, content: bytes | str | None
) -> None:
    shutil.copytree(drawn, tmp_path / "r")
    file = tmp_path / "r" / "samples" / "frequencies.png"
    own = file.read_bytes()
    file.unlink()
    if content == "link":
        (tmp_path / "secret.png").write_bytes(own)
        file.symlink_to(tmp_path / "secret.png")
    elif isinstance(content, bytes):
        file.write_bytes(content)
    text = page.write(tmp_path / "r").read_text(encoding="utf-8")
    assert "<h2>Frequencies</h2>" not in text
    assert "<h2>Samples</h2>" in text


@pytest.mark.parametrize(
    ("words", "there"),
    [
        (["model=pix2pix", "model.ch=4", "dataset.size=[3,32,64]"], True),
        (["model=cyclegan", "model.ch=4", "dataset.size=[3,24,24]"], True),
        (["model=dcgan", "model.ch=4", "dataset.size=[1,8,8]"], False),
        (["model=dcgan", "model.ch=4", "dataset.size=[1,16,16]", "observers.grid.frequencies=false"], False),
        (["model=mlp", "dataset=ring"], False),
    ],
)
def test_images_of_all_games_have_one(gan: Gan, words: list[str], there: bool) -> None:
    kept = [word for word in RUN if not word.startswith(("model=", "model.ch", "dataset"))]
    kept += [] if "dataset=ring" in words else ["dataset=random", "dataset.n=24"]
    answer = gan("train", *words, *kept, "steps=1", "run_dir=r")
    assert answer.code == 0, answer.err
    assert Path("r/samples/frequencies.png").exists() == there
    assert ("<h2>Frequencies</h2>" in Path("r/report.html").read_text(encoding="utf-8")) == there
