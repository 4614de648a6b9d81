"""Labels in the game, from the objective to the pictures of a run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy, relu

import gancli
from gancli.compute.rng import Rng
from gancli.config.compose import compose
from gancli.games.latent import Latent
from gancli.games.noise import NoiseGame
from gancli.losses.adversarial import Hinge
from gancli.nets.verdict import Verdict
from tests.conftest import Gan


class LabelledG(nn.Module):
    """Latents and labels to images of 4 numbers."""

    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Parameter(torch.tensor([[1.0, 0, 0, 0], [0, 2.0, 0, 0], [0, 0, 3.0, 0]]))

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.table[y] + z


class Classifier(nn.Module):
    """A logit and three classes, both linear in the image."""

    conditional = True

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.eye(4)[:3] * 0.5)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        return Verdict(x.sum(1), x @ self.weight.t())


def game(**keys: object) -> NoiseGame:
    return NoiseGame({"G": LabelledG(), "D": Classifier()}, Hinge(), {}, Latent(dim=4), 3, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize("fakes", [True, False])
def test_the_auxiliary_classifier_pays_its_cross_entropy(fakes: bool) -> None:
    built, rng = game(class_weight=0.5, class_fakes=fakes), Rng(0, total=6)
    x, y = torch.randn(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    fake_y = rng.integers("y", 3)
    fake = built.nets["G"](rng.normal("z", 4), fake_y)
    classes = [cross_entropy(images @ built.nets["D"].weight.t(), told) for images, told in ((x, y), (fake, fake_y))]
    outcome = built.discriminator_loss({"x": x, "y": y}, rng)
    torch.testing.assert_close(outcome.losses["class_D"], 0.5 * (classes[0] + classes[1] * fakes))
    torch.testing.assert_close(outcome.losses["loss_D"], relu(1 - x.sum(1)).mean() + relu(1 + fake.sum(1)).mean())
    outcome = built.generator_loss({}, rng)
    torch.testing.assert_close(outcome.losses["class_G"], 0.5 * classes[1])
    assert "class_G" not in game(class_weight=0.0).generator_loss({}, rng).losses


def test_fakes_are_asked_of_all_classes_evenly() -> None:
    counts = Rng(0, total=3000).integers("y", 3).bincount()
    assert counts.min() > 900


@pytest.mark.parametrize(
    ("keys", "told"),
    [
        (["model=biggan", "loss=hinge"], {"dataset": "emoji", "d_steps": 2, "lr": (5e-5, 2e-4), "beta": [0.0, 0.999]}),
        (["model=biggan_deep"], {"dataset": "emoji", "d_steps": 2, "lr": (5e-5, 2e-4), "beta": [0.0, 0.999]}),
        (["model=sagan"], {"dataset": "emoji", "d_steps": 1, "lr": (1e-4, 4e-4), "beta": [0.0, 0.9]}),
        (["model=sngan"], {"dataset": "fashion", "d_steps": 5, "lr": (2e-4, 2e-4), "beta": [0.0, 0.9]}),
        (["experiment=biggan128"], {"dataset": "folder", "d_steps": 2, "lr": (5e-5, 2e-4), "beta": [0.0, 0.999]}),
    ],
)
def test_papers_settings(keys: list[str], told: dict[str, object]) -> None:
    config = compose("train", keys)
    assert config["dataset"]["_target_"].rpartition(".")[2] == told["dataset"]
    assert config["game"]["d_steps"] == told["d_steps"]
    assert tuple(config["optimizer"][p]["lr"] for p in "GD") == told["lr"]
    assert all(config["optimizer"][p]["betas"] == told["beta"] for p in "GD")
    assert config["loss"]["_target_"].endswith("Hinge")


def test_biggans_paper_runs_average_late() -> None:
    for name in ("biggan128", "biggan256", "biggan512", "biggan_deep128"):
        config = compose("train", [f"experiment={name}"])
        assert config["model"]["ema"] == {"decay": 0.9999, "start": 20_000, "warmup": False}
        assert (config["batch_size"], config["steps"]) == (2048, 150_000)
        assert config["penalty"]["ortho"]["weight"] == 1e-4


def test_biggan_alone_says_its_width_and_batch(gan: Gan) -> None:
    answer = gan("train", "model=biggan", "loss=hinge", "steps=0", "dataset.limit=8", "run_dir=r")
    assert answer.code == 0
    assert "data emoji: 8 items of 3×32×32" in answer.err
    assert "batches of 64" in answer.err
    assert "width ch=16" in answer.err
    run = json.loads(Path("r/run.json").read_text(encoding="utf-8"))
    assert run["parameters"] == {"G": 377_348, "D": 270_466}


def test_a_conditional_run_stops_and_goes_on_to_the_same_bits(gan: Gan, tmp_path: Path) -> None:
    keys = ["model=biggan", "model.ch=1", "dataset.limit=12", "dataset.size=16", "batch_size=4", "observers.grid.n=4"]
    keys += ["observers.progress=null", "penalty=ortho"]
    assert gan("train", *keys, "steps=4", "run_dir=whole").code == 0
    assert gan("train", *keys, "steps=2", "run_dir=halves").code == 0
    assert gan("train", "resume=halves", "steps=4").code == 0
    whole, halves = (gancli.load(str(tmp_path / name), ema=False).game.state_dict() for name in ("whole", "halves"))
    assert whole.keys() == halves.keys()
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


def test_samples_of_a_conditional_run_hear_the_class(labelled: Path) -> None:
    sampler = gancli.load(str(labelled))
    assert sampler.labelled
    assert sampler.classes == ("0", "1", "2")
    pairs = [(0, k) for k in range(3)]
    ones = sampler.sample(pairs, {"y": torch.tensor([1, 1, 1])})
    assert ones.shape == (3, 3, 16, 16)
    assert not torch.equal(ones, sampler.sample(pairs, {"y": torch.tensor([1, 2, 0])}))
    rows = torch.nn.functional.one_hot(torch.tensor([1, 1, 1]), 3).float()
    torch.testing.assert_close(sampler.sample(pairs, {"y": rows}), ones, rtol=1e-4, atol=1e-5)
