"""Projected GAN: counts, equal to the plainest form, what is frozen, its moves, and its generators."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.config import unused
from gancli.config.build import make_as
from gancli.config.compose import compose
from gancli.config.files import groups
from gancli.config.generators import GROUP
from gancli.config.settings import TrainSettings
from gancli.data.facts import DataFacts
from gancli.errors import ConfigError, GanError
from gancli.games.stylegan2 import StyleGame2
from gancli.nets.layers.mixing import Mixing, drawn
from gancli.nets.projected import Discriminator
from gancli.pretrained.classifiers import efficientnet_lite0
from gancli.pretrained.pretrained import Pretrained
from gancli.pretrained.tiny import random
from gancli.train import assemble
from gancli.train.engine import Engine
from tests.conftest import Gan
from tests.contract.cast import TINY, engine_of
from tests.tiny import facts_of, weights

LITE0 = ["_blocks.2", "_blocks.4", "_blocks.10", "_blocks.15"]
LABELS = ["model.conditioning=projection", "dataset.classes=3"]
EXACT = 1e-6  # products of the mixing's weights are rounded to float32 once


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="module")
def lite0() -> Pretrained:
    return efficientnet_lite0(layers=LITE0)


def count(net: nn.Module) -> int:
    return sum(p.numel() for p in net.parameters())


@pytest.mark.parametrize(
    ("options", "parameters"),
    [
        ({}, 10_331_328),
        ({"separable": True}, 696_512),
        ({"conditioning": "projection", "classes": 1000}, 12_940_736),
        ({"mix": "channels"}, 7_510_400),
        ({"mix": "none"}, 5_885_312),
    ],
)
def test_the_released_counts(lite0: Pretrained, options: dict[str, Any], parameters: int) -> None:
    with torch.device("meta"):
        D = Discriminator((3, 256, 256), lite0, **options)
    assert count(D) == parameters
    if not options:
        assert [count(head) for head in D.heads] == [2_829_120, 2_763_392, 2_631_936, 2_106_880]


def test_maps_and_logits_have_the_released_sizes(lite0: Pretrained) -> None:
    D = Discriminator((3, 64, 64), lite0, ch=4)
    sizes = []
    for head in D.heads:
        head.register_forward_hook(lambda module, args, output: sizes.append(tuple(args[0].shape[1:])))
    with torch.no_grad():
        assert D(torch.zeros(1, 3, 64, 64)).logits.shape == (1, 64)
        assert sizes == [(4, 112, 112), (4, 56, 56), (8, 28, 28), (16, 14, 14)]
        assert D(torch.zeros(1, 3, 256, 256)).logits.shape == (1, 100)


# -- the plainest form -------------------------------------------------------------------------------------------------


def spectral(x: Tensor, conv: Any, **where: Any) -> Tensor:
    """A convolution with the weight divided by uᵀWv."""
    weight = conv.weight
    sigma = conv.u @ weight.flatten(1) @ conv.v.flatten()
    return F.conv2d(x, weight / sigma, conv.bias, **where)


def plain(D: Discriminator, x: Tensor, y: Tensor | None, mix: str, seed: int, ch: int) -> Tensor:
    """All logits, map by map and layer by layer."""
    maps = list(D.pretrained.maps(F.interpolate(x, (64, 64), mode="bilinear"), resize=False).values())
    own = {k: v.double() for k, v in drawn([m.shape[1] for m in maps], [ch << k for k in range(4)], mix, seed).items()}  # type: ignore[arg-type]

    def convolved(x: Tensor, name: str, k: int) -> Tensor:
        return F.conv2d(x, own[f"{name}{k}"][:, :, None, None], own[f"{name}_bias{k}"])

    if mix != "none":
        maps = [convolved(x, "channel", k) for k, x in enumerate(maps)]
    if mix == "scales":
        below: Tensor | None = None
        for k in (3, 2, 1, 0):
            joined = maps[k] if below is None else maps[k] + below
            up = F.interpolate(joined, scale_factor=2, mode="bilinear", align_corners=True)
            below = maps[k] = convolved(up, "scale", k)
    logits = []
    for head, x in zip(D.heads, maps, strict=True):
        for down in head.downs:
            if down.separable:
                x = spectral(spectral(x, down.convs[0], padding=1, groups=x.shape[1]), down.convs[1])
            else:
                x = spectral(x, down.convs[0], stride=2, padding=1)
            mean, var = x.mean((0, 2, 3), keepdim=True), x.var((0, 2, 3), keepdim=True, unbiased=False)
            shape = (1, -1, 1, 1)
            x = (x - mean) / (var + 1e-5).sqrt() * down.norm.weight.view(shape) + down.norm.bias.view(shape)
            x = torch.where(x > 0, x, 0.2 * x)
            x = F.avg_pool2d(x, 2) if down.separable else x
        x = spectral(x, head.last)
        if head.embed is not None:
            told = F.leaky_relu(head.dense(head.embed.weight[y]), 0.2)
            x = torch.einsum("bchw,bc->bhw", x, told) / 64**0.5
        logits.append(x.flatten(1))
    return torch.cat(logits, 1)


@pytest.mark.parametrize("mix", ["scales", "channels", "none"])
@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("labels", [False, True])
def test_it_equals_the_plainest_form(mix: str, separable: bool, labels: bool) -> None:
    eyes = random(ch=3, layers=["0", "1", "2", "3"])
    options: dict[str, Any] = {"mix": mix, "separable": separable, "ch": 2, "resolution": 64, "mixing_seed": 5}
    options |= {"conditioning": "projection", "classes": 4} if labels else {}
    D = Discriminator((3, 32, 32), eyes, **options).double()
    x = torch.randn(3, 3, 32, 32, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 3, 3]) if labels else None
    found, wanted = D(x, y).logits, plain(D, x, y, mix, 5, 2)
    torch.testing.assert_close(found, wanted, rtol=EXACT, atol=EXACT)
    wrt = [x, *D.parameters()]
    # Losses of different heads differ, so that none stands in for another.
    slope = torch.linspace(0.5, 1.5, found.shape[1], dtype=torch.float64)
    both = (torch.autograd.grad((logits.square() * slope).sum(), wrt) for logits in (found, wanted))
    for one, other in zip(*both, strict=True):
        torch.testing.assert_close(one, other, rtol=10 * EXACT, atol=10 * EXACT * float(other.abs().max()) + 1e-12)


def test_a_step_is_the_papers_losses() -> None:
    """G's move first, then D's; hinge on all logits; D's passes over reals and fakes are separate."""
    engine = engine_of([*TINY["projected"], "augment=none"], double=True)
    game = engine.game
    assert [move.player for move in engine.moves()] == ["G", "D"]
    seen: list[Tensor] = []
    D = game.nets["D"]
    D.register_forward_hook(lambda module, args, output: seen.append(output.logits.detach()))
    logs = engine.step()
    of_g, real, fake = seen
    assert logs["loss_G"] == pytest.approx(-of_g.mean().item(), rel=1e-6)
    expected = F.relu(1 - real).mean() + F.relu(1 + fake).mean()
    assert logs["loss_D"] == pytest.approx(expected.item(), rel=1e-6)


