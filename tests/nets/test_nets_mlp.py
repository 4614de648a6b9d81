"""Multilayer perceptrons for points and images."""

import math

import pytest
import torch
from torch import nn

from gancli.errors import ConfigError
from gancli.nets.layers.linear import Linear
from gancli.nets.layers.noise import Dropout
from gancli.nets.layers.norms import BatchNorm1d, LayerNorm
from gancli.nets.mlp import GAINS, Discriminator, Generator, Maxout, Softplus


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize("shape", [(2,), (1, 28, 28), (3, 5, 4)])
def test_shapes(shape):
    G, D = Generator(shape, 7), Discriminator(shape)
    out = G(torch.randn(5, 7))
    assert out.shape == (5, *shape)
    assert D(out).logits.shape == (5,)


def test_images_are_bounded_and_points_are_not():
    images, points = Generator((1, 4, 4), 3), Generator((2,), 3)
    z = torch.randn(64, 3) * 100
    assert images(z).abs().max() <= 1
    assert points(z).abs().max() > 1


def test_counts():
    """WGAN-GP's critic of three layers of 512, and the 2014 GAN's maxout discriminator of two layers of 240 x 5."""
    assert count(Discriminator((2,))) == (2 + 1) * 512 + 2 * (512 + 1) * 512 + 513
    maxout = Discriminator((1, 28, 28), hidden=(240, 240), activation="maxout", pieces=5)
    assert count(maxout) == (784 + 1) * 1200 + (240 + 1) * 1200 + 241
    assert count(Generator((1, 28, 28), 100, hidden=(1200, 1200))) == 101 * 1200 + 1201 * 1200 + 1201 * 784
    assert count(Generator((2,), 3, hidden=())) == 8


def test_maxout_takes_the_largest_piece():
    x = torch.tensor([[1.0, 5.0, 2.0, -1.0, -3.0, -2.0]])
    assert Maxout(3)(x).tolist() == [[5.0, -1.0]]


def test_softplus_is_that_of_the_robustness_table():
    """By hand: softplus(2) / 2 - 1 at 0; x above, -1 below; its gain keeps a normal second moment."""
    x = torch.tensor([0.0, 20.0, -20.0], dtype=torch.float64)
    expected = torch.tensor([math.log(1 + math.exp(2)) / 2 - 1, 20.0, -1.0], dtype=torch.float64)
    torch.testing.assert_close(Softplus()(x), expected, rtol=0, atol=1e-12)
    normal = torch.randn(10**6, generator=torch.Generator().manual_seed(0))
    assert (GAINS["softplus"] * Softplus()(normal)).square().mean().item() == pytest.approx(1, abs=5e-3)
    assert isinstance(Generator((2,), 3, hidden=(4,), activation="softplus").body[2], Softplus)


def test_norms_stand_after_every_layer_of_g_and_all_but_the_first_of_d():
    G = Generator((2,), 3, hidden=(8, 8, 8), norm="batch")
    assert [type(m) for m in G.body if isinstance(m, nn.modules.batchnorm._BatchNorm)] == [BatchNorm1d] * 3
    D = Discriminator((2,), hidden=(8, 8, 8), norm="layer")
    assert [type(m) for m in D.body if isinstance(m, nn.GroupNorm)] == [LayerNorm] * 2
    assert D(torch.randn(4, 2)).logits.shape == (4,)
    assert len(Discriminator((2,), hidden=(), norm="batch").body) == 0
    x = torch.randn(4, 8)
    expected = nn.functional.layer_norm(x, (8,))
    torch.testing.assert_close(LayerNorm(8)(x), expected)


def test_dropout_acts_in_training_only():
    torch.manual_seed(0)
    D, x = Discriminator((2,), hidden=(64, 64), dropout=0.5), torch.randn(4, 2)
    assert [m.p for m in D.body if isinstance(m, Dropout)] == [0.5, 0.5]
    assert not torch.equal(D(x).logits, D(x).logits)
    D.eval()
    assert torch.equal(D(x).logits, D(x).logits)


