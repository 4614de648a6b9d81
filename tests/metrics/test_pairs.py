"""L1, PSNR, SSIM and the cycle, beside their controls, of games whose answers are known."""

from __future__ import annotations

import builtins
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gancli.data.fields import Field
from gancli.data.source import DataSet, order
from gancli.errors import ConfigError, MetricError
from gancli.metrics import controls
from gancli.metrics.accuracy import ClassAccuracy
from gancli.metrics.controls import Controls
from gancli.metrics.directions import higher_is_better
from gancli.metrics.evaluation import Evaluator
from gancli.metrics.images import ImageSet
from gancli.metrics.metric import PairMetric
from gancli.metrics.outputs import (
    classes_of,
    from_rows,
    like_samples,
    reference,
    refuse_classes,
    refuse_pairs,
    table_of,
)
from gancli.metrics.pairs import L1, Cycle, Psnr, Ssim
from gancli.metrics.pixels import Swd
from tests.metrics.translations import Translation, noise, pairs, translating, unpaired

ALL = (L1(), Psnr(), Ssim())
LOG = 1e-7  # torchmetrics' logarithm of ten is a float32


def same(x: Tensor) -> Tensor:
    return x


def evaluated(game: Translation, data: DataSet, *metrics: Any, n: int | None = None, seed: int = 0) -> dict[str, Any]:
    sampler = translating(game, data)
    of_pairs = [metric for metric in metrics if isinstance(metric, PairMetric)]
    refuse_pairs(sampler, of_pairs)
    for metric in of_pairs:
        metric.begin("cpu")
    most = sampler.most
    assert most is not None
    evaluator = Evaluator(metrics, None, None, intervals=True)
    return evaluator.evaluate(from_rows(sampler, n or most, seed)).as_json()


def test_numbers_are_those_of_the_definition() -> None:
    A = torch.zeros(2, 1, 8, 8, dtype=torch.uint8)
    B = A.clone()
    B[0], B[1, 0, 0, 0] = 51, 255  # off by a fifth everywhere; by all at one pixel of 64
    found = evaluated(Translation(same), pairs(A, B), L1(), Psnr())
    assert found["l1"] == pytest.approx((0.2 + 1 / 64) / 2, rel=1e-12)
    assert found["psnr"] == pytest.approx((-20 * math.log10(0.2) + 10 * math.log10(64)) / 2, rel=LOG)
    assert found["protocol"]["psnr"]["data_range"] == 1.0
    assert "pixels in [0, 1]" in found["protocol"]["l1"]["unit"]
    assert (found["protocol"]["n_fake"], found["protocol"]["fake"]["split"]) == (2, "test")
    assert found["protocol"]["fake"]["direction"] == "A2B"


def test_a_copy_of_the_answer_has_no_error() -> None:
    x = noise(5, 3, 8, 8)
    found = evaluated(Translation(same, back=same), pairs(x, x), *ALL, Cycle())
    assert (found["l1"], found["cycle"]) == (0.0, 0.0)
    assert found["ssim"] == pytest.approx(1, abs=2 * 2**-23 / 0.03**2)  # rounded moments beside the constant c2
    assert found["psnr"] == pytest.approx(20 * math.log10(255) + 10 * math.log10(3 * 64), rel=LOG)
    assert found["intervals"]["l1"] == [0.0, 0.0]


def test_an_equal_image_counts_for_more_than_any_other() -> None:
    """White ones, too, whose one value can only be off below."""
    x = torch.full((2, 1, 8, 8), 255, dtype=torch.uint8)
    y = x.clone()
    y[1, 0, 3, 3] = 254
    found = evaluated(Translation(same), pairs(x, y), Psnr())
    assert found["psnr"] == pytest.approx(20 * math.log10(255) + 10 * math.log10(64), rel=LOG)