def test_labels_of_all_fakes_are_those_of_the_real_images() -> None:
    engine = engine_of([*TINY["projected"], *LABELS])
    told: list[Tensor | None] = []
    engine.game.nets["D"].register_forward_hook(lambda module, args, output: told.append(args[1]))
    engine.step()
    of_g, real, fake = told
    assert of_g is not None
    assert real is not None
    assert fake is not None
    assert torch.equal(of_g, real)
    assert torch.equal(fake, real)


# -- what is frozen ----------------------------------------------------------------------------------------------------


def test_frozen_parts_are_never_trained_and_kept_by_their_hash_alone() -> None:
    engine = engine_of(TINY["projected"])
    D, eyes = engine.game.nets["D"], engine.game.pretrained
    assert isinstance(D, Discriminator)
    assert eyes is D.pretrained
    before = [t.clone() for t in (*eyes.tensors(), *D.mixing.buffers())]
    assert len(before) > 10
    engine.step()
    after = [*eyes.tensors(), *D.mixing.buffers()]
    assert all(map(torch.equal, before, after))
    assert not any(p.requires_grad or p.grad is not None for p in eyes.net.parameters())
    assert not eyes.net.training
    assert not list(D.mixing.parameters())
    trained = [id(p) for p in engine.game.parameters_by_player()["D"]]
    assert trained == [id(p) for p in D.heads.parameters()]
    assert sum(len(group["params"]) for group in engine.state()["optimizers"]["D"]["param_groups"]) == len(trained)
    kept = [name for name in engine.state()["game"] if "heads" not in name and name.startswith("nets.D")]
    assert kept == ["nets.D.mixing.sha256"]


