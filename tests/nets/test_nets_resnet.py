"""The SNGAN's residual networks: exact counts, constants, forms and sizes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gancli.errors import ConfigError
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.norms import BatchNorm2d, LayerNorm, NoNorm
from gancli.nets.layers.spectral import Weighted
from gancli.nets.resnet import Block, Discriminator, Generator
from gancli.nets.widths import possible, widths_for
from tests.bench.textbook import TextbookDiscriminator, TextbookGenerator, hold


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def test_the_papers_cifar_networks_have_their_counts():
    with torch.device("meta"):
        assert count(Generator((3, 32, 32), 128)) == 4_276_739
        assert count(Discriminator((3, 32, 32))) == 1_053_824


def test_the_released_128_pixel_networks_have_their_counts():
    with torch.device("meta"):
        G, D = Generator((3, 128, 128), 128), Discriminator((3, 128, 128))
    # Published with 1000 classes: a gain and bias a class in the blocks' norms, a projection vector a class in D.
    in_blocks = sum(m.num_features for b in G.blocks for m in b.modules() if isinstance(m, BatchNorm2d))
    assert count(G) + 999 * 2 * in_blocks == 41_996_931
    assert count(D) + 1000 * 1024 == 30_041_857


@pytest.mark.parametrize(
    ("side", "base", "g", "d", "halvings", "bias"),
    [
        (28, 7, [256] * 3, [128] * 4, 2, False),
        (32, 4, [256] * 4, [128] * 4, 2, False),
        (48, 6, [512, 256, 128, 64], [64, 128, 256, 512, 1024], 4, True),
        (64, 4, [1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024], 5, True),
        (128, 4, [1024, 1024, 512, 256, 128, 64], [64, 128, 256, 512, 1024, 1024], 5, True),
    ],
)
def test_widths_by_size(side, base, g, d, halvings, bias):
    with torch.device("meta"):
        G, D = Generator((3, side, side), 128), Discriminator((3, side, side))
    assert G.base == (base, base)
    assert [b.conv1.weight.shape[1] for b in G.blocks] + [G.conv.weight.shape[1]] == g
    assert [b.conv2.weight.shape[0] for b in D.blocks] == d
    assert [b.conv2.resample for b in D.blocks] == ["down"] * halvings + [None] * (len(d) - halvings)
    assert (D.head.logit.bias is not None) is bias


def test_hidden_widths_are_those_of_the_released_code():
    with torch.device("meta"):
        G, D = Generator((3, 64, 64), 128), Discriminator((3, 64, 64))
    assert [b.conv1.weight.shape[0] for b in G.blocks] == [512, 256, 128, 64]
    assert [b.conv1.weight.shape[0] for b in D.blocks] == [64, 64, 128, 256, 512]


def test_batch_norm_constants():
    G = Generator((3, 8, 8), 4, ch=2)
    norms = [m for m in G.modules() if isinstance(m, BatchNorm2d)]
    assert len(norms) == 3
    assert {(m.eps, m.momentum) for m in norms} == {(2e-5, 0.1)}


def test_every_weight_of_d_and_none_of_g_has_spectral_norm():
    G, D = Generator((3, 8, 8), 4, ch=2), Discriminator((3, 8, 8), ch=2)
    assert all(m.u is None for m in G.modules() if isinstance(m, Weighted))
    layers = [m for m in D.modules() if isinstance(m, Weighted)]
    assert len(layers) == 11
    assert all(m.u is not None and m.eps == 1e-12 for m in layers)
    assert not any(
        m.u is not None for m in Discriminator((3, 8, 8), ch=2, spectral=False).modules() if isinstance(m, Weighted)
    )


def test_the_first_block_of_d_has_no_pre_activation():
    D = Discriminator((3, 8, 8), ch=4).double()
    block, x = D.blocks[0], torch.randn(2, 3, 8, 8, dtype=torch.float64)
    assert block.norm1 is None
    assert [b.norm1 is None for b in D.blocks] == [True, False, False, False]
    h = F.conv2d(x, block.conv1.normalised(), block.conv1.bias, padding=1)
    h = F.avg_pool2d(F.conv2d(F.relu(h), block.conv2.normalised(), block.conv2.bias, padding=1), 2)
    plain = h + F.conv2d(F.avg_pool2d(x, 2), block.shortcut.normalised(), block.shortcut.bias)
    torch.testing.assert_close(block(x), plain, rtol=1e-12, atol=1e-13)


def test_shortcuts_are_learned_only_where_size_or_channels_change():
    D = Discriminator((3, 8, 8), ch=4)
    assert [b.shortcut is None for b in D.blocks] == [False, False, True, True]
    assert all(b.shortcut is not None for b in Generator((3, 8, 8), 4, ch=2).blocks)


def test_the_head_sums_over_pixels():
    D = Discriminator((3, 16, 16), ch=4).double()
    x = torch.randn(2, 3, 16, 16, dtype=torch.float64)
    h = x
    for block in D.blocks:
        h = block(h)
    assert h.shape == (2, 4, 4, 4)
    plain = F.relu(h).sum((2, 3)) @ D.head.logit.normalised().t()
    torch.testing.assert_close(D(x).logits, plain.squeeze(1), rtol=1e-12, atol=1e-13)


def test_weights_start_as_in_the_released_code():
    torch.manual_seed(0)
    G, D = Generator((3, 32, 32), 64, ch=32), Discriminator((3, 32, 32), ch=32)

    def gain(layer: nn.Module) -> float:
        shape = layer.weight.shape
        fans = (shape[0] + shape[1]) * math.prod(shape[2:])
        return layer.weight.abs().max().item() / math.sqrt(6 / fans)

    for block in [*G.blocks, *D.blocks]:
        assert gain(block.conv1) == pytest.approx(math.sqrt(2), rel=0.01)
        assert gain(block.conv2) == pytest.approx(math.sqrt(2), rel=0.01)
    # The maximum of few draws stays below the bound; that of many comes close.
    for layer in (G.blocks[0].shortcut, D.blocks[1].shortcut, G.dense, G.conv):
        assert 0.97 < gain(layer) <= 1
    assert gain(D.head.logit) <= 1
    assert not any(p.any() for net in (G, D) for name, p in net.named_parameters() if name.endswith("bias"))


@pytest.mark.parametrize("shape", [(3, 16, 16), (1, 28, 28), (2, 16, 24), (3, 48, 40)])
@pytest.mark.parametrize("norm", ["none", "layer"])
def test_both_networks_are_the_textbook_ones_to_the_last_digits(shape, norm):
    torch.manual_seed(1)
    G, D = Generator(shape, 5, ch=4).double(), Discriminator(shape, ch=4, norm=norm).double()
    plain = TextbookGenerator(G), TextbookDiscriminator(D)
    hold(plain[1], True)
    z = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    results = []
    for g, d in ((G, D), plain):
        images = g(z)
        logits = d(images)
        logits = logits if isinstance(logits, torch.Tensor) else logits.logits
        wanted = [z, *G.parameters(), *D.parameters()]
        results.append([images, logits, *torch.autograd.grad(F.softplus(-logits).sum(), wanted)])
    scale = max(b.abs().max() for b in results[1][2:])
    for a, b in zip(*results, strict=True):
        # Biases in front of a batch norm have a gradient of 0, up to rounding of the others'.
        assert (a - b).abs().max() <= 1e-12 * max(b.abs().max(), scale)


@pytest.mark.parametrize("side", [s for s in possible() if s <= 64])
def test_the_possible_sizes_come_out_as_asked(side):
    images = Generator((3, side, side), 4, ch=1)(torch.randn(2, 4))
    assert images.shape == (2, 3, side, side)
    assert images.abs().max() <= 1
    assert Discriminator((3, side, side), ch=1)(images).logits.shape == (2,)


def test_the_list_of_possible_sizes_is_complete():
    def fits(side: int) -> bool:
        try:
            widths_for(side, side)
        except ConfigError:
            return False
        return True

    assert [s for s in range(1, 513) if fits(s)] == possible()


@pytest.mark.parametrize("size", [(32, 64), (64, 32), (28, 44)])
def test_images_need_not_be_square(size):
    images = Generator((1, *size), 4, ch=2)(torch.randn(2, 4))
    assert images.shape == (2, 1, *size)
    assert Discriminator((1, *size), ch=2)(images).logits.shape == (2,)


@pytest.mark.parametrize("build", [lambda s: Generator(s, 4), Discriminator])
def test_what_cannot_be_drawn_is_said_in_one_line(build):
    with pytest.raises(
        ConfigError, match=r"not 30x30: set dataset\.size=\[C,SIDE,SIDE\] with SIDE one of 8 10 .*28 32"
    ):
        build((3, 30, 30))
    with pytest.raises(ConfigError, match="not 32x36"):
        build((3, 32, 36))
    with pytest.raises(ConfigError, match="not 4x4"):
        build((3, 4, 4))
    with pytest.raises(ConfigError, match="points of 2 numbers: use model=mlp"):
        build((2,))
    with pytest.raises(ConfigError, match="ch=0"):
        Generator((3, 8, 8), 4, ch=0)


@pytest.mark.parametrize(("name", "kind"), [("none", NoNorm), ("batch", BatchNorm2d), ("layer", LayerNorm)])
def test_the_norm_of_d_is_a_choice(name, kind):
    D = Discriminator((3, 8, 8), ch=4, norm=name)
    assert {type(m) for b in D.blocks for m in (b.norm1, b.norm2)} - {type(None)} == {kind}


def test_a_block_does_not_change_its_input_and_hands_labels_to_its_norms():
    class Recorder(nn.Module):
        def __init__(self, channels: int):
            super().__init__()
            self.channels, self.labels = channels, []

        def forward(self, x: torch.Tensor, y: torch.Tensor | None = None) -> torch.Tensor:
            self.labels.append(y)
            return x * 1.0

    block = Block(4, 6, hidden=5, norm=Recorder, resample="up")
    x, y = torch.randn(2, 4, 3, 3), torch.tensor([0, 1])
    before = x.clone()
    assert block(x, y).shape == (2, 6, 6, 6)
    assert torch.equal(x, before)
    assert [block.norm1.channels, block.norm2.channels] == [4, 5]
    assert block.norm1.labels == block.norm2.labels == [y]
    plain = Discriminator((3, 8, 8), ch=4).blocks[2]
    x = torch.randn(2, 4, 4, 4)
    before = x.clone()
    plain(x)
    assert torch.equal(x, before)


@pytest.mark.parametrize("norm", ["none", "layer"])
@pytest.mark.parametrize("spectral", [False, True])
def test_d_can_be_differentiated_twice(norm, spectral):
    torch.manual_seed(0)
    D = Discriminator((2, 8, 8), ch=3, norm=norm, spectral=spectral).double()
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64, requires_grad=True)

    def penalty() -> torch.Tensor:
        (grad,) = torch.autograd.grad(D(x).logits.sum(), x, create_graph=True)
        return grad.square().sum()

    weight = D.blocks[1].conv2.weight
    (found,) = torch.autograd.grad(penalty(), weight)
    direction = torch.randn_like(weight)
    step = 1e-6
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight.add_(direction, alpha=sign * step)
        values.append(penalty().item())
        with torch.no_grad():
            weight.sub_(direction, alpha=sign * step)
    assert (found * direction).sum().item() == pytest.approx((values[0] - values[1]) / (2 * step), rel=1e-4)


def test_meta_networks_have_shapes_and_no_weights():
    with torch.device("meta"):
        G, D = Generator((3, 256, 256), 128), Discriminator((3, 256, 256))
        images = G(torch.randn(2, 128))
    assert images.shape == (2, 3, 256, 256)
    assert D(images).logits.shape == (2,)
    assert all(t.is_meta for net in (G, D) for t in [*net.parameters(), *net.buffers()])


def test_channels_last_is_the_same_function():
    torch.manual_seed(0)
    G, D = Generator((3, 16, 16), 4, ch=4).double(), Discriminator((3, 16, 16), ch=4).double()
    z = torch.randn(3, 4, dtype=torch.float64)
    images, logits = G(z), D(G(z)).logits
    for net in (G, D):
        net.to(memory_format=torch.channels_last)
        assert all(
            m.weight.is_contiguous(memory_format=torch.channels_last) for m in net.modules() if isinstance(m, Conv)
        )
    torch.testing.assert_close(G(z), images, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(D(G(z)).logits, logits, rtol=1e-10, atol=1e-12)
