"""Path length, class-wise metrics, memorisation: on generators whose results are known, and from the shell."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from gancli.config.build import make
from gancli.data import fields
from gancli.data.source import Source, order, table
from gancli.errors import ConfigError, MetricError, WeightsError
from gancli.metrics import by_class
from gancli.metrics.by_class import Cas, FidPerClass
from gancli.metrics.memorisation import Memorisation
from gancli.metrics.ppl import Ppl, of_features, path_lengths
from gancli.metrics.run_metric import data
from tests.conftest import Gan
from tests.metrics.fakes import Drawn


def quiet(what: str, done: int, total: int) -> None:
    """No progress."""


class Plain:
    """A 'trained generator' that shows given images, one class after the other."""

    def __init__(self, source: Source, images: Tensor, labels: Tensor):
        self.source, self.shown, self.asked = source, images, labels
        self.field, self.classes, self.run = source.fields["x"], source.classes, Path("outputs/x")
        self.labelled = len(source.classes) > 1
        self.config: dict[str, Any] = {"dataset": {"limit": None}}
        self.game, self.direction = SimpleNamespace(input_fields=lambda direction: {}), ""

    def labelled_samples(self, n: int, seed: int, classes: int | None = None, first: int = 0) -> Any:
        """The first n, or of one class, again and again."""
        rows = torch.arange(len(self.shown)) if classes is None else torch.nonzero(self.asked == classes).flatten()
        rows = rows.repeat(-(-n // len(rows)))[:n]
        yield self.shown[rows][first:], self.asked[rows][first:]

    def samples(self, n: int, seed: int = 0, classes: int | None = None) -> Any:
        """The images alone."""
        return (x for x, _ in self.labelled_samples(n, seed, classes))

    def protocol(self) -> dict[str, Any]:
        """Nothing."""
        return {}


class Walk(Drawn):
    """G(z) = 30 z + 128 in grey levels: linear, so that every step is as long as its latents'."""

    def __init__(self) -> None:
        super().__init__(1)

    def image(self, z: Tensor) -> Tensor:
        return ((30 * z + 128) / 127.5 - 1).view(-1, 3, 1, 1)


def test_path_length_of_a_linear_generator() -> None:
    def squared(a: Tensor, b: Tensor) -> Tensor:
        return (a - b).flatten(1).square().sum(1)

    rng = np.random.RandomState(2020)  # torch-fidelity's draws
    first, second = rng.randn(40, 3), rng.randn(40, 3)
    expected = 900 * ((second - first) ** 2).sum(1)
    assert path_lengths(Walk(), squared, 40, 0.01, quiet) == pytest.approx(expected, rel=1e-3)  # type: ignore[arg-type]
    assert path_lengths(Walk(), squared, 40, 0.1, quiet) == pytest.approx(expected, rel=1e-3)  # type: ignore[arg-type]


def test_path_length_bears_its_distances_name(tiny: Any) -> None:
    found = Ppl().measure(tiny, Walk(), 20, 0, quiet)  # type: ignore[arg-type]
    assert list(found.values) == ["ppl_inception", "ppl_inception_std"]
    assert found.values["ppl_inception"] > 0
    assert found.details == {"ppl_paths": 20}
    black = torch.zeros(2, 3, 4, 4)
    assert of_features(tiny)(black + 9, black + 9).tolist() == [0.0, 0.0]
    assert Ppl(distance="lpips").settings(1, 1)["epsilon"] == 1e-4
    assert not Ppl(distance="lpips").needs_extractor()
    with pytest.raises(ConfigError, match=r"metrics\.ppl\.discard"):
        Ppl(discard=50)


def test_lpips_is_torch_fidelitys_with_weights_from_files(tmp_path: Path) -> None:
    import torchvision
    from torch_fidelity.sample_similarity_lpips import NetLinLayer

    from gancli.metrics.ppl import lpips

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        lins = torch.nn.Module()
        for k, channels in enumerate((64, 128, 256, 512, 512)):
            lins.add_module(f"lin{k}", NetLinLayer(channels, use_dropout=True))
            lins.get_submodule(f"lin{k}").requires_grad_(False)
            lins.get_submodule(f"lin{k}.model.1").weight.abs_()  # type: ignore[operator, union-attr]
        state = torchvision.models.vgg16().state_dict()
    torch.save(lins.state_dict(), tmp_path / "lins.pth")
    torch.save(state, tmp_path / "vgg.pth")
    distance = lpips(str(tmp_path / "lins.pth"), str(tmp_path / "vgg.pth"))
    a = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 255
    assert distance(a, a).tolist() == [0.0, 0.0]
    assert (distance(a, 255 - a) > 0).all()
    with pytest.raises(WeightsError, match=r"metrics\.ppl\.lpips=nowhere does not exist"):
        lpips("nowhere")


