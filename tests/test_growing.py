"""ProGAN and StyleGAN: equal to the plainest form at every stage, and the identities of growth."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.errors import ConfigError
from gancli.nets.growth import Growth, doubled, halved, plan
from gancli.nets.layers import noise
from gancli.nets.layers.blur import blurred
from gancli.nets.layers.equalized import EqualizedConv, EqualizedLinear
from gancli.nets.layers.minibatch import MinibatchDeviation
from gancli.nets.progan import Discriminator
from gancli.nets.progan import Generator as ProGenerator
from gancli.nets.stylegan import Generator as StyleGenerator
from gancli.nets.stylegan import Styled
from gancli.train.engine import Engine
from tests import growing
from tests.contract.cast import engine_of

NARROW: dict[str, Any] = {"ch_base": 64, "ch_max": 8}
KEYS = [
    "model.ch_base=64", "model.ch_max=8", "model.latent.dim=6", "dataset=random", "dataset.size=[3,16,16]",
    "game.first=8", "game.fade=24", "game.hold=8", "game.batches=[8]", "game.rates=[1]", "steps=20",
]  # fmt: skip
STYLE = ["model.G.w_dim=7", "model.G.mapping_layers=2"]
PLACES = [(0, 1.0), (1, 0.0), (1, 0.3), (1, 1.0), (2, 0.6), (2, 1.0)]  # doublings and share


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def grown(net: nn.Module, doublings: int, share: float = 1.0) -> nn.Module:
    growth = net.growth
    assert isinstance(growth, Growth)
    growth.set(doublings, share)
    return net


def stirred(net: nn.Module) -> nn.Module:
    """With biases and noise scales away from 0, which would hide them."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(("bias", "scale")):
                p.normal_()
    return net.double()


def copy(large: nn.Module, small: nn.Module) -> None:
    """Give a network the weights of a larger one, which has them all."""
    there = large.state_dict()
    small.load_state_dict({k: v if "growth" in k else there[k] for k, v in small.state_dict().items()})


def logits(net: nn.Module, x: Tensor, y: Tensor | None = None) -> Tensor:
    found: Tensor = net(x, y).logits
    return found


@pytest.mark.parametrize(
    ("kind", "shape", "options", "count"),
    [
        (ProGenerator, (3, 1024, 1024), {}, 23_079_115),
        (ProGenerator, (3, 64, 64), {}, 22_490_383),
        (ProGenerator, (1, 32, 32), {}, 20_715_524),
        (ProGenerator, (3, 32, 32), {"classes": 10, "conditioning": "ac"}, 20_801_548),
        (Discriminator, (3, 1024, 1024), {}, 23_087_249),
        (Discriminator, (3, 64, 64), {"blur": True}, 22_498_049),
        (Discriminator, (1, 32, 32), {}, 20_722_689),
        (Discriminator, (3, 32, 32), {"classes": 10, "conditioning": "ac"}, 20_731_915),
        (Discriminator, (3, 64, 64), {"classes": 10, "conditioning": "projection"}, 22_502_666),
        (StyleGenerator, (3, 1024, 1024), {}, 26_219_627),
        (StyleGenerator, (3, 64, 64), {}, 25_137_935),
        (StyleGenerator, (3, 64, 64), {"classes": 10, "conditioning": "projection"}, 25_405_199),
    ],
)
def test_the_papers_counts(kind: type[nn.Module], shape: tuple[int, ...], options: dict[str, Any], count: int) -> None:
    latent = {} if kind is Discriminator else {"latent_dim": 512}
    with torch.device("meta"):
        net = kind(shape, **latent, **options)
    assert sum(p.numel() for p in net.parameters()) == count


# -- identities --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ProGenerator, StyleGenerator])
def test_a_grown_generator_equals_one_without_the_later_blocks(kind: type[nn.Module]) -> None:
    large, small = kind((3, 16, 16), 6, **NARROW), kind((3, 8, 8), 6, **NARROW)
    copy(large, small)
    z = torch.randn(4, 6)
    layers = noise.layers({"G": large}), noise.layers({"G": small})
    with noise.keyed(layers[0], Rng(0, total=4)), noise.keyed(layers[1], Rng(0, total=4)):
        old = grown(large, 1, 1.0)(z)
        assert torch.equal(old, small(z))
    with noise.keyed(layers[0], Rng(0, total=4)):
        new = grown(large, 2, 1.0)(z)
    with noise.keyed(layers[0], Rng(0, total=4)):
        assert torch.equal(grown(large, 2, 0.0)(z), doubled(old))
    shares = []
    for share in (0.25, 0.75):
        with noise.keyed(layers[0], Rng(0, total=4)):
            shares.append(grown(large, 2, share)(z))
    torch.testing.assert_close((shares[1] - shares[0]) * 2, new - doubled(old))