def test_sixteen_bits_count_in_their_own_levels() -> None:
    A = torch.zeros(1, 1, 8, 8, dtype=torch.int32)
    B = A + 257 * 51 + 1
    found = evaluated(Translation(same), pairs(A, B, bits=16), L1(), Psnr())
    assert found["l1"] == pytest.approx(0.2 + 1 / 65535, rel=1e-12)
    equal = evaluated(Translation(same), pairs(B, B, bits=16), Psnr())
    assert equal["psnr"] == pytest.approx(20 * math.log10(65535) + 10 * math.log10(64), rel=LOG)
    shown = next(iter(from_rows(translating(Translation(same), pairs(B, B, bits=16)), 1, 0).chunks()))
    assert (shown.dtype, shown.unique().tolist()) == (torch.uint8, [51])


def test_other_channels_have_pixels_and_no_features() -> None:
    A, B = noise(3, 5, 8, 8), noise(3, 5, 8, 8, seed=1)
    found = evaluated(Translation(same), pairs(A, B), L1(), Ssim())
    assert found["l1"] == pytest.approx(float((A.double() - B).abs().mean()) / 255, rel=1e-12)
    fake, real = (ImageSet(3, (5, 16, 16), lambda k=k: iter([noise(3, 5, 16, 16, seed=k)])) for k in (0, 1))
    assert Swd().look(fake, real)[0]["swd"] > 0 == Swd().look(real, real)[0]["swd"]
    with pytest.raises(MetricError, match="these metrics take images of 1 or 3 channels, got 5"):
        fake.check_channels()


def test_ssim_and_psnr_are_torchmetrics() -> None:
    from torchmetrics.functional.image import peak_signal_noise_ratio, structural_similarity_index_measure

    A, B = noise(7, 3, 16, 24), noise(7, 3, 16, 24, seed=1)
    found = evaluated(Translation(same), pairs(A, B), *ALL)
    a, b = A.double() / 255, B.double() / 255
    expected = float(structural_similarity_index_measure(a.float(), b.float(), data_range=1.0))
    assert found["ssim"] == pytest.approx(expected, abs=1e-6)
    each = [float(peak_signal_noise_ratio(x, y, data_range=1.0)) for x, y in zip(a, b, strict=True)]
    assert found["psnr"] == pytest.approx(sum(each) / 7, rel=1e-12)
    assert found["l1"] == pytest.approx(float((a - b).abs().mean()), rel=1e-12)


def test_intervals_are_bootstraps_of_the_images() -> None:
    A, B = noise(40, 1, 8, 8), noise(40, 1, 8, 8, seed=1)
    found = evaluated(Translation(same), pairs(A, B), L1())
    each = (A.double() - B).abs().flatten(1).mean(1).numpy()[order(40, 0, "sample")] / 255
    draws = np.random.default_rng(0)
    means = [each[draws.integers(0, 40, 40)].mean() for _ in range(2000)]
    np.testing.assert_allclose(found["intervals"]["l1"], np.quantile(means, [0.025, 0.975]), rtol=1e-9)
    assert found["intervals_by"]["resamples"] == 2000


def test_each_row_is_made_once_and_more_are_refused() -> None:
    x = torch.arange(40, dtype=torch.uint8).view(40, 1, 1, 1).expand(40, 1, 8, 8).contiguous()
    sampler = translating(Translation(same), pairs(x, x))
    shown = torch.cat(list(from_rows(sampler, 40, 3).chunks()))[:, 0, 0, 0]
    assert sorted(shown.tolist()) == list(range(40))
    parts = from_rows(sampler, 40, 3).span
    assert parts is not None
    assert torch.equal(torch.cat([*parts(0, 32).chunks(), *parts(32, 40).chunks()])[:, 0, 0, 0], shown)
    with pytest.raises(
        ConfigError, match=r"41 samples are made from one row each, and pairs has 40 rows: type n=40 or less"
    ):
        list(from_rows(sampler, 41, 3).chunks())


