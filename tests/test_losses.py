"""Objectives and penalties against values computed by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.losses.adversarial import AdversarialLoss, Hinge, LeastSquares, Minimax, NonSaturating, Wasserstein
from gancli.losses.penalties import R1, Context, WganGp
from gancli.losses.weights import Clip, Orthogonal
from gancli.nets.resnet import Generator

LOG2 = math.log(2)


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


@pytest.mark.parametrize(
    ("loss", "d", "g"),
    [
        (NonSaturating(), -math.log(sigmoid(2)) - math.log(1 - sigmoid(-0.5)), -math.log(sigmoid(-0.5))),
        (Minimax(), -math.log(sigmoid(2)) - math.log(1 - sigmoid(-0.5)), math.log(1 - sigmoid(-0.5))),
        (Hinge(), 0 + 0.5, 0.5),
        (Wasserstein(), -0.5 - 2, 0.5),
        (LeastSquares(), ((2 - 1) ** 2 + 0.5**2) / 2, (-0.5 - 1) ** 2 / 2),
    ],
)
def test_objectives_by_hand(loss: AdversarialLoss, d: float, g: float) -> None:
    real, fake = torch.tensor([2.0], dtype=torch.float64), torch.tensor([-0.5], dtype=torch.float64)
    assert loss.discriminator(real, fake).item() == pytest.approx(d, abs=1e-12)
    assert loss.generator(fake).item() == pytest.approx(g, abs=1e-12)


def test_value_at_the_best_discriminator() -> None:
    """At D = p / (p + q) the value is 2 JSD(p || q) - log 4, so -log 4 where p = q (Goodfellow 2014, theorem 1)."""
    p, q = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64), torch.tensor([0.1, 0.3, 0.6], dtype=torch.float64)

    def value(p: Tensor, q: Tensor) -> float:
        logits = torch.log(p / q)  # sigmoid(log p/q) = p / (p + q)
        repeats = 10  # exact expectations: every point as often as its probability says
        real = logits.repeat_interleave((p * repeats).round().long())
        fake = logits.repeat_interleave((q * repeats).round().long())
        return -NonSaturating().discriminator(real, fake).item()

    middle = (p + q) / 2
    jsd = ((p * torch.log(p / middle)).sum() + (q * torch.log(q / middle)).sum()).item() / 2
    assert value(p, q) == pytest.approx(-math.log(4) + 2 * jsd, abs=1e-12)
    assert value(p, p) == pytest.approx(-math.log(4), abs=1e-12)


def test_g_gradient_vanishes_only_under_minimax_when_d_is_sure() -> None:
    slopes = {}
    for loss in (Minimax(), NonSaturating()):
        fake = torch.tensor([-12.0], dtype=torch.float64, requires_grad=True)
        loss.generator(fake).backward()
        assert fake.grad is not None
        slopes[type(loss)] = fake.grad.abs().item()
    assert slopes[Minimax] == pytest.approx(sigmoid(-12), rel=1e-9)
    assert slopes[NonSaturating] == pytest.approx(1 - sigmoid(-12), rel=1e-9)


def test_logits_far_out_stay_finite() -> None:
    far = torch.tensor([1000.0, -1000.0])
    for loss in (NonSaturating(), Minimax()):
        assert torch.isfinite(loss.discriminator(far, far))
        assert torch.isfinite(loss.generator(far))


def context(w: Tensor, dtype: torch.dtype = torch.float64) -> Context:
    real, fake = torch.zeros(4, len(w), dtype=dtype), torch.ones(4, len(w), dtype=dtype)
    return Context({}, lambda x, *_: x @ w, real, fake, None, None, Rng(0, total=4, dtype=dtype))


def test_penalties_of_a_linear_critic() -> None:
    w = torch.tensor([1.0, 2.0, -2.0], dtype=torch.float64)
    assert WganGp()(context(w)).item() == pytest.approx((3 - 1) ** 2, abs=1e-12)
    assert R1()(context(w)).item() == pytest.approx(9 / 2, abs=1e-12)


def test_wgan_gp_looks_between_real_and_fake() -> None:
    """For the critic x²/2 the gradient is x itself, so the penalty shows where it was taken."""
    rng = Rng(3, total=6, dtype=torch.float64)
    share = rng.uniform("wgan_gp")
    real, fake = torch.full((6, 1), 5.0, dtype=torch.float64), torch.full((6, 1), 2.0, dtype=torch.float64)
    got = WganGp()(Context({}, lambda x, *_: x.square().sum(1) / 2, real, fake, None, None, rng))
    assert got.item() == pytest.approx((2 + 3 * share - 1).square().mean().item(), abs=1e-12)


@pytest.mark.parametrize("penalty", [WganGp(), R1()])
def test_penalties_can_be_differentiated(penalty: WganGp | R1) -> None:
    w = torch.tensor([1.0, 2.0], dtype=torch.float64, requires_grad=True)
    penalty(context(w)).backward()
    assert w.grad is not None
    norm = math.sqrt(5)
    expected = [2 * (norm - 1) * v / norm for v in (1.0, 2.0)] if isinstance(penalty, WganGp) else [1.0, 2.0]
    assert w.grad.tolist() == pytest.approx(expected, abs=1e-12)


def test_clip_moves_weights_into_the_box() -> None:
    net = torch.nn.Linear(3, 2)
    Clip(value=0.125).project(net)
    assert max(p.abs().max().item() for p in net.parameters()) <= 0.125


def test_bad_weights_are_refused() -> None:
    with pytest.raises(ConfigError, match="every at least 1"):
        R1(every=0)
    with pytest.raises(ConfigError, match=r"0\.01"):
        Clip(value=0)


def weight_context(net: nn.Module) -> Context:
    return Context({"generator": net}, lambda x, *_: x, None, None, None, None, Rng(0, total=1))


@pytest.mark.parametrize("diagonal", [False, True])
def test_orthogonal_regularisation_is_its_formula_without_class_tables(diagonal: bool) -> None:
    net = Generator((3, 8, 8), 40, 5, ch=2, family="biggan", conditioning="projection", shared=6, skip_z=True).double()
    total, wanted = 0.0, {}
    for name, weight in net.named_parameters():
        if weight.dim() > 1 and name != "condition.embed.weight":
            matrix = weight.detach().flatten(1)
            eye = torch.eye(len(matrix), dtype=torch.float64)
            gram = matrix @ matrix.t()
            off = gram - eye if diagonal else gram * (1 - eye)
            total += off.square().sum().item()
            wanted[name] = 4 * (off @ matrix).view_as(weight)
    cost = Orthogonal(diagonal=diagonal)(weight_context(net))
    assert cost.item() == pytest.approx(total, rel=1e-12)
    cost.backward()
    for name, weight in net.named_parameters():
        if name in wanted:
            torch.testing.assert_close(weight.grad, wanted[name], rtol=1e-9, atol=1e-11)
        else:
            assert weight.grad is None, name
    assert len(wanted) > 8


def test_orthogonal_weights_pay_nothing() -> None:
    net = nn.Linear(6, 4).double()
    nn.init.orthogonal_(net.weight)
    assert Orthogonal()(weight_context(net)).item() == pytest.approx(0, abs=1e-12)
    assert Orthogonal(diagonal=True)(weight_context(net)).item() == pytest.approx(0, abs=1e-12)
