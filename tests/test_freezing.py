"""`model.NETWORK.freeze`: fine-tuning with frozen blocks, its commands, and the parts that touch weights."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from gancli.compute.device import Compute
from gancli.config.compose import compose
from gancli.draw.standing import with_standing_statistics
from gancli.nets import mlp
from gancli.nets.freezing import is_frozen
from gancli.nets.stylegan2 import Discriminator
from gancli.train import assemble, frozen
from gancli.train.players import counts
from tests.conftest import TINY, Gan
from tests.contract import cast
from tests.contract.cast import engine_of
from tests.contract.test_freezing import held, unchanged
from tests.test_engine import same
from tests.test_starting import net, state
from tests.tiny import facts_of

DCGAN = [*cast.TINY["dcgan"][:-1], "dataset.size=[1,16,16]", "model.D.freeze=1", "model.G.freeze=1"]


# -- what touches weights ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("model", "keys"),
    [
        ("dcgan", ["penalty=clip", "penalty.clip.value=0.001"]),
        ("dcgan", ["penalty=historical_d"]),
        ("dcgan", ["penalty=historical_g"]),
        ("dcgan", ["penalty=wgan_gp"]),
        ("dcgan", ["penalty=lecam", "penalty.lecam.after=0"]),
        ("dcgan", ["penalty=r1", "penalty.r1.every=2"]),
        ("dcgan", ["optimizer.clip=0.1", "+optimizer.D.weight_decay=0.5", "+optimizer.G.weight_decay=0.5"]),
        ("dcgan", ["model.D.san=true"]),
        ("dcgan", ["model.D.norm=virtual", "model.G.norm=virtual"]),
        ("dcgan", ["model.D.minibatch=4"]),
        ("biggan", ["penalty=ortho"]),
        ("sngan", ["penalty=ortho", "penalty.ortho.diagonal=true"]),
        ("stylegan2", ["penalty=path_length", "game.mixing=0"]),
        ("stylegan2", ["model.D.architecture=skip"]),
        ("stylegan2", ["model.conditioning=projection", "dataset.classes=2"]),
        ("sngan", ["model.conditioning=hidden", "dataset.classes=2", "model.D.freeze=3"]),
        ("mlp", ["model.D.dropout=0.5", "model.D.norm=batch", "model.D.freeze=2"]),
    ],
)
def test_nothing_touches_frozen_weights(model: str, keys: list[str]) -> None:
    small = DCGAN if model == "dcgan" else [*cast.TINY[model], "model.D.freeze=1", "model.G.freeze=1"]
    engine = engine_of([*small, *keys])
    count = frozen.counts(compose("train", [*small, *keys])["model"])
    before = {name: held(net, count[name]) for name, net in engine.game.nets.items()}
    for _ in range(3):
        logs = engine.step()
    assert all(value.isfinite() for value in logs.values())
    unchanged(engine, before)


def test_the_orthogonal_penalty_is_of_trained_weights() -> None:
    keys = [*cast.TINY["sngan"], "penalty=ortho"]
    all_of_it, part = (engine_of([*keys, f"model.G.freeze={n}"]).step()["penalty_ortho"] for n in (0, 4))
    assert 0 < part < all_of_it / 10


def test_frozen_batch_norms_use_their_running_statistics_and_dropout_goes_on() -> None:
    D = engine_of([*DCGAN, "model.D.freeze=2"]).game.nets["D"]
    assert isinstance(D.body, nn.Sequential)
    norm = D.body[3]
    assert isinstance(norm, _BatchNorm)
    assert not norm.training
    first = D.body[:5]
    x = torch.rand(3, 1, 16, 16)
    torch.testing.assert_close(first(x)[:1], first(x[:1]))
    E = engine_of([*cast.TINY["mlp"], "model.D.dropout=0.5", "model.D.freeze=1"]).game.nets["D"]
    assert all(module.training for module in E.modules())


def test_standing_statistics_leave_frozen_norms_alone() -> None:
    engine = engine_of([*DCGAN, "model.G.freeze=1"])
    own = engine.networks()
    nets = with_standing_statistics(engine.game, own, Compute(), passes=2)
    norms = [[m for m in of["G"].modules() if isinstance(m, _BatchNorm)] for of in (own, nets)]
    assert [is_frozen(m) for m in norms[1]] == [True, False]
    (still, moved), (same_as, other) = norms
    assert torch.equal(still.running_var, same_as.running_var)  # type: ignore[arg-type]
    assert not torch.equal(moved.running_var, other.running_var)  # type: ignore[arg-type]


def test_shared_layers_are_frozen_for_both_networks_and_counted_once() -> None:
    keys = [*cast.TINY["cogan"], "model.G_B.freeze=2", "model.D_A.freeze=1"]
    engine = engine_of(keys)
    before = {"G_A": held(engine.game.nets["G_A"], 2), "D_A": held(engine.game.nets["D_A"], 1)}
    trained, still = counts(engine.players, dict(engine.game.nets.items()))
    every = {id(p): p.numel() for p in engine.game.nets.parameters()}
    assert sum(trained.values()) + sum(still.values()) == sum(every.values())
    assert still.keys() == {"G_A", "D_A"}
    engine.step()
    unchanged(engine, before)


def test_ten_layers_of_the_released_stylegan2_are_three_blocks() -> None:
    """From the image, three layers of each size and, at the first, the one of the image's pixels."""
    D = Discriminator((3, 64, 64), ch_base=64)
    layers = [m for block in D.freezable()[:3] for part in block if part is not None for m in part.modules()]
    assert sum(any(True for _ in m.parameters(recurse=False)) for m in layers if isinstance(m, nn.Module)) == 10


