"""Labels, attention and BigGAN's parts on the residual networks: counts, constants, and what each part does."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from gancli.errors import ConfigError
from gancli.nets import biggan_deep, resnet
from gancli.nets.layers.attention import Attention
from gancli.nets.layers.conv import Conv
from gancli.nets.layers.linear import Embedding
from gancli.nets.layers.norms import BatchNorm2d, LabelBatchNorm2d, LinearBatchNorm2d
from gancli.nets.layers.spectral import Weighted, is_spectral
from gancli.nets.widths import widths_for

BIG_G = partial(
    resnet.Generator, conditioning="projection", family="biggan", shared=128, skip_z=True, attention=None,
    spectral=True, init="orthogonal", bn_eps=1e-5, sn_eps=1e-6,
)  # fmt: skip
BIG_D = partial(
    resnet.Discriminator, conditioning="projection", family="biggan", wide=True, attention=None, init="orthogonal",
    sn_eps=1e-6,
)  # fmt: skip
SAGAN: dict[str, Any] = {"conditioning": "projection", "spectral": True, "init": "xavier", "sn_eps": 1e-8}


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


def square(side: int) -> tuple[int, int, int]:
    return (3, side, side)


def test_projection_networks_have_their_counts():
    with torch.device("meta"):
        assert count(resnet.Generator(square(128), 128, 1000, conditioning="projection")) == 41_996_931
        assert count(resnet.Discriminator(square(128), 1000, conditioning="projection")) == 30_041_857


@pytest.mark.parametrize(("side", "g", "d"), [(64, 42_017_412, 39_448_258), (32, 42_078_852, 39_463_618)])
def test_sagan_has_its_counts(side, g, d):
    with torch.device("meta"):
        assert count(resnet.Generator(square(128), 128, 1000, attention=[side], **SAGAN)) == g
        assert count(resnet.Discriminator(square(128), 1000, attention=[side], wide=True, **SAGAN)) == d


@pytest.mark.parametrize(
    ("size", "attention", "g", "d"),
    [
        (128, None, 70_433_988, 87_982_370),
        (256, None, 82_097_604, 99_225_890),
        (256, [64], 82_235_844, 99_225_890),
        (512, None, 82_468_068, 99_401_282),
    ],
)
def test_biggan_has_its_counts(size, attention, g, d):
    latent = resnet.Generator.natural_latent(square(size), "biggan")
    assert latent == {128: 120, 256: 140, 512: 160}[size]
    with torch.device("meta"):
        assert count(BIG_G(square(size), latent, 1000, attention=attention)) == g
        assert count(BIG_D(square(size), 1000, attention=attention)) == d


def test_the_papers_table_at_512_read_literally():
    with torch.device("meta"):
        assert count(BIG_D(square(512), 1000, family="biggan_paper")) == 144_195_362


@pytest.mark.parametrize(
    ("ch", "shared", "skip_z", "millions"),
    [
        (64, 0, False, 81.5),
        (96, 0, False, 173.5),
        (96, 128, False, 160.6),
        (96, 128, True, 158.3),
        (64, 128, True, 71.3),
    ],
)
def test_the_ablations_totals(ch, shared, skip_z, millions):
    with torch.device("meta"):
        total = count(BIG_G(square(128), 120, 1000, ch=ch, shared=shared, skip_z=skip_z))
        total += count(BIG_D(square(128), 1000, ch=ch))
    assert total / 1e6 == pytest.approx(millions, abs=0.2)


def test_biggan_deep_has_its_counts():
    with torch.device("meta"):
        assert count(biggan_deep.Generator(square(128), 128, 1000)) == 50_244_484
        assert count(biggan_deep.Discriminator(square(128), 1000)) == 34_590_210


def test_constants_of_biggan_and_sagan():
    for G, D, sn_eps in (
        (BIG_G(square(16), 60, 5, ch=2), BIG_D(square(16), 5, ch=2), 1e-6),
        (biggan_deep.Generator(square(16), 8, 5, ch=4), biggan_deep.Discriminator(square(16), 5, ch=4), 1e-6),
        (
            resnet.Generator(square(16), 8, 5, ch=8, attention=None, bn_eps=1e-5, **SAGAN),
            resnet.Discriminator(square(16), 5, ch=8, attention=None, wide=True, **SAGAN),
            1e-8,
        ),
    ):
        norms = [m for m in G.modules() if isinstance(m, nn.BatchNorm2d)]
        assert {(m.eps, m.momentum) for m in norms} == {(1e-5, 0.1)}
        assert not any(isinstance(m, nn.BatchNorm2d) for m in D.modules())
        layers = [m for net in (G, D) for m in net.modules() if isinstance(m, Weighted)]
        # Only the lookup tables of G are without spectral norm.
        plain = [m for m in layers if not is_spectral(m)]
        assert plain
        assert all(isinstance(m, Embedding) for m in plain)
        assert all(m.eps == sn_eps for m in layers if is_spectral(m))
        assert is_spectral(D.head.embed)
        assert isinstance(G.norm, BatchNorm2d)
        assert sum(isinstance(m, Attention) for m in G.modules()) == 1
        assert sum(isinstance(m, Attention) for m in D.modules()) == 1


def test_hidden_widths_of_the_wide_discriminator():
    with torch.device("meta"):
        D = BIG_D(square(128), 1000)
    assert [b.conv1.weight.shape[0] for b in D.blocks] == [96, 192, 384, 768, 1536, 1536]
    assert [b.norm1 is None for b in D.blocks] == [True] + [False] * 5
    assert [b.conv2.resample for b in D.blocks] == ["down"] * 5 + [None]


def test_attention_stands_where_the_papers_have_it():
    with torch.device("meta"):
        for side, in_g, in_d in ((32, 16, 16), (64, 32, 32), (128, 64, 64), (256, 128, 64), (512, 64, 64)):
            latent = resnet.Generator.natural_latent(square(side), "biggan")
            G, D = BIG_G(square(side), latent, 9), BIG_D(square(side), 9)
            (k,), (j,) = G.attention, D.attention
            plan, (base, _) = widths_for(side, side, "biggan")
            assert base << (int(k) + 1) == in_g
            assert side >> (int(j) + 1) == in_d
            assert G.attention[k].o.weight.shape[0] == plan.up[int(k) + 1] * G.ch


def test_widths_below_128_pixels_are_slim_and_the_papers_above():
    with torch.device("meta"):
        widths = {side: BIG_G(square(side), resnet.Generator.natural_latent(square(side), "biggan"), 9).ch
                  for side in (28, 32, 64, 128, 256)}  # fmt: skip
    assert widths == {28: 16, 32: 16, 64: 16, 128: 96, 256: 96}


@pytest.mark.parametrize(("kind", "spread"), [("normal", 0.02), ("orthogonal", None), ("xavier", None)])
def test_weights_start_as_asked(kind, spread):
    torch.manual_seed(0)
    G, D = BIG_G(square(16), 60, 5, ch=8, init=kind), BIG_D(square(16), 5, ch=8, init=kind)
    for layer in (m for net in (G, D) for m in net.modules() if isinstance(m, Weighted)):
        matrix = layer.weight.detach().flatten(1)
        if spread:
            assert matrix.std().item() == pytest.approx(spread, rel=0.25)
        elif kind == "orthogonal":
            small = matrix @ matrix.t() if matrix.shape[0] <= matrix.shape[1] else matrix.t() @ matrix
            torch.testing.assert_close(small, torch.eye(len(small)), atol=1e-5, rtol=0)
        else:
            fans = (layer.weight.shape[0] + layer.weight.shape[1]) * layer.weight[0, 0].numel()
            assert matrix.abs().max() <= (6 / fans) ** 0.5


def test_attention_is_the_papers_formula():
    torch.manual_seed(0)
    layer, x = Attention(16).double(), torch.randn(2, 16, 6, 4, dtype=torch.float64)
    assert layer.gamma == 0
    assert torch.equal(layer(x), x)
    nn.init.constant_(layer.gamma, 0.7)
    f, g, h = (F.conv2d(x, c.weight) for c in (layer.theta, layer.phi, layer.g))
    keys, values = F.max_pool2d(g, 2).flatten(2), F.max_pool2d(h, 2).flatten(2)
    weights = torch.einsum("bcq,bck->bqk", f.flatten(2), keys).softmax(-1)
    seen = torch.einsum("bqk,bck->bcq", weights, values).view(2, 8, 6, 4)
    torch.testing.assert_close(layer(x), x + 0.7 * F.conv2d(seen, layer.o.weight), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(layer.maps(x), weights, rtol=1e-12, atol=1e-12)
    assert layer.theta.weight.shape[0] == 2
    assert layer.g.weight.shape[0] == 8
    assert not any(c.bias is not None for c in layer.modules() if isinstance(c, Conv))


@pytest.mark.parametrize("kind", ["input", "hidden", "ac", "projection"])
@pytest.mark.parametrize("side", [28, 32])
def test_every_conditioning_hears_the_label(kind, side):
    torch.manual_seed(0)
    G = resnet.Generator(square(side), 8, 3, ch=4, conditioning=kind)
    D = resnet.Discriminator(square(side), 3, ch=4, conditioning=kind)
    assert G.conditional
    assert D.conditional
    for norm in [m for m in G.modules() if isinstance(m, LabelBatchNorm2d)]:
        nn.init.normal_(norm.gain.weight)
    z, y = torch.randn(4, 8), torch.tensor([0, 1, 2, 0])
    images = G(z, y)
    assert not torch.equal(images, G(z, y.flip(0)))
    verdict = D(images, y)
    assert verdict.logits.shape == (4,)
    other = D(images, y.flip(0))
    assert torch.equal(verdict.logits, other.logits) == (kind == "ac")
    assert (verdict.classes is not None) == (kind == "ac")
    if kind == "ac":
        assert verdict.classes.shape == (4, 3)


def test_the_parts_of_conditioning_by_hand():
    torch.manual_seed(0)
    x, y = torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 0])
    plain = resnet.Discriminator(square(8), 3, ch=4)
    D = resnet.Discriminator(square(8), 3, ch=4, conditioning="projection")
    D.load_state_dict(plain.state_dict(), strict=False)
    h = x
    for block in plain.blocks:
        h = block(h)
    added = (D.head.embed.normalised()[y] * F.relu(h).sum((2, 3))).sum(1)
    torch.testing.assert_close(D(x, y).logits, plain(x).logits + added)
    first = resnet.Discriminator(square(8), 3, ch=4, conditioning="input").blocks[0].conv1
    assert first.weight.shape[1] == 3 + 3
    hidden = resnet.Discriminator(square(8), 3, ch=4, conditioning="hidden")
    assert [b.conv1.weight.shape[1] for b in hidden.blocks] == [3, 4, 4 + 128, 4]
    beside = resnet.Generator(square(8), 5, 3, ch=4, conditioning="input", labels="input")
    assert beside.dense.weight.shape[1] == 5 + 3
    assert not any(isinstance(m, LabelBatchNorm2d) for m in beside.modules())


def test_class_conditional_norms_by_hand():
    torch.manual_seed(0)
    x, y = torch.randn(6, 4, 3, 3), torch.tensor([0, 1, 2, 0, 1, 2])
    norm = LabelBatchNorm2d(4, 3)
    plain = F.batch_norm(x, None, None, training=True)
    torch.testing.assert_close(norm(x, y), plain)
    nn.init.normal_(norm.gain.weight)
    nn.init.normal_(norm.shift.weight)
    wanted = plain * norm.gain.weight[y][:, :, None, None] + norm.shift.weight[y][:, :, None, None]
    torch.testing.assert_close(norm(x, y), wanted)
    assert count(norm) == 2 * 3 * 4
    G = BIG_G(square(8), 40, 3, ch=2)
    linear = G.blocks[0].norm1
    assert isinstance(linear, LinearBatchNorm2d)
    assert linear.gain.weight.shape == (8, 20 + 128)
    assert linear.gain.bias is None
    condition = torch.randn(6, 148)
    x = torch.randn(6, 8, 3, 3)
    wanted = F.batch_norm(x, None, None, training=True) * (1 + linear.gain(condition))[:, :, None, None]
    torch.testing.assert_close(linear(x, condition), wanted + linear.shift(condition)[:, :, None, None])


@pytest.mark.parametrize("shared", [0, 6])
def test_a_mixture_of_classes_is_between_them(shared):
    torch.manual_seed(0)
    G = resnet.Generator(square(8), 5, 3, ch=2, conditioning="projection", shared=shared).eval()
    for m in G.modules():
        if isinstance(m, Embedding):
            nn.init.normal_(m.weight)
    z, y = torch.randn(2, 5), torch.tensor([2, 0])
    torch.testing.assert_close(G(z, F.one_hot(y, 3).float()), G(z, y))
    half = G(z, torch.tensor([[0.5, 0, 0.5]] * 2))
    assert not torch.allclose(half, G(z, y))
    D = resnet.Discriminator(square(8), 3, ch=2, conditioning="projection")
    torch.testing.assert_close(D(half, F.one_hot(y, 3).float()).logits, D(half, y).logits)


def test_skip_z_deals_out_equal_chunks():
    torch.manual_seed(0)
    G = BIG_G(square(16), 60, 3, ch=2)
    z, y = torch.randn(4, 60), torch.tensor([0, 1, 2, 1])
    first, heard = G.condition(z, y)
    assert torch.equal(first, z[:, :20])
    assert len(heard) == 2
    for k, part in enumerate(heard, start=1):
        assert torch.equal(part, torch.cat([z[:, 20 * k : 20 * k + 20], G.condition.embed.weight[y]], 1))
    deep = biggan_deep.Generator(square(16), 8, 3, ch=4)
    first, heard = deep.condition(z[:, :8], y)
    assert all(torch.equal(first, part) for part in heard)
    assert first.shape == (4, 8 + 128)
    assert len(heard) == len(deep.blocks) == 4


def test_deep_blocks_drop_channels_in_g_and_add_them_in_d():
    torch.manual_seed(0)
    G, D = biggan_deep.Generator(square(64), 8, 3, ch=2), biggan_deep.Discriminator(square(64), 3, ch=2)
    shrink = next(b for b in G.blocks if b.outputs < b.leave.weight.shape[1] * 4)
    nn.init.zeros_(shrink.leave.weight)
    shrink.leave.u = shrink.leave.v = None
    x = torch.randn(2, shrink.enter.weight.shape[1], 4, 4)
    out = shrink(x, torch.randn(2, 8 + 128))
    torch.testing.assert_close(out, F.interpolate(x[:, : shrink.outputs], scale_factor=2.0))
    grow = next(b for b in D.blocks if b.more is not None)
    nn.init.zeros_(grow.leave.weight)
    grow.leave.u = grow.leave.v = None
    x = torch.randn(2, grow.enter.weight.shape[1], 4, 4)
    pooled = F.avg_pool2d(x, 2)
    torch.testing.assert_close(grow(x), torch.cat([pooled, grow.more(pooled)], 1))
    assert [b.conv1.resample for b in G.blocks] == [None, "up"] * 4
    assert [b.down for b in D.blocks] == [True, False] * 4


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda: BIG_G(square(32), 80, 0), r"model\.conditioning=projection needs labels, .*model\.conditioning=none"),
        (lambda: BIG_D(square(32), 0), "no classes"),
        (lambda: BIG_G(square(32), 79, 3), r"model\.latent\.dim=79: .*multiple of 4"),
        (lambda: BIG_G(square(32), 80, 3, shared=0), r"model\.shared=128"),
        (lambda: BIG_G(square(32), 80, 3, attention=[64]), r"model\.attention=\[64\]: at 32 pixels .* 8, 16, 32"),
        (lambda: BIG_D(square(32), 3, attention=[32]), "feature maps of 8, 16:"),
        (lambda: BIG_G((3, 40, 30), 80, 3), "model=biggan generates images whose sides halve"),
        (lambda: biggan_deep.Generator(square(32), 8, 3, shared=0), r"model\.shared=0"),
        (lambda: biggan_deep.Generator(square(33), 8, 3), "model=biggan_deep"),
    ],
)
def test_what_does_not_go_together_is_said_in_one_line(build, words):
    with pytest.raises(ConfigError, match=words):
        build()


@pytest.mark.parametrize("side", [28, 32, 48, 64])
def test_the_family_draws_and_judges_all_sizes(side):
    y = torch.tensor([0, 1])
    for G, D in (
        (BIG_G(square(side), 20 * len(widths_for(side, side, "biggan")[0].up), 3, ch=2), BIG_D(square(side), 3, ch=2)),
        (biggan_deep.Generator(square(side), 8, 3, ch=4), biggan_deep.Discriminator(square(side), 3, ch=4)),
    ):  # fmt: skip
        size = G.condition.chunk * (G.condition.parts + 1) if G.condition.skip_z == "split" else 8
        images = G(torch.randn(2, size), y)
        assert images.shape == (2, *square(side))
        assert D(images, y).logits.shape == (2,)


def test_unconditional_biggan_has_skip_z_alone():
    G = BIG_G(square(16), 60, 0, ch=2, conditioning="none")
    assert not G.conditional
    assert G.blocks[0].norm1.gain.weight.shape == (8, 20)
    assert G(torch.randn(3, 60)).shape == (3, *square(16))


def test_channels_last_is_the_same_function():
    torch.manual_seed(0)
    G, D = BIG_G(square(16), 60, 3, ch=4).double(), BIG_D(square(16), 3, ch=4).double()
    for m in [*G.modules(), *D.modules()]:
        if isinstance(m, Attention):
            nn.init.constant_(m.gamma, 0.5)
    z, y = torch.randn(3, 60, dtype=torch.float64), torch.tensor([0, 1, 2])
    images = G(z, y)
    logits = D(images, y).logits
    for net in (G, D):
        net.to(memory_format=torch.channels_last)
    torch.testing.assert_close(G(z, y), images, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(D(G(z, y), y).logits, logits, rtol=1e-10, atol=1e-12)
