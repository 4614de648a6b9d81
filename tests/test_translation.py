"""pix2pix and CycleGAN beside an independent form of their released code; pools; identity; who takes what."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from itertools import chain

import pytest
import torch
from torch import Tensor, nn

from gancli.compute.device import Compute
from gancli.compute.rng import Rng
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.data.fields import Image
from gancli.errors import CombinationError, GanError
from gancli.games.cyclegan import CycleGame
from gancli.games.pool import Pool
from gancli.losses.adversarial import LeastSquares
from gancli.losses.terms import Term
from gancli.nets import patch, translator, unet
from gancli.nets.layers.noise import Dropout, keyed
from gancli.train import assemble, checks, streams
from gancli.train.engine import Engine
from gancli.verbs.train import split_notes
from tests import released
from tests.contract.cast import engine_of
from tests.tiny import weights

EXACT = {"rtol": 1e-6, "atol": 1e-6}


def simple(net: nn.Module) -> list[nn.Module]:
    """Its convolutions and batch norms, in order."""
    return [m for m in net.modules() if isinstance(m, (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d))]


def levels(net: released.UNet) -> list[nn.Module]:
    """The same of the U-Net, in our order: all the way down, then up."""
    found = net.levels()
    downs = [m for level in found for m in (level.conv, level.norm_down)]
    ups = [m for level in reversed(found) for m in (level.conv_up, level.norm_up)]
    return [m for m in (*downs, *ups) if not isinstance(m, (nn.Identity, nn.InstanceNorm2d))]


def pairs(ours: nn.Module, theirs: list[nn.Module]) -> Iterator[tuple[Tensor, Tensor]]:
    """Parameters of ours beside theirs, in one order of dimensions."""
    mine = simple(ours)
    assert len(mine) == len(theirs)
    for a, b in zip(mine, theirs, strict=True):
        turned = isinstance(b, nn.ConvTranspose2d) and not isinstance(a, nn.ConvTranspose2d)
        for name, p in a.named_parameters():
            q = b.get_parameter(name).data
            yield p.data, q.transpose(0, 1) if turned and q.dim() == 4 else q
        assert len(list(a.parameters())) == len(list(b.parameters()))


def give(ours: nn.Module, theirs: list[nn.Module]) -> None:
    """Our weights to theirs."""
    for mine, other in pairs(ours, theirs):
        other.copy_(mine)


def same(ours: nn.Module, theirs: list[nn.Module]) -> None:
    for mine, other in pairs(ours, theirs):
        torch.testing.assert_close(mine, other, **EXACT)


@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize(("channels", "made", "size"), [(3, 3, (32, 64)), (1, 3, (64, 64))])
def test_the_unet_is_the_released_one(kind: unet.own.Kind, channels: int, made: int, size: tuple[int, int]) -> None:
    torch.manual_seed(0)
    G = unet.Generator((channels, *size), made, ch=2, norm=kind, dropout=0.0).double()
    depth = 5 if size[0] == 32 else 6
    other = released.UNet(0, depth, 2, channels, made, kind, drop=False).double()
    give(G, levels(other))
    x = torch.randn(2, channels, *size, dtype=torch.float64, requires_grad=True)
    y = G(x)
    torch.testing.assert_close(y, other(x), **EXACT)
    found = [torch.autograd.grad(net(x).square().sum(), x)[0] for net in (G, other)]
    torch.testing.assert_close(*found, **EXACT)


@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_the_resnet_is_the_released_one(kind: translator.own.Kind) -> None:
    torch.manual_seed(0)
    G = translator.Generator((3, 16, 24), 2, ch=2, blocks=2, norm=kind).double()
    other = released.resnet(3, 2, 2, 2, kind).double()
    give(G, simple(other))
    x = torch.randn(2, 3, 16, 24, dtype=torch.float64, requires_grad=True)
    torch.testing.assert_close(G(x), other(x), **EXACT)
    found = [torch.autograd.grad(net(x).square().sum(), x)[0] for net in (G, other)]
    torch.testing.assert_close(*found, **EXACT)


@pytest.mark.parametrize("kind", ["batch", "instance"])
@pytest.mark.parametrize("layers", [1, 2, 3])
def test_the_patches_are_the_released_ones(kind: patch.own.Kind, layers: int) -> None:
    torch.manual_seed(0)
    D = patch.Discriminator((4, 32, 40), ch=2, layers=layers, norm=kind).double()
    other = released.patches(4, 2, layers, kind).double()
    give(D, simple(other))
    x = torch.randn(2, 4, 32, 40, dtype=torch.float64)
    torch.testing.assert_close(D(x[:, :1], x[:, 1:]).logits, other(x), **EXACT)


@pytest.mark.parametrize(
    ("layers", "inputs", "count", "field"),
    [(0, 6, 9_024, 1), (1, 6, 139_585, 16), (2, 6, 666_433, 34), (3, 6, 2_768_705, 70), (4, 6, 6_964_033, 142),
     (5, 6, 11_159_361, 286), (3, 2, 2_764_609, 70), (3, 4, 2_766_657, 70)],
)  # fmt: skip
def test_patches_have_the_papers_counts_and_receptive_fields(layers: int, inputs: int, count: int, field: int) -> None:
    with torch.device("meta"):
        D = patch.Discriminator((inputs, 512, 512), layers=layers)
    assert sum(p.numel() for p in D.parameters()) == count
    seen = 1
    for conv in reversed([m for m in D.modules() if isinstance(m, nn.Conv2d)]):
        seen = (seen - 1) * conv.stride[0] + conv.kernel_size[0]
    assert seen == field


@pytest.mark.parametrize(
    ("build", "count"),
    [
        (lambda: unet.Generator((3, 32, 32), 3), 16_659_075),
        (lambda: unet.Generator((1, 32, 32), 1), 16_652_929),
        (lambda: unet.Generator((3, 32, 32), 3, ch=32), 4_168_003),
        (lambda: unet.Generator((3, 32, 32), 3, norm="instance"), 16_657_795),
        (lambda: unet.Generator((3, 64, 64), 3), 29_244_035),
        (lambda: unet.Generator((1, 64, 64), 3), 29_241_987),
        (lambda: unet.Generator((3, 128, 128), 3), 41_828_995),
        (lambda: unet.Generator((3, 256, 256), 3), 54_413_955),
        (lambda: unet.Generator((1, 256, 256), 3), 54_411_907),
        (lambda: unet.Generator((3, 256, 256), 3, norm="instance"), 54_409_603),
        (lambda: translator.Generator((3, 256, 256), 3), 11_378_179),
        (lambda: translator.Generator((1, 256, 256), 1), 11_365_633),
        (lambda: translator.Generator((3, 128, 128), 3), 7_837_699),
        (lambda: translator.Generator((1, 128, 128), 1), 7_825_153),
        (lambda: translator.Generator((3, 256, 256), 3, ch=32), 2_850_563),
        (lambda: translator.Generator((3, 64, 64), 3, ch=32), 1_965_059),
        (lambda: translator.Generator((3, 256, 256), 3, norm="batch"), 11_383_427),
        (lambda: translator.Generator((3, 128, 128), 3, norm="batch"), 7_841_411),
        (lambda: patch.Discriminator((3, 256, 256), norm="instance"), 2_764_737),
        (lambda: patch.Discriminator((1, 256, 256), norm="instance"), 2_762_689),
        (lambda: patch.Discriminator((3, 256, 256), norm="instance", layers=2), 662_977),
        (lambda: patch.Discriminator((3, 256, 256), norm="instance", layers=1), 136_385),
    ],
)
def test_networks_have_the_papers_counts(build: Callable[[], nn.Module], count: int) -> None:
    with torch.device("meta"):
        assert sum(p.numel() for p in build().parameters()) == count


@pytest.mark.parametrize(("side", "layers"), [(32, 0), (64, 1), (128, 2), (256, 3), (512, 4)])
def test_dropout_is_where_the_released_code_has_it(side: int, layers: int) -> None:
    with torch.device("meta"):
        G = unet.Generator((3, side, side), 3, ch=1)
    found = [k for k, stage in enumerate(G.up) if any(isinstance(m, Dropout) for m in stage)]
    assert found == list(range(1, layers + 1))  # none in the innermost, the first on the way up
    assert G.noisy == bool(layers)


# -- whole steps -------------------------------------------------------------------------------------------------------

PIX = ["model=pix2pix", "model.ch=2", "dataset=random", "dataset.n=8", "batch_size=2", "steps=8"]
CYCLE = ["model=cyclegan", "model.ch=2", "model.blocks=2", "dataset=random", "dataset.n=8", "batch_size=2", "steps=40"]


def rows(engine: Engine, count: int) -> list[dict[str, Tensor]]:
    """What each feed deals next, for float64 networks."""
    streams = engine.streams.items()
    return [{name: x.double() for name, x in s.batch(engine.positions[f], count).items()} for f, s in streams]


def masks(net: nn.Module) -> list[Tensor]:
    """What the dropout of a network keeps at each forward pass, as it goes on."""
    found: list[Tensor] = []
    for module in net.modules():
        if isinstance(module, Dropout):
            module.register_forward_hook(lambda _, given, out: found.append(out.detach() / given[0].detach()))
    return found


class Masked(nn.Module):
    """Dropout with masks that were drawn elsewhere."""

    def __init__(self, masks: list[Tensor]):
        super().__init__()
        self.masks = masks

    def forward(self, x: Tensor) -> Tensor:
        return x * self.masks[-1]


@pytest.mark.parametrize("side", [32, 64])
def test_a_step_of_pix2pix_is_the_released_one(side: int) -> None:
    """G and D with Adam, in float64, three steps; at 64 pixels with dropout, whose fakes are the same in both moves."""
    engine = engine_of([*PIX, f"dataset.size=[3,{side},{side}]"], double=True)
    ours = engine.game.nets
    dropped = masks(ours["G"])
    G = released.UNet(0, side.bit_length() - 1, 2, 3, 3).double()
    D = released.patches(6, 2).double()
    give(ours["G"], levels(G))
    give(ours["D"], simple(D))
    for level in G.levels():
        if isinstance(level.dropout, nn.Dropout):
            level.dropout = Masked(dropped)
    other = released.Pix2Pix(G, D)
    for _ in range(3):
        batch = rows(engine, 2)[0]
        dropped.clear()
        engine.step()
        assert len(dropped) == (0 if side == 32 else 2)
        assert all(torch.equal(dropped[0], mask) for mask in dropped)
        other.step(batch["A"], batch["B"])
        same(ours["G"], levels(G))
        same(ours["D"], simple(D))


def test_a_step_of_cyclegan_is_the_released_one() -> None:
    """Both G, both D, pools that fill and exchange, Adam, in float64, five steps of two."""
    engine = engine_of([*CYCLE, "dataset.size=[3,24,24]", "game.pool=3"], double=True)
    ours, given = engine.game.nets, rows(engine, 2)
    rngs = [Rng(0, step, "G", 0, total=2, dtype=torch.float64) for step in range(5)]
    draws = {d: [u for rng in rngs for u in rng.uniform(f"pool {d}").tolist()] for d in "AB"}

    def decider(domain: str) -> Callable[[int], int | None]:
        return lambda k: place if (place := int(draws[domain][k] * 6)) < 3 else None

    pools = {domain: released.Remembered(3, decider(domain)) for domain in "AB"}
    theirs = {name: released.resnet(3, 3, 2, 2).double() for name in ("G_A2B", "G_B2A")}
    theirs |= {name: released.patches(3, 2, kind="instance").double() for name in ("D_A", "D_B")}
    for name, net in theirs.items():
        give(ours[name], simple(net))
    other = released.CycleGAN(**theirs, pools=pools)
    swaps = 0
    for _ in range(5):
        given = rows(engine, 2)
        engine.step()
        other.step(given[0]["x"], given[1]["x"])
        for name, net in theirs.items():
            same(ours[name], simple(net))
        swaps += sum(decider(d)(k) is not None for d in "AB" for k in range(3, pools[d].count))
    assert swaps, "no old image was shown: the seed tests nothing"
    for domain, pool in pools.items():
        torch.testing.assert_close(engine.game.pools[domain].images, torch.stack(pool.images), **EXACT)


# -- pools -------------------------------------------------------------------------------------------------------------


def test_a_pool_holds_what_came_up_to_its_size_and_shows_old_ones_half_of_the_time() -> None:
    """min(n, 50) entries, all of them fakes that were given, each once; P(old) = 1/2 by a χ² test over 4,000 rows."""
    pool, rng, old, place = Pool(50, (1,)), Rng(0, "pool", total=4050), 0, torch.zeros(50)
    fakes, draws = torch.arange(1.0, 4051)[:, None], rng.uniform("pool")
    for start in range(0, 4050, 3):
        before = pool.images.clone()
        shown = pool.exchange(fakes[start : start + 3], draws[start : start + 3], start)
        kept = pool.images[pool.images != 0]
        assert len(kept) == min(start + 3, 50)
        assert len(kept.unique()) == len(kept)
        if start + 3 <= 50:
            assert torch.equal(shown, fakes[start : start + 3])
        else:
            swapped = shown.flatten() < start + 1
            old += int((shown != fakes[start : start + 3]).sum())
            place += torch.isin(before.flatten(), shown.flatten()[swapped])
    # 4,000 rows; the standard deviation of a count of halves is 31.6, that of one place of 50 is 6.3 around 40.
    assert abs(old - 2000) < 5 * 31.7
    assert float(((place - old / 50) ** 2 / (old / 50)).sum()) < 49 + 5 * (2 * 49) ** 0.5


def test_a_pool_of_none_shows_the_new_ones() -> None:
    fakes = torch.rand(3, 1)
    assert Pool(0, (1,)).exchange(fakes, torch.rand(3), 100) is fakes


@pytest.mark.parametrize("stop", [1, 2, 4])
def test_a_run_that_stops_while_its_pool_fills_goes_on_to_the_same_bits(stop: int) -> None:
    """A pool of five, filled by two a step: after 1, 2 and 4 steps it holds 2, 4 and 5."""
    keys = [*CYCLE, "dataset.size=[1,24,24]", "game.pool=5"]
    straight, first, second = engine_of(keys), engine_of(keys), engine_of(keys)
    for _ in range(6):
        straight.step()
    for _ in range(stop):
        first.step()
    filled = first.game.pools["A"].images.flatten(1).abs().amax(1) > 0
    assert int(filled.sum()) == min(2 * stop, 5)
    second.load(copy.deepcopy(first.state()))
    for _ in range(6 - stop):
        second.step()
    assert torch.equal(weights(straight.game), weights(second.game))
    assert torch.equal(straight.game.pools["B"].images, second.game.pools["B"].images)


# -- identity, and an image alone --------------------------------------------------------------------------------------


class Same(nn.Module):
    """An identity with a weight, so that it can play."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.weight


