"""DCGAN: its paper's counts and constants, and every size from 8 to 128."""

import pytest
import torch
from torch import nn

from gancli.errors import ConfigError
from gancli.nets.dcgan import Discriminator, Generator, ladder
from gancli.nets.layers.norms import BatchNorm2d, LayerNorm


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_papers_networks_have_its_counts():
    with torch.device("meta"):
        assert count(Generator((3, 64, 64), 100)) == 3_576_704
        assert count(Discriminator((3, 64, 64))) == 2_765_568


@pytest.mark.parametrize(
    ("side", "base", "stages"),
    [(8, 4, 1), (15, 7, 1), (16, 4, 2), (28, 7, 2), (45, 5, 3), (48, 6, 3), (64, 4, 4), (128, 4, 5)],
)
def test_the_ladder_halves_until_the_shorter_side_is_below_8(side, base, stages):
    sizes = ladder(side, 2 * side)
    assert sizes[0] == (side, 2 * side)
    assert sizes[-1][0] == base
    assert len(sizes) == stages + 1


@pytest.mark.parametrize("side", [*range(8, 34), 45, 48, 63, 64, 65, 96, 127, 128])
def test_every_size_comes_out_as_asked(side):
    for shape in {(3, side, side), (1, side, side + 5)}:
        images = Generator(shape, 4, ch=1)(torch.randn(2, 4))
        assert images.shape == (2, *shape)
        assert images.abs().max() <= 1
        assert Discriminator(shape, ch=1)(images).logits.shape == (2,)


def test_channels_double_towards_the_base():
    G, D = Generator((3, 64, 64), 100, ch=8), Discriminator((3, 64, 64), ch=8)
    assert [m.in_channels for m in G.modules() if isinstance(m, nn.ConvTranspose2d)] == [100, 64, 32, 16, 8]
    assert [m.out_channels for m in D.modules() if isinstance(m, nn.Conv2d)] == [8, 16, 32, 64, 1]


def test_norms_and_activations_are_where_the_paper_has_them():
    G, D = Generator((3, 32, 32), 16, ch=4), Discriminator((3, 32, 32), ch=4)
    kinds = [type(m).__name__ for m in G.body]
    assert kinds == ["Project", *["BatchNorm2d", "ReLU", "ConvTranspose2d"] * 3, "Tanh"]
    kinds = [type(m).__name__ for m in [*D.body, D.head]]
    assert kinds == ["Conv2d", "LeakyReLU", *["Conv2d", "BatchNorm2d", "LeakyReLU"] * 2, "Logit"]
    assert {m.negative_slope for m in D.body if isinstance(m, nn.LeakyReLU)} == {0.2}
    assert {(m.eps, m.momentum) for m in G.modules() if isinstance(m, BatchNorm2d)} == {(1e-5, 0.1)}
    assert not any(
        m.bias is not None for m in [*G.modules(), *D.modules()] if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))
    )


def test_the_norm_of_d_is_a_choice():
    layer = Discriminator((3, 32, 32), ch=4, norm="layer")
    assert [type(m) for m in layer.body if isinstance(m, (nn.GroupNorm, nn.BatchNorm2d))] == [LayerNorm, LayerNorm]
    none = Discriminator((3, 32, 32), ch=4, norm="none")
    assert not any(isinstance(m, (nn.GroupNorm, nn.BatchNorm2d)) for m in none.modules())
    assert [m.bias is not None for m in none.body if isinstance(m, nn.Conv2d)] == [False, True, True]


def test_first_and_last_layer_are_the_convolutions_they_stand_for():
    G, D = Generator((3, 20, 12), 7, ch=4).double(), Discriminator((3, 20, 12), ch=4).double()
    z = torch.randn(3, 7, dtype=torch.float64)
    project, logit = G.body[0], D.head
    plain = nn.functional.conv_transpose2d(z[:, :, None, None], project.weight)
    torch.testing.assert_close(project(z), plain, rtol=1e-12, atol=1e-14)
    h = torch.randn(3, *logit.weight.shape[1:], dtype=torch.float64)
    plain = nn.functional.conv2d(h, logit.weight).flatten()
    torch.testing.assert_close(logit(h), plain, rtol=1e-12, atol=1e-14)


def test_weights_start_as_in_the_paper():
    torch.manual_seed(0)
    for net in (Generator((3, 32, 32), 100, ch=32), Discriminator((3, 32, 32), ch=32)):
        convolutions = [m.weight for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d))]
        drawn = torch.cat([w.detach().flatten() for w in convolutions])
        assert drawn.mean().item() == pytest.approx(0, abs=2e-4)
        assert drawn.std().item() == pytest.approx(0.02, rel=0.01)
        norms = [m for m in net.modules() if isinstance(m, nn.BatchNorm2d)]
        gains = torch.cat([m.weight.detach() for m in norms])
        assert gains.mean().item() == pytest.approx(1, abs=0.005)
        assert gains.std().item() == pytest.approx(0.02, rel=0.2)
        assert not any(m.bias.any() for m in norms)


def test_labels_are_ignored():
    G, D = Generator((1, 8, 8), 4, 10, ch=2).eval(), Discriminator((1, 8, 8), 10, ch=2).eval()
    z, y = torch.randn(2, 4), torch.tensor([1, 7])
    assert torch.equal(G(z, y), G(z))
    assert torch.equal(D(G(z), y).logits, D(G(z)).logits)


@pytest.mark.parametrize("build", [lambda s: Generator(s, 4), Discriminator])
def test_what_cannot_be_drawn_is_said_in_one_line(build):
    with pytest.raises(ConfigError, match=r"at least 8 pixels a side, not 7x20: set dataset\.size=\[C,8,8\]"):
        build((3, 7, 20))
    with pytest.raises(ConfigError, match="points of 2 numbers: use model=mlp"):
        build((2,))


def test_a_width_of_zero_is_refused():
    with pytest.raises(ConfigError, match="ch=0"):
        Generator((3, 8, 8), 4, ch=0)
    with pytest.raises(ConfigError, match="ch=-1"):
        Discriminator((3, 8, 8), ch=-1)


def test_the_same_seed_gives_the_same_weights():
    states = []
    for seed in (3, 3, 4):
        torch.manual_seed(seed)
        states.append(Generator((3, 8, 8), 4, ch=2).state_dict()["body.0.weight"])
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


@pytest.mark.parametrize("norm", ["none", "layer"])
def test_d_can_be_differentiated_twice(norm):
    D = Discriminator((1, 8, 12), ch=3, norm=norm).double()
    x = torch.randn(2, 1, 8, 12, dtype=torch.float64, requires_grad=True)
    nn.init.normal_(D.body[0].weight)
    assert torch.autograd.gradgradcheck(lambda x: D(x).logits, (x,))
