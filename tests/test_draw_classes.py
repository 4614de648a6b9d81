"""Pictures by class, paths between classes, sums of latents, and what attention looks at."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import gancli
from gancli.compute.rng import Rng
from gancli.draw.standing import with_standing_statistics
from gancli.errors import ConfigError
from gancli.games.latent import Latent
from gancli.nets.layers.attention import Attention
from gancli.verbs.figures import POINTS, arithmetic, attention, terms
from tests.conftest import Gan


def test_one_row_a_class_from_the_same_latents(gan: Gan, labelled: Path) -> None:
    answer = gan("sample", f"run={labelled}", "classes=2,0", "n=5", "format=npz", "run_dir=r")
    assert answer.code == 0, answer.err
    with np.load("r/samples.npz") as arrays:
        images, labels, seeds = (arrays[k] for k in ("images", "labels", "seeds"))
    assert labels.tolist() == [2] * 5 + [0] * 5
    np.testing.assert_array_equal(seeds[:5], seeds[5:])
    assert not np.array_equal(images[:5], images[5:])
    sampler = gancli.load(str(labelled))
    twos = torch.cat(list(sampler.samples(5, seed=0, classes="2")))
    np.testing.assert_array_equal(images[:5], twos.permute(0, 2, 3, 1).numpy())
    answer = gan("sample", f"run={labelled}", "classes=all", "run_dir=all")
    assert json.loads(Path("all/sample.json").read_text(encoding="utf-8"))["classes"] == [0] * 8 + [1] * 8 + [2] * 8
    with Image.open("all/grid.png") as picture:
        assert picture.height == 3 * 66 + 2
        assert picture.width > 8 * 66 + 2  # the names stand at the left


def test_labels_come_with_their_images(labelled: Path) -> None:
    sampler = gancli.load(str(labelled))
    pairs = list(sampler.labelled_samples(70, seed=1))
    images, labels = (torch.cat(part) for part in zip(*pairs, strict=True))
    assert torch.equal(images, torch.cat(list(sampler.samples(70, seed=1))))
    assert labels.bincount().min() > 10
    drawn = sampler.sample([(1, 69)], {"y": labels[69:]})
    assert torch.equal(sampler.field.stored(drawn)[0], images[69])
    with pytest.raises(ConfigError, match="classes=7: no such class"):
        next(sampler.samples(1, classes=7))


def test_a_truncated_sampler_shares_the_network(labelled: Path) -> None:
    sampler = gancli.load(str(labelled))
    cut = sampler.truncated(0.5)
    assert cut.nets is sampler.nets
    assert cut.protocol()["truncation"] == 0.5
    assert sampler.protocol()["truncation"] is None
    assert cut.inputs([(0, 0)])["z"].abs().max() <= 0.5
    assert torch.equal(next(cut.samples(2)), next(gancli.load(str(labelled), truncation=0.5).samples(2)))


def test_standing_statistics_of_a_conditional_generator_use_all_classes(labelled: Path) -> None:
    sampler = gancli.load(str(labelled), ema=False)
    game, net = sampler.game, sampler.game.nets["G"]
    before = {k: v.clone() for k, v in net.state_dict().items()}
    settled = with_standing_statistics(game, dict(game.nets.items()), sampler.compute, passes=3, batch=12)["G"]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    net.train()
    seen = []
    hook = net.norm.register_forward_hook(lambda m, args, out: seen.append(args[0].mean((0, 2, 3))))
    for k in range(3):
        noise = Rng("standing statistics", k, total=12)
        y = noise.integers("y", 3)
        assert set(y.tolist()) == {0, 1, 2}
        with torch.no_grad():
            net(game.inputs(noise, {})["z"], y)
    hook.remove()
    torch.testing.assert_close(settled.norm.running_mean, torch.stack(seen).mean(0))


@pytest.mark.parametrize(("axis", "classes"), [("class", "0,2"), ("both", "0,2"), ("z", "1"), ("class", "null")])
def test_paths_between_classes(gan: Gan, labelled: Path, axis: str, classes: str) -> None:
    keys = [f"axis={axis}", f"classes={classes}", "rows=2", "frames=3"]
    assert gan("interpolate", f"run={labelled}", *keys, "run_dir=p").code == 0
    with Image.open("p/paths.png") as picture:
        page = np.array(picture)
    sampler = gancli.load(str(labelled))
    ends = {"class": ((0, 0), (0, 0)), "both": ((0, 0), (0, 1)), "z": ((0, 0), (0, 1))}[axis]
    labels = {"0,2": [0, 2], "1": [1, 1], "null": [0, 1]}[classes]
    mixtures = torch.eye(3)[labels] if axis != "z" else torch.tensor(labels)
    images = sampler.field.stored(sampler.generate(sampler.inputs(ends, {"y": mixtures}))["x"])
    for column, image in zip((0, 2), images, strict=True):
        left = 2 + 66 * column
        shown = page[2:66, left : left + 64][::4, ::4]
        # Another number of rows in a batch may round differently.
        assert np.abs(shown.astype(int) - image.permute(1, 2, 0).numpy()).max() <= 1


def test_arithmetic_adds_means_of_latents(gan: Gan, labelled: Path) -> None:
    assert [t.sign for t in terms("1 + 2-4 - 5,6")] == [1, 1, -1]
    assert [t.seeds for t in terms("1 + 2-4 - 5,6")] == [(1,), (2, 3, 4), (5, 6)]
    sampler = gancli.load(str(labelled))
    page, chosen = arithmetic(sampler, "3,7 - 1,2 + 8,9", None, seed=0)
    assert chosen == int(sampler.given([(3, 0)])["y"][0])
    means = [sampler.inputs([(a, 0), (b, 0)])["z"].mean(0, keepdim=True) for a, b in ((3, 7), (1, 2), (8, 9))]
    total = means[0] - means[1] + means[2]
    made = sampler.generate({"z": total, "y": torch.tensor([chosen])})["x"]
    centre = sampler.field.stored(made)[0].permute(1, 2, 0).numpy()
    top, left = 2 + 66 * 4, 2 + 66  # after three rows of terms, the middle of the nine
    shown = page[top : top + 64, left : left + 64][::4, ::4]
    assert np.abs(shown.astype(int) - centre).max() <= 1
    answer = gan("sample", f"run={labelled}", "arithmetic=3,7 - 1,2 + 8,9", "classes=1", "run_dir=r")
    assert answer.code == 0, answer.err
    assert json.loads(Path("r/sample.json").read_text(encoding="utf-8"))["class"] == 1
    assert Path("r/arithmetic.png").exists()


def test_attention_shows_where_the_weights_are(gan: Gan, labelled: Path) -> None:
    sampler = gancli.load(str(labelled))
    layer = next(m for m in sampler.nets["G"].modules() if isinstance(m, Attention))
    # Weights that single out one key: θ and φ read one channel that only that pixel pair has.
    torch.nn.init.zeros_(layer.phi.weight)
    sheets = attention(sampler, [(0, 0), (0, 1)], {"y": torch.tensor([0, 1])}, POINTS)
    (side,) = sheets
    assert side == 8
    assert sheets[8].shape == (2 * 98 + 2, 6 * 98 + 2, 3)
    # Equal scores: all keys are looked at alike, so the overlay has one brightness wherever the image has.
    assert layer.maps(torch.randn(1, layer.theta.weight.shape[1], 8, 8)).eq(1 / 16).all()
    assert not layer._forward_hooks
    answer = gan("sample", f"run={labelled}", "attention=true", "n=2", "points=[[0.1,0.9]]", "run_dir=r")
    assert answer.code == 0, answer.err
    with Image.open("r/attention.png") as picture:
        assert picture.size == (2 * 98 + 2, 2 * 98 + 2)
    assert json.loads(Path("r/sample.json").read_text(encoding="utf-8"))["layers"] == [8]


def test_latents_of_conditional_runs_are_the_same_for_any_class(labelled: Path) -> None:
    sampler = gancli.load(str(labelled))
    assert isinstance(sampler.game.latent, Latent)
    one, three = (sampler.inputs(pairs)["z"] for pairs in ([(4, 2)], [(4, 0), (4, 1), (4, 2)]))
    assert torch.equal(one, three[2:])