def test_generators_that_change_nothing_have_no_cycle_and_identity_loss() -> None:
    engine = engine_of([*CYCLE, "dataset.size=[3,24,24]"])
    terms = {
        f"{kind}_{d}": Term(columns=(f"{column}_{d}", d), weight=10)
        for kind, column in (("cycle", "back"), ("identity", "same"))
        for d in "AB"
    }
    nets = {"G_A2B": Same(), "G_B2A": Same(), "D_A": engine.game.nets["D_A"], "D_B": engine.game.nets["D_B"]}
    game = CycleGame(nets, LeastSquares(), {}, engine.game.fields, terms)
    batch = {f"{d}.x": torch.rand(2, 3, 24, 24) * 2 - 1 for d in "AB"}
    losses = game.generator_loss(batch, Rng(0, total=2)).losses
    assert {name: loss.item() for name, loss in losses.items() if name.startswith("term_")} == dict.fromkeys(
        (f"term_{name}" for name in terms), 0.0
    )


@pytest.mark.parametrize("keys", [[*PIX, "dataset.size=[3,64,64]"], [*CYCLE, "dataset.size=[3,24,24]"]])
@pytest.mark.parametrize("kind", ["batch", "instance"])
def test_an_output_depends_on_no_other_image(keys: list[str], kind: str) -> None:
    """Networks that are drawn with normalise each image by its own statistics; dropout is keyed by the image."""
    game = engine_of([*keys, f"model.norm={kind}"]).game
    game.eval()
    direction = game.directions()[0]
    name, field = next(iter(game.input_fields(direction).items()))
    x = torch.rand(5, *field.shape) * 2 - 1
    rngs = [Rng(0, k, "inside", total=1) for k in range(5)]
    nets = dict(game.nets.items())
    with torch.no_grad(), keyed(nets, rngs):
        whole = next(iter(game.generate(nets, {name: x}, direction).values()))
    with torch.no_grad(), keyed(nets, rngs[3:4]):
        alone = next(iter(game.generate(nets, {name: x[3:4]}, direction).values()))
    torch.testing.assert_close(whole[3:4], alone, rtol=1e-4, atol=1e-4)
    assert whole.std(0).max() > 1e-4


