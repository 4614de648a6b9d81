"""Metrics that tell copies of training images: on points whose values are known, and on planted copies."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.data import fields
from gancli.data.embedded import emoji
from gancli.data.source import raw_bits
from gancli.errors import ConfigError, MetricError
from gancli.metrics.authenticity import Authenticity
from gancli.metrics.fid import Fid
from gancli.metrics.fld import Fld, divergence, fitted, squared
from gancli.metrics.images import ImageSet
from gancli.metrics.mifid import Mifid, memorisation_distance
from gancli.metrics.training_metric import Compared
from tests.conftest import Gan


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


def uniform(n: int, dim: int, purpose: str) -> Tensor:
    """Numbers in [0, 1) that are the same everywhere, float32 [n, dim]."""
    return torch.from_numpy((raw_bits(n * dim, purpose) >> np.uint64(40)).astype(np.float32) / 2**24).view(n, dim)


def gaussian(n: int, dim: int, seed: int) -> Tensor:
    return torch.randn(n, dim, generator=torch.Generator().manual_seed(seed))


class Points:
    """An extractor of points, and sides that hold their features already."""

    name, classes, batch_size = "inception", 0, 4

    def __init__(self, dim: int):
        self.dim = dim

    def notes(self) -> list[str]:
        return []


def sides(samples: Tensor, training: Tensor, test: Tensor | None = None, mirrored: Tensor | None = None) -> Compared:
    """What a metric gets, with these features."""

    def of(points: Tensor) -> ImageSet:
        return ImageSet(len(points), (3, 1, 1), lambda: iter([]))

    found = Compared(
        Points(samples.shape[1]),  # type: ignore[arg-type]
        of(samples),
        lambda most: of(training[:most]),
        lambda most: None,
        lambda: None if test is None else of(test),
        quiet,
        flipped=mirrored is not None,
    )
    found._samples = samples
    found._mirrored = {} if mirrored is None else {len(training): mirrored}
    found._training = {len(training): (of(training), training)}
    if test is not None:
        found.of = lambda images, what: test  # type: ignore[method-assign]
    return found


@pytest.mark.parametrize(("dim", "reciprocal"), [(1, 2 / 3), (2, 6 * math.pi / (8 * math.pi + 3 * math.sqrt(3)))])
def test_new_samples_are_authentic_unless_their_neighbour_is_theirs(dim: int, reciprocal: float) -> None:
    # A sample is not authentic if it and its nearest training image are each other's nearest: a known constant for
    # points of any density (Clark, Evans 1955; Pickard 1982).
    training, new = uniform(4000, dim, "training"), uniform(2000, dim, "samples")
    found = Authenticity().compare(sides(new, training)).values
    assert list(found) == ["authenticity", "authenticity_of_data"]
    for share, count in zip(found.values(), (2000, 4000), strict=True):
        # Two points that are each other's nearest are counted together.
        assert abs(share - (1 - reciprocal)) < 5 * math.sqrt(2 * reciprocal * (1 - reciprocal) / count)


def test_held_out_points_are_as_authentic_as_the_data() -> None:
    found = Authenticity().compare(sides(gaussian(1000, 16, 1), gaussian(1000, 16, 0))).values
    assert 0.4 < found["authenticity"] < 0.8
    # The standard error of each share is below √(1/4 · 2 / 1000).
    assert abs(found["authenticity"] - found["authenticity_of_data"]) < 5 * math.sqrt(2 * 0.5 / 1000)


def test_copies_are_not_authentic_even_of_what_the_data_hold_twice() -> None:
    training = torch.cat([gaussian(40, 8, 0), gaussian(40, 8, 0)[:9]])
    assert Authenticity().compare(sides(training[:20], training)).values["authenticity"] == 0
    far = Authenticity().compare(sides(training + 100, training))
    assert far.values["authenticity"] == 1
    assert far.details == {"training_images": 49, "mirrored_images_searched": False}


def test_mirrored_copies_are_not_authentic_and_are_near_for_mifid() -> None:
    training = gaussian(40, 8, 0).abs()
    mirrored, new = training.flip(1) - 9, training[:20].flip(1) - 9
    found = sides(new, training, mirrored=mirrored)
    plain = sides(new, training)
    assert Authenticity().compare(plain).values["authenticity"] == 1
    seen = Authenticity().compare(found)
    assert seen.values == {**Authenticity().compare(plain).values, "authenticity": 0}
    assert seen.details == {"training_images": 40, "mirrored_images_searched": True}
    near, far = Mifid().compare(found), Mifid().compare(plain)
    # The FID, and the distance among training images, are of the images as they are.
    assert near.details["mifid_distances"]["training_images"] == far.details["mifid_distances"]["training_images"]
    assert near.values["mifid_distance"] < 1e-14 < 1e-4 < far.values["mifid_distance"]


def test_memorisation_distance_by_hand() -> None:
    training = torch.tensor([[1.0, 0], [0, 2], [0, 0]])
    assert memorisation_distance(torch.tensor([[5.0, 0], [0, -1], [0, 0]]), training) == 0
    assert memorisation_distance(torch.tensor([[3.0, 4], [4, 3]]), training) == pytest.approx(0.2, abs=1e-7)
    with pytest.raises(MetricError, match="all features are zero"):
        memorisation_distance(torch.zeros(2, 2), training)


def test_mifid_is_fid_for_new_samples_and_is_divided_for_copies() -> None:
    training, new = gaussian(80, 16, 0), gaussian(40, 16, 1)
    found = Mifid().compare(sides(new, training))
    fid = Fid().score(new, training, Points(16))["fid"]  # type: ignore[arg-type]
    distance = found.values["mifid_distance"]
    assert distance > 0.1
    assert found.values["mifid"] == pytest.approx(fid, rel=1e-12)
    assert found.details["mifid_penalised"] is False
    assert found.details["mifid_distances"]["training_images"] == pytest.approx(distance, rel=0.2)
    copied = Mifid().compare(sides(training[:40], training))
    fid = Fid().score(training[:40], training, Points(16))["fid"]  # type: ignore[arg-type]
    assert copied.values["mifid_distance"] < 1e-14  # 1 less a sum of 16 squares, in float64
    assert copied.values["mifid"] > 1e13 * fid
    assert "is below 0.1" in copied.notes[-1]
    near = Mifid(threshold=1).compare(sides(new, training)).values
    assert near["mifid"] == pytest.approx(found.values["mifid"] / distance)
    with pytest.raises(ConfigError, match=r"metrics\.mifid\.threshold=2"):
        Mifid(threshold=2)


def nats(points: Any, centres: Any, logs: Any) -> Any:
    """Log of the mean of Gaussians, with autograd and without blocks."""
    dim = points.shape[1]
    away = ((points[:, None] - centres[None]) ** 2).sum(2)
    return torch.logsumexp(-away / (2 * logs.exp()) - dim / 2 * (logs + math.log(2 * math.pi)), 1) - math.log(
        len(centres)
    )


def test_variances_follow_the_likelihood_of_training_images() -> None:
    centres, points = gaussian(7, 3, 0).double(), gaussian(40, 3, 1).double()
    found = fitted(centres, points)
    logs = ((squared(points, centres).amin(0) + 1e-3) / 3).log().requires_grad_()
    rest = torch.zeros(1, dtype=torch.float64, requires_grad=True)
    optimizer, losses = torch.optim.Adam([logs, rest], lr=0.5), list[float]()
    origin = 0.81 * ((points - points.mean(0)) ** 2).sum(1)
    for epoch in range(50):
        far = -origin / (2 * rest.exp()) - 1.5 * (rest + math.log(2 * math.pi))
        loss = -torch.logaddexp(nats(points, centres, logs), far).mean() / 3
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(loss.item())
        if epoch > 5 and max(abs(losses[-1] - each) for each in losses[-5:]) < 5e-4:
            break
    assert torch.allclose(found.log_variances, logs, rtol=1e-9, atol=1e-9)
    assert torch.allclose(found.log_likelihood(points), nats(points, centres, logs), rtol=1e-9)


# The released code's numbers (float32) of the same points, its shuffles replaced by this program's.
RELEASED = {0.0: (-0.25775, -1.93161), 0.2: (14.81023, -2.14065)}


@pytest.mark.parametrize("shift", RELEASED)
def test_divergence_is_the_released_codes(shift: float) -> None:
    training, test, new = uniform(300, 24, "a"), uniform(120, 24, "b"), uniform(150, 24, "c") + shift
    assert divergence(new, training, test) == pytest.approx(RELEASED[shift], abs=2e-3)


def test_divergence_grows_with_the_shift_and_with_copies() -> None:
    training, test, new = gaussian(200, 16, 0), gaussian(100, 16, 1), gaussian(100, 16, 2)
    values = [divergence(new + shift, training, test)[0] for shift in (0.0, 0.3, 1.0, 3.0)]
    assert values == sorted(values)
    assert abs(values[0]) < 5 < values[2]
    near = training[:100] + 0.05 * gaussian(100, 16, 3)
    fld, gap = divergence(near, training, test)
    assert fld > 1000 > values[2]
    assert gap < -500
    assert math.isfinite(divergence(training[:100], training, test)[0])
    # A feature that does not vary among test images has no scale, and is left out.
    dead = [torch.cat([x, torch.full((len(x), 1), 2.0)], 1) for x in (new, training, test)]
    assert divergence(*dead) == divergence(new, training, test)
    with pytest.raises(MetricError, match="all have the same features"):
        divergence(new, training, torch.ones(5, 16))


def test_divergence_is_noted_for_copies_and_refuses_too_many_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    training, test = gaussian(60, 8, 0), gaussian(20, 8, 1)
    found = Fld().compare(sides(training[:30], training, test))
    assert found.notes == ["fld: above 1000, the samples are likely copies"]
    assert found.details["fld_test_images"] == 20
    monkeypatch.setattr("gancli.metrics.fld.MOST_PAIRS", 600)
    with pytest.raises(MetricError, match=r"too many pairs: type metrics\.fld\.images=20"):
        Fld().compare(sides(training[:30], training, test))


@pytest.mark.parametrize("metric", [Authenticity, Fld, Mifid])
@pytest.mark.parametrize("images", [9, 10**15])
def test_impossible_numbers_of_training_images(metric: Callable[..., Any], images: int) -> None:
    with pytest.raises(ConfigError, match=rf"metrics\.\w+\.images={images}: must be at"):
        metric(images=images)


def test_held_out_images_are_those_of_the_test_split_or_refused() -> None:
    found: Any = SimpleNamespace(
        config={"dataset": {"_target_": "gancli.data.embedded.emoji", "size": 8, "split": "train", "limit": None}},
        facts=SimpleNamespace(name="emoji", fingerprint=emoji(size=8, split="train").fingerprint),
        field=fields.Image(3, 8, 8),
        labelled=False,
        run=Path("outputs/x"),
        game=SimpleNamespace(input_fields=lambda direction: {}),
        direction="",
    )
    Fld().refuse(found)
    found.config["dataset"]["split"] = "all"
    found.facts.fingerprint = emoji(size=8).fingerprint
    with pytest.raises(MetricError, match=r"trained on all of its data: type metrics\.fld\.held_out=FOLDER, or train"):
        Fld().refuse(found)
    found.config["dataset"]["limit"] = 100
    found.facts.fingerprint = emoji(size=8, limit=100).fingerprint
    Fld().refuse(found)


def write(folder: Path, images: Tensor, first: int = 0) -> None:
    folder.mkdir(exist_ok=True)
    for k, image in enumerate(images):
        Image.fromarray(image.numpy().transpose(1, 2, 0)).save(folder / f"{first + k:03}.png")


@pytest.fixture
def planted(tmp_path: Path) -> tuple[list[int], list[int]]:
    """Folders of training images, of held-out images, and of samples, 20 of which are training images; which, whose."""
    # In the order of their first bytes, so that no two sets share an image that several emoji have.
    pixels = torch.unique(emoji(size=16).rows(np.arange(1906))["x"].flatten(1), dim=0).view(-1, 3, 16, 16)
    pixels = pixels[torch.from_numpy(np.random.default_rng(0).permutation(len(pixels)))]
    training, held_out, samples = pixels[:200], pixels[200:260], pixels[260:340].clone()
    places = np.random.default_rng(1).permutation(80)[:20]
    copied = np.random.default_rng(2).permutation(200)[:20]
    samples[places] = training[copied]
    for name, images in (("training", training), ("held", held_out), ("samples", samples)):
        write(tmp_path / name, images)
    return places.tolist(), copied.tolist()


def test_twenty_planted_copies_are_all_found(gan: Gan, planted: tuple[list[int], list[int]]) -> None:
    places, copied = planted
    keys = [
        "metrics=[memorisation,authenticity,mifid,fld]",
        "metrics.fld.held_out=held",
        "n=80",
        "metrics.memorisation.rows=4",
    ]
    answer = gan("eval", "input=samples", "reference=training", *keys, "extractor=random", "run_dir=r")
    assert answer.code == 0, answer.err
    found = json.loads(Path("r/results.json").read_text(encoding="utf-8"))
    equal = [one for one in found["copies"]["nearest_first"] if one["equal_features"]]
    assert {one["sample"]["number"]: one["training_image"]["number"] for one in equal} == dict(
        zip(places, copied, strict=True)
    )
    assert {one["sample"]["file"] for one in equal} == {f"{k:03}.png" for k in places}
    assert found["copies"]["equal_features"] == 20 <= found["copies"]["found"] == len(found["copies"]["nearest_first"])
    assert found["memorisation_random"] == found["copies"]["found"] / 80
    assert f"{min(places):03}.png" in answer.out
    assert found["authenticity_random"] <= 0.75
    assert (found["protocol"]["n_fake"], found["protocol"]["trained_on"]["images"]) == (80, 200)
    assert found["fld_test_images"] == 60
    assert found["fld_gap_random"] < 0
    with Image.open("r/memorisation.png") as picture:
        assert picture.size[1] == 4 * 66 + 2 + 280


def test_copies_are_found_in_files_of_other_sizes_and_where_the_data_hold_images_twice(
    gan: Gan, planted: tuple[list[int], list[int]]
) -> None:
    places, copied = planted
    for name in ("training", "samples"):
        with Image.open(f"{name}/000.png") as image:
            image.resize((24, 20)).save(f"{name}/zzz.png")
    for k in copied:  # each copied image is in the data twice: its own neighbour is at distance 0
        Path(f"training/{k:03}b.png").write_bytes(Path(f"training/{k:03}.png").read_bytes())
    answer = gan(
        "eval", "input=samples", "reference=training", "metrics=[memorisation]", "extractor=random", "run_dir=r"
    )
    assert answer.code == 0, answer.err
    assert "no sheet of images of different sizes" in answer.out
    found = json.loads(Path("r/results.json").read_text(encoding="utf-8"))["copies"]["nearest_first"]
    files = {one["sample"]["file"]: one["training_image"]["file"][:3] for one in found if one["equal_features"]}
    expected = {f"{place:03}.png": f"{whose:03}" for place, whose in zip(places, copied, strict=True)}
    assert expected.items() <= files.items()


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["metrics=[fld]", "reference=training"], r"type metrics.fld.held_out=FOLDER"),
        (["metrics=[authenticity]"], "type reference=FOLDER"),
        (["metrics=[mifid]", "reference=few"], "at least 10 training images"),
        (["metrics=[fld]", "reference=training", "metrics.fld.held_out=nowhere"], "metrics.fld.held_out=nowhere"),
        (["metrics=[ppl]", "reference=training"], "give run= instead of input="),
    ],
)
def test_what_files_lack_is_said(gan: Gan, planted: object, keys: list[str], told: str) -> None:
    write(Path("few"), torch.zeros(3, 3, 16, 16, dtype=torch.uint8))
    answer = gan("eval", "input=samples", *keys, "extractor=random", "run_dir=r")
    assert answer.code != 0
    assert told in answer.err
    assert len(answer.err.strip().splitlines()) == 1