def shades(n: int = 90, side: int = 8) -> Source:
    """Dark, grey and bright images with a little noise: three classes that are easy to tell."""
    labels = np.arange(n) % 3
    pixels = np.random.default_rng(0).integers(0, 30, (n, 1, side, side))
    return table("shades", (labels[:, None, None, None] * 100 + pixels).astype(np.uint8), labels, ("a", "b", "c"))


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Source:
    """The data that the metrics find behind a run."""
    source = shades()

    def no_test(*args: object) -> Source:
        raise MetricError("no test split")

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setattr(by_class, "training_data", lambda found, name: source)
    monkeypatch.setattr(by_class, "data", no_test)
    monkeypatch.setattr("gancli.metrics.training_metric.training_data", lambda found, name: source)
    return source


def test_a_classifier_of_samples_knows_real_images_where_samples_are_right(own: Source) -> None:
    images, labels = own.rows(np.arange(60)).values()
    cas = Cas(samples=60, images=3200)
    found = cas.measure(Plain(own, images, labels), 60, 0, quiet)  # type: ignore[arg-type]
    scores, details = found.values, found.details
    assert scores["cas"] >= 0.9
    assert scores["cas_real"] >= 0.9
    assert details["cas_images"] == 18
    assert set(details["cas_by_class"]) == {"a", "b", "c"}
    turned = Plain(own, images, (labels + 1) % 3)  # each class shows the next one
    assert cas.measure(turned, 60, 0, quiet).values["cas"] <= 0.1  # type: ignore[arg-type]