def build(keys: list[str]) -> Engine:
    """As `gan train` does, on the data that are named."""
    config = compose("train", [*keys, "device=cpu"])
    settings = make_as(TrainSettings, config, "")
    checks.check_sections(settings)
    source = streams.data(settings)
    return assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        (["model=pix2pix", "dataset=random", "dataset.size=[3,40,40]"], "halves exactly only 3 times"),
        (["model=pix2pix", "dataset=random", "dataset.size=[3,16,16]"], "halves exactly only 4 times"),
        ([*PIX, "dataset.size=[3,32,32]", "model.D.layers=5"], "model.D.layers=5 needs images of at least 96 pixels"),
        ([*PIX, "dataset.size=[3,32,32]", "model.G.downs=7"], "model.G.downs=7: 2 to 5"),
        ([*PIX, "dataset.size=[3,32,32]", "model.G.dropout=1"], "model.G.dropout=1: a share"),
        (["model=cyclegan", "dataset=random", "dataset.size=[3,26,26]"], "multiples of 4"),
        (["model=cyclegan", "dataset=fashion"], "reads the column A.x, but dataset=fashion has x, y"),
        (["model=pix2pix", "dataset=fashion"], "reads the column A, but dataset=fashion has x, y"),
        ([*PIX, "dataset.size=[3,32,32]", "terms.l1.columns=[fake,B]"], "no column B"),
        ([*CYCLE, "dataset.size=[3,24,24]", "penalty=r1", "penalty.r1.every=4"], "applies its penalties at every step"),
        ([*CYCLE, "dataset.size=[3,24,24]", "game.pool=-1"], "game.pool"),
        (
            [*CYCLE, "dataset.size=[3,24,24]", "dataset.channels_B=1"],
            "set terms.identity_A.weight=0 terms.identity_B.weight=0",
        ),
        (["model=pix2pix", "dataset.disjoint=true"], "leaves no pairs"),
        (["model=cyclegan", "terms=cyclegan_features", "dataset.size=24"], "features"),
    ],
)
def test_what_cannot_be_had_is_refused_in_a_line(keys: list[str], said: str) -> None:
    with pytest.raises(GanError) as caught:
        build(keys)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "keys",
    [
        ["terms=cyclegan_pixel"],
        ["terms=cyclegan_features", "pretrained=random", "pretrained.layers=[0]"],
        ["loss=hinge", "game.adversarial=1", "game.d_weight=0.5"],
        ["loss=relativistic"],
        ["loss=wasserstein", "penalty=wgan_gp"],
        ["augment=diffaugment"],
        ["model=cyclegan_unet", "model.ch=2"],
    ],
)
def test_options_of_cyclegan_change_the_run(keys: list[str]) -> None:
    common = ["dataset=random", "dataset.n=8", "dataset.size=32", "batch_size=2"]
    plain = engine_of(["model=cyclegan", "model.ch=2", "model.blocks=1", *common])
    other = engine_of(
        [*(["model=cyclegan", "model.ch=2", "model.blocks=1"] if "model" not in keys[0] else []), *common, *keys]
    )
    moved = []
    for engine in (plain, other):
        logs = engine.step()
        assert all(value.isfinite() for value in logs.values())
        moved.append(weights(engine.game))
    assert len(moved[0]) != len(moved[1]) or not torch.equal(*moved)


