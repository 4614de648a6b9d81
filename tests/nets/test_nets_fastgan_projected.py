"""FastGAN's generator as in Projected GAN: counts, formulas in float64, no unused weight, noise, and sizes refused."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.nets.fastgan_projected import Generator
from gancli.nets.layers.excitation import Excitation, First, UpBlock
from gancli.nets.layers.noise import keyed
from gancli.nets.layers.spectral import Weighted, advance_spectral


def count(side: int, ch: int = 128, *, lite: bool, classes: int = 0) -> int:
    with torch.device("meta"):
        conditioning = "projection" if classes else "none"
        G = Generator((3, side, side), 256, classes, ch=ch, lite=lite, conditioning=conditioning)
    return sum(p.numel() for p in G.parameters())


@pytest.mark.parametrize(
    ("side", "ch", "full", "lite"),
    [
        (32, 128, 91_124_489, 66_344_707),
        (64, 128, 101_939_979, 75_979_523),
        (128, 128, 104_935_821, 78_679_939),
        (256, 128, 105_684_175, 79_354_307),
        (512, 128, 105_870_961, 79_522_531),
        (1024, 128, 105_884_483, 79_531_379),
        (64, 64, 29_687_179, 23_195_011),
        (64, 32, 9_522_891, 7_898_819),
        (256, 64, 30_622_319, 24_037_603),
        (256, 32, 9_756_223, 8_108_915),
    ],
)
def test_counts(side, ch, full, lite):
    assert (count(side, ch, lite=False), count(side, ch, lite=True)) == (full, lite)


def test_count_with_labels():
    assert count(256, lite=False, classes=1000) == 110_527_689


def divided(layer: Weighted) -> torch.Tensor:
    """W / uᵀWv with the vectors of one power iteration from the layer's u."""
    matrix = layer.weight.detach().flatten(1)
    v = F.normalize(matrix.t() @ layer.u, dim=0)
    u = F.normalize(matrix @ v, dim=0)
    return layer.weight.detach() / (u @ matrix @ v)


def gated(x: torch.Tensor, norm: nn.Module) -> torch.Tensor:
    """Batch norm in training, then a · sigmoid(b)."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    a, b = x.chunk(2, 1)
    return a * torch.sigmoid(b)


def enlarged(x: torch.Tensor) -> torch.Tensor:
    return x.repeat_interleave(2, 2).repeat_interleave(2, 3)


@pytest.mark.parametrize("full", [False, True])
def test_a_block_is_the_papers_formula(full):
    torch.manual_seed(0)
    block, x = UpBlock(6, 4, full=full).double(), torch.randn(3, 6, 5, 5, dtype=torch.float64)
    expected = F.conv2d(enlarged(x), divided(block.conv1), padding=1)
    noise = torch.randn(2, 3, 1, 10, 10, dtype=torch.float64)
    if full:
        block.noise1.scale.data.fill_(0.5)
        block.noise2.scale.data.fill_(-2.0)
        block.noise1.fixed, block.noise2.fixed = noise
        expected = expected + 0.5 * noise[0]
    expected = gated(expected, block.norm1)
    if full:
        expected = gated(F.conv2d(expected, divided(block.conv2), padding=1) - 2 * noise[1], block.norm2)
    advance_spectral(block)
    torch.testing.assert_close(block(x), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [4, 8])
def test_excitation_is_the_papers_formula(side):
    torch.manual_seed(0)
    layer = Excitation(6, 4).double()
    source, x = torch.randn(3, 6, side, side, dtype=torch.float64), torch.randn(3, 4, 9, 9, dtype=torch.float64)
    pooled = source.unflatten(3, (4, -1)).unflatten(2, (4, -1)).mean((3, 5))
    h = F.conv2d(pooled, divided(layer.squeeze))
    h = F.conv2d(h * h.sigmoid(), divided(layer.excite)[:, :, None, None])
    advance_spectral(layer)
    torch.testing.assert_close(layer(source, x), x * h.sigmoid(), rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("channels_last", [False, True])
def test_the_first_layer_is_a_transposed_convolution(channels_last):
    torch.manual_seed(0)
    layer, z = First(5, 6, (4, 4), nn.init.normal_).double(), torch.randn(3, 5, dtype=torch.float64)
    expected = F.conv_transpose2d(z[:, :, None, None], divided(layer).transpose(0, 1))
    layer = layer.to(memory_format=torch.channels_last) if channels_last else layer
    advance_spectral(layer)
    torch.testing.assert_close(layer(z), expected, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("side", [8, 16, 32, 64, 128, 256, 512, 1024])
@pytest.mark.parametrize(("lite", "classes"), [(True, 0), (False, 0), (True, 3), (False, 3)])
def test_no_weight_is_unused_at_any_size(side, lite, classes):
    torch.manual_seed(0)
    conditioning = "projection" if classes else "none"
    ch = max(4, side // 64)  # two channels at least: spectral norm leaves a single number no gradient
    G = Generator((1, side, side), 3, classes, ch=ch, lite=lite, conditioning=conditioning).double()
    y = torch.tensor([0, 1, 2]) if classes else None
    images = G(torch.randn(3, 3, dtype=torch.float64), y)
    assert images.shape == (3, 1, side, side)
    (images * torch.randn_like(images)).sum().backward()
    assert not [name for name, p in G.named_parameters() if p.grad is None or not p.grad.any()]


def test_sizes_that_are_not_square_and_sizes_that_are_refused():
    assert Generator((3, 48, 64), 4, ch=2)(torch.randn(2, 4)).shape == (2, 3, 48, 64)
    for shape in ((3, 30, 30), (3, 2048, 2048), (3, 4, 4)):
        with pytest.raises(ConfigError, match="sides halve exactly"), torch.device("meta"):
            Generator(shape, 4, ch=2)
    with pytest.raises(ConfigError, match=r"model\.ch=0"):
        Generator((3, 32, 32), 4, ch=0)
    with pytest.raises(ConfigError, match="this data set has no classes"):
        Generator((3, 32, 32), 4, ch=2, conditioning="projection")


def test_noise_starts_at_zero_and_is_a_function_of_the_row():
    torch.manual_seed(0)
    G, z = Generator((3, 8, 8), 4, ch=2, lite=False).eval(), torch.randn(4, 4)
    assert torch.equal(G(z), G(z))
    for block in G.trunk.blocks:
        block.noise1.scale.data.fill_(1.0)
    assert not torch.equal(G(z), G(z))
    with keyed({"G": G}, Rng(0, total=4)):
        whole = G(z)
    with keyed({"G": G}, Rng(0, total=4).cut(2, 4)):
        torch.testing.assert_close(G(z[2:]), whole[2:])


def test_the_latents_length_has_no_effect_and_a_label_and_its_mixture_are_one():
    torch.manual_seed(0)
    G = Generator((3, 8, 8), 4, 3, ch=2, conditioning="projection").eval()
    z, y = torch.randn(4, 4), torch.tensor([0, 1, 2, 0])
    torch.testing.assert_close(G(z, y), G(7 * z, y))
    torch.testing.assert_close(G(z, y), G(z, F.one_hot(y, 3).float()))
    assert not torch.allclose(G(z, y), G(z, (y + 1) % 3))
