"""StyleGAN 3: counts, the layers' table, filters, equal to the plainest form, and its averages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.augment.blur import Blur
from gancli.errors import CombinationError, ConfigError
from gancli.nets.layers.alias_free import AliasFree
from gancli.nets.stylegan3 import Generator, signals
from gancli.train.engine import Engine
from tests import growing, styled2, styled3
from tests.contract.cast import engine_of
from tests.test_stylegan2 import plain_weights

KEYS = [
    "model=stylegan3", "model.ch_base=64", "model.ch_max=6", "model.latent.dim=6", "model.G.w_dim=7",
    "model.D.mapping_layers=2", "dataset=random", "dataset.size=[3,16,16]", "batch_size=4", "dataset.n=24",
]  # fmt: skip
LABELS = ["model.conditioning=projection", "dataset.classes=3"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize(
    ("shape", "options", "count"),
    [
        ((3, 256, 256), {}, 28_472_133),
        ((3, 256, 256), {"variant": "R"}, 18_816_387),
        ((3, 128, 128), {}, 32_833_523),
        ((3, 256, 256), {"ch_base": 16384}, 23_320_443),
        ((3, 256, 256), {"ch_base": 16384, "variant": "R"}, 15_779_565),
        ((3, 64, 64), {"ch_base": 2048, "ch_max": 128}, 2_615_865),
        ((1, 64, 64), {}, 37_767_173),
        ((3, 64, 64), {"classes": 10, "conditioning": "projection"}, 38_035_975),
        ((3, 1024, 1024), {}, 22_313_167),
        ((3, 1024, 1024), {"variant": "R"}, 15_093_151),
    ],
)
def test_the_released_counts(shape: tuple[int, ...], options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        G = Generator(shape, 512, **options)
    assert sum(p.numel() for p in G.parameters()) == count


# -- the layers' table -------------------------------------------------------------------------------------------------


def test_the_table_of_64_pixels() -> None:
    found = signals((3, 64, 64), 2048, 128)[1:]
    assert [s.rate for s in found] == [16] * 4 + [32] * 4 + [64] * 7
    assert [s.sides for s in found] == [(n, n) for n in [36] * 4 + [52] * 4 + [84] * 5 + [64] * 2]
    wanted = [2, 2.52, 3.175, 4, 5.04, 6.35, 8, 10.08, 12.70, 16, 20.16, 25.40, 32, 32, 32]
    assert [s.cutoff for s in found] == pytest.approx(wanted, abs=5e-3)
    # The transition band ends at half the rate, or at the stopband where that is beyond it.
    stopbands = [4.287 * (64 / 2 * 2**0.3 / 4.287) ** min(k / 12, 1) for k in range(15)]
    wide = [max(f, s.rate / 2) - s.cutoff for f, s in zip(stopbands, found, strict=True)]
    assert [s.half_width for s in found] == pytest.approx(wide, rel=1e-3)


@pytest.mark.parametrize(("variant", "lows"), [("T", (9, -6, -11)), ("R", (11, -2, -9))])
def test_taps_and_pads_of_64_pixels(variant: Any, lows: tuple[int, int, int]) -> None:
    with torch.device("meta"):
        G = Generator((3, 64, 64), 8, variant=variant, w_dim=8, ch_base=64, ch_max=4)
    layers: Any = list(G.layers)[:14]
    rows = [(layer.filters.up[0], layer.filters.down[0]) for layer in layers]
    assert [(up.taps, up.up, down.taps, down.down) for up, down in rows] == [
        (24, 4, 12, 2) if k in (4, 8) else (12, 2, 12, 2) for k in range(14)
    ]
    assert [up.low for up, _ in rows] == [{4: lows[1], 8: lows[1], 13: lows[2]}.get(k, lows[0]) for k in range(14)]
    kernel = layers[0].weight.shape[2]
    highs = [
        up.outputs + up.taps - 1 - up.low - up.up * (s.sides[0] + kernel - 1)
        for (up, _), s in zip(rows, G.signals, strict=False)
    ]
    assert highs == [low - (3 if k in (4, 8) else 1) for k, low in enumerate(up.low for up, _ in rows)]
    radial = [len(layer.down_filter) > 1 for layer in layers]
    assert radial == [variant == "R" and k < 12 for k in range(14)]


def test_signals_of_any_size() -> None:
    odd = signals((3, 48, 80), 64, 8)[1:]
    assert [s.rate for s in odd[:1] + odd[-1:]] == [12, 48]
    assert odd[0].sides == (12 + 20, 20 + 20)
    assert odd[-1].sides == (48, 80)
    assert all(s.cutoff < s.rate / 2 or k >= 12 for k, s in enumerate(odd))
    with pytest.raises(ConfigError, match="at least 16 pixels, not 8x64"):
        signals((3, 8, 64), 64, 8)
    with pytest.raises(ConfigError, match="model=stylegan3"):
        signals((2,), 64, 8)


# -- the network -------------------------------------------------------------------------------------------------------

NAMES = {"style": "affine", "magnitude": "magnitude_ema"}


def foreign(G: Generator, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Tensors of a generator by NVIDIA's names."""
    layers = [f"L{k}_{s.sides[0]}_{s.channels}" for k, s in enumerate(G.signals[1:])]
    found = {}
    for name, value in tensors.items():
        first, *rest = name.split(".")
        if first == "layers":
            words = [NAMES.get(word, word) for word in rest[1:]]
            found[".".join(["synthesis", layers[int(rest[0])], *words])] = value
        elif first == "input":
            found[f"synthesis.input.{'.'.join(rest)}".replace("frequencies", "freqs")] = value
        else:
            found[name.replace("layers.", "fc").replace("mapping.mean", "mapping.w_avg")] = value
    return found


