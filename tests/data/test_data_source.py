"""What all data sets share: limits, splits, fingerprints; and noise and toys."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from gancli.data.loader import Stream
from gancli.data.noise import noise
from gancli.data.source import DataSet, Source, check_split, finish, lone, table
from gancli.data.toys import grid, grid_modes, ring, ring_modes, swissroll
from gancli.errors import ConfigError, DataError


def made(limit: int | None = None, flip: bool = False, change: int = 0) -> Source:
    images = np.arange(100, dtype=np.uint8).repeat(64).reshape(100, 1, 8, 8)
    images[0, 0, 0, 0] += change
    labels = np.arange(100) // 50
    return finish("made", images, labels, ["low", "high"], size=None, limit=limit, flip=flip)


def everything(source: DataSet) -> tuple[torch.Tensor, ...]:
    return tuple(lone(source).rows(np.arange(len(lone(source)))).values())


def test_limits_mix_classes_and_nest() -> None:
    few, more = everything(made(10)), everything(made(40))
    assert len(few[0]) == 10
    assert len(more[0]) == 40
    assert torch.equal(few[0], more[0][:10])
    assert 8 < more[1].sum() < 32
    assert len(made(1000)) == 100


@pytest.mark.parametrize("limit", [0, -5])
@pytest.mark.parametrize("make", [made, ring, noise])
def test_a_limit_that_keeps_nothing_is_refused(limit: int, make: object) -> None:
    with pytest.raises(ConfigError, match=rf"dataset\.limit={limit} keeps nothing"):
        make(limit=limit)  # type: ignore[operator]


def test_splits_name_what_there_is() -> None:
    check_split("mnist", "test", ["train", "test"])
    with pytest.raises(
        ConfigError, match=r"dataset=mnist has no split 'val': type dataset\.split=train or dataset\.split=test"
    ):
        check_split("mnist", "val", ["train", "test"])


def test_fingerprints_tell_contents_and_choices_apart() -> None:
    prints = [made().fingerprint, made(50).fingerprint, made(flip=True).fingerprint, made(change=1).fingerprint]
    assert len(set(prints)) == 4
    assert made().fingerprint == prints[0]
    assert len(bytes.fromhex(prints[0])) == 32


def test_labels_must_fit() -> None:
    images = np.zeros((3, 1, 8, 8), np.uint8)
    with pytest.raises(DataError, match="3 images and 2 labels"):
        table("x", images, np.array([0, 1]), ["a", "b"])
    with pytest.raises(DataError, match="labels from 0 to 2 but 2 classes"):
        table("x", images, np.array([0, 1, 2]), ["a", "b"])
    with pytest.raises(DataError, match="is empty"):
        table("x", images[:0])


def test_unlabelled_sets_have_no_column_of_labels_and_no_classes() -> None:
    source = table("x", np.zeros((3, 1, 8, 8), np.uint8))
    assert source.classes == ()
    assert list(source.rows(np.array([2, 0]))) == ["x"]
    assert source.labels.tolist() == [0, 0, 0]


@pytest.mark.parametrize("size", [[1, 8, 8], [3, 9, 17], [5, 8, 8], 16])
def test_noise_of_any_shape(size: list[int] | int) -> None:
    source = noise(size=size, n=20, classes=7)
    shape = (3, size, size) if isinstance(size, int) else tuple(size)
    x, y = everything(source)
    assert source.shape == shape
    assert x.shape == (20, *shape)
    assert x.dtype == torch.uint8
    assert y.tolist() == [i % 7 for i in range(20)]
    assert source.classes == tuple("0123456")


def test_noise_is_keyed_and_uniform() -> None:
    a, b = everything(noise(n=64))[0], everything(noise(n=64))[0]
    assert torch.equal(a, b)
    assert not torch.equal(a, everything(noise(n=64, seed=1))[0])
    assert not torch.equal(a, everything(noise(n=64, split="test"))[0])
    counts = torch.bincount(a.flatten().int(), minlength=256).float()
    assert counts.min() > 0.8 * counts.mean()
    assert counts.max() < 1.2 * counts.mean()


def test_noise_defaults_and_choices() -> None:
    assert len(noise()) == 256
    assert len(noise(limit=5)) == 5
    assert noise(classes=0).classes == ()
    prints = {noise().fingerprint, noise(seed=1).fingerprint, noise(size=16).fingerprint, noise(classes=3).fingerprint}
    assert len(prints) == 4
    assert noise().fingerprint in prints
    with pytest.raises(ConfigError, match="over 16 GiB"):
        noise(size=[3, 8192, 8192], n=10**6)
    with pytest.raises(ConfigError, match=r"dataset\.classes=-1"):
        noise(classes=-1)
    with pytest.raises(ConfigError, match=r"dataset\.n=0"):
        noise(n=0)


@pytest.mark.parametrize(("make", "modes"), [(ring, ring_modes()), (grid, grid_modes())])
def test_points_lie_on_their_modes(make: object, modes: object) -> None:
    source = make()  # type: ignore[operator]
    (x,) = everything(source)
    assert x.shape == (100_000, 2)
    assert x.dtype == torch.float32
    assert source.classes == ()
    assert source.modes.sigma == modes.sigma  # type: ignore[attr-defined]
    means = torch.from_numpy(source.modes.means).float()
    distance, nearest = torch.cdist(x, means).min(dim=1)
    counts = torch.bincount(nearest, minlength=len(means))
    expected = 100_000 / len(means)
    assert (counts - expected).abs().max() < 5 * expected**0.5
    # Rayleigh: the squared distance to a mean is 2σ² on average
    assert distance.square().mean().item() == pytest.approx(2 * source.modes.sigma**2, rel=0.02)


def test_modes_are_the_published_ones() -> None:
    assert ring_modes().means.shape == (8, 2)
    assert ring_modes().sigma == 0.01
    assert np.allclose(np.linalg.norm(ring_modes().means, axis=1), 1)
    assert np.allclose(ring_modes().means[1], [np.sqrt(0.5), np.sqrt(0.5)])
    assert grid_modes().sigma == 0.05
    assert sorted(map(tuple, grid_modes().means.tolist())) == [
        (x, y) for x in (-4, -2, 0, 2, 4) for y in (-4, -2, 0, 2, 4)
    ]


def test_scaled_modes_are_wgan_gps() -> None:
    """Its 8 Gaussians lie at a radius of 2 with σ 0.02, all over 1.414; its 25 at pitch 2 with σ 0.05, over 2.828."""
    eight, many = ring(n=10, scale=2 / 1.414).modes, grid(n=10, scale=1 / 2.828).modes
    assert eight is not None
    assert many is not None
    diagonal = 2 / np.sqrt(2) / 1.414
    assert np.allclose(eight.means[:3], [[2 / 1.414, 0], [diagonal, diagonal], [0, 2 / 1.414]], atol=1e-12)
    assert eight.sigma == pytest.approx(0.02 / 1.414, rel=1e-12)
    assert np.allclose(many.means[[0, 7]], [[-4 / 2.828, -4 / 2.828], [-2 / 2.828, 0]], atol=1e-12)
    assert many.sigma == pytest.approx(0.05 / 2.828, rel=1e-12)
    # A point is scaled, not drawn anew, and both sets have a deviation of about 1 in each direction.
    wide, narrow = everything(grid(n=500))[0], everything(grid(n=500, scale=0.5))[0]
    torch.testing.assert_close(narrow, wide / 2, rtol=1e-6, atol=1e-7)
    for source in (ring(scale=2 / 1.414), grid(scale=1 / 2.828)):
        assert everything(source)[0].std(0).tolist() == pytest.approx([1, 1], rel=0.01)
    for scale in (0.0, -1.0, 1e300, 1e-300, float("inf"), float("nan")):
        with pytest.raises(ConfigError, match=r"dataset\.scale="):
            ring(scale=scale)


def test_swissroll_is_a_spiral_of_the_published_scale() -> None:
    source = swissroll()
    radius = everything(source)[0].norm(dim=1) * 7.5
    assert source.modes is None
    # t uniform in [1.5π, 4.5π] is the radius, smeared by 0.25
    assert radius.mean().item() == pytest.approx(3 * np.pi, rel=0.01)
    assert radius.min() > 1.5 * np.pi - 1.5
    assert radius.max() < 4.5 * np.pi + 1.5


def test_toys_are_keyed_and_checked() -> None:
    assert torch.equal(everything(ring(n=50))[0], everything(ring(n=50))[0])
    assert not torch.equal(everything(ring(n=50))[0], everything(ring(n=50, seed=1))[0])
    assert not torch.equal(everything(ring(n=50))[0], everything(ring(n=50, split="test"))[0])
    assert len(grid(n=50, limit=7)) == 7
    assert ring(size=[2], n=5).shape == (2,)
    for wrong in ({"size": [3, 32, 32]}, {"flip": True}, {"n": 0}):
        with pytest.raises(ConfigError, match=rf"dataset\.{next(iter(wrong))}=.*dataset=ring .* type dataset\."):
            ring(**wrong)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no split 'val': type dataset\.split=train or dataset\.split=test"):
        ring(split="val")


def test_a_stream_deals_points() -> None:
    batch = Stream(ring(n=100), 0, "real").batch(90, 20)
    assert batch["x"].shape == (20, 2)
    assert batch["x"].dtype == torch.float32
