"""The order of the data is a function of (seed, name, position)."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
import torch

from gancli.data.loader import Stream
from gancli.data.source import Source, order, table

N = 10


def numbered(n: int = N, flip: bool = False) -> Source:
    """Image i has i in its left half and 200 in its right half; its label is i % 3."""
    images = np.full((n, 1, 8, 8), 200, np.uint8)
    images[..., :4] = np.arange(n, dtype=np.uint8)[:, None, None, None]
    return table("numbered", images, np.arange(n) % 3, ["a", "b", "c"], flip=flip)


def names(batch: dict[str, torch.Tensor]) -> list[int]:
    """Which image each row is, mirrored or not."""
    return ((batch["x"].amin(dim=(1, 2, 3)) + 1) * 127.5).round().int().tolist()


def test_order_is_a_function_of_seed_name_and_position() -> None:
    first, second = (Stream(numbered(), seed=3, name="real") for _ in range(2))
    far_first = second.batch(70, 4)  # another history must not matter
    for position in (0, 7, 33, 70):
        a, b = first.batch(position, 4), second.batch(position, 4)
        assert torch.equal(a["x"], b["x"])
        assert torch.equal(a["y"], b["y"])
    assert torch.equal(far_first["x"], first.batch(70, 4)["x"])


def test_every_epoch_visits_every_image_once_and_epochs_are_joined() -> None:
    stream = Stream(numbered(), 0, "real")
    seen = [i for position in range(0, 60, 4) for i in names(stream.batch(position, 4))]
    epochs = [seen[e * N : (e + 1) * N] for e in range(6)]
    assert all(sorted(epoch) == list(range(N)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 6


@pytest.mark.parametrize("total", [1, 10, 25])
def test_a_batch_may_be_longer_than_the_data(total: int) -> None:
    stream = Stream(numbered(), 0, "real")
    whole = names(stream.batch(0, 50))
    assert names(stream.batch(7, total)) == whole[7 : 7 + total]


@pytest.mark.parametrize("cuts", [[0, 8], [0, 4, 8], [0, 1, 2, 7, 8], [0, 3, 3, 8]])
@pytest.mark.parametrize("flip", [False, True])
def test_any_cut_into_ranks_and_micro_batches_joins_to_the_same_batch(cuts: list[int], flip: bool) -> None:
    whole = Stream(numbered(flip=flip), 1, "real").batch(6, 8)  # crosses the border of two epochs
    parts = [Stream(numbered(flip=flip), 1, "real").batch(6, 8, a, b) for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat([part["x"] for part in parts]), whole["x"])
    assert torch.equal(torch.cat([part["y"] for part in parts]), whole["y"])


def test_seeds_and_names_give_different_orders() -> None:
    orders = {
        tuple(names(Stream(numbered(), seed, name).batch(0, N))) for seed in (0, 1) for name in ("real", "labelled")
    }
    assert len(orders) == 4


def test_labels_follow_their_images() -> None:
    batch = Stream(numbered(), 0, "real").batch(5, 20)
    assert batch["y"].dtype == torch.int64
    assert batch["y"].tolist() == [i % 3 for i in names(batch)]


def test_images_are_normalised_exactly() -> None:
    images = np.zeros((1, 1, 8, 8), np.uint8)
    images.reshape(-1)[:3] = 255, 51, 102
    x = Stream(table("one", images), 0, "real").batch(0, 1)["x"]
    assert x.dtype == torch.float32
    assert x.shape == (1, 1, 8, 8)
    assert x.flatten()[:4].tolist() == [1.0, pytest.approx(-0.6), pytest.approx(-0.2), -1.0]
    assert torch.equal(((x + 1) * 127.5).round().to(torch.uint8), torch.from_numpy(images))


def test_points_are_dealt_out_as_they_are() -> None:
    points = np.array([[2.5, -4.0]], np.float32)
    assert Stream(table("points", points), 0, "real").batch(0, 2)["x"].tolist() == [[2.5, -4.0], [2.5, -4.0]]


def mirrored(stream: Stream, position: int, total: int) -> list[bool]:
    return (stream.batch(position, total)["x"][:, 0, 0, 0] > 0.5).tolist()  # 200 has come to the left


def test_flips_are_a_function_of_the_stream_number() -> None:
    stream = Stream(numbered(flip=True), 0, "real")
    flips = mirrored(stream, 0, 400)
    assert 150 < sum(flips) < 250
    assert [mirrored(stream, i, 1)[0] for i in range(0, 400, 7)] == flips[::7]
    assert names(stream.batch(0, 40)) == names(
        Stream(numbered(), 0, "real").batch(0, 40)
    )  # the order does not know of them
    assert mirrored(Stream(numbered(flip=True), 1, "real"), 0, 400) != flips


def test_without_flip_nothing_is_mirrored() -> None:
    assert not any(mirrored(Stream(numbered(), 0, "real"), 0, 100))


@pytest.mark.parametrize("arguments", [(-1, 4), (0, 4, 3, 2), (0, 4, 0, 5), (0, 4, -1, 2)])
def test_rows_outside_the_batch_are_refused(arguments: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="do not exist"):
        Stream(numbered(), 0, "real").batch(*arguments)


def test_the_keyed_permutation_never_changes() -> None:
    # A run that is resumed under another version of NumPy must go on in the same order.
    assert order(8, 0, "real", 0).tolist() == [4, 0, 1, 7, 5, 2, 6, 3]
