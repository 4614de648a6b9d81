"""The rules for few images, by images and device, and the table of them that is printed and recorded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gancli.compute import device
from gancli.config.compose import compose
from gancli.data.survey import Survey
from gancli.errors import DataError
from gancli.train import automatic, few_shot
from gancli.train.by_device import usual_layers, with_generator
from tests.conftest import Gan
from tests.few import FEW, QUIET, Pooled, mixed, pooled  # noqa: F401

AUTO = ["experiment=few_shot", "dataset.root=mixed"]


# -- rules -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("images", "side", "device", "ranks", "wanted"),
    [
        (200, 97, "cpu", 1, (64, 16, 32, 400_000, 30.0, 1000, 200, 200)),
        (24, 33, "cpu", 1, (32, 8, 32, 400_000, 30.0, 1000, 200, 200)),
        (1200, 97, "cpu", 1, (64, 16, 32, 1_200_000, 30.0, 1000, 200, 1000)),
        (150, 20, "mps", 1, (32, 32, 64, 400_000, 120.0, 500, 200, 200)),
        (700, 512, "mps", 1, (128, 32, 64, 700_000, 120.0, 500, 500, 700)),
        (200, 1024, "cuda", 1, (256, 32, 64, 400_000, 120.0, 500, 200, 200)),
        (700, 200, "cuda", 3, (128, 66, 64, 700_000, 120.0, 500, 700, 700)),
        (9000, 255, "cuda", 1, (128, 64, 64, 2_000_000, 120.0, 500, 1000, 1000)),
    ],
)
def test_the_rules_by_images_and_device(
    images: int, side: int, device: str, ranks: int, wanted: tuple[float, ...]
) -> None:
    words = [*AUTO, f"model.generator={few_shot.GENERATORS.get(device, few_shot.OTHER)[0]}"]
    config = compose("train", words)
    survey = Survey(images, side, side, side)
    found, chosen, notes = few_shot.settled(config, survey, device, ranks, usual_layers(config, words))
    observers = found["observers"]
    assert found["pretrained"]["layers"][0] == ("_blocks.0" if device == "cpu" else "_blocks.2")
    assert (found["loss"]["noise"], found["loss"]["noise_until"]) == ((0.6, 80_000) if device == "cpu" else (0.0, None))
    got = (found["dataset"]["size"], found["batch_size"], found["model"]["G"]["ch"], found["images"])
    got += (found["max_time"], observers["scores"]["every"], observers["scores"]["n"], observers["final"]["n"])
    assert got == wanted
    assert (observers["copies"]["every"], observers["copies"]["n"]) == wanted[5:7]
    assert observers["checkpoints"]["every"] == wanted[5]
    assert automatic.asked(found) == []
    assert all(row.why and "auto" not in row.value for row in chosen.rows)
    assert notes == (["24 images are very few"] if images == 24 else []) or notes[0].startswith(f"{images} images are")


def test_a_model_has_the_rules_of_its_own_keys() -> None:
    config: dict[str, Any] = {"model": {"D": {"separable": "auto", "resolution": "auto"}}, "images": None}
    survey = Survey(200, 64, 64, 64)
    on_cpu, chosen, _ = few_shot.settled(config, survey, "cpu")
    assert on_cpu["model"]["D"] == {"separable": True, "resolution": 128}  # of a network whose layers it does not know
    assert [row.key for row in chosen.rows] == ["model.D.resolution", "model.D.separable"]
    assert few_shot.settled(config, survey, "cuda")[0]["model"]["D"] == {"separable": False, "resolution": 224}
    assert config["model"]["D"]["resolution"] == "auto"


def test_another_generator_has_its_own_width_and_reasons() -> None:
    words = [*AUTO, "model.generator=stylegan2"]
    found, chosen, _ = few_shot.settled(compose("train", words), Survey(200, 64, 64, 64), "cuda")
    rows = {row.key: (row.value, row.why) for row in chosen.rows}
    assert rows["model.generator"] == ("stylegan2", "as configured; by rule fastgan_lite")
    assert rows["model.ch_base"] == ("32768", "as configured; by rule 4096")
    assert rows["model.D.separable"] == ("true", "as published with this generator")
    assert "model.ch" not in rows
    assert "ch" not in found["model"]
    assert found["model"]["D"]["separable"] is True
    other = few_shot.settled(compose("train", [*AUTO, "model=dcgan"]), Survey(200, 64, 64, 64), "cpu")[1]
    assert [(row.value, row.why) for row in other.rows if row.key == "model.name"] == [
        ("dcgan", "as configured; by rule projected")
    ]


@pytest.mark.parametrize(
    ("pretrained", "layers", "resolution"),
    [
        ("efficientnet_lite0", ["_blocks.0", "_blocks.2", "_blocks.4", "_blocks.10"], 64),
        ("mobilenet_v2", ["features.1", "features.3", "features.6", "features.13"], 64),
        ("resnet50", ["layer1", "layer2", "layer3", "layer4"], 128),
        ("timm", "stages", 128),
        ("torchvision", "stages", 128),
    ],
)
def test_a_cpu_reads_larger_maps_of_networks_that_it_knows(pretrained: str, layers: Any, resolution: int) -> None:
    words = [*AUTO, f"pretrained={pretrained}"]
    config = compose("train", words)
    found = few_shot.settled(config, Survey(200, 64, 64, 64), "cpu", 1, usual_layers(config, words))[0]
    assert (found["pretrained"]["layers"], found["model"]["D"]["resolution"]) == (layers, resolution)
    typed = few_shot.settled(compose("train", [*words, "pretrained.layers=[a]"]), Survey(200, 64, 64, 64), "cpu")[0]
    assert (typed["pretrained"]["layers"], typed["model"]["D"]["resolution"]) == (["a"], 128)


def chosen(words: list[str], device: str = "cpu") -> dict[str, tuple[str, str]]:
    table = few_shot.settled(compose("train", [*AUTO, *words]), Survey(24, 64, 64, 64), device)[1]
    return {row.key: (row.value, row.why) for row in table.rows}


def test_the_table_says_what_is_not_by_rule() -> None:
    rows = chosen(["model.generator=fastgan_lite", "model.D.ch=16", "loss.noise=0"])
    assert rows["model.generator"] == ("fastgan_lite", "as configured; by rule dcgan")
    assert rows["model.D.ch"] == ("16", "as configured; by rule 32")
    assert rows["loss.noise_until"] == ("null", "there is no noise")
    assert rows["batch_size"] == ("8", "the smallest of these rules")
    assert chosen(["loss.noise=0.3"], "cuda")["loss.noise_until"] == ("null", "the noise is constant")
    assert chosen(["model=dcgan"])["loss.noise"] == ("0.0", "as published")  # measured with Projected GAN


def test_a_width_that_the_generator_has_not_is_refused_if_typed(gan: Gan) -> None:
    mixed(Path("mixed"))
    words = [*(w for w in FEW if w != "model.latent.dim=8"), "model.generator=stylegan2", "observers=none", "steps=1"]
    answer = gan("train", *words, "run_dir=r")
    told = "gan: model.ch=4: the width of this generator has another key: see model.ch_base\n"
    assert (answer.code, answer.err) == (2, told)


def test_a_resumed_run_without_the_models_width_is_not_settled_again(gan: Gan) -> None:
    mixed(Path("mixed"))
    words = [w for w in FEW if not w.startswith(("model.ch", "model.latent"))]
    words += ["model.generator=stylegan2", "model.ch_base=64", "model.ch_max=4", "observers=none", "run_dir=r"]
    assert gan("train", *words, "steps=1").code == 0
    more = gan("train", "resume=r", "steps=2")
    assert more.code == 0, more.err
    assert "chosen for" not in more.err


def test_the_generator_follows_from_the_device_and_is_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    config = compose("train", [*AUTO, "seed=4"])
    for kind, name, ch in (("cpu", "dcgan", 100), ("cuda", "fastgan_lite", 256)):
        monkeypatch.setattr(device, "chosen", lambda asked, kind=kind: torch.device(kind))
        found, words = with_generator({**config, "seed": 5}, [*AUTO, "seed=4"], None)
        assert words == [*AUTO, "seed=4", f"generator={name}"]
        assert (found["model"]["generator"], found["model"]["latent"]["dim"], found["seed"]) == (name, ch, 5)
        assert found["model"]["D"]["resolution"] == "auto"  # the recipe's keys stay
        resumed, words = with_generator(config, AUTO, {"model": {"generator": "stylegan2"}})
        assert (resumed["model"]["generator"], words[-1]) == ("stylegan2", "generator=stylegan2")
        labels = compose("train", [*AUTO, "model.conditioning=projection"])
        assert with_generator(labels, [*AUTO, "model.conditioning=projection"], None)[1][-1] == "generator=fastgan_lite"
        assert with_generator(config, AUTO, {"model": {}}) == (config, AUTO)  # refused later, as another model's run
        named = compose("train", [*AUTO, "model.generator=biggan"])
        assert with_generator(named, AUTO, None) == (named, AUTO)


@pytest.mark.parametrize(
    ("side", "device", "reason"),
    [
        (16, "cpu", "the smallest of the generators; images of 16 pixels are enlarged"),
        (40, "cpu", "the power of two up to the median shorter side of 40; of each image the centre square"),
        (400, "cpu", "as large as a CPU trains in this time; of each image the centre square"),
        (400, "cuda", "the power of two up to the median shorter side of 400; of each image the centre square"),
        (600, "cuda", "as large as a GPU trains in this time; of each image the centre square"),
    ],
)
def test_the_size_has_its_reason(side: int, device: str, reason: str) -> None:
    _, chosen, _ = few_shot.settled(compose("train", AUTO), Survey(200, side, side, side), device)
    assert {row.key: row.why for row in chosen.rows}["dataset.size"] == reason


def test_too_few_are_refused_and_many_are_told_of_a_better_recipe() -> None:
    config = compose("train", AUTO)
    with pytest.raises(DataError, match=r"at least 20 images, and there are 19: add some, or .*experiment=photos"):
        few_shot.settled(config, Survey(19, 64, 64, 64), "cpu")
    assert few_shot.settled(config, Survey(20_000, 64, 64, 64), "cpu")[2] == []
    (note,) = few_shot.settled(config, Survey(20_001, 64, 64, 64), "cpu")[2]
    assert note == "20,001 images are many: experiment=auto (StyleGAN2 with ADA) is meant for them"


# -- the printed table -------------------------------------------------------------------------------------------------


def test_what_is_chosen_is_printed_with_its_reason_and_recorded(gan: Gan, pooled: type[Pooled]) -> None:  # noqa: F811
    mixed(Path("mixed"))
    answer = gan("train", *FEW, "dataset.size=auto", "batch_size=auto", "observers=none", "steps=1", "run_dir=r")
    assert answer.code == 0, answer.err
    lines = answer.err.splitlines()
    title = "chosen for 24 images with sides of 33 to 52 pixels, shorter side 40 in the median, on a CPU:"
    at = lines.index(title)
    table = [line.split(maxsplit=3) for line in lines[at + 1 : at + 19]]
    assert [(key, value) for key, _, value, _ in table] == [
        ("model.name", "projected"),
        ("model.generator", "dcgan"),
        ("augment.policy", "[color,translation,cutout]"),
        ("dataset.size", "32"),
        ("dataset.flip", "true"),
        ("batch_size", "8"),
        ("model.ch", "4"),
        ("model.D.ch", "2"),
        ("pretrained.layers", "[0,1,2,3]"),
        ("model.D.resolution", "64"),
        ("model.D.separable", "true"),
        ("model.ema.half_life", "2000"),
        ("model.ema.ramp", "null"),
        ("loss.noise", "0.6"),
        ("loss.noise_until", "80000"),
        ("max_time", "null"),
        ("observers.checkpoints.every", "1000"),
        ("time", table[-1][2]),
    ]
    assert table[6][3] == "as configured; by rule 32"
    assert len({line.index(" = ") for line in lines[at + 1 : at + 19]}) == 1
    assert any(line.startswith("24 images are very few: expect copies") for line in lines)
    stored = yaml.safe_load(Path("r/config.yaml").read_text(encoding="utf-8"))
    assert (stored["dataset"]["size"], stored["batch_size"], stored["model"]["G"]["ch"]) == (32, 8, 4)
    assert stored["model"]["generator"] == "dcgan"
    assert "data folder: 24 items of 3×32×32" in lines
    assert gan("sample", "run=r", "n=2").code == 0


def test_data_that_are_no_files_have_one_size(gan: Gan) -> None:
    words = [w for w in FEW if not w.startswith("dataset.")]
    answer = gan("train", *words, "dataset=emoji", "dataset.limit=40", "observers=none", "steps=1", "run_dir=r")
    assert answer.code == 0, answer.err
    assert "chosen for 40 images of 64×64 pixels, on a CPU:" in answer.err
    assert "data emoji: 40 items of 3×64×64" in answer.err


def test_a_resumed_run_keeps_what_was_chosen(gan: Gan, monkeypatch: pytest.MonkeyPatch) -> None:
    mixed(Path("mixed"))
    keys = [*FEW, "dataset.size=auto", "batch_size=auto", "max_time=auto", "observers=none", "run_dir=r"]
    assert gan("train", *keys, "steps=1").code == 0
    monkeypatch.setitem(few_shot.RULES, "dataset.size", few_shot.Rule(lambda case: 64, lambda case: "other"))
    monkeypatch.setitem(few_shot.RULES, "batch_size", few_shot.Rule(lambda case: 4, lambda case: "other"))
    more = gan("train", "resume=r", "steps=2")
    assert more.code == 0, more.err
    assert "chosen for" not in more.err
    stored = yaml.safe_load(Path("r/config.yaml").read_text(encoding="utf-8"))
    assert (stored["dataset"]["size"], stored["batch_size"], stored["max_time"]) == (32, 8, 30.0)


def test_what_is_missing_is_said_in_one_line_before_anything_is_written(gan: Gan) -> None:
    mixed(Path("mixed"))
    mixed(Path("some"), 19)
    own = [*FEW, *QUIET, "observers.scores.extractor=efficientnet_lite0"]
    for words, remedy in (
        (["experiment=few_shot"], "dataset=folder needs to know which folder: type dataset.root=PATH"),
        ([*FEW, *QUIET, "dataset.root=none"], "/none does not exist: type dataset.root=PATH"),
        ([*FEW, *QUIET, "dataset.root=some"], "there are 19: add some"),
        ([*FEW, *QUIET, "auto_rules=many"], "auto_rules=many: type stylegan2 or few_shot"),
        (
            [*FEW, *QUIET, "observers.scores.weights=w.pth"],
            "/w.pth does not exist: name a weights file",
        ),
        (
            [*FEW, *QUIET, "observers.scores.every=null"],
            "type observers.scores.every=1000, or observers.final.metrics=null",
        ),
        ([*own, "observers.final.metrics=[fdi]"], "did you mean fid?"),
        ([*own, "observers.final.n=1"], "n must be at least 2"),
        ([*own, "observers.copies.limit=2"], "observers.copies.limit=2: type a number above 0 and below 1"),
        ([*own, "observers.copies.patience=0"], "patience at least 1"),
    ):
        answer = gan("train", *words, "steps=2", "run_dir=r")
        assert (answer.code, answer.err.count("\n")) == (2, 1), answer.err
        assert remedy in answer.err, answer.err
        assert not Path("r").exists()