def stirred(net: nn.Module) -> nn.Module:
    """With biases, magnitudes and the input's map away from their first values, which would hide them."""
    with torch.no_grad():
        for name, value in (*net.named_parameters(), *net.named_buffers()):
            if name.endswith(("bias", "input.affine.weight")):
                value.add_(torch.randn_like(value) * 0.3)
            if name.endswith("magnitude"):
                value.copy_(torch.rand_like(value) + 0.5)
    return net.double()


@pytest.mark.parametrize("variant", ["T", "R"])
@pytest.mark.parametrize("classes", [0, 3])
def test_outputs_equal_the_plainest_forms(variant: Any, classes: int) -> None:
    wide = 2 if variant == "R" else 1
    G = Generator(
        (3, 32, 32), 6, classes, variant=variant, w_dim=7, ch_base=64, ch_max=6,
        conditioning="projection" if classes else "none",
    )  # fmt: skip
    stirred(G)
    state = foreign(G, {**dict(G.named_parameters()), **dict(G.named_buffers())})
    state["synthesis.input.transform"] = torch.eye(3)
    plain = styled3.Network(state, 32, base=64 * wide, most=6 * wide, variant=variant)
    z, y = torch.randn(2, 6, dtype=torch.float64), torch.tensor([0, 2]) if classes else None
    onehot = None if y is None else F.one_hot(y, 3).double()
    with torch.no_grad():
        # Filters of 32 bits, and demodulation's 1e-8 beside sums over at least 6 inputs.
        torch.testing.assert_close(G(z, y), plain(z, onehot), rtol=1e-5, atol=1e-5)
        move = torch.tensor([[0.1, -0.05, 30.0], [0.0, 0.2, -80.0]], dtype=torch.float64)
        made = G(z, y, transform=move)
        for k in range(2):
            angle = math.radians(float(move[k, 2]))
            forward = torch.tensor(
                [
                    [math.cos(angle), math.sin(angle), move[k, 0]],
                    [-math.sin(angle), math.cos(angle), move[k, 1]],
                    [0, 0, 1],
                ]
            )
            one = plain(
                z[k : k + 1], None if onehot is None else onehot[k : k + 1], transform=forward.double().inverse()
            )
            torch.testing.assert_close(made[k : k + 1], one, rtol=1e-5, atol=1e-5)


def test_samples_do_not_depend_on_their_batch() -> None:
    G = stirred(Generator((3, 16, 16), 6, w_dim=7, ch_base=64, ch_max=6))
    z = torch.randn(3, 6, dtype=torch.float64)
    torch.testing.assert_close(G(z)[1:2], G(z[1:2]), rtol=1e-12, atol=1e-12)


