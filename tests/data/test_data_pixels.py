"""Pixel arithmetic, against numbers worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from gancli.data.pixels import fit, parse_size, resize, to_channels
from gancli.errors import ConfigError


def pixels(*rows: list[int]) -> np.ndarray:
    return np.array(rows, np.uint8)[None, None]


def test_box_filter_averages_two_by_two_and_rounds_halves_up() -> None:
    image = pixels([0, 1, 10, 20], [1, 0, 30, 41], [255, 255, 0, 0], [255, 254, 0, 3])
    # means 0.5, 25.25, 254.75, 0.75
    assert resize(image, 2, 2).tolist() == [[[[1, 25], [255, 1]]]]


def test_box_filter_weighs_by_covered_area() -> None:
    image = np.repeat(pixels([0, 90, 240]), 3, axis=2)
    # pixels of 1.5: (0 + 45) / 1.5 and (45 + 240) / 1.5
    assert resize(image, 2, 2)[0, 0].tolist() == [[30, 190]] * 2


def test_growing_interpolates_linearly() -> None:
    # centres of the new pixels lie at -0.25, 0.25, 0.75, 1.25 of the old ones
    assert resize(np.repeat(pixels([0, 100]), 2, axis=2), 4, 4)[0, 0].tolist() == [[0, 25, 75, 100]] * 4


def test_another_aspect_is_cropped_centrally() -> None:
    image = np.arange(8, dtype=np.uint8)[None, None, None].repeat(4, axis=2) * 10
    assert resize(image, 4, 4)[0, 0].tolist() == [[20, 30, 40, 50]] * 4
    assert resize(image, 2, 2)[0, 0].tolist() == [[25, 45]] * 2


def test_grey_of_colour_is_pillows() -> None:
    colour = np.random.default_rng(0).integers(0, 256, (5, 3, 9, 8), np.uint8)
    expected = [np.asarray(Image.fromarray(image.transpose(1, 2, 0)).convert("L")) for image in colour]
    assert np.array_equal(to_channels(colour, 1, "x")[:, 0], np.stack(expected))


def test_colour_of_grey_repeats_it() -> None:
    grey = np.random.default_rng(0).integers(0, 256, (2, 1, 8, 8), np.uint8)
    colour = to_channels(grey, 3, "x")
    assert colour.shape == (2, 3, 8, 8)
    assert all(np.array_equal(colour[:, c], grey[:, 0]) for c in range(3))
    assert np.array_equal(to_channels(colour, 1, "x"), grey)


def test_impossible_channels_are_named() -> None:
    with pytest.raises(ConfigError, match=r"requests 5 channels, but dataset=emoji has 3: type 1 or 3"):
        fit(np.zeros((1, 3, 8, 8), np.uint8), [5, 8, 8], "emoji")


def test_padding_keeps_every_pixel() -> None:
    image = np.random.default_rng(0).integers(1, 256, (2, 1, 28, 28), np.uint8)
    padded = fit(image, [1, 32, 32], "fashion", pad=True)
    assert np.array_equal(padded[:, :, 2:30, 2:30], image)
    assert padded.sum() == image.sum()
    assert not np.array_equal(fit(image, 32, "other"), padded)


@pytest.mark.parametrize(("height", "width"), [(8, 8), (8, 13), (13, 8), (40, 9), (64, 64), (28, 31)])
@pytest.mark.parametrize("channels", [1, 3])
def test_every_size_keeps_a_constant_image_constant(channels: int, height: int, width: int) -> None:
    image = np.full((2, 3, 28, 20), 77, np.uint8)
    result = fit(image, [channels, height, width], "x")
    assert result.shape == (2, channels, height, width)
    assert (result == 77).all()
    assert result.flags.c_contiguous


def test_sizes_are_read() -> None:
    assert parse_size(None, (3, 64, 48), "x") == (3, 64, 48)
    assert parse_size(16, (1, 28, 28), "x") == (1, 16, 16)
    assert parse_size([3, 8, 9], (1, 28, 28), "x") == (3, 8, 9)


@pytest.mark.parametrize(
    "size", [7, 0, -3, 9000, [3, 7, 8], [0, 8, 8], [3, 8], [3, 8, 8, 8], [], True, [3, 8.5, 8], "32"]
)
def test_wrong_sizes_say_what_to_type(size: object) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.size=.*dataset=digits.*dataset\.size=\[3,32,32\]"):
        parse_size(size, (1, 28, 28), "digits")  # type: ignore[arg-type]