def test_the_mixing_follows_from_its_seed_alone() -> None:
    torch.manual_seed(1)
    one = Mixing([3, 5], 4, seed=7)
    torch.manual_seed(2)
    same, other = Mixing([3, 5], 4, seed=7), Mixing([3, 5], 4, seed=8)
    assert torch.equal(one.map0, same.map0)
    assert torch.equal(one.sha256, same.sha256)
    assert not torch.equal(one.map0, other.map0)
    state = one.state_dict()
    assert list(state) == ["sha256"]
    same.load_state_dict(state)
    with pytest.raises(RuntimeError, match=r"set model\.D\.mixing_seed"):
        other.load_state_dict(state)


def test_other_eyes_and_another_mixing_are_refused(gan: Gan, tmp_path: Path) -> None:
    run = tmp_path / "run"
    quick = ["observers=none", "steps=1", f"run_dir={run}"]
    assert gan("train", *TINY["projected"], *quick, "dataset.n=8", "batch_size=4").code == 0
    for key in ("pretrained.seed", "model.D.mixing_seed"):
        answer = gan("train", f"resume={run}", "steps=2", f"{key}=1")
        assert (answer.code, answer.err.count("\n")) == (2, 1)
        assert f"({key}: 0 -> 1)" in answer.err
    assert gan("train", f"resume={run}", "steps=2").code == 0
    started = [*TINY["projected"], "observers=none", "steps=1", "dataset.n=8", "batch_size=4", f"init={run}"]
    assert gan("train", *started, f"run_dir={tmp_path / 'again'}").code == 0
    answer = gan("train", *started, "model.D.mixing_seed=1", f"run_dir={tmp_path / 'other'}")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "set model.D.mixing_seed" in answer.err


def test_logits_of_a_batch_are_those_one_by_one(lite0: Pretrained) -> None:
    D = Discriminator((3, 32, 32), lite0, ch=4, resolution=128).double().eval()
    x = torch.rand(3, 3, 32, 32, dtype=torch.float64) * 2 - 1
    with torch.no_grad():
        together, alone = D(x).logits, torch.cat([D(row[None]).logits for row in x])
    torch.testing.assert_close(together, alone, rtol=1e-9, atol=1e-9)


def test_images_keep_their_size_from_the_resolution_up() -> None:
    eyes = random(ch=2, layers=["0", "1", "2", "3"])
    D, seen = Discriminator((3, 32, 32), eyes, ch=1, resolution=96), []
    handle = eyes.net.register_forward_pre_hook(lambda module, args: seen.append(tuple(args[0].shape[2:])))
    with torch.no_grad():
        for sides in ((32, 32), (48, 64), (96, 128), (100, 130)):
            D(torch.zeros(1, 3, *sides))
    handle.remove()
    assert seen == [(96, 96), (96, 128), (96, 128), (128, 160)]