def test_magnitudes_are_measured_with_averages_as_they_will_be() -> None:
    G = Generator((3, 16, 16), 6, w_dim=7, ch_base=64, ch_max=6).double()
    w = torch.randn(4, 7, dtype=torch.float64)
    before = {name: value.clone() for name, value in G.named_buffers()}
    image, found = G(None, w=w, keep=0.25)
    assert found.shape == (15,)
    assert all(torch.equal(value, before[name]) for name, value in G.named_buffers())
    assert not torch.allclose(image, G(None, w=w))
    G.update(found, 0.25)
    torch.testing.assert_close(G(None, w=w), image)
    layer: Any = G.layers[0]
    assert layer.magnitude.item() == pytest.approx(0.25 + 0.75 * found[0].item())
    # With nothing kept, every layer's input has mean square 1 for this batch, whatever the weights' scale.
    with torch.no_grad():
        layer.weight.mul_(100)
        _, found = G(None, w=w, keep=0.0)
        G.update(found, 0.0)
        again = G(None, w=w, keep=0.0)[1]
    torch.testing.assert_close(again, found)


def test_the_inputs_waves_are_inside_the_band() -> None:
    G = Generator((3, 64, 64), 6, w_dim=7, ch_base=16384, ch_max=4096)
    radius = G.input.frequencies.norm(dim=1)
    assert radius.max() <= 2.0
    # Uniform in a disc: the squared radius is uniform. Standard error of the mean 0.29 / 64, of the median 0.5 / 64.
    share = (radius / 2).square()
    assert abs(share.mean().item() - 0.5) < 5 * 0.29 / 64
    assert abs(share.median().item() - 0.5) < 5 * 0.5 / 64
    assert G.input.phases.abs().max() <= 0.5


def test_a_generator_for_comparisons() -> None:
    open_ = Generator((3, 16, 16), 6, w_dim=7, ch_base=64, ch_max=6, filtered=False)
    layer: Any = open_.layers[0]
    assert isinstance(layer, AliasFree)
    assert layer.up_filter.tolist() == [1.0]
    assert layer.down_filter.tolist() == [[[1.0], [1.0]]]
    assert open_(torch.randn(2, 6)).shape == (2, 3, 16, 16)
    assert Generator((3, 16, 16), 6, w_dim=7, ch_base=64, ch_max=6, margin=0).signals[1].sides == (16, 16)
    with pytest.raises(ConfigError, match=r"model\.G\.margin=-1"):
        Generator((3, 16, 16), 6, margin=-1)


# -- a cycle -----------------------------------------------------------------------------------------------------------


