"""CoGAN's networks: the released code's functions in float64, its counts, and every size from 16 pixels."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.errors import ConfigError
from gancli.nets.cogan import Discriminator, Generator, ladder


def count(*nets: nn.Module) -> int:
    return sum(p.numel() for net in nets for p in net.parameters())


def test_counts_are_those_of_the_papers_layers() -> None:
    with torch.device("meta"):
        G, D = Generator((1, 28, 28), 100), Discriminator((1, 28, 28))
    ups = 100 * 1024 * 16 + 9 * (1024 * 512 + 512 * 256 + 256 * 128) + 4  # and four slopes
    assert count(G) == ups + 128 * 36 + 1 == 7_836_165
    assert count(G.own) == 4_609
    assert count(D) == (25 * 20 + 20) + (25 * 20 * 50 + 50) + (16 * 50 * 500 + 500 + 1) + (500 + 1) == 426_572
    assert count(D.own) == 520
    assert [len(G.shared), len(G.own)] == [4, 1]
    assert [len(D.own), len(D.shared)] == [1, 3]


def released_g(net: Generator, z: Tensor) -> Tensor:
    """The released generator with the weights of ours, its images in [0, 1]."""
    stages = [*net.shared, *net.own]
    h = z[:, :, None, None]
    for k, (up, _, slope) in enumerate(stages[:-1]):
        h = F.conv_transpose2d(h, up.weight, stride=1 if k == 0 else 2, padding=0 if k == 0 else 1)
        mean, var = h.mean((0, 2, 3), keepdim=True), h.var((0, 2, 3), keepdim=True, correction=0)
        h = (h - mean) / (var + 1e-5).sqrt()
        h = torch.where(h > 0, h, slope.weight * h)
    last = stages[-1]
    return 1 / (1 + (-F.conv_transpose2d(h, last.weight, last.bias, stride=1, padding=1)).exp())


def released_d(net: Discriminator, pixels: Tensor) -> Tensor:
    """The released discriminator's logit of images in [0, 1], dense layers as the convolutions that it has."""
    stages = [*net.own, *net.shared]
    h = pixels
    for conv, _ in stages[:2]:
        h = F.max_pool2d(F.conv2d(h, conv.weight, conv.bias), 2)
    _, dense, slope = stages[2]
    h = F.conv2d(h, dense.weight.view(500, -1, 4, 4), dense.bias)
    h = torch.where(h > 0, h, slope.weight * h)
    return F.conv2d(h, stages[3][0].weight[:, :, None, None], stages[3][0].bias).flatten()


def test_they_are_the_released_functions() -> None:
    torch.manual_seed(0)
    G, D = Generator((1, 28, 28), 6, ch=32).double(), Discriminator((1, 28, 28), ch=4).double()
    z = torch.rand(5, 6, dtype=torch.float64) * 2 - 1
    theirs = released_g(G, z)
    assert theirs.shape == (5, 1, 28, 28)
    torch.testing.assert_close(G(z), 2 * theirs - 1, rtol=0, atol=1e-12)
    logits = D(2 * theirs - 1).logits
    torch.testing.assert_close(logits, released_d(D, theirs), rtol=0, atol=1e-12)
    ours = torch.autograd.grad(D(G(z)).logits.square().sum(), [*G.parameters(), *D.parameters()])
    reference = torch.autograd.grad(released_d(D, theirs).square().sum(), [*G.parameters(), *D.parameters()])
    for a, b in zip(ours, reference, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_weights_begin_as_in_the_released_code() -> None:
    net = Discriminator((1, 28, 28))
    biases = torch.cat([p for name, p in net.named_parameters() if name.endswith("bias")])
    assert torch.equal(biases, torch.full_like(biases, 0.1))
    bound = (2 * 6 / (25 + 20 * 25)) ** 0.5  # gain √2, fans 1·25 and 20·25
    largest = net.own[0][0].weight.abs().max()
    assert 0.9 * bound < largest <= bound


@pytest.mark.parametrize(("side", "sizes"), [(16, [4, 7, 13]), (28, [4, 7, 13, 25]), (64, [4, 8, 16, 31, 61])])
def test_the_ladder_halves_down_to_a_base_of_4(side: int, sizes: list[int]) -> None:
    assert [h for h, _ in ladder(side, 2 * side)] == sizes


@pytest.mark.parametrize("side", [*range(16, 36), 48, 64, 65, 128])
def test_every_size_comes_out_as_asked(side: int) -> None:
    for shape in {(3, side, side), (1, side, side + 5)}:
        images = Generator(shape, 4, ch=2)(torch.randn(2, 4))
        assert images.shape == (2, *shape)
        assert images.abs().max() <= 1
        assert Discriminator(shape, ch=1)(images).logits.shape == (2,)


@pytest.mark.parametrize("shared", range(6))
def test_any_number_of_stages_may_be_shared(shared: int) -> None:
    torch.manual_seed(0)
    net = Generator((1, 28, 28), 4, ch=4, shared=shared).eval()
    assert (len(net.shared), len(net.own)) == (shared, 5 - shared)
    torch.manual_seed(0)
    other = Generator((1, 28, 28), 4, ch=4).eval()
    z = torch.randn(2, 4)
    assert torch.equal(net(z), other(z))  # wherever the line is drawn


def test_more_than_there_are_and_small_images_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"model\.shared_g=6: G has 5 stages"):
        Generator((1, 28, 28), 4, shared=6)
    with pytest.raises(ConfigError, match=r"model\.shared_d=5: D has 4 stages"):
        Discriminator((1, 28, 28), shared=5)
    with pytest.raises(ConfigError, match="at least 16 pixels a side, not 15x40"):
        Generator((1, 15, 40), 4)