@pytest.mark.parametrize(
    ("layers", "options", "words"),
    [
        ([], {}, "needs 1 to 6 layers"),
        (["0", "2"], {}, "twice the size of the next one, and they have 32×32, 8×8"),
        (["2", "3"], {"resolution": 32}, r"smallest map has 2×2 pixels, and heads need 4: set 64 or more"),
    ],
)
def test_maps_that_do_not_fit_are_refused(layers: list[str], options: dict[str, Any], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        Discriminator((3, 16, 16), random(layers=layers), ch=2, **({"resolution": 64} | options))(
            torch.zeros(1, 3, 16, 16)
        )
    with pytest.raises(ConfigError, match="1 or 3 channels"):
        Discriminator((2, 16, 16), random(layers=["3"]))


# -- generators --------------------------------------------------------------------------------------------------------

CHOICES = [name for name in groups("train")[GROUP] if name != "none"]
SMALL = ["pretrained=random", "model.D.ch=2", "model.D.resolution=64", "dataset=random", "dataset.size=[3,32,32]"]


@pytest.mark.parametrize("name", CHOICES)
def test_every_generator_is_built(name: str) -> None:
    config = compose("train", ["model=projected", f"model.generator={name}", *SMALL])
    assert config["model"]["generator"] == name
    game = assemble.game(config, facts_of((3, 32, 32)), real=())
    assert game.nets["G"](torch.empty(2, game.latent.dim, device="meta")).shape == (2, 3, 32, 32)  # type: ignore[operator, union-attr]
    assert isinstance(game, StyleGame2) == name.startswith("stylegan")
    assert game.nets["D"].heads[0].downs[0].separable == name.startswith("stylegan")  # type: ignore[index, union-attr]


def test_a_styled_generator_takes_steps_and_keeps_its_mean() -> None:
    keys = ["model=projected", "model.generator=stylegan2", "model.ch_base=64", "model.ch_max=4", "model.G.w_dim=6"]
    engine = engine_of([*keys, *SMALL])
    start = weights(engine.game.nets["G"])
    engine.step()
    assert not start.equal(weights(engine.game.nets["G"]))
    assert engine.game.nets["G"].mapping.mean.abs().sum() > 0  # type: ignore[union-attr, operator]


@pytest.mark.parametrize(
    ("keys", "words"),
    [
        (["model=dcgan", "model.generator=fastgan"], r"^model\.generator=fastgan: model=dcgan has its own generator"),
        (["model=projected", "generator=none"], r"^model=projected needs a generator: type model\.generator=NAME"),
        (["model=projected", "model.generator=fastgam"], "did you mean fastgan?"),
    ],
)
def test_generators_that_do_not_fit_are_refused(keys: list[str], words: str) -> None:
    with pytest.raises(GanError, match=words):
        compose("train", keys)


def test_labels_need_a_generator_that_takes_them() -> None:
    with pytest.raises(ConfigError, match=r"this generator does not: type model\.generator=fastgan_lite, or"):
        engine_of([*TINY["projected"], *LABELS, "model.generator=dcgan"])


def test_other_verbs_have_no_generator() -> None:
    with pytest.raises(GanError, match=r"^unknown key model\.generator"):
        compose("sample", ["model.generator=fastgan"])


def test_a_resumed_runs_generator_is_its_own(gan: Gan, tmp_path: Path) -> None:
    quick = ["observers=none", "steps=1", "dataset.n=8", "batch_size=4"]
    assert gan("train", *TINY["projected"], *quick, f"run_dir={tmp_path / 'run'}").code == 0
    answer = gan("train", f"resume={tmp_path / 'run'}", "steps=2", "model.generator=fastgan")
    assert (answer.code, answer.err.count("\n")) == (2, 1)
    assert "the configuration differs from the run's (" in answer.err
    assert "model.generator: fastgan_lite -> fastgan" in answer.err
    with pytest.raises(GanError, match=r"model=dcgan has its own generator: leave it out$"):
        compose("train", ["resume=RUN", "model=dcgan", "model.generator=fastgan"])


def test_a_size_of_the_frozen_network_is_noted() -> None:
    def idle(*keys: str) -> list[str]:
        settings = make_as(TrainSettings, compose("train", ["model=projected", *SMALL, *keys]), "")
        return [line for line in unused.notes(settings, unused.typed_keys(keys), 4, 16) if "size" in line]

    assert idle() == []
    wanted = "pretrained.size has no effect with model=projected: type model.D.resolution=PIXELS"
    assert idle("pretrained.size=64") == [wanted]


def test_the_width_has_a_limit_that_follows_from_the_maps() -> None:
    eyes = random(layers=["0", "1", "2", "3"])
    with torch.device("meta"):
        assert Discriminator((3, 16, 16), eyes, ch=1024).mixing.channels == [1024, 1024, 2048, 4096]
    with pytest.raises(ConfigError, match=r"^model\.D\.ch=1025: must be at most 1024$"):
        Discriminator((3, 16, 16), eyes, ch=1025)


def test_the_published_settings() -> None:
    config = compose("train", ["model=projected"])
    rates = {player: (o["lr"], o["betas"]) for player, o in config["optimizer"].items() if player in "GD"}
    assert rates == {"G": (2e-4, [0.0, 0.99]), "D": (2e-4, [0.0, 0.99])}
    assert config["model"]["ema"] == {"decay": None, "start": 0, "warmup": False, "half_life": 20000, "ramp": 0.05}
    assert config["augment"]["hole"] == 0.2
    styled = compose("train", ["model=projected", "model.generator=stylegan2"])
    assert styled["optimizer"]["G"]["lr"] == styled["optimizer"]["D"]["lr"] == 2e-3


def test_copies_share_the_frozen_network() -> None:
    engine: Engine = engine_of(TINY["projected"])
    twin = copy.deepcopy(engine.game)
    assert twin.nets["D"].pretrained is engine.game.pretrained
    assert DataFacts.of(engine.main.source).fields["x"] is not None