class Plain:
    """Steps in the plainest form, on the engine's data, latents and labels; keeps its own weights and averages."""

    def __init__(self, engine: Engine, variant: Any):
        self.engine, game = engine, engine.game
        self.game: Any = game
        G: Any = game.nets["G"]
        self.weights = {name: plain_weights(game.nets[name]) for name in "GD"}
        self.state = foreign(G, self.weights["G"]) | foreign(G, {k: v.clone() for k, v in G.named_buffers()})
        self.state["synthesis.input.transform"] = torch.eye(3)
        wide = 2 if variant == "R" else 1
        self.generator = styled3.Network(self.state, 16, base=64 * wide, most=6 * wide, variant=variant)
        told = {"G": (2.5e-3, 0.99), "D": (2e-3 * 16 / 17, 0.99 ** (16 / 17))}
        self.optimizers = {
            name: torch.optim.Adam(self.weights[name].values(), lr, (0.0, beta)) for name, (lr, beta) in told.items()
        }

    def fakes(self, name: str, y: Tensor | None, measure: bool) -> Tensor:
        move = next(m for m in self.engine.moves() if (m.name or m.player) == name)
        z = self.game.latent.draw(self.engine._rng(move, 0))
        if not measure:
            return self.generator(z, y)
        keep, net = 0.5 ** (4 / 20_000), self.generator
        with torch.no_grad():
            w = net.mapped(z, y)
            x = net.features(w, torch.eye(3, dtype=torch.float64))
            for layer in net.layers:  # each average takes up the layer's input before its gain applies to it
                name = f"{layer.name}.magnitude_ema"
                self.state[name] = keep * self.state[name] + (1 - keep) * x.square().mean()
                x = net.layer(layer, x, w, self.state[name])
        self.state["mapping.w_avg"] = 0.998 * self.state["mapping.w_avg"] + 0.002 * w.mean(0)
        return x * styled3.SCALE

    def blurred(self, x: Tensor) -> Tensor:
        """By the definition: weights 2^(-d²/σ²) of all pixels within 3σ, zeros around the image."""
        blur = self.game.critic.blur
        sigma = blur.sigma * max(1 - self.engine.seen / blur.images, 0) if blur else 0.0
        reach = math.floor(3 * sigma)
        if not reach:
            return x
        line = np.exp2(-((np.arange(-reach, reach + 1) / sigma) ** 2))
        return styled3.convolved(F.pad(x, [reach] * 4), line / line.sum())

    def step(self) -> None:
        engine, n = self.engine, self.engine.step_number
        real = engine.main.batch(engine.positions["real"], 4, 0, 4)
        x, y = self.blurred(real["x"].double()), real.get("y") if self.game.labelled else None
        onehot = None if y is None else F.one_hot(y, 3).double()
        D = styled2.Critic(self.weights["D"])
        self.update("G", F.softplus(-D(self.blurred(self.fakes("G", onehot, False)), onehot)).mean())
        fake = self.blurred(self.fakes("D", onehot, True))
        self.update("D", F.softplus(D(fake, onehot)).mean() + F.softplus(-D(x, onehot)).mean())
        if n % 16 == 0:
            real_ = real["x"].double()
            slopes = growing.slopes(lambda x: D(self.blurred(x), onehot), real_)
            self.update("D", 16 * 2.0 / 2 * slopes.mean())

    def update(self, name: str, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        (loss + sum(0 * p.sum() for p in self.weights[name].values())).backward()
        self.optimizers[name].step()


@pytest.mark.parametrize(("variant", "extra"), [("T", []), ("R", LABELS)], ids=["T", "R and labels"])
def test_whole_steps_equal_the_plainest_form(variant: str, extra: list[str]) -> None:
    """Three steps: R1 is due at the first; R's images are blurred, less at each step."""
    told = [f"model.variant={variant}", "game.blur_images=13", "game.blur_sigma=2"] if variant == "R" else []
    engine = engine_of([*KEYS, *told, *extra], double=True)
    G: Any = engine.game.nets["G"]
    plain = Plain(engine, variant)
    for _ in range(3):
        plain.step()
        engine.step()
    owned = foreign(G, dict(G.named_parameters())) | foreign(G, dict(G.named_buffers()))
    for key, value in owned.items():
        if key in plain.state and not key.endswith("filter"):
            torch.testing.assert_close(value, plain.state[key].detach(), rtol=1e-5, atol=1e-5, msg=key)
    for key, value in engine.game.nets["D"].named_parameters():
        torch.testing.assert_close(value, plain.weights["D"][key], rtol=1e-5, atol=1e-5, msg=key)


def test_only_the_pass_of_d_updates_the_averages() -> None:
    engine = engine_of(KEYS)
    G: Any = engine.game.nets["G"]
    moves = {move.player: move for move in engine.moves() if not move.name}
    rows = engine.main.batch(0, 4, 0, 4)
    of_g = moves["G"].loss(dict(rows), engine._rng(moves["G"], 0))
    of_d = moves["D"].loss(dict(rows), engine._rng(moves["D"], 0))
    assert not of_g.means
    assert set(of_d.means) == {"w", "magnitudes"}
    assert all(float(layer.magnitude) == 1 for layer in G.layers)
    engine.step()
    assert all(float(layer.magnitude) != 1 for layer in G.layers)
    assert G.mapping.mean.norm() > 0


def test_rates_are_corrected_for_d_alone() -> None:
    engine = engine_of(KEYS)
    engine.step()
    rates = {name: player.optimizer.param_groups[0]["lr"] for name, player in engine.players.items()}
    assert rates == pytest.approx({"G": 2.5e-3, "D": 2e-3 * 16 / 17})


def test_the_blur_fades_and_keeps_the_mean() -> None:
    blur = Blur(sigma=2.0, images=100)
    image = torch.zeros(1, 1, 32, 32, dtype=torch.float64)
    image[..., 16, 16] = 1
    for seen, sigma in ((0, 2.0), (50, 1.0)):
        made = blur(image, seen)
        assert made.sum().item() == pytest.approx(1)
        line = made[0, 0, 16] / made[0, 0, 16, 16]
        assert line[17].item() == pytest.approx(2 ** -(1 / sigma**2))
        assert line[16 + int(3 * sigma) + 1].item() == 0
    assert blur(image, 90) is image


def test_which_variant_blurs() -> None:
    for told, wanted in (
        (["model.variant=R"], 10),
        ([], None),
        (["game.blur_sigma=3"], 3),
        (["model.variant=R", "game.blur_sigma=0"], None),
    ):
        game: Any = engine_of([*KEYS, *told]).game
        assert (game.critic.blur and game.critic.blur.sigma) == wanted


def test_another_generator_is_refused() -> None:
    with pytest.raises(CombinationError, match="game=stylegan3 needs the generator of model=stylegan3"):
        engine_of(["model=stylegan2", "game=stylegan3", *KEYS[1:]])
