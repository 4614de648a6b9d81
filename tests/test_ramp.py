"""What changes with the images a run has seen: rates, penalties, the average, augmentation."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from gancli.augment.ada import Ada
from gancli.config.compose import compose
from gancli.games.noise import NoiseGame
from gancli.games.stages import Moment
from gancli.losses.penalties import R1
from gancli.train import assemble
from gancli.train.ramp import Ramp
from tests import tiny
from tests.conftest import Gan
from tests.tiny import facts_of

RAMP = Ramp(images=16, lr=0.5, penalty=0.0, beta2=0.99, half_life=8)


def test_rates_and_betas_follow_half_a_cosine_and_stay() -> None:
    """Batches of 4 images, one move of D a step: a quarter of the way at each; by hand, cos(π/4) = 0.7071."""
    engine = tiny.engine(ramp=RAMP, batch_size=4)
    group = engine.players["D"].optimizer.param_groups[0]
    rate, betas = group["lr"], group["betas"]
    found = []
    for _ in range(6):
        engine.step()
        found.append((group["lr"] / rate, group["betas"][1]))
    shares = [0.0, 0.1464466, 0.5, 0.8535534, 1.0, 1.0]
    assert [f[0] for f in found] == pytest.approx([1 - s / 2 for s in shares])
    assert [f[1] for f in found] == pytest.approx([betas[1] + (0.99 - betas[1]) * s for s in shares])
    assert group["betas"][0] == betas[0]


def test_the_average_is_a_copy_at_first_and_has_its_half_life_at_the_end() -> None:
    engine = tiny.engine(ramp=RAMP, batch_size=4)
    engine.step()
    average, net = engine.averages["G"], engine.game.nets["G"]
    assert all(torch.equal(a, b) for a, b in zip(average.parameters(), net.parameters(), strict=True))
    for _ in range(4):
        engine.step()
    before = [p.clone() for p in average.parameters()]
    engine.step()  # of 4 images where half of what was is forgotten in 8
    share = 0.5**0.5
    for old, new, raw in zip(before, average.parameters(), net.parameters(), strict=True):
        torch.testing.assert_close(new, old * share + raw * (1 - share))


def test_penalties_fade() -> None:
    """To nothing, along the same curve."""
    game = tiny.game(penalties={"r1": R1(weight=3.0)})
    assert isinstance(game, NoiseGame)
    game.critic.ramp = RAMP
    weights = []
    for seen in (0, 4, 8, 12, 16, 20):
        game.enter(Moment(seen=seen))
        weights.append(game.critic.weight(game.critic.penalties["r1"]))
    assert weights == pytest.approx([3.0, 3 * 0.8535534, 1.5, 3 * 0.1464466, 0.0, 0.0])


def test_augmentation_is_led_where_it_should_be() -> None:
    keys = ["experiment=r3gan_cifar10", "model.ch=16"]
    game = assemble.game(compose("train", keys), facts_of((3, 32, 32), tuple("abcdefghij")))
    assert isinstance(game.critic.augment, Ada)
    found = []
    for seen in (0, 10**7, 2 * 10**7, 10**8):
        game.enter(Moment(seen=seen))
        found.append(game.critic.augment.p.item())
    assert found == pytest.approx([0, 0.275, 0.55, 0.55])


def test_a_run_with_a_ramp_goes_on_to_the_same_bits(gan: Gan) -> None:
    keys = ["model=r3gan", "model.ch=8", "dataset=random", "dataset.size=[3,16,16]", "dataset.n=16", "batch_size=4"]
    keys += ["ramp=r3gan", "ramp.images=20", "ramp.half_life=10", "ramp.augment=0.5", "augment=ada"]
    keys += ["augment.target=null", "observers.progress=null", "observers.checkpoints.every=2", "device.threads=1"]
    assert gan("train", *keys, "steps=4", "run_dir=a").code == 0
    assert gan("train", *keys, "steps=2", "run_dir=b").code == 0
    assert gan("train", "resume=b", "steps=4").code == 0
    a, b = (torch.load(Path(run, "checkpoints/00000004.pt"), weights_only=True) for run in "ab")
    assert all(torch.equal(a["game"][k], b["game"][k]) for k in a["game"])
    assert all(torch.equal(a["ema"]["G"][k], b["ema"]["G"][k]) for k in a["ema"]["G"])
    assert a["game"]["critic.augment.p"].item() == pytest.approx(0.5 * (1 + 0.309017) / 2, abs=1e-6)  # cos 0.6π


def test_a_checkpoint_does_not_depend_on_who_looks(gan: Gan) -> None:
    """Every observer may look at a run whose p, rates and penalties change, and the run is the same without any."""
    keys = ["model=dcgan", "model.ch=4", "dataset=random", "dataset.size=[1,8,8]", "dataset.n=16", "batch_size=4"]
    keys += ["loss=hinge", "loss.noise=0.1", "loss.noise_until=40", "augment=ada", "augment.target=null", "steps=3"]
    keys += ["ramp=r3gan", "ramp.images=100", "ramp.augment=0.5", "device=cpu", "device.threads=1"]
    watched = ["observers.progress.every=1e-9", "observers.grid.every=1", "observers.metrics.every=1"]
    watched += ["observers.alarms.every=1", "observers=spectra", "observers.report=null"]
    assert gan("train", *keys, "observers=none", "run_dir=unseen").code == 0
    assert gan("train", *keys, *watched, "run_dir=seen").code == 0
    unseen, seen = (torch.load(Path(run, "checkpoints/00000003.pt"), weights_only=True) for run in ("unseen", "seen"))
    assert unseen["game"]["critic.augment.p"].item() == pytest.approx(0.25 * (1 - math.cos(0.08 * math.pi)), abs=1e-7)
    own = ("config", "seconds", "observers")  # which say how it was looked at, and how long that took
    assert sorted(_tensors({k: v for k, v in unseen.items() if k not in own})) == sorted(
        _tensors({k: v for k, v in seen.items() if k not in own})
    )


def _tensors(node: object, name: str = "") -> list[tuple[str, bytes]]:
    """Everything in a state by its path, to the bit."""
    if isinstance(node, dict):
        return [entry for key, part in node.items() for entry in _tensors(part, f"{name}.{key}")]
    if isinstance(node, list):
        return [entry for k, part in enumerate(node) for entry in _tensors(part, f"{name}.{k}")]
    return [(name, node.numpy().tobytes() if isinstance(node, torch.Tensor) else repr(node).encode())]


def test_asking_for_the_moves_changes_nothing() -> None:
    game = assemble.game(
        compose("train", ["experiment=r3gan_cifar10", "model.ch=16"]), facts_of((3, 32, 32), ("a",) * 10)
    )
    before = {name: value.clone() for name, value in game.state_dict().items()}
    for seen in (0, 10**7, 10**8):
        game.moves(Moment(seen=seen))
    assert all(torch.equal(value, before[name]) for name, value in game.state_dict().items())
