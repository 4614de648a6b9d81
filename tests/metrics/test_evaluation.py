"""Sets of images, their way through the extractor, and what an evaluation says of itself."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from importlib.metadata import version
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from gancli.data.fields import Image
from gancli.data.source import Source, table
from gancli.errors import MetricError
from gancli.metrics.evaluation import check, evaluate, score
from gancli.metrics.extractor import Extractor
from gancli.metrics.fid import Fid, Is, Kid, Prc
from gancli.metrics.images import ImageSet, batches, extract, from_sampler, from_source
from gancli.metrics.metric import Metric
from gancli.metrics.neighbours import DensityCoverage
from gancli.metrics.pixels import MsSsim, Swd


def numbered(n: int, channels: int = 1) -> Source:
    """A data set whose image i is filled with i."""
    content = np.broadcast_to(np.arange(n, dtype=np.uint8)[:, None, None, None], (n, channels, 2, 3)).copy()
    return table("numbered", content)


def rows(images: ImageSet) -> list[int]:
    """Which images of a numbered set these are."""
    return [int(image.flatten()[0]) for chunk in images.chunks() for image in chunk]


class Draws:
    """A sampler whose images show seed and position."""

    field = Image(3, 2, 2)

    def labelled_samples(self, n: int, seed: int, *, first: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """In chunks of 5."""
        for start in range(first, n, 5):
            rows = torch.stack(
                [torch.full(self.field.shape, seed + i, dtype=torch.uint8) for i in range(start, min(n, start + 5))]
            )
            yield rows, torch.zeros(len(rows), dtype=torch.int64)

    def protocol(self) -> dict[str, Any]:
        """Where they come from."""
        return {"run": "outputs/train/x", "step": 30}


def test_rows_are_a_keyed_choice_in_order() -> None:
    source = numbered(200)
    some = from_source(source, 40, seed=0)
    assert some.n == 40
    assert rows(some) == rows(some) == sorted(set(rows(some)))
    assert len(rows(some)) == 40
    assert rows(from_source(source, 40, seed=1)) != rows(some)
    assert set(rows(from_source(source, 20, seed=0))) < set(rows(some))
    assert rows(from_source(source, None, seed=3)) == list(range(200))


def test_a_small_data_set_gives_what_it_has_or_refuses() -> None:
    source = numbered(7)
    assert from_source(source, 1000, seed=0).n == 7
    assert from_source(source, 7, seed=0, exact=True).n == 7
    with pytest.raises(MetricError, match="n_real=8 is more than the 7 images of numbered"):
        from_source(source, 8, seed=0, exact=True)


def test_sampler_is_drawn_anew_at_each_look() -> None:
    images = from_sampler(Draws(), 7, seed=10)
    assert rows(images) == rows(images) == list(range(10, 17))
    assert images.protocol == {"shape": [3, 2, 2], "seed": 10, "run": "outputs/train/x", "step": 30}


@pytest.mark.parametrize("called", ["inception", "clip"])
def test_metrics_tell_the_names_of_their_results_beforehand(tiny: Any, called: str) -> None:
    tiny.name = called
    fake, real = torch.rand(2, 12, 3, generator=torch.Generator().manual_seed(0))
    for metric in (Fid(), Kid(), Prc(), Is(splits=2), DensityCoverage()):
        found = metric.score(fake, real, tiny)
        assert metric.results(tiny) == tuple(name for name in found if not name.endswith("_std"))
    assert (Swd().results(tiny), MsSsim().results(None)) == (("swd",), ("ms_ssim",))


def test_batches_join_and_cut() -> None:
    sizes = [len(b) for b in batches([torch.zeros(n) for n in (3, 1, 9, 0, 2)], 4)]
    assert sizes == [4, 4, 4, 3]
    assert list(batches([], 4)) == []


def test_features_come_in_order_with_progress(tiny: Extractor) -> None:
    told: list[tuple[str, int, int]] = []
    features = extract(from_source(numbered(10), None, 0), tiny, lambda *t: told.append(t), "real images")
    assert features.tolist() == [[float(i)] * 3 for i in range(10)]
    assert told == [("real images", 4, 10), ("real images", 8, 10), ("real images", 10, 10)]


@pytest.mark.parametrize(
    ("chunk", "text"),
    [
        (torch.zeros(3, 3, 2, 2, dtype=torch.uint8), "expected 4 images, got 3"),
        (torch.zeros(5, 3, 2, 2, dtype=torch.uint8), "expected 4 of shape .* got 1 .* after 4"),
        (torch.zeros(4, 3, 2, 2), "torch.float32"),
        (torch.zeros(4, 3, 2, 3, dtype=torch.uint8), r"got 4 of shape \(3, 2, 3\)"),
    ],
)
def test_images_must_be_as_announced(tiny: Extractor, chunk: Tensor, text: str) -> None:
    with pytest.raises(MetricError, match=text):
        extract(ImageSet(4, (3, 2, 2), lambda: iter([chunk])), tiny)


def test_features_must_be_finite(tiny: Extractor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(type(tiny), "features", lambda self, x: torch.full((len(x), 3), float("nan")))
    with pytest.raises(MetricError, match="not finite; its weights file is damaged"):
        extract(from_source(numbered(2), None, 0), tiny)


def test_only_images_of_one_or_three_channels(tiny: Extractor) -> None:
    with pytest.raises(MetricError, match="images, got points of 2 numbers"):
        from_source(table("ring", np.zeros((5, 2), np.float32)), None, 0)
    told = r"got 4: type metrics=\[swd,ms_ssim\], or train with dataset\.size=\[3,H,W\]"
    with pytest.raises(MetricError, match=told):
        evaluate([Fid()], from_source(numbered(5, channels=4), None, 0), from_source(numbered(5), None, 0), tiny)


def test_evaluation_states_its_protocol(tiny: Extractor) -> None:
    source = numbered(30)
    metrics = [Fid(), Kid(subsets=5), Prc(), Is(splits=2)]
    real = from_source(source, 20, seed=4, path="data")
    found = evaluate(metrics, from_sampler(Draws(), 12, seed=0), real, tiny).as_json()
    assert list(found) == ["fid", "kid", "kid_std", "precision", "recall", "is", "is_std", "protocol", "warnings"]
    assert found["protocol"] == {
        "extractor": "inception",
        "n_fake": 12,
        "n_real": 20,
        "fake": {"shape": [3, 2, 2], "seed": 0, "run": "outputs/train/x", "step": 30},
        "reference": {
            "name": "numbered",
            "images": 30,
            "shape": [1, 2, 3],
            "fingerprint": source.fingerprint,
            "seed": 4,
            "path": "data",
        },
        "versions": {"torch": torch.__version__, "torch_fidelity": version("torch-fidelity")},
        "kid": {"subsets": 5, "subset_size": 12, "kernel": "cubic", "seed": 2020},
        "prc": {"neighborhood": 3},
        "is": {"splits": 2, "seed": 2020},
    }
    assert found["warnings"] == []
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_each_image_is_looked_at_once(tiny: Extractor, image_set: Callable[..., ImageSet], monkeypatch: Any) -> None:
    seen: list[int] = []
    plain = type(tiny).features
    monkeypatch.setattr(type(tiny), "features", lambda self, x: (seen.append(len(x)), plain(self, x))[1])
    noise = torch.randint(0, 256, (9, 3, 2, 2), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    told: list[tuple[str, int, int]] = []
    metrics: list[Metric] = [Fid(), Kid(subsets=2), Prc()]
    evaluate(metrics, image_set(noise), image_set(noise[:8]), tiny, lambda *t: told.append(t))
    assert sum(seen) == 17
    assert [t for t in told if t[0] not in ("samples", "real images")] == [
        ("fid", 0, 3),
        ("kid", 1, 3),
        ("prc", 2, 3),
        ("metrics", 3, 3),
    ]


def test_score_alone_needs_no_real_images(tiny: Extractor, image_set: Callable[..., ImageSet]) -> None:
    images = image_set(torch.zeros(20, 3, 2, 2, dtype=torch.uint8))

    def never() -> Iterator[Tensor]:
        raise AssertionError

    found = evaluate([Is()], images, ImageSet(5, (3, 2, 2), never), tiny)
    assert found.values == {"is": 1.0, "is_std": 0.0}
    assert found.protocol["reference"] is None
    assert found.warnings == (
        "is: 2 images in each split are fewer than the 3 classes, so the value is biased downwards",
    )


def test_what_cannot_be_evaluated_is_refused_first(tiny: Extractor, image_set: Callable[..., ImageSet]) -> None:
    images = image_set(torch.zeros(5, 3, 2, 2, dtype=torch.uint8))
    with pytest.raises(MetricError, match=r"metrics=\[\] computes nothing"):
        check([], images, images, tiny)
    with pytest.raises(MetricError, match="metrics=kid compares with real images: type reference=FOLDER"):
        check([Is(splits=1), Kid()], images, None, tiny)
    with pytest.raises(MetricError, match="kid is not a finite number for these 5 images"):
        score([Kid(subsets=1)], torch.full((5, 3), float("nan")), torch.zeros(5, 3), tiny)
