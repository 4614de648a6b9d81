"""Adaptive augmentation against forms of its own: how far images are mirrored, shares of p, holes."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from gancli.augment.ada import (
    BGC,
    COLOUR,
    GEOMETRY,
    SYM6,
    Ada,
    Draw,
    geometry,
    holed,
    margins,
    resampled,
    rotation,
    scaling,
    translation,
)
from gancli.compute.rng import Rng
from gancli.config.compose import compose
from gancli.errors import ConfigError

F64 = torch.float64
TAPS = np.array(SYM6) / sum(SYM6)
Numbers = NDArray[np.float64]


def one(*steps: Tensor) -> Tensor:
    """The product of matrices, for one image."""
    product = torch.eye(3, dtype=F64)[None]
    for step in steps:
        product = product @ step
    return product


def n(value: float) -> Tensor:
    return torch.tensor([value], dtype=F64)


def still() -> Tensor:
    return torch.eye(3, dtype=F64)[None]


def by_loops(image: Numbers, inverse: Numbers) -> Numbers:
    """An image [H, W] read through a matrix pixel by pixel: mirrored as far as its corners reach, then nothing."""
    size, middle = np.array(image.shape[::-1]), (np.array(image.shape[::-1]) - 1) / 2
    corners = [(inverse @ [x, y, 1.0])[:2] for x in (-middle[0], middle[0]) for y in (-middle[1], middle[1])]
    reach = [np.ceil(np.clip(np.max(s * np.array(corners), 0) - middle + 6 - 1e-9, 0, size - 1)) for s in (-1, 1)]
    low, high = (r.astype(int) for r in reach)
    wide = np.pad(image, ((low[1], high[1]), (low[0], high[0])), mode="reflect")

    def fine(line: Numbers) -> Numbers:
        out = np.zeros(2 * len(line) + 20)
        for i, value in enumerate(line):
            out[5 + 2 * i : 5 + 2 * i + 12] += 2 * value * TAPS
        return out[10 : 10 + 2 * len(line)]

    wide = np.apply_along_axis(fine, 0, np.apply_along_axis(fine, 1, wide))

    def at(x: int, y: int) -> float:
        return float(wide[y, x]) if 0 <= x < wide.shape[1] and 0 <= y < wide.shape[0] else 0.0

    seen = np.zeros((2 * size[1] + 12, 2 * size[0] + 12))
    for row, column in np.ndindex(*seen.shape):
        # Fine pixel k of the output is at k / 2 - 3 of its pixels; of the mirrored image, at k / 2 - low.
        spot = np.array([column / 2 - 3, row / 2 - 3]) - middle
        x, y = 2 * ((inverse @ [*spot, 1.0])[:2] + middle + low)
        left, top = math.floor(x), math.floor(y)
        for i, j in np.ndindex(2, 2):
            share = (1 - abs(x - left - i)) * (1 - abs(y - top - j))
            seen[row, column] += share * at(left + i, top + j)

    def coarse(line: Numbers) -> Numbers:
        return np.array([line[1 + k : 13 + k] @ TAPS for k in range(0, len(line) - 12, 2)])

    return np.apply_along_axis(coarse, 0, np.apply_along_axis(coarse, 1, seen))


FAR = {
    "nothing": still(),
    "scale 0.3": scaling(n(1 / 0.3), n(1 / 0.3)),
    "scale 0.7": scaling(n(1 / 0.7), n(1 / 0.7)),
    "scale 4": scaling(n(0.25), n(0.25)),
    "turned by 45 degrees": rotation(n(math.pi / 4)),
    "turned and stretched": one(rotation(n(0.9)), scaling(n(1.8), n(1 / 1.8)), rotation(n(-2.0))),
    "moved by more than a side": translation(n(-17.3), n(4.6)),
    "a quarter turn of no square": rotation(n(math.pi / 2)),
    "all of it": one(scaling(n(-1.0), n(1.0)), scaling(n(1.6), n(1.6)), rotation(n(0.4)), translation(n(5.5), n(-3.2))),
}


@pytest.mark.parametrize("name", FAR)
def test_images_are_mirrored_as_far_as_a_transformation_reaches(name: str) -> None:
    images = torch.rand(1, 2, 12, 9, dtype=F64, generator=torch.Generator().manual_seed(3))
    got = resampled(images, FAR[name], torch.from_numpy(TAPS))
    for channel in range(2):
        want = by_loops(images[0, channel].numpy(), FAR[name][0].numpy())
        # Sums of some hundred products of numbers below 10.
        np.testing.assert_allclose(got[0, channel].numpy(), want, rtol=0, atol=1e-12)


def test_mirrors_end_after_a_side_and_beyond_is_nothing() -> None:
    """Of three sides of ones, a fifth as large, 9.4 pixels are left on each side of the middle."""
    images = torch.ones(1, 1, 32, 32, dtype=F64)
    small = resampled(images, scaling(n(5.0), n(5.0)), torch.from_numpy(TAPS))[0, 0]
    assert (small[:3] == 0).all()
    assert (small[:, -3:] == 0).all()
    assert (small[12:20, 12:20] - 1).abs().max() < 1e-12


def test_margins_are_those_of_the_farthest_image() -> None:
    sides = torch.Size((10, 20))
    both = torch.cat([translation(n(3.0), n(0.0)), scaling(n(1.5), n(1.0))])
    # Right: 9.5 + 3 + 6 - 9.5 of the first, 14.25 + 6 - 9.5 of the second; nothing is moved up or down.
    assert margins(both, sides).tolist() == [11, 6, 11, 6]
    assert margins(translation(n(-99.0), n(99.0)), sides).tolist() == [19, 0, 0, 9]


def test_a_part_of_a_batch_is_mirrored_as_the_whole() -> None:
    """At p = 1 margins differ from image to image; what a part is shown must not depend on how the batch is split."""
    images, rng = torch.rand(6, 3, 16, 16, dtype=F64), Rng(5, total=6, dtype=F64)
    ada = Ada(p=1.0, cutout=1.0).double()
    sides = images.shape[2:]
    alone = [margins(geometry(Draw(rng.cut(k, k + 1), "real", ada.p, F64), sides), sides).tolist() for k in range(6)]
    assert len(set(map(tuple, alone))) > 1
    parts = [ada(images[a:b], rng.cut(a, b), "real") for a, b in ((0, 1), (1, 3), (3, 6))]
    torch.testing.assert_close(torch.cat(parts), ada(images, rng, "real"), rtol=0, atol=1e-12)


def test_gradients_of_gradients_pass() -> None:
    images, rng = torch.rand(2, 1, 8, 8, dtype=F64, requires_grad=True), Rng(1, total=2, dtype=F64)
    ada = Ada(p=1.0, cutout=1.0).double()
    assert torch.autograd.gradgradcheck(lambda x: ada(x, rng, "real") ** 3, (images,), fast_mode=True)


@pytest.mark.parametrize("name", BGC)
def test_each_transformation_has_a_share_of_p(name: str) -> None:
    images, rng = torch.rand(64, 3, 16, 16, dtype=F64), Rng(2, total=64, dtype=F64)
    none = dict.fromkeys(BGC, 0.0)
    assert torch.equal(Ada(p=1.0, **none).double()(images, rng, "real"), images)

    def changed(p: float, share: float) -> int:
        """Images that change; those that the draw leaves as they are (half of the flips) are none."""
        out = Ada(p=p, **none | {name: share}).double()(images, rng, "real")
        return int(((out - images).abs().flatten(1).amax(1) > 1e-4).sum())

    every, half = changed(1.0, 1.0), changed(1.0, 0.5)
    assert changed(1.0, 0.0) == 0
    assert changed(0.5, 1.0) == half  # only their product counts
    # Each image that changes at a share of 1 does at 1/2 by one draw: within four deviations of a half.
    assert abs(half - every / 2) < 4 * math.sqrt(every / 4)
    assert every > 20


@pytest.mark.parametrize("share", [-0.1, 1.5, math.nan, math.inf])
def test_shares_of_p_are_shares(share: float) -> None:
    with pytest.raises(ConfigError, match=r"augment\.hue=.*from 0 \(never\) to 1"):
        Ada(hue=share)


def test_a_hole_is_half_a_side_around_its_centre() -> None:
    rng = Rng(7, total=2000, dtype=F64)
    draw = Draw(rng, "real", torch.ones((), dtype=F64), F64, BGC | {"cutout": 1.0})
    holes = holed(draw, torch.ones(2000, 1, 8, 12, dtype=F64))[:, 0] == 0
    x, y = draw.uniform("hole x"), draw.uniform("hole y")
    for k in range(8):
        rows = [abs((row + 0.5) / 8 - y[k].item()) < 0.25 for row in range(8)]
        columns = [abs((column + 0.5) / 12 - x[k].item()) < 0.25 for column in range(12)]
        assert holes[k].tolist() == [[row and column for column in columns] for row in rows]
    # Its centre anywhere in the image: on average an eighth of it falls outside along each axis.
    share = holes.double().mean().item()
    assert share == pytest.approx((7 / 16) ** 2, abs=0.01)


def test_half_precision_loses_nothing_but_the_last_rounding() -> None:
    images, rng = torch.rand(4, 3, 16, 16).bfloat16(), Rng(3, total=4)
    ada = Ada(p=1.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = ada(images, rng, "real")
    assert out.dtype == torch.bfloat16
    assert torch.equal(out, ada(images.float(), rng, "real").bfloat16())


def test_shapes_alone_can_be_augmented() -> None:
    """A step is counted without memory where trying it would take too long."""
    ada, rng = Ada(p=1.0, cutout=1.0).to("meta"), Rng(0, total=4, device="meta")
    out = ada(torch.empty(4, 3, 16, 16, device="meta"), rng, "real")
    assert (out.shape, out.is_meta) == ((4, 3, 16, 16), True)


@pytest.mark.parametrize("name", ["r3gan_cifar10", "r3gan_ffhq64"])
def test_r3gans_runs_are_augmented_as_released(name: str) -> None:
    """Its training script: flips of the data, blits and geometry 1, colours 0.5, cutout 1; p by the ramp."""
    config = compose("train", [f"experiment={name}"])
    shares = {key: config["augment"][key] for key in BGC}
    assert shares == dict.fromkeys(GEOMETRY, 1.0) | dict.fromkeys(COLOUR, 0.5) | {"cutout": 1.0}
    assert config["augment"]["target"] is None
    assert config["dataset"]["flip"] is True
    assert config["ramp"]["augment"] == {"r3gan_cifar10": 0.55, "r3gan_ffhq64": 0.3}[name]


def test_every_share_of_p_is_explained() -> None:
    lines = (Path(__file__).parents[1] / "conf/augment/ada.yaml").read_text(encoding="utf-8").splitlines()
    keys = {line.partition(":")[0] for line in lines if "  # " in line}
    assert keys == {"p", "target", "interval", "images", *BGC}


def test_the_default_is_stylegan2_adas() -> None:
    config = compose("train", ["augment=ada"])
    assert {key: config["augment"][key] for key in BGC} == dict.fromkeys((*GEOMETRY, *COLOUR), 1.0) | {"cutout": 0.0}