def test_feeds_of_partners_have_truth_and_others_none() -> None:
    A, B = noise(6, 1, 8, 8), noise(6, 1, 8, 8, seed=1)
    paired = evaluated(Translation(same), pairs(A, B), L1())
    feeds = evaluated(Translation(same), pairs(A, B, feeds=True), L1())
    assert feeds["l1"] == paired["l1"]
    refused = "metrics=l1 compares outputs with their targets, and unpaired has none for this game"
    with pytest.raises(MetricError, match=refused):
        evaluated(Translation(same), unpaired(A, B), L1())
    halves = evaluated(Translation(same, same), pairs(A, B, feeds=True, disjoint=True), Cycle())
    assert halves["protocol"]["n_fake"] == 3


def test_the_reference_is_all_of_the_other_domain() -> None:
    A, B = noise(6, 1, 8, 8), noise(9, 1, 8, 8, seed=1)
    sampler = translating(Translation(same), unpaired(A, B), "A2B")
    real = reference(sampler)
    assert torch.equal(torch.cat(list(real.chunks())), B)
    assert (real.protocol["column"], real.protocol["split"], real.n) == ("B.x", "test", 9)
    back = reference(translating(Translation(same), unpaired(A, B), "B2A"))
    assert torch.equal(torch.cat(list(back.chunks())), A)
    of_pairs = reference(translating(Translation(same), pairs(A, B[:6])))
    assert torch.equal(torch.cat(list(of_pairs.chunks())), B[:6])


def test_what_is_drawn_of_numbers_is_held_against_its_own_feed() -> None:
    class Free(Translation):
        def input_fields(self, direction: str = "") -> Mapping[str, Field]:
            return {}

    A, B = noise(6, 1, 8, 8), noise(9, 1, 8, 8, seed=1)
    data = unpaired(A, B)
    for direction, images in (("A2B", B), ("B2A", A)):
        found = like_samples(data, translating(Free(same), data, direction))
        assert torch.equal(found.rows(np.arange(len(images)))["x"], images)


def test_the_cycle_is_the_way_back() -> None:
    A = torch.full((2, 1, 8, 8), 51, dtype=torch.uint8)
    found = evaluated(Translation(lambda x: -x, lambda x: -x + 0.4), unpaired(A, A), Cycle())
    assert found["cycle"] == pytest.approx(51 / 255, rel=1e-12)
    with pytest.raises(MetricError, match=r"metrics=cycle .* this game translates in one direction"):
        evaluated(Translation(same), unpaired(A, A), Cycle())


def test_controls_stand_beside_the_outputs() -> None:
    A, B = noise(6, 1, 8, 8), noise(6, 1, 8, 8, seed=1)
    more_A, more_B = noise(5, 1, 8, 8, seed=2), noise(5, 1, 8, 8, seed=3)
    more_A[3], more_B[3] = A[2], 0  # the nearest of one of them is itself
    sampler = translating(Translation(lambda x: -x, lambda x: -x), pairs(A, B))
    evaluator = Evaluator([L1(), Cycle()], None, None, intervals=True)
    values = evaluator.evaluate(from_rows(sampler, 6, 0)).as_json()
    training = pairs(more_A, more_B)
    controls.add(values, Controls(sampler, 6, 0, lambda: training, lambda what, done, total: None), evaluator)
    a, b = A.double(), B.double()
    assert values["l1"] == pytest.approx(float((255 - a - b).abs().mean()) / 255, rel=1e-12)
    assert values["l1_copy"] == pytest.approx(float((a - b).abs().mean()) / 255, rel=1e-12)
    mean = more_B.double().mean(0).round()
    assert values["l1_mean"] == pytest.approx(float((mean - b).abs().mean()) / 255, rel=1e-12)
    nearest = torch.cdist(a.flatten(1), more_A.double().flatten(1)).argmin(1)
    assert nearest[2] == 3
    expected = float((more_B.double()[nearest] - b).abs().mean()) / 255
    assert values["l1_nearest"] == pytest.approx(expected, rel=1e-12)
    assert values["cycle_copy"] == 0.0
    assert not {"cycle_mean", "cycle_nearest"} & set(values)
    assert set(values["intervals"]) == {"l1", "cycle", "l1_copy", "cycle_copy", "l1_mean", "l1_nearest"}
    assert list(values["protocol"]["controls"]) == ["copy", "mean", "nearest"]


