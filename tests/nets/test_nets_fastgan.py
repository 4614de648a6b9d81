"""FastGAN's own networks: counts, two sizes, D's formulas in float64, no unused weight, and what is refused."""

import pytest
import torch
import torch.nn.functional as F

from gancli.errors import CombinationError, ConfigError
from gancli.nets.fastgan import Decoder, Discriminator, Generator, Halve, quarters
from gancli.nets.layers.excitation import averaged
from gancli.nets.layers.norms import BatchNorm2d
from gancli.nets.layers.spectral import Weighted, advance_spectral
from tests.nets.test_nets_fastgan_projected import divided, enlarged, gated


@pytest.mark.parametrize("sides", [(n, n) for n in range(4, 10)] + [(5, 7), (6, 8), (12, 9), (14, 10)])
def test_the_means_are_those_of_adaptive_pooling(sides: tuple[int, int]) -> None:
    x = torch.randn(2, 3, *sides, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(averaged(x), F.adaptive_avg_pool2d(x, 4), rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("sides", [(5, 6), (7, 7)])
def test_sides_that_are_no_multiples_of_4_need_no_adaptive_pooling(
    sides: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(F, "adaptive_avg_pool2d")  # which MPS refuses
    assert averaged(torch.ones(1, 2, *sides)).tolist() == torch.ones(1, 2, 4, 4).tolist()


@pytest.mark.parametrize(
    ("side", "g", "d"),
    [
        (256, 29_127_846, 11_526_160),
        (512, 29_174_392, 11_526_496),
        (1024, 29_176_512, 11_528_192),
        (128, 28_959_814, 11_319_584),
        (64, 28_211_460, 10_701_568),
        (32, 25_802_884, 8_672_768),
    ],
)
def test_counts(side, g, d):
    with torch.device("meta"):
        nets = Generator((3, side, side), 256), Discriminator((3, side, side))
    assert tuple(sum(p.numel() for p in net.parameters()) for net in nets) == (g, d)


@pytest.mark.parametrize(
    ("side", "small", "classes"),
    [(32, 16, 0), (32, 16, 3), (64, 32, 0), (64, 32, 3), (128, 64, 0), (256, 128, 3), (512, 128, 0)],
)
def test_two_sizes_and_no_unused_weight(side, small, classes):
    torch.manual_seed(0)
    conditioning, y = ("projection", torch.tensor([0, 1, 2])) if classes else ("none", None)
    G = Generator((1, side, side), 4, classes, ch=8, conditioning=conditioning).double()
    D = Discriminator((1, side, side), classes, ch=8, conditioning=conditioning).double()
    z = torch.randn(3, 4, dtype=torch.float64)
    full, half = G(z, y, both=True)
    assert full.shape == (3, 1, side, side)
    assert half.shape == (3, 1, small, small)
    assert full.abs().max() < 1
    verdict = D(full, y, half)
    assert [logits.shape for logits in verdict.logits] == [(3, 5, 5), (3, 5, 5)]
    decoded = D.reconstructed(verdict.features, torch.tensor([0, 1, 3]))
    assert [x.shape for x in decoded] == [half.shape] * 3
    torch.stack([(x * torch.randn_like(x)).sum() for x in (*verdict.logits, *decoded)]).sum().backward()
    assert not [name for net in (G, D) for name, p in net.named_parameters() if p.grad is None or not p.grad.any()]


def test_the_full_image_is_the_same_alone():
    torch.manual_seed(0)
    G, z = Generator((3, 32, 32), 4, ch=2).eval(), torch.randn(2, 4)
    torch.testing.assert_close(G(z), G(z, both=True)[0], rtol=0, atol=0)


def test_a_smaller_image_that_is_not_given_has_every_other_pixel():
    torch.manual_seed(0)
    D, x = Discriminator((3, 32, 32), ch=4).eval(), torch.randn(2, 3, 32, 32)
    assert torch.equal(D.reduced(x), x[:, :, ::2, ::2])
    for made, given in zip(D(x).logits, D(x, None, x[:, :, ::2, ::2]).logits, strict=True):
        assert torch.equal(made, given)


def normed(x, norm):
    """Batch norm in training, then LeakyReLU with slope 0.2."""
    mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), unbiased=False, keepdim=True)
    x = (x - mean) / (var + 1e-5).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]
    return torch.where(x > 0, x, 0.2 * x)


