"""The first GAN's networks, and those of semi-supervised MNIST: the constants of their released codes."""

import pytest
import torch
from torch import nn

from gancli.errors import ConfigError
from gancli.nets import improved
from gancli.nets.gan import Discriminator, Generator


def test_a_generator_begins_at_the_mean_image() -> None:
    G = Generator((1, 2, 2), 3, hidden=(4,))
    data = torch.tensor([[-1.0, 1.0, 0.5, -0.5], [-1.0, 1.0, -0.5, -0.5]]).view(2, 1, 2, 2)
    G.fit(data)
    nn.init.zeros_(G.head.weight)
    torch.testing.assert_close(G(torch.rand(5, 3)), data.mean(0, keepdim=True).expand(5, -1, -1, -1))
    assert G.head.bias is not None
    assert G.head.bias[:2].tolist() == pytest.approx([-16.118, 16.118], abs=1e-3)  # logit(1e-7), not infinity


def test_the_mean_image_is_of_the_papers_training_set_or_of_a_quarter_gibibyte() -> None:
    with torch.device("meta"):
        assert Generator((1, 28, 28), 100).fit_rows == 50_000
        assert Generator((3, 128, 128), 100).fit_rows == 2**26 // (3 * 128 * 128) == 1365


def test_latents_reach_the_first_layer_with_variance_one() -> None:
    seen = []
    G = Generator((1, 2, 2), 100)
    G.body[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    G(torch.rand(2000, 100) * 2 - 1)
    assert seen[0].std().item() == pytest.approx(1.0, abs=0.01)


def test_weights_begin_within_the_released_codes_bounds() -> None:
    for net, bound in ((Generator((1, 8, 8), 100), 0.05), (Discriminator((1, 8, 8)), 0.005)):
        largest = [
            m.weight.abs().max().item() for m in net.modules() if isinstance(m, nn.Module) and hasattr(m, "bias")
        ]
        assert all(0.95 * bound < w <= bound for w in largest)
        assert all(m.bias.abs().max() == 0 for m in net.modules() if hasattr(m, "bias"))


def test_dropout_blacks_out_a_fifth_of_the_image_in_training_only() -> None:
    D = Discriminator((1, 100, 100), hidden=(2,))
    seen = []
    D.body[0].register_forward_hook(lambda _, inputs, __: seen.append(inputs[0]))
    white = torch.ones(1, 1, 100, 100)
    D(white)
    D.eval()(white)
    assert seen[0].unique().tolist() == [0.0, 1.25]
    assert (seen[0] == 0).double().mean().item() == pytest.approx(0.2, abs=0.02)
    assert seen[1].unique().tolist() == [1.0]


def test_points_and_impossible_shares_are_refused() -> None:
    with pytest.raises(ConfigError, match="use model=mlp"):
        Generator((2,), 3)
    with pytest.raises(ConfigError, match="use model=mlp"):
        Discriminator((2,))
    with pytest.raises(ConfigError, match=r"model.D.dropout=1: a share"):
        Discriminator((1, 2, 2), dropout=1.0)


def test_norms_of_the_semi_supervised_generator_have_a_bias_and_no_gain() -> None:
    G = improved.Generator((1, 4, 4), 10, hidden=(6, 5))
    assert {name: tuple(p.shape) for name, p in G.body.named_parameters()} == {
        "0.weight": (6, 10), "2.bias": (6,), "4.weight": (5, 6), "6.bias": (5,),
    }  # fmt: skip
    out = G(torch.rand(64, 10) * 2 - 1)
    assert out.shape == (64, 1, 4, 4)
    nn.init.zeros_(G.head.g)
    nn.init.constant_(G.head.bias, 2.0)  # sigmoid(2) = 0.8808, of [-1, 1]
    torch.testing.assert_close(G(torch.rand(4, 10)), torch.full((4, 1, 4, 4), 2 * 0.8807971 - 1))