def test_classes_without_enough_real_images_are_said(own: Source, tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    images, labels = own.rows(np.arange(90)).values()
    some = own.only(np.flatnonzero((own.labels != 2) & ((own.labels != 1) | (np.arange(90) < 40))))
    monkeypatch.setattr(by_class, "training_data", lambda found, name: some)
    tiny.dim = 2048
    monkeypatch.setattr(by_class, "extract", lambda images, *more: torch.randn(images.n, 4))
    found = FidPerClass().measure(tiny, Plain(own, images, labels), 90, 0, quiet)  # type: ignore[arg-type]
    few, left_out, short = found.notes
    assert few.startswith("fid_per_class, in each class: 13 images are fewer than the 2048 features")
    assert left_out == "fid_per_class: the mean is over 2 of 3 classes; c: fewer than two real images"
    assert short.startswith("fid_per_class: 1 classes have fewer than 30 real images; the 30 samples are compared with")
    assert found.details["classes_left_out"] == ["c"]
    assert found.details["images_by_class"] == {"a": [30, 30], "b": [30, 13]}


def test_fid_within_classes_sees_what_the_whole_hides(own: Source, tiny: Any) -> None:
    images, labels = own.rows(np.arange(90)).values()
    metric = FidPerClass(per_class=30)
    right = metric.measure(tiny, Plain(own, images, labels), 90, 0, quiet)  # type: ignore[arg-type]
    assert right.values["fid_per_class"] == pytest.approx(0, abs=1e-2)
    assert right.details["images_by_class"] == {"a": [30, 30], "b": [30, 30], "c": [30, 30]}
    assert list(right.notes) == []
    turned = metric.measure(tiny, Plain(own, images, (labels + 1) % 3), 90, 0, quiet)  # type: ignore[arg-type]
    by_name = turned.details["fid_per_class_by_class"]
    # Means a step of 100 apart in three equal features, or of 200 where bright comes round to dark.
    assert by_name["b"] == pytest.approx(30_000, rel=0.05)
    assert by_name["a"] == pytest.approx(120_000, rel=0.05)
    assert turned.values["fid_per_class"] == pytest.approx(sum(by_name.values()) / 3)
    with pytest.raises(MetricError, match="type n=6 or more"):
        FidPerClass().measure(tiny, Plain(own, images, labels), 5, 0, quiet)  # type: ignore[arg-type]


@pytest.mark.parametrize("copied", [True, False])
def test_memorisation_is_flagged_for_copies_alone(own: Source, copied: bool, tiny: Any) -> None:
    fresh = table("fresh", np.random.default_rng(7).integers(0, 256, (90, 3, 4, 4), dtype=np.uint8))
    again = table("again", np.random.default_rng(8).integers(0, 256, (90, 3, 4, 4), dtype=np.uint8))
    own.columns, own.fields, tiny.dim = again.columns, again.fields, 48
    shown = (own if copied else fresh).rows(np.arange(90))["x"]
    found = Plain(own, shown, torch.zeros(90, dtype=torch.int64))
    result = Memorisation(rows=4, neighbours=3).measure(tiny, found, 60, 0, quiet)  # type: ignore[arg-type]
    assert result.details["memorised"] is copied
    assert result.values["memorisation"] == 1 if copied else result.values["memorisation"] < 0.15
    page = result.pictures["memorisation"]
    assert page.shape[0] == 4 * 66 + 2 + 280
    if copied:
        assert result.details["nearest_distance_median"]["samples"] == 0


@pytest.mark.parametrize("flipped", [True, False])
def test_copies_of_mirrored_images_are_found_if_the_run_saw_such(own: Source, flipped: bool, tiny: Any) -> None:
    again = table("again", np.random.default_rng(8).integers(0, 256, (90, 3, 4, 4), dtype=np.uint8))
    own.columns, own.fields, own.flip, tiny.dim = again.columns, again.fields, flipped, 48
    shown = own.rows(np.arange(60))["x"].flip(3)
    shown[:5] = own.rows(np.arange(5))["x"]
    found = Plain(own, shown, torch.zeros(60, dtype=torch.int64))
    result = Memorisation(rows=4, neighbours=3).measure(tiny, found, 60, 0, quiet)  # type: ignore[arg-type]
    assert result.details["mirrored_images_searched"] is flipped
    copies = result.details["copies"]["nearest_first"]
    equal = {one["sample"]["number"]: one for one in copies if one["equal_features"]}
    assert sorted(equal) == list(range(60 if flipped else 5))
    assert all(one["training_image"]["number"] == k for k, one in equal.items())
    assert [k for k in equal if not equal[k]["mirrored"]] == list(range(5))
    assert ("mirrored or not" in result.details["memorisation_rule"]) is flipped


@pytest.mark.parametrize("copied", [True, False])
def test_noisy_copies_are_flagged_where_images_were_kept_from_the_run(copied: bool, tiny: Any) -> None:
    keys = {"_target_": "gancli.data.embedded.fashion", "limit": 90}
    trained_on, whole = make(keys, "dataset"), make({**keys, "limit": None}, "dataset")
    tiny.dim = 784
    fresh = whole.only(order(len(whole), "limit")[500:590])
    shown = (trained_on if copied else fresh).rows(np.arange(90))["x"].float()
    noise = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    noisy = (shown + 60 * noise).clamp(0, 255).to(torch.uint8)
    found = Plain(trained_on, noisy, torch.zeros(90, dtype=torch.int64))
    found.config = {"dataset": keys}
    found.facts = SimpleNamespace(fingerprint=trained_on.fingerprint)  # type: ignore[attr-defined]
    result = Memorisation(rows=4, neighbours=3).measure(tiny, found, 90, 0, quiet)  # type: ignore[arg-type]
    assert result.details["memorised"] is copied
    nearer = result.values["nearer_to_training"]
    assert nearer > 0.95 if copied else 0.3 < nearer < 0.7


def test_from_the_shell(gan: Gan, labelled: Path, tmp_path: Path, weights_file: Path) -> None:
    run = shutil.copytree(labelled, tmp_path / "labelled")
    keys = ["metrics=[memorisation,ppl,fid_per_class,swd,ms_ssim,dc]", "n=8", "metrics.memorisation.rows=4"]
    keys += ["extractor=torchvision", "extractor.arch=shufflenet_v2_x0_5", "extractor.size=32"]
    import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        torch.save(torchvision.models.shufflenet_v2_x0_5().state_dict(), tmp_path / "net.pth")
    answer = gan("eval", f"run={run}", *keys, f"extractor.weights={tmp_path / 'net.pth'}", "run_dir=r")
    assert answer.code == 0, answer.err
    found = json.loads(Path("r/results.json").read_text(encoding="utf-8"))
    name = "shufflenet_v2_x0_5"
    for key in ("memorisation", "ppl", "fd_per_class", "density", "coverage"):
        assert isinstance(found[f"{key}_{name}"], float), key
    assert found["swd_16"] == found["swd"]
    assert 0 <= found["ms_ssim"] <= 1
    assert found["protocol"]["extractor"] == name
    assert isinstance(found["memorised"], bool)
    assert "fid" not in found
    with Image.open("r/memorisation.png") as picture:
        assert picture.size[1] == 4 * 66 + 2 + 280
    assert "memorisation.png" in answer.out


def test_test_data_are_found_where_the_run_was_not_trained_on_them() -> None:
    """Of emoji the 200 held out, for a run of the rest; nothing is held out from a run of all."""
    found: Any = SimpleNamespace(
        config={"dataset": {"_target_": "gancli.data.embedded.emoji", "size": 8, "split": "train"}},
        facts=SimpleNamespace(name="emoji"),
        field=fields.Image(3, 8, 8),
        labelled=False,
        game=SimpleNamespace(input_fields=lambda direction: {}),
        direction="",
    )
    assert len(data(found, "test", "parzen")) == 200
    assert len(data(found, "train", "parzen")) == 1706
    for split in ("all", "test"):
        found.config["dataset"]["split"] = split
        with pytest.raises(MetricError, match=rf"trained on \(dataset\.split={split}\): train with"):
            data(found, "test", "parzen")