@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "tanh", "maxout"])
def test_the_signal_keeps_its_scale_through_the_layers(activation):
    torch.manual_seed(0)
    D = Discriminator((256,), hidden=(256,) * 4, activation=activation)
    out = D.body(torch.randn(256, 256))
    assert 0.3 < out.square().mean().sqrt().item() < 3


def test_weights_start_in_the_bounds_of_xavier():
    G = Generator((2,), 512, hidden=(512,))
    assert G.body[0].weight.abs().max().item() == pytest.approx(math.sqrt(2) * math.sqrt(6 / 1024), rel=0.001)
    assert not G.body[0].bias.any()


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("activation", ["leaky_relu", "tanh", "maxout"])
def test_d_can_be_differentiated_twice(norm, activation):
    D = Discriminator((2,), hidden=(8, 8), activation=activation, norm=norm).double()
    x = torch.randn(3, 2, dtype=torch.float64, requires_grad=True)
    (grad,) = torch.autograd.grad(D(x).logits.sum(), x, create_graph=True)
    grad.square().sum().backward()
    assert D.body[0].weight.grad.isfinite().all()
    assert D.body[0].weight.grad.any()


def test_labels_are_ignored_and_meta_networks_can_be_built():
    G = Generator((2,), 3, 10)
    z = torch.randn(4, 3)
    assert torch.equal(G(z, torch.zeros(4, dtype=torch.int64)), G(z))
    with torch.device("meta"):
        assert Discriminator((1, 28, 28)).head.weight.is_meta


def test_nonsense_is_refused():
    with pytest.raises(ConfigError, match="hidden=0"):
        Generator((2,), 3, hidden=(8, 0))
    with pytest.raises(ConfigError, match="dropout=1"):
        Discriminator((2,), dropout=1.0)
    with pytest.raises(ConfigError, match="input_dropout=-1"):
        Discriminator((2,), input_dropout=-1.0)


def test_input_dropout_blackens_pixels_and_keeps_the_mean_distance_from_black():
    D, x = Discriminator((1000,), hidden=(4,), input_dropout=0.2), torch.zeros(1, 1000)
    seen = []
    D.body.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    torch.manual_seed(0)
    D(x)
    D.eval()(x)
    assert set(seen[0].unique().tolist()) == {-1.0, 0.25}
    assert (seen[0] == -1).float().mean() == pytest.approx(0.2, abs=0.04)
    assert torch.equal(seen[1], x)
    with pytest.raises(ConfigError, match="pieces=0"):
        Discriminator((2,), activation="maxout", pieces=0)


def test_weights_start_as_the_released_toys_do():
    """WGAN-GP: U(±√(6 / inputs)) before a ReLU, U(±√(6 / (inputs + outputs))) for the head; PacGAN: N(0, 0.02²)."""
    torch.manual_seed(0)
    for net, head in ((Generator((2,), 2, init="he"), 2), (Discriminator((2,), activation="relu", init="he"), 1)):
        bounds = [math.sqrt(6 / 2), math.sqrt(6 / 512), math.sqrt(6 / 512), math.sqrt(6 / (512 + head))]
        weights = [m.weight for m in net.modules() if isinstance(m, Linear)]
        assert all(0.97 * bound < w.abs().max() <= bound for w, bound in zip(weights, bounds, strict=True))
        assert all((m.bias == 0).all() for m in net.modules() if isinstance(m, Linear))
    sizes = {"hidden": (400, 400), "init": "normal"}
    for net in (Generator((2,), 2, norm="batch", **sizes), Discriminator((4,), activation="maxout", **sizes)):
        for layer in (m for m in net.modules() if isinstance(m, Linear)):
            n = layer.weight.numel()  # of n numbers the deviation's own is σ / √(2n)
            assert layer.weight.std().item() == pytest.approx(0.02, abs=5 * 0.02 / math.sqrt(2 * n))
            assert abs(layer.weight.mean().item()) < 5 * 0.02 / math.sqrt(n)
    assert Generator((2,), 2, norm="batch", bn_eps=1e-4).body[1].eps == 1e-4