def test_controls_that_there_are_none_of_are_named() -> None:
    A, B = noise(6, 1, 8, 8), noise(6, 3, 8, 8, seed=1)
    data = pairs(A, B, feeds=True)
    sampler = translating(Translation(lambda x: x.expand(-1, 3, -1, -1)), data)
    halves = pairs(A, B, feeds=True, disjoint=True)
    evaluator = Evaluator([L1()], None, None)
    values = evaluator.evaluate(from_rows(sampler, 6, 0)).as_json()
    controls.add(values, Controls(sampler, 6, 0, lambda: halves, lambda what, done, total: None), evaluator)
    assert values["l1_copy"] == values["l1"]  # grey in colour
    assert "l1_mean" in values
    assert "l1_nearest" not in values
    assert values["warnings"] == ["controls: training rows are not paired, so there is no _nearest"]
    back = translating(Translation(lambda x: x[:, :1]), data, "B2A")
    values = evaluator.evaluate(from_rows(back, 6, 0)).as_json()
    controls.add(values, Controls(back, 6, 0, lambda: data, lambda what, done, total: None), evaluator)
    assert values["warnings"] == [
        "controls: inputs are images of 3×8×8 and outputs images of 1×8×8, so there is no _copy"
    ]


def test_outputs_have_their_inputs_class() -> None:
    A = torch.cat([torch.full((12, 1, 8, 8), value, dtype=torch.uint8) for value in (20, 230)])
    labels = [0] * 12 + [1] * 12
    data = pairs(A, 255 - A, labels)
    for way, share in ((lambda x: -x, 1.0), (same, 0.0)):
        sampler = translating(Translation(way), data)
        refuse_classes(sampler, "class_accuracy")
        assert classes_of(sampler) == "y"
        source = table_of({"": data}, "B")
        found = Evaluator([ClassAccuracy(images=1500)], None, None, source).evaluate(from_rows(sampler, 24, 0))
        assert found.values == {"class_accuracy": share, "classifier_accuracy": 1.0}
    feeds = translating(Translation(same), pairs(A, A, labels, feeds=True))
    assert classes_of(feeds) == "A.y"
    with pytest.raises(MetricError, match="class of their input, and pairs has no classes"):
        refuse_classes(translating(Translation(same), pairs(A, A)), "class_accuracy")


def test_small_images_have_no_ssim() -> None:
    x = noise(2, 1, 4, 9)
    with pytest.raises(MetricError, match=r"metrics=ssim needs sides of at least 6 pixels, and these images are 4x9"):
        evaluated(Translation(same), pairs(x, x), Ssim())
    assert "ssim" in evaluated(Translation(same), pairs(noise(2, 1, 6, 9), noise(2, 1, 6, 9)), Ssim())


def test_without_torchmetrics_a_line_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def missing(name: str, *args: Any, **keys: Any) -> Any:
        if name.startswith("torchmetrics"):
            raise ImportError(name)
        return real(name, *args, **keys)

    monkeypatch.setattr(builtins, "__import__", missing)
    x = noise(2, 1, 8, 8)
    for metric in (Psnr(), Ssim()):
        with pytest.raises(MetricError, match=r"not installed: type pip install 'gancli\[pairs\]'"):
            evaluated(Translation(same), pairs(x, x), metric)
    assert evaluated(Translation(same), pairs(x, x), L1())["l1"] == 0.0


def test_which_way_is_better() -> None:
    ways = {name: higher_is_better(name) for name in ("l1", "psnr", "ssim", "cycle", "l1_copy")}
    assert ways == {"l1": False, "psnr": True, "ssim": True, "cycle": False, "l1_copy": False}
