"""Spectral norm: vectors that move only when told, and a weight whose largest singular value is 1."""

import pytest
import torch
from torch import nn

from gancli.nets.layers.conv import Conv
from gancli.nets.layers.linear import Embedding, Linear
from gancli.nets.layers.spectral import advance_spectral, is_spectral
from gancli.nets.resnet import Discriminator


def layers() -> list[nn.Module]:
    torch.manual_seed(0)
    kinds = [Conv(4, 6, spectral=True), Conv(4, 6, 1, spectral=True), Conv(4, 6, resample="down", spectral=True)]
    return [*kinds, Linear(7, 5, spectral=True), Embedding(9, 4, spectral=True)]


@pytest.mark.parametrize("layer", layers(), ids=repr)
def test_many_iterations_bring_the_largest_singular_value_to_one(layer):
    for _ in range(500):
        layer.advance()
    largest = torch.linalg.matrix_norm(layer.normalised().flatten(1), 2)
    assert largest.item() == pytest.approx(1, abs=1e-4)
    exact = torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    assert layer.sigma().item() == pytest.approx(exact.item(), rel=1e-4)


@pytest.mark.parametrize("layer", layers(), ids=repr)
def test_vectors_are_valid_from_construction_on(layer):
    assert layer.u.norm().item() == pytest.approx(1, abs=1e-6)
    assert layer.v.norm().item() == pytest.approx(1, abs=1e-6)
    matrix, v = layer.weight.flatten(1), layer.v.flatten()
    # One iteration has been made, so that u is Wv's direction and sigma its length.
    assert layer.sigma().item() == pytest.approx((matrix @ v).norm().item(), rel=1e-5)
    assert layer.sigma().item() <= torch.linalg.matrix_norm(matrix, 2).item() * (1 + 1e-5)


@pytest.mark.parametrize("channels_last", [False, True])
def test_an_advance_is_one_power_iteration(channels_last):
    layer = Conv(4, 6, spectral=True)
    if channels_last:
        layer.to(memory_format=torch.channels_last)
    matrix, u = layer.weight.detach().flatten(1), layer.u.clone()
    layer.advance()
    v = matrix.t() @ u
    v = v / v.norm()
    torch.testing.assert_close(layer.v.flatten(), v)
    torch.testing.assert_close(layer.u, matrix @ v / (matrix @ v).norm())


@pytest.mark.parametrize("training", [False, True])
def test_a_forward_pass_changes_no_buffer_and_repeats_itself(training):
    D = Discriminator((3, 8, 8), ch=4).train(training)
    before = [b.clone() for b in D.buffers()]
    x = torch.randn(2, 3, 8, 8)
    first, second = D(x).logits, D(x).logits
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, D.buffers(), strict=True))


def test_advance_spectral_moves_every_layer_once():
    D = Discriminator((3, 8, 8), ch=4)
    spectral = [m for m in D.modules() if is_spectral(m)]
    assert len(spectral) == 11  # 4 blocks of 2 convolutions, 2 shortcuts, the head: every layer with a weight
    assert {p for m in spectral for p in [m.weight]} == {p for n, p in D.named_parameters() if n.endswith("weight")}
    before = [m.u.clone() for m in spectral]
    weights = [p.clone() for p in D.parameters()]
    advance_spectral(D)
    assert not any(torch.equal(a, m.u) for a, m in zip(before, spectral, strict=True) if m.u.numel() > 1)
    assert all(torch.equal(a, p) for a, p in zip(weights, D.parameters(), strict=True))


def test_without_spectral_norm_there_is_nothing_to_advance():
    layer = Conv(3, 3)
    layer.advance()
    assert not is_spectral(layer)
    assert layer.normalised() is layer.weight
    D = Discriminator((3, 8, 8), ch=4, spectral=False)
    assert not any(is_spectral(m) for m in D.modules())
    assert not any("u" in name.split(".") for name in D.state_dict())


def test_the_gradient_is_the_analytic_one():
    """d(W / σ)/dW contracted with G is (G - (Σ G ∘ W / σ) u vᵀ) / σ: Miyato et al. 2018, equations 10 to 12."""
    layer = Linear(5, 4, spectral=True).double()
    direction = torch.randn(4, 5, dtype=torch.float64)
    (grad,) = torch.autograd.grad(layer.normalised(), layer.weight, direction)
    sigma, W = layer.sigma().detach(), layer.weight.detach()
    outer = torch.outer(layer.u, layer.v.flatten())
    expected = (direction - (direction * W).sum() / sigma * outer) / sigma
    torch.testing.assert_close(grad, expected, rtol=1e-12, atol=1e-14)


def test_the_state_holds_the_vectors():
    a, b = (Discriminator((3, 8, 8), ch=4) for _ in range(2))
    x = torch.randn(2, 3, 8, 8)
    assert not torch.equal(a(x).logits, b(x).logits)
    b.load_state_dict(a.state_dict())
    assert torch.equal(a(x).logits, b(x).logits)
    assert {"blocks.0.conv1.u", "blocks.0.conv1.v", "head.logit.u", "head.logit.v"} <= set(a.state_dict())


def test_eps_is_what_the_vectors_are_divided_by_when_the_weight_is_zero():
    layer = Linear(3, 2, spectral=True, eps=1e-6)
    assert layer.eps == 1e-6
    assert Linear(3, 2, spectral=True).eps == 1e-12
    with torch.no_grad():
        layer.weight.zero_()
    layer.advance()
    assert layer.u.isfinite().all()
    assert torch.equal(layer.v, torch.zeros(1, 3))


def test_sigma_stays_in_full_precision_under_autocast():
    layer = Linear(64, 64, spectral=True)
    expected = layer.normalised()
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(layer.normalised(), expected)
        assert layer(torch.randn(2, 64)).dtype == torch.bfloat16
