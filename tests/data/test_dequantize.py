"""Images with the noise that makes their grey levels continuous: what D sees, by hand, however it is dealt."""

from __future__ import annotations

import ast
import hashlib
import json
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.config.compose import compose
from gancli.data import embedded, folder, gather, hub, noise, npz, shards, source, torchvision, toys, zipped
from gancli.data.loader import Stream
from gancli.data.source import Source, table
from gancli.errors import ConfigError
from tests.conftest import TINY, Gan

SIDE = 5  # 3 × 5 × 5 numbers are no multiple of what a step of the generator yields


def images(n: int = 10, dequantize: bool = True, flip: bool = False) -> Source:
    pixels = np.random.default_rng(1).integers(0, 256, (n, 3, SIDE, SIDE), dtype=np.uint8)
    pixels[0], pixels[1] = 0, 255
    return table("some", pixels, dequantize=dequantize, flip=flip)


def noise_of(batch: Tensor, clean: Tensor) -> Tensor:
    """What was added, in grey levels, of images whose levels are known."""
    levels = (clean.double() + 1) * 127.5
    return (batch.double() + 1) * 128 - levels.round()


def test_d_sees_each_level_with_a_uniform_number_below_the_next() -> None:
    dealt, clean = (Stream(images(dequantize=on), 0, "real").batch(0, 2000)["x"] for on in (True, False))
    assert dealt.dtype == torch.float32
    assert dealt.min() >= -1
    assert dealt.max() < 1
    added = noise_of(dealt, clean)
    assert added.min() >= 0
    assert added.max() < 1
    assert torch.equal(added * 2**16, (added * 2**16).round())  # exact: nothing is lost in float32
    # 150,000 numbers: the mean is off by 1/√12/√n at most five times over, the variance by 1/√180/√n.
    count = added.numel()
    assert added.mean().item() == pytest.approx(0.5, abs=5 / (12 * count) ** 0.5)
    assert added.var().item() == pytest.approx(1 / 12, abs=5 / (180 * count) ** 0.5)
    rows = added.flatten(1) - 0.5
    near = (rows[1:] * rows[:-1]).mean().item() * 12  # neighbours in the stream have nothing in common
    assert abs(near) < 5 / count**0.5


@pytest.mark.parametrize("cuts", [[0, 8], [0, 4, 8], [0, 1, 2, 7, 8], [0, 3, 3, 8]])
def test_ranks_and_micro_batches_see_the_same(cuts: list[int]) -> None:
    whole = Stream(images(), 1, "real").batch(6, 8)["x"]  # crosses the border of two epochs
    parts = [Stream(images(), 1, "real").batch(6, 8, a, b)["x"] for a, b in pairwise(cuts)]
    assert torch.equal(torch.cat(parts), whole)


def test_numbers_are_of_the_place_in_the_stream_its_name_and_the_seed() -> None:
    clean = Stream(images(dequantize=False), 0, "real").batch(0, 40)["x"]
    first = Stream(images(), 0, "real")
    added = noise_of(first.batch(0, 40)["x"], clean)
    assert len({tuple(row.tolist()) for row in added.flatten(1)}) == 40  # other numbers in each epoch
    assert torch.equal(first.batch(33, 4)["x"], first.batch(0, 40)["x"][33:37])
    for other in (Stream(images(), 1, "real"), Stream(images(), 0, "other")):
        same = Stream(images(dequantize=False), other.seed, other.name).batch(0, 40)["x"]
        assert not torch.equal(noise_of(other.batch(0, 40)["x"], same), added)


def test_mirrored_images_get_the_same_numbers() -> None:
    straight, turned = (noise_of(
        Stream(images(flip=flip), 0, "real").batch(0, 30)["x"],
        Stream(images(flip=flip, dequantize=False), 0, "real").batch(0, 30)["x"],
    ) for flip in (False, True))  # fmt: skip
    assert torch.equal(straight, turned)


def test_metrics_and_fingerprints() -> None:
    """Rows stay as they are, for metrics; the fingerprint of what is dealt is another."""
    rows = np.arange(10)
    assert torch.equal(images().rows(rows)["x"], images(dequantize=False).rows(rows)["x"])
    assert images().fingerprint != images(dequantize=False).fingerprint
    assert images().only(rows[:4]).dequantize
    pixels = np.zeros((2, 1, 8, 8), np.uint8)
    told = {"x": {"kind": "image", "channels": 1, "height": 8, "width": 8}}
    facts = json.dumps([told, 2, False, None, 0, False]).encode()
    by_hand = hashlib.sha256(facts + hashlib.sha256(pixels).hexdigest().encode())
    assert table("x", pixels).fingerprint == by_hand.hexdigest()


def test_every_image_data_set_passes_it_on(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (4, 8, 8, 3), dtype=np.uint8)
    np.savez(tmp_path / "a.npz", images=pixels)
    (tmp_path / "files").mkdir()
    for k in range(4):
        Image.fromarray(pixels[k]).save(tmp_path / "files" / f"{k}.png")
    made = [
        embedded.fashion(limit=4, dequantize=True),
        embedded.emoji(limit=4, dequantize=True),
        noise.noise(n=4, dequantize=True),
        npz.npz(str(tmp_path / "a.npz"), dequantize=True),
        *(folder.folder(str(tmp_path / "files"), dequantize=True, store=store) for store in ("raw", "encoded")),
    ]
    for each in made:
        assert each.dequantize
        with_noise = Stream(each, 0, "real").batch(2, 4)["x"]
        assert 0 < ((with_noise + 1) * 128 % 1).mean() < 1
    in_memory, read_ahead = (Stream(each, 0, "real").batch(2, 4)["x"] for each in made[-2:])
    assert torch.equal(in_memory, read_ahead)


@pytest.mark.parametrize(
    "module", [embedded, folder, gather, hub, noise, npz, shards, source, torchvision, toys, zipped]
)
def test_whoever_passes_flip_passes_dequantize(module: object) -> None:
    """No reader may take the key and forget it."""
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))  # type: ignore[attr-defined]
    calls = [{k.arg for k in node.keywords} for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert all("dequantize" in keys for keys in calls if "flip" in keys)
    for node in (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef)):
        names = {argument.arg for argument in (*node.args.args, *node.args.kwonlyargs)}
        assert ("flip" in names) == ("dequantize" in names), node.name


@pytest.mark.parametrize("make", [toys.ring, toys.grid, toys.gauss1d, toys.swissroll])
def test_points_have_no_grey_levels(make: object) -> None:
    with pytest.raises(ConfigError, match=r"dataset\.dequantize=true: .*points.*type dataset\.dequantize=false"):
        make(dequantize=True)  # type: ignore[operator]


@pytest.mark.parametrize("name", ["sngan_cifar10", "projection_imagenet128", "sngan_small", "projection_small"])
def test_sngans_runs_have_it(name: str) -> None:
    assert compose("train", [f"experiment={name}"])["dataset"]["dequantize"] is True


def test_a_resumed_run_sees_the_same(gan: Gan) -> None:
    for run, steps in (("whole", 3), ("parts", 2)):
        assert gan("train", *TINY, "dataset.dequantize=true", f"run_dir={run}", f"steps={steps}").code == 0
    assert gan("train", "resume=parts", "steps=3").code == 0
    states = [torch.load(f"{run}/checkpoints/00000003.pt", weights_only=True) for run in ("whole", "parts")]
    whole, parts = (state["game"] for state in states)
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