# -- configuration -----------------------------------------------------------------------------------------------------


def test_a_run_from_before_the_key_has_nothing_frozen() -> None:
    config = compose("train", cast.TINY["dcgan"])
    for name in ("G", "D"):
        del config["model"][name]["freeze"]
    assert all(p.requires_grad for p in assemble.game(config, facts_of((1, 8, 8))).parameters())


def test_a_network_may_have_an_argument_of_this_name(monkeypatch: pytest.MonkeyPatch) -> None:
    class Own(mlp.Discriminator):
        def __init__(self, shape: tuple[int, ...], classes: int = 0, *, freeze: str = "", **keys: Any):
            super().__init__(shape, classes)
            self.told = freeze

    Own.__module__ = mlp.__name__
    monkeypatch.setattr(mlp, "Own", Own, raising=False)
    config = compose("train", cast.TINY["mlp"])
    config["model"]["D"] = {"_target_": "gancli.nets.mlp.Own", "freeze": "much"}
    built = assemble.game(config, facts_of((1, 8, 8)))
    assert built.nets["D"].told == "much"
    assert frozen.counts(config["model"]) == {}


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("model.D.freeze=-1", "model.D.freeze=-1: must be at least 0"),
        ("model.D.freeze=0.5", "model.D.freeze=0.5: expected a whole number"),
        ("model.D.freeze=all", "model.D.freeze=all: expected a whole number"),
        ("model.D.freeze=2", "model.D.freeze=2: this network has 1 blocks (body.0): set 0 to 1"),
        ("model.D.freez=1", "unknown key model.D.freez"),
        ("model.freeze=1", "unknown key model.freeze"),
    ],
)
def test_what_cannot_be_frozen_is_refused_in_one_line(gan: Gan, word: str, said: str) -> None:
    answer = gan("train", *TINY, "steps=1", "run_dir=r", word)
    assert answer.code == 2
    assert said in answer.err
    assert answer.err.count("\n") == 1
    assert not Path("r").exists()


# -- commands ----------------------------------------------------------------------------------------------------------


def test_fine_tuning_from_a_run(gan: Gan, trained: Path) -> None:
    """From its state, and by network: frozen blocks of G are the EMA's and stay so, as are those of D."""
    there = state(trained, 6)
    for name, init in (("whole", f"init={trained}"), ("parts", f"init={{G: run:{trained}, D: run:{trained}}}")):
        words = [*TINY, "seed=5", "steps=2", "model.G.freeze=1", "model.D.freeze=1", f"run_dir={name}"]
        answer = gan("train", *words, init)
        assert answer.code == 0, answer
        assert "G has 1 of 1 blocks frozen: body.0, body.1\n" in answer.err
        assert "D has 1 of 1 blocks frozen: body.0\n" in answer.err
        assert "stay random" not in answer.err
        here = state(name, 2)
        for key in ("body.0.weight", "body.1.weight", "body.1.bias"):
            assert torch.equal(net(here, "G")[key], there["ema"]["G"][key])
            assert torch.equal(here["ema"]["G"][key], there["ema"]["G"][key])
        for key in ("body.1.running_mean", "body.1.running_var"):  # those of the EMA's weights
            assert torch.equal(net(here, "G")[key], here["ema"]["G"][key])
            assert not torch.equal(net(here, "G")[key], net(there, "G")[key])
        first = net(here, "G")["body.0.weight"]  # of latents U(±1), whose variance is 1/3
        wanted = (first.square().sum(0) / 3).mean((1, 2))
        torch.testing.assert_close(net(here, "G")["body.1.running_var"], wanted, rtol=0.2, atol=0)
        assert torch.equal(net(here, "D")["body.0.weight"], net(there, "D")["body.0.weight"])
        assert not torch.equal(net(here, "D")["head.weight"], net(there, "D")["head.weight"])


def test_a_frozen_run_is_counted_resumed_sampled_and_exported(gan: Gan) -> None:
    words = ["train", *TINY, "model.D.freeze=1", "model.G.freeze=1"]
    answer = gan(*words, "steps=2", "run_dir=whole")
    assert answer.code == 0, answer
    assert "D has 1 of 1 blocks frozen: body.0; their weights stay random, since it has no init=" in answer.err
    assert "G 64 parameters · D 64 parameters · G 6,408 frozen · D 64 frozen" in answer.err
    about = json.loads(Path("whole/run.json").read_text(encoding="utf-8"))
    assert (about["parameters"], about["frozen"]) == ({"G": 64, "D": 64}, {"G": 6408, "D": 64})
    assert gan(*words, "steps=1", "run_dir=part").code == 0
    answer = gan("train", "resume=part", "steps=2")
    assert answer.code == 0, answer
    assert "stay random" not in answer.err
    one, other = (state(run, 2) for run in ("whole", "part"))
    for name in ("game", "ema", "optimizers", "step", "seen"):
        same(copy.deepcopy(one[name]), other[name])
    assert len(one["optimizers"]["D"]["param_groups"][0]["params"]) == 1
    answer = gan("train", "resume=part", "steps=3", "model.D.freeze=0")
    assert answer.code == 2
    assert "(model.D.freeze: 1 -> 0); init= starts a new run from it" in answer.err
    assert answer.err.count("\n") == 1
    assert gan("sample", "run=whole", "n=2").code == 0
    assert gan("sample", "run=whole", "format=safetensors").code == 0
    (file,) = Path().rglob("*.safetensors")
    assert gan("sample", f"run={file}", "n=2").code == 0
    assert gan(*words, "steps=1", "run_dir=thawed", "init=whole", "model.D.freeze=0", "model.G.freeze=0").code == 0