def test_a_halving_block_is_the_papers_formula():
    torch.manual_seed(0)
    block, x = Halve(3, 4, BatchNorm2d).double(), torch.randn(5, 3, 8, 8, dtype=torch.float64)
    main = normed(F.conv2d(x, divided(block.conv1), stride=2, padding=1), block.norm1)
    main = normed(F.conv2d(main, divided(block.conv2), padding=1), block.norm2)
    mean = x.unflatten(3, (-1, 2)).unflatten(2, (-1, 2)).mean((3, 5))
    direct = normed(F.conv2d(mean, divided(block.direct)), block.norm3)
    advance_spectral(block)
    torch.testing.assert_close(block(x), (main + direct) / 2, rtol=1e-10, atol=1e-10)


def test_a_decoder_is_the_papers_formula():
    torch.manual_seed(0)
    decoder, x = Decoder(6, 3, 2, 2, BatchNorm2d).double(), torch.randn(4, 6, 8, 8, dtype=torch.float64)
    expected = x
    for block in decoder.body[:2]:
        expected = gated(F.conv2d(enlarged(expected), divided(block.conv1), padding=1), block.norm1)
    expected = torch.tanh(F.conv2d(expected, divided(decoder.body[2]), padding=1))
    assert expected.shape == (4, 3, 32, 32)
    advance_spectral(decoder)
    torch.testing.assert_close(decoder(x), expected, rtol=1e-10, atol=1e-10)


def test_quarters_are_counted_row_by_row():
    x = torch.arange(4 * 2 * 4 * 6.0).view(4, 2, 4, 6)
    parts = quarters(x, torch.arange(4))
    assert torch.equal(parts[0], x[0, :, :2, :3])
    assert torch.equal(parts[1], x[1, :, :2, 3:])
    assert torch.equal(parts[2], x[2, :, 2:, :3])
    assert torch.equal(parts[3], x[3, :, 2:, 3:])


def test_every_weight_has_spectral_norm_and_starts_small():
    torch.manual_seed(0)
    nets = Generator((3, 64, 64), 8, ch=8), Discriminator((3, 64, 64), ch=8)
    layers = [m for net in nets for m in net.modules() if isinstance(m, Weighted)]
    assert all(layer.u is not None for layer in layers)
    weights = torch.cat([layer.weight.detach().flatten() for layer in layers])
    assert weights.std().item() == pytest.approx(0.02, rel=0.01)


def test_a_label_reaches_all_logits_and_its_mixture_is_the_same():
    torch.manual_seed(0)
    D = Discriminator((3, 32, 32), 3, ch=4, conditioning="projection").eval()
    x, y = torch.randn(2, 3, 32, 32), torch.tensor([0, 2])
    changes = [new - old for new, old in zip(D(x, (y + 1) % 3).logits, D(x, y).logits, strict=True)]
    assert changes[0].abs().min() > 0
    torch.testing.assert_close(changes[0], changes[1], rtol=1e-3, atol=1e-5)
    for mixed, named in zip(D(x, F.one_hot(y, 3).float()).logits, D(x, y).logits, strict=True):
        torch.testing.assert_close(mixed, named)


def test_what_is_refused():
    for build in (lambda side: Generator((3, side, side), 4, ch=2), lambda side: Discriminator((3, side, side), ch=2)):
        for side in (16, 36, 2048):
            with pytest.raises(ConfigError, match="model=fastgan generates images whose sides halve exactly, 3 to 8"):
                build(side)
    with pytest.raises(CombinationError, match=r"model\.D\.san=true needs a last layer that is linear"):
        Discriminator((3, 32, 32), 3, ch=2, conditioning="projection", san=True)
    with pytest.raises(ConfigError, match="this data set has no classes"):
        Generator((3, 32, 32), 4, ch=2, conditioning="projection")
