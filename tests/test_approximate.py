"""R1 and R2 by finite differences: their value, their random numbers, and where they can be used."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.config.compose import groups
from gancli.errors import CombinationError, ConfigError
from gancli.games.critic import Critic
from gancli.losses.adversarial import Hinge
from gancli.losses.penalties import R1, R2, ApproximateR1, ApproximateR2, Context, Penalty
from gancli.nets.layers.noise import Dropout, keyed
from gancli.nets.progan import Discriminator as GrowingD
from gancli.nets.verdict import Verdict
from tests import tiny
from tests.conftest import TINY as COMMAND
from tests.conftest import Gan
from tests.contract.cast import TINY, engine_of

F64 = torch.float64
ROWS = 100_000


def linear(x: Tensor, *_: Any) -> Tensor:
    return x.flatten(1) @ torch.tensor([1.0, -2.0, 0.5], dtype=x.dtype)


def context(judge: Any, x: Tensor, **told: Any) -> Context:
    return Context({}, judge, x, x, None, None, Rng(0, total=len(x), dtype=x.dtype), **told)


@pytest.mark.parametrize("kind", [ApproximateR1, ApproximateR2])
@pytest.mark.parametrize("sigma", [0.01, 1.0])
def test_the_mean_on_a_linear_critic_is_half_of_the_squared_slope(kind: type[Penalty], sigma: float) -> None:
    """(w·n)² / ‖w‖² is chi-squared with variance 2, so a mean of 100,000 deviates by 0.45 %: 1 % is 2.2 deviations."""
    cost = kind(sigma=sigma)(context(linear, torch.zeros(ROWS, 3, dtype=F64)))  # type: ignore[call-arg]
    assert cost is not None
    assert cost.item() == pytest.approx(5.25 / 2, rel=0.01)


@pytest.mark.parametrize(("kind", "exact"), [(ApproximateR1, R1), (ApproximateR2, R2)])
def test_the_value_and_its_gradient_are_those_of_the_exact_penalty(kind: type[Penalty], exact: type[Penalty]) -> None:
    torch.manual_seed(3)
    net = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).to(F64)
    told = context(lambda x, *_: net(x).squeeze(1), torch.randn(1, 2, dtype=F64).expand(ROWS, 2))
    found = []
    for penalty in (kind(), exact()):
        cost = penalty(told)
        assert cost is not None
        found.append([cost, *torch.autograd.grad(cost, list(net[0].parameters()))])
    for near, sharp in zip(*found, strict=True):
        assert (near - sharp).norm() < 0.02 * sharp.norm()  # 0.45 % a component, and σ²


def test_the_step_of_a_magnified_image_is_that_of_its_copies() -> None:
    """A D that averages images down to its size, and one at the small size that is told so, cost the same."""
    torch.manual_seed(0)
    small = torch.randn(3, dtype=F64)

    def averaging(x: Tensor, *_: Any) -> Tensor:
        return torch.nn.functional.avg_pool2d(x, 2).flatten(1) @ small

    def at_size(x: Tensor, *_: Any) -> Tensor:
        return x.flatten(1) @ small

    whole = ApproximateR1()(context(averaging, torch.zeros(ROWS, 1, 2, 6, dtype=F64)))
    told = ApproximateR1()(context(at_size, torch.zeros(ROWS, 1, 1, 3, dtype=F64), magnified=2))
    exact = R1()(context(at_size, torch.zeros(4, 1, 1, 3, dtype=F64), magnified=2))
    assert whole.item() == pytest.approx(exact.item(), rel=0.01)
    assert told.item() == pytest.approx(exact.item(), rel=0.01)


class DroppingD(nn.Module):
    """A linear critic with dropout, of which a new draw would change the logit far more than σ does."""

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.out = Dropout(0.5), nn.Linear(64, 1)

    def forward(self, x: Tensor, y: Tensor | None = None) -> Verdict:
        return Verdict(self.out(self.drop(x.flatten(1))).squeeze(1))


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_both_passes_have_the_same_dropout_and_noise(noise: float) -> None:
    torch.manual_seed(1)
    nets = nn.ModuleDict({"G": tiny.TinyG(), "D": DroppingD()})
    critic = Critic("D", nets, Hinge(noise=noise), {"r1_approx": ApproximateR1()})
    x, rng = torch.randn(256, *tiny.SHAPE), Rng(0, total=256)
    with keyed({"D": nets["D"]}, Rng(1, total=256)):
        cost = critic.pay("r1_approx", critic.context(rng, real=(x, None)))["penalty_r1_approx"].item()
    # Dropout doubles E‖w ∘ mask‖²; different masks would cost about 1 / σ² times as much.
    assert cost == pytest.approx(10 / 2 * 2 * nets["D"].out.weight.square().sum().item(), rel=0.3)


def test_no_second_derivative_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a gradient inside a loss")

    engine = tiny.engine(tiny.game(penalties={"r1_approx": ApproximateR1(), "r2_approx": ApproximateR2(every=2)}))
    assert not engine.game.critic.twice
    assert not engine.game.eager
    monkeypatch.setattr(torch.autograd, "grad", refuse)
    assert {"penalty_r1_approx", "penalty_r2_approx"} <= engine.step().keys()
    with pytest.raises(AssertionError, match="gradient inside"):
        tiny.engine(tiny.game(penalties={"r1": R1()})).step()


def test_batch_norm_is_refused_as_for_r1() -> None:
    with pytest.raises(CombinationError, match="each image's own gradient"):
        tiny.game(penalties={"r1_approx": ApproximateR1()}, d_norm=True)
    assert not any(
        isinstance(m, nn.BatchNorm2d) for m in engine_of([*TINY["dcgan"], "penalty=r1_approx"]).game.nets["D"].modules()
    )


@pytest.mark.parametrize("sigma", [0.0, -1.0, float("inf"), float("nan")])
def test_sigma_is_above_zero(sigma: float) -> None:
    with pytest.raises(ConfigError, match="sigma"):
        ApproximateR1(sigma=sigma)


@pytest.mark.parametrize("loss", [name for name in groups("train")["loss"] if name != "none"])
@pytest.mark.parametrize("penalty", ["r1_approx", "r2_approx"])
def test_every_loss_takes_it_lazily(loss: str, penalty: str) -> None:
    keys = [*TINY["mlp"], f"loss={loss}", f"penalty={penalty}", f"penalty.{penalty}.every=16", "batch_size=4"]
    engine = engine_of([*keys, *(["loss.plain=true"] if loss == "energy" else [])])
    assert f"penalty_{penalty}" in engine.step()
    assert f"penalty_{penalty}" not in engine.step()


def test_a_growing_network_takes_it() -> None:
    engine = engine_of([*TINY["stylegan"], "penalty=[r1_approx,r2_approx]"])
    assert isinstance(engine.game.nets["D"], GrowingD)
    assert engine.step()["penalty_r2_approx"].isfinite()


@pytest.mark.parametrize("micro", [1, 3])
def test_micro_batches_change_nothing(micro: int) -> None:
    moved = []
    for size in (None, micro):
        penalties = {"r1_approx": ApproximateR1(), "r2_approx": ApproximateR2()}
        engine = tiny.engine(tiny.game(Hinge(noise=0.1), penalties=penalties), dtype=F64, sgd=True, micro_batch=size)
        before = tiny.weights(engine.game)
        engine.step()
        moved.append(tiny.weights(engine.game) - before)
    torch.testing.assert_close(moved[1], moved[0], rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("penalty", ["r1_approx", "r2_approx"])
def test_a_run_trains_with_it(gan: Gan, penalty: str) -> None:
    assert gan("train", *COMMAND, f"penalty={penalty}", "steps=2", "run_dir=run").code == 0
    assert Path("run/checkpoints/00000002.pt").is_file()