@pytest.mark.parametrize("blur", [False, True])
def test_a_grown_discriminator_equals_one_without_the_later_blocks(blur: bool) -> None:
    large, small = (Discriminator((3, side, side), blur=blur, **NARROW) for side in (16, 8))
    copy(large, small)
    x = torch.randn(4, 3, 8, 8)
    assert torch.equal(logits(grown(large, 1), x), logits(small, x))
    assert torch.equal(logits(large, doubled(x)), logits(small, x))  # images at the last size
    wide = torch.randn(4, 3, 16, 16)
    assert torch.equal(logits(grown(large, 2, 0.0), wide), logits(small, halved(wide)))


def test_the_share_of_a_fade_is_linear_in_the_discriminators_features() -> None:
    D = Discriminator((3, 16, 16), **NARROW).double()
    kept: list[Tensor] = []
    D.blocks[0].register_forward_pre_hook(lambda _, args: kept.append(args[0]))
    x = torch.randn(4, 3, 16, 16, dtype=torch.float64)
    for share in (0.0, 0.25, 0.75, 1.0):
        D(grown(D, 2, share) and x)
    old, first, second, new = kept
    torch.testing.assert_close((second - first) * 2, new - old)


@pytest.mark.parametrize("resample", ["up", "down"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_convolutions_equal_separate_ones(resample: Any, dtype: torch.dtype) -> None:
    layer = EqualizedConv(5, 7, resample=resample)
    nn.init.normal_(layer.bias)
    layer = layer.to(dtype)
    x = torch.randn(3, 5, 8, 8, dtype=dtype)
    whole = growing.Plain(dict(layer.named_parameters(prefix="c")))
    other = whole.conv(growing.up(x), "c") if resample == "up" else growing.down(whole.conv(x, "c"))
    torch.testing.assert_close(layer(x), other, rtol=0, atol=1e-5 if dtype == torch.float32 else 1e-13)


def test_run_time_weights_have_the_variance_of_he() -> None:
    G = StyleGenerator((3, 16, 16), 64, ch_base=1024, ch_max=64, w_dim=64, mapping_layers=2)
    for net in (ProGenerator((3, 16, 16), 64, ch_base=1024, ch_max=64), Discriminator((3, 16, 16)), G):
        for name, layer in net.named_modules():
            if isinstance(layer, (EqualizedConv, EqualizedLinear)):
                weight = layer.weight * layer.scale
                square = 1.0 if any(part in name for part in ("to_rgb", "out", "style.", ".style")) else 2.0
                square = 2 / 16 if name == "first.dense" else square
                rate = 0.01 if "mapping" in name else 1.0
                wanted = square / layer.weight[0].numel()
                assert weight.var().item() == pytest.approx(wanted, rel=8 / layer.weight.numel() ** 0.5), name
                if isinstance(layer, EqualizedLinear) and rate != 1.0:
                    assert layer.weight.std().item() == pytest.approx(100, rel=0.1)


def test_samples_of_a_group_may_change_places_and_no_others() -> None:
    D = Discriminator((3, 8, 8), **NARROW).double()
    x = torch.randn(8, 3, 8, 8, dtype=torch.float64)
    before = logits(D, x)
    within = torch.tensor([4, 1, 2, 3, 6, 5, 0, 7])  # rows 0, 2, 4 and 6 are a group
    torch.testing.assert_close(logits(D, x[within]), before[within])
    across = torch.tensor([1, 0, 2, 3, 4, 5, 6, 7])
    assert (logits(D, x[across]) - before[across]).abs().max() > 1e-6


def test_a_batch_that_is_no_multiple_of_a_group_has_smaller_groups() -> None:
    layer, x = MinibatchDeviation(4), torch.randn(6, 2, 3, 3)
    wanted = torch.stack([((x[i::2] - x[i::2].mean(0)).square().mean(0) + 1e-8).sqrt().mean() for i in range(2)])
    torch.testing.assert_close(layer(x)[:, 2, 0, 0], wanted.repeat(3))
    assert layer(x[:1])[0, 2].unique().item() == pytest.approx(1e-4)


def test_a_style_sets_mean_and_deviation_of_each_channel() -> None:
    layer = Styled(6, 5).double()
    x, w = torch.randn(4, 6, 16, 16, dtype=torch.float64), torch.randn(4, 5, dtype=torch.float64)
    scale, shift = layer.style(w).chunk(2, 1)
    made = layer(x, w)
    torch.testing.assert_close(made.mean((2, 3)), shift)
    torch.testing.assert_close(made.std((2, 3), correction=0), (scale + 1).abs(), rtol=1e-6, atol=1e-6)


def test_a_scale_of_0_silences_the_noise() -> None:
    G, z = StyleGenerator((3, 16, 16), 6, **NARROW), torch.randn(2, 6)
    assert torch.equal(G(z), G(z))
    nn.init.ones_(G.blocks[1].styled[0].noise.scale)
    assert not torch.equal(G(z), G(z))


def test_the_blur_is_binomial() -> None:
    x = torch.randn(2, 3, 6, 7, dtype=torch.float64)
    torch.testing.assert_close(blurred(x), growing.blur(x))


@pytest.mark.parametrize("side", [4, 7, 9, 26])
def test_sides_that_do_not_halve_are_refused(side: int) -> None:
    with pytest.raises(ConfigError, match="sides halve exactly"):
        ProGenerator((3, side, side), 6, **NARROW)


def test_other_sides_than_powers_of_two_have_a_base_of_four_to_seven_pixels() -> None:
    for shape, size in (((3, 12, 12), (6, 6)), ((1, 28, 28), (7, 7)), ((3, 32, 24), (8, 6))):
        assert plan(shape, "progan", 64, 8)[1] == size
        G, D = ProGenerator(shape, 6, **NARROW), Discriminator(shape, **NARROW)
        assert logits(D, G(torch.randn(2, 6))).shape == (2,)


# -- whole networks and steps against the plainest form ----------------------------------------------------------------


def lod_of(growth: Growth) -> float:
    return growth.most - growth.doublings + 1 - float(growth.share)


@pytest.mark.parametrize(("doublings", "share"), PLACES)
@pytest.mark.parametrize("kind", ["progan", "stylegan"])
def test_networks_equal_the_plainest_form(kind: str, doublings: int, share: float) -> None:
    style = kind == "stylegan"
    options = {"w_dim": 7, "mapping_layers": 2} if style else {}
    G = stirred((StyleGenerator if style else ProGenerator)((3, 16, 16), 6, **NARROW, **options))
    D = stirred(Discriminator((3, 16, 16), blur=style, **NARROW))
    z = torch.randn(8, 6, dtype=torch.float64)
    layers = noise.layers({"G": G})
    maps = {k: torch.randn(8, 1, 4 << k // 2, 4 << k // 2, dtype=torch.float64) for k in range(6)}
    for number, layer in enumerate(layers.values()):
        layer.fixed = maps[number]  # type: ignore[assignment]
    lod = lod_of(grown(G, doublings, share).growth)  # type: ignore[arg-type]
    grown(D, doublings, share)
    if style:
        plain = growing.StyleGenerator(growing.weights_of(G), 2, lambda k, x: maps[k])
        whole = plain(plain.mapping(z)[:, None].expand(-1, 6, -1), lod)
    else:
        whole = growing.ProGenerator(growing.weights_of(G), 2)(z, lod)
    made = G(z)
    torch.testing.assert_close(doubled(made, 2 - doublings), whole, rtol=1e-10, atol=1e-10)
    said = growing.Critic(growing.weights_of(D), 2, blurs=style)(whole, lod)[:, 0]
    torch.testing.assert_close(logits(D, made), said, rtol=1e-10, atol=1e-10)


def engine_at(kind: str, seen: int, extra: Sequence[str] = ()) -> Engine:
    engine = engine_of([f"model={kind}", *KEYS, *(STYLE if kind == "stylegan" else []), *extra], double=True)
    for name in "GD":
        stirred(engine.game.nets[name])
    for step in range(99):
        if engine.course.seen(step) == seen:
            engine.step_number, engine.seen = step, seen
            return engine
    raise AssertionError(f"no step begins at {seen}")


def plain_step(engine: Engine, kind: str) -> dict[str, dict[str, Tensor]]:
    """The weights after one step of the plainest form, on the engine's data, latents and labels."""
    game: Any = engine.game
    at = engine.at
    game.enter(at)
    style, most = kind == "stylegan", game.growth.most
    lod, level = lod_of(game.growth), at.stage.level
    moves = {move.name or move.player: move for move in game.moves(at)}
    rngs = {name: engine._rng(move, 0) for name, move in moves.items()}
    weights = {name: growing.weights_of(game.nets[name]) for name in "GD"}
    batch = engine._batch(moves["D"], engine.batch_size, 0, engine.batch_size)
    real = growing.faded(batch["x"], lod, level)
    maps: dict[int, Tensor] = {}
    inside = Rng(engine.seed, engine.step_number, "inside", 0, total=engine.batch_size, dtype=torch.float64)
    names = list(noise.layers({"G": game.nets["G"]})) if style else []

    def noises(k: int, x: Tensor) -> Tensor:
        if k not in maps:
            source = noise.Source(names[k], [inside])
            maps[k] = source.draw("normal", x[:, :1], 1, 0)
        return maps[k]

    def fakes(name: str) -> tuple[Tensor, Tensor | None]:
        rng = rngs[name]
        z = game.latent.draw(rng)
        if not style:
            G = growing.ProGenerator(weights["G"], most)
            y = game._classes(rng, batch, name == "G")
            return G(z, lod, None if y is None else nn.functional.one_hot(y, game.classes).double()), y
        plain = growing.StyleGenerator(weights["G"], most, noises)
        own, other = plain.mapping(z), plain.mapping(game.latent.draw(rng, purpose="mixing"))
        one = rng.beside(*rng.parts, "mixing", total=1)
        cut = plain_cut(float(one.uniform("mixed")), float(one.uniform("cut")), 2 * (game.growth.doublings + 1))
        w = torch.stack([own if k < cut else other for k in range(2 * (most + 1))], 1)
        return plain(w, lod), None

    D = growing.Critic(weights["D"], most, blurs=style)
    optimizers = {name: torch.optim.Adam(w.values(), 1e-3, (0.0, 0.99), eps=1e-8) for name, w in weights.items()}
    fake, y = fakes("D")
    fake = fake.detach()
    a, b = D(real, lod), D(fake, lod)
    if style:
        r1 = growing.slopes(lambda x: D(x, lod), real)
        loss = nn.functional.softplus(b).mean() + nn.functional.softplus(-a).mean() + 5 * r1.mean()
    else:
        share = rngs["D"].uniform("wgan_gp").view(-1, 1, 1, 1)
        norms = growing.slopes(lambda x: D(x, lod)[:, 0], real * share + fake * (1 - share)).sqrt()
        loss = (b - a)[:, 0].mean() + 10 * ((norms - 1) ** 2).mean() + 0.001 * (a[:, 0] ** 2).mean()
        if y is not None:
            told = nn.functional.cross_entropy
            loss = loss + told(a[:, 1:], batch["y"]) + told(b[:, 1:], y)
    loss.backward()  # type: ignore[no-untyped-call]
    optimizers["D"].step()
    optimizers["G"].zero_grad()
    fake, y = fakes("G")
    out = D(fake, lod)
    cost = nn.functional.softplus(-out).mean() if style else -out[:, 0].mean()
    if y is not None:
        cost = cost + nn.functional.cross_entropy(out[:, 1:], y)
    cost.backward()
    optimizers["G"].step()
    return weights


def plain_cut(mixed: float, where: float, active: int) -> int:
    return 1 + int(where * (active - 1)) if mixed < 0.9 else 99


@pytest.mark.parametrize("seen", [0, 16, 32, 48, 64])
@pytest.mark.parametrize(
    ("kind", "extra"),
    [
        ("progan", []),
        ("progan", ["model.conditioning=ac", "dataset.classes=3"]),
        ("stylegan", ["game.first_side=4"]),
    ],
    ids=["progan", "labels", "stylegan"],
)
def test_a_whole_step_equals_the_plainest_form(kind: str, extra: list[str], seen: int) -> None:
    """At images of every size, in both holds and fades: penalties are those of images at the last size."""
    engine = engine_at(kind, seen, extra)
    wanted = plain_step(engine, kind)
    engine.step()
    for name in "GD":
        for key, value in engine.game.nets[name].named_parameters():
            torch.testing.assert_close(value, wanted[name][key], rtol=1e-6, atol=1e-6, msg=f"{name}.{key}")
