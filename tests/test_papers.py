"""What `conf/` says of the papers: counts, constants and full settings, as `gan train` builds them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import nn

from gancli.compute.device import Compute
from gancli.config.build import make_as
from gancli.config.compose import compose, expand, groups
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.games.game import Game
from gancli.nets.layers.attention import Attention
from gancli.nets.layers.spectral import Weighted, is_spectral
from gancli.train import assemble, streams
from gancli.train.checks import check_sections
from tests.tiny import facts_of

IMAGENET = facts_of((3, 128, 128), tuple(map(str, range(1000))))


def built(keys: list[str], facts: DataFacts) -> Game:
    """The game of these words on the meta device, which costs nothing."""
    with torch.device("meta"):
        return assemble.game(compose("train", keys), facts)


def sized(side: int, classes: int = 1000) -> DataFacts:
    return facts_of((3, side, side), tuple(map(str, range(classes))))


@pytest.mark.parametrize(
    ("keys", "facts", "g", "d"),
    [
        (["model=gan"], facts_of((1, 28, 28), ()), 2_503_984, 1_231_441),
        (["model=sngan"], sized(32), 4_276_739, 1_053_824),
        (["model=sngan", "model.conditioning=projection"], IMAGENET, 41_996_931, 30_041_857),
        (["model=sagan"], IMAGENET, 42_017_412, 39_448_258),
        (["model=sagan", "model.attention=[32]"], IMAGENET, 42_078_852, 39_463_618),
        (["model=biggan"], IMAGENET, 70_433_988, 87_982_370),
        (["model=biggan"], sized(256), 82_097_604, 99_225_890),
        (["model=biggan", "model.attention=[64]"], sized(256), 82_235_844, 99_225_890),
        (["model=biggan"], sized(512), 82_468_068, 99_401_282),
        (["model=biggan", "model.D.family=biggan_paper"], sized(512), 82_468_068, 144_195_362),
        (["model=biggan_deep"], IMAGENET, 50_244_484, 34_590_210),
        (["model=biggan_deep", "model.ch=64", "model.attention=[]"], sized(64), 17_106_307, 5_734_657),
        (["model=biggan_deep", "model.ch=64", "model.attention=[]"], sized(32, 10), 3_079_299, 651_649),
        (["model=dcgan"], sized(64, 0), 3_576_704, 2_765_568),
        (["model=r3gan", "model.conditioning=projection"], sized(32, 10), 20_781_952, 21_280_512),
    ],
)
def test_the_command_line_builds_the_papers_counts(keys: list[str], facts: DataFacts, g: int, d: int) -> None:
    nets = built(keys, facts).nets
    assert [sum(p.numel() for p in nets[name].parameters()) for name in "GD"] == [g, d]


@pytest.mark.parametrize("side", [16, 28, 32])
def test_biggan_deeps_d_has_six_blocks_of_small_images(side: int) -> None:
    """Three stages of two, as the released code has at 32 pixels: two of them halve, all keep four times the width."""
    blocks = list(built(["model=biggan_deep"], sized(side, 10)).nets["D"].blocks)
    assert [block.down for block in blocks] == [True, False, True, False, False, False]
    assert {block.leave.weight.shape[0] for block in blocks} == {64}


@pytest.mark.parametrize(
    ("shared", "skip_z", "ch", "millions"),
    [
        (0, False, 64, 81.5),
        (0, False, 96, 173.5),
        (128, False, 96, 160.6),
        (128, True, 96, 158.3),
        (128, True, 64, 71.3),
    ],
)
def test_the_command_line_builds_the_ablation(shared: int, skip_z: bool, ch: int, millions: float) -> None:
    keys = ["model=biggan", f"model.shared={shared}", f"model.skip_z={str(skip_z).lower()}", f"model.ch={ch}"]
    game = built([*keys, "model.latent.dim=120"], IMAGENET)
    assert sum(p.numel() for p in game.parameters()) / 1e6 == pytest.approx(millions, abs=0.2)


@pytest.mark.parametrize(
    ("keys", "facts", "spectral", "sn_eps", "bn_eps"),
    [
        (["model=sngan"], sized(32), "D", 1e-12, 2e-5),
        (["model=sngan", "model.conditioning=projection"], IMAGENET, "D", 1e-12, 2e-5),
        (["model=sagan"], IMAGENET, "DG", 1e-8, 1e-5),
        (["model=biggan"], IMAGENET, "DG", 1e-6, 1e-5),
        (["model=biggan_deep"], IMAGENET, "DG", 1e-6, 1e-5),
    ],
)
def test_the_command_line_has_the_papers_constants(
    keys: list[str], facts: DataFacts, spectral: str, sn_eps: float, bn_eps: float
) -> None:
    nets = built(keys, facts).nets
    divided = {name: [m for m in net.modules() if is_spectral(m)] for name, net in nets.items()}
    assert "".join(sorted(name for name, layers in divided.items() if layers)) == spectral
    assert {m.eps for layers in divided.values() for m in layers} == {sn_eps}
    norms = [m for m in nets["G"].modules() if isinstance(m, nn.BatchNorm2d)]
    assert {(m.eps, m.momentum) for m in norms} == {(bn_eps, 0.1)}
    assert not any(isinstance(m, nn.modules.batchnorm._BatchNorm) for m in nets["D"].modules())
    if not keys[0].endswith("deep"):
        assert [block.norm1 is None for block in nets["D"].blocks][:2] == [True, False]


@pytest.mark.parametrize("name", ["sagan", "biggan"])
def test_a_power_iteration_a_move_of_the_layers_own_player(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [f"model={name}", "model.ch=8", "dataset=random", "dataset.size=[1,16,16]", "dataset.n=8", "batch_size=4"]
    config = compose("train", [*keys, "game.d_steps=3", "micro_batch=2"])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    for layer in (m for m in engine.game.modules() if isinstance(m, Attention)):
        assert layer.gamma == 0
    moved: Counter[int] = Counter()
    advance = Weighted.advance

    def counted(layer: Weighted) -> None:
        moved[id(layer)] += 1
        advance(layer)

    monkeypatch.setattr(Weighted, "advance", counted)
    engine.step()
    for player, times in (("D", 3), ("G", 1)):
        layers = [m for m in engine.game.nets[player].modules() if is_spectral(m)]
        assert {moved[id(layer)] for layer in layers} == {times}


@pytest.mark.parametrize("dataset", ["emoji", "fashion"])
@pytest.mark.parametrize("kind", ["none", "input", "hidden", "ac", "projection"])
@pytest.mark.parametrize("model", ["sngan", "biggan"])
def test_every_conditioning_trains_on_the_embedded_images(dataset: str, kind: str, model: str) -> None:
    keys = [f"model={model}", "model.ch=2", f"model.conditioning={kind}", f"dataset={dataset}", "dataset.limit=32"]
    config = compose("train", [*keys, "batch_size=4", "game.d_steps=1", "game.g_size=1"])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    logs = engine.step()
    assert all(value.isfinite() for value in logs.values())
    assert ("class_D" in logs) == (kind == "ac")
    assert engine.game.labelled == (kind != "none")


# -- experiments -------------------------------------------------------------------------------------------------------

PAPERS: Mapping[str, Mapping[str, Any]] = {
    "sngan_cifar10": {
        "model.name": "sngan", "model.conditioning": "none", "model.ema.decay": 0, "dataset": "cifar10",
        "batch_size": 64, "steps": 50_000, "game.d_steps": 5, "game.g_size": 2, "optimizer.schedule.kind": "linear",
        "loss": "Hinge", "optimizer.G.lr": 2e-4, "optimizer.D.lr": 2e-4, "penalty": set(),
        "optimizer.G.betas": [0.0, 0.9],
    },
    "projection_imagenet128": {
        "model.conditioning": "projection", "dataset": "folder", "dataset.size": 128, "batch_size": 64,
        "steps": 450_000, "game.d_steps": 5, "game.g_size": 2, "optimizer.schedule.start": 400_000,
        "optimizer.G.betas": [0.0, 0.9],
    },
    "sagan_imagenet128": {
        "model.attention": [32], "dataset.size": 128, "batch_size": 256, "steps": 1_000_000, "game.d_steps": 1,
        "optimizer.G.lr": 1e-4, "optimizer.D.lr": 4e-4, "optimizer.D.betas": [0.0, 0.9], "loss": "Hinge",
    },
    "biggan_deep128": {
        "dataset.size": 128, "batch_size": 2048, "steps": 150_000, "game.d_steps": 2, "model.latent.dim": 128,
        "optimizer.G.lr": 5e-5, "optimizer.D.lr": 2e-4, "optimizer.G.betas": [0.0, 0.999],
    },
    "pacgan_grid": {
        "dataset": "grid", "dataset.n": 100_000, "loss": "NonSaturating", "game.pack": 2, "model.latent.dim": 2,
        "model.latent.kind": "normal", "model.G.hidden": [400] * 4, "model.G.norm": "batch",
        "model.G.activation": "relu", "model.D.hidden": [200] * 3, "model.D.activation": "maxout", "model.D.pieces": 5,
        "model.D.norm": "none", "optimizer.G.lr": 1e-4, "optimizer.D.lr": 1e-4, "optimizer.G.betas": [0.8, 0.999],
        "steps": 400_000, "model.ema.decay": 0, "model.G.init": "normal", "model.D.init": "normal", "dataset.scale": 1,
        "model.G.bn_eps": 1e-4,
    },
    "pacgan_ring": {
        "dataset": "ring", "game.pack": 2, "model.D.hidden": [200] * 3, "optimizer.G.betas": [0.8, 0.999],
        "model.G.init": "normal", "model.D.init": "normal", "dataset.scale": 1,
    },
    "wgan_gp_toy": {
        "loss": "Wasserstein", "penalty": {"wgan_gp"}, "penalty.wgan_gp.weight": 0.1, "model.G.hidden": [512] * 3,
        "model.D.hidden": [512] * 3, "batch_size": 256, "game.d_steps": 5, "optimizer.D.betas": [0.5, 0.9],
        "optimizer.D.lr": 1e-4, "model.G.init": "he", "model.D.init": "he", "model.G.activation": "relu",
        "model.D.activation": "relu", "model.latent.dim": 2, "dataset": "grid",
        "dataset.scale": pytest.approx(1 / 2.828, rel=1e-6),
    },
    "wgan_gp_ring": {
        "dataset": "ring", "dataset.scale": pytest.approx(2 / 1.414, rel=1e-6), "model.G.init": "he",
        "model.D.init": "he", "penalty.wgan_gp.weight": 0.1, "batch_size": 256, "game.d_steps": 5,
    },
    "gan_mnist_parzen": {
        "dataset": "mnist", "model.latent.dim": 100, "model.latent.kind": "uniform", "model.G.hidden": [1200, 1200],
        "model.D.hidden": [240, 240], "model.D.pieces": 5, "model.D.dropout": 0.5, "model.D.input_dropout": 0.2,
        "batch_size": 100, "loss": "NonSaturating", "optimizer.G": "SGD", "optimizer.G.lr": 0.1, "optimizer.D.lr": 0.05,
        "optimizer.D.momentum": 0.5,
    },
    "semisup_mnist": {
        "dataset": "mnist", "game.labels": 100, "game.adversarial": 0, "penalty": {"feature_matching"},
        "batch_size": 100, "steps": 180_000, "optimizer.D.lr": 3e-3, "optimizer.G.betas": [0.5, 0.999],
        "model.ema.decay": 0.9999, "model.D.hidden": [1000, 500, 250, 250, 250], "optimizer.G.eps": 1e-4,
        "penalty.feature_matching.weight": 1 / 250,
    },
    "collapse": {"dataset": "ring", "loss": "NonSaturating", "penalty": set(), "game.pack": 1},
    "wgan_gp_robustness": {"loss": "Wasserstein", "penalty": {"wgan_gp"}, "dataset": "grid", "game.d_steps": 5},
}  # fmt: skip


def told(config: Mapping[str, Any], path: str) -> Any:
    """A value of a configuration; of a group the part that it names, of penalties their names."""
    value: Any = config
    for word in path.split("."):
        value = (value or {})[word]
    if path == "penalty":
        return set(value or {})
    if isinstance(value, dict):
        return value["_target_"].rpartition(".")[2]
    return value


@pytest.mark.parametrize("name", PAPERS)
def test_experiments_are_the_papers_runs(name: str) -> None:
    config = compose("train", [f"experiment={name}"])
    found = {path: told(config, path) for path in PAPERS[name]}
    assert found == PAPERS[name]


def test_every_paper_has_a_run_that_a_cpu_bears() -> None:
    names = set(groups("train")["experiment"])
    assert {"biggan128", "biggan256", "biggan512", *PAPERS} <= names
    for small in (
        "sngan_small",
        "projection_small",
        "sagan_small",
        "biggan_fashion",
        "biggan_emoji",
        "biggan_deep_small",
    ):
        config = compose("train", [f"experiment={small}"])
        assert told(config, "dataset") in ("fashion", "emoji"), small
        assert config["batch_size"] <= 64, small
        assert config["max_time"] <= 40, small


@pytest.mark.parametrize("pack", [1, 2, 3, 4])
@pytest.mark.parametrize("name", ["pacgan_grid", "pacgan_ring"])
def test_packing_changes_the_first_layer_of_d_alone(name: str, pack: int) -> None:
    game = built([f"experiment={name}", f"game.pack={pack}"], facts_of((2,), ()))
    first = next(m for m in game.nets["D"].modules() if isinstance(m, Weighted))
    assert first.weight.shape == (200 * 5, 2 * pack)


def test_the_robustness_sweep_is_over_activation_depth_norm_and_width() -> None:
    words = [
        "model.hidden=[64,64],[64,64,64,64],[256,256],[256,256,256,256]",
        "model.G.activation=relu,leaky_relu,tanh",
    ]
    words += ["model.G.norm=none,batch", "model.D.norm=none,layer"]
    jobs = expand(["experiment=wgan_gp_robustness", *words])
    assert len(jobs) == 4 * 3 * 2 * 2
    for job in (jobs[0], jobs[-1]):
        config = compose("train", job)
        check_sections(make_as(TrainSettings, config, ""))
        game = assemble.game(config, facts_of((2,), ()))
        hidden = config["model"]["hidden"]
        assert config["model"]["D"]["activation"] == config["model"]["G"]["activation"]
        assert [len(hidden), hidden[0]] == ([2, 64] if job is jobs[0] else [4, 256])
        assert sum(isinstance(m, nn.BatchNorm1d) for m in game.nets["G"].modules()) == (0 if job is jobs[0] else 4)