def test_cyclegan_refuses_domains_of_two_sizes() -> None:
    fields = {"A.x": Image(3, 24, 24), "B.x": Image(1, 24, 32)}
    with pytest.raises(CombinationError, match="cyclegan takes images of one size, not 24×24 and 24×32: set dataset"):
        CycleGame.told("G_A2B", fields, 0, {})


def test_unequal_channels_are_translated_without_identity() -> None:
    """Grey to colour and back, pools of each kind."""
    keys = [*CYCLE, "dataset.size=[3,24,24]", "dataset.channels_B=1"]
    engine = engine_of([*keys, "terms.identity_A.weight=0", "terms.identity_B.weight=0"])
    logs = [engine.step() for _ in range(2)][1]
    assert all(value.isfinite() for value in logs.values())
    assert [engine.game.pools[d].images.shape[1:] for d in "AB"] == [(3, 24, 24), (1, 24, 24)]


def test_reversed_it_makes_a_of_b() -> None:
    game = engine_of([*PIX, "dataset.size=[3,32,32]", "game.reverse=true"]).game
    assert game.directions() == ("B2A",)
    assert list(chain(game.input_fields("B2A"), game.output_fields("B2A"), [game.targets("B2A")])) == ["B", "A", "A"]


@pytest.mark.parametrize(("keys", "said"), [([], True), (["batch_size=1"], False), (["model.norm=instance"], False)])
def test_batch_norm_of_several_images_is_said_to_be_another_one(keys: list[str], said: bool) -> None:
    """Trained over a batch, drawn with an image's own statistics."""
    notes = split_notes(engine_of([*PIX, "dataset.size=[3,32,32]", *keys]))
    assert any("batch norm uses the statistics of 2 images in training" in note for note in notes) == said
