"""StyleGAN 2: counts, filters, equal to the plainest form, its lazy penalties and its averages."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import scipy.signal
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gancli.compute.rng import Rng
from gancli.losses.outputs import PathLength
from gancli.losses.penalties import R1, Context
from gancli.nets.layers import filters, noise
from gancli.nets.layers.modulated import EPS, Modulated, StyledConv, ToImage
from gancli.nets.stylegan2 import Architecture, Discriminator, Generator
from gancli.train.engine import Engine
from tests import growing, styled2
from tests.contract.cast import engine_of, tried

NARROW: dict[str, Any] = {"ch_base": 64, "ch_max": 8}
KEYS = [
    "model=stylegan2", "model.ch_base=64", "model.ch_max=8", "model.latent.dim=6", "model.G.w_dim=7",
    "model.mapping_layers=2", "model.D.mapping_layers=2", "dataset=random", "dataset.size=[3,16,16]", "batch_size=8",
    "dataset.n=24",
]  # fmt: skip
LABELS = ["model.conditioning=projection", "dataset.classes=3"]


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


def stirred(net: nn.Module) -> nn.Module:
    """With biases and noise scales away from their first values, which would hide them."""
    with torch.no_grad():
        for name, p in net.named_parameters():
            if name.endswith(("bias", "scale")):
                p.add_(torch.randn_like(p))
    return net.double()


@pytest.mark.parametrize(
    ("shape", "options", "of_g", "of_d"),
    [
        ((3, 1024, 1024), {}, 30_370_060, 29_012_513),
        ((3, 256, 256), {"ch_base": 16384}, 24_767_458, 24_001_089),
        ((3, 64, 64), {}, 27_032_600, 26_488_833),
        ((1, 64, 64), {}, 27_027_470, 26_487_809),
        ((3, 64, 64), {"classes": 10, "conditioning": "projection"}, 27_300_376, 28_857_856),
        ((3, 64, 64), {"ch_base": 2048, "ch_max": 128}, 3_703_416, 1_183_137),
    ],
)
def test_the_released_counts(shape: tuple[int, ...], options: dict[str, Any], of_g: int, of_d: int) -> None:
    with torch.device("meta"):
        nets = Generator(shape, 512, **options), Discriminator(shape, **options)
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [of_g, of_d]


def test_the_counts_for_cifar() -> None:
    told: dict[str, Any] = {"classes": 10, "conditioning": "projection"}
    with torch.device("meta"):
        nets = (
            Generator((3, 32, 32), 512, mapping_layers=2, **told),
            Discriminator((3, 32, 32), architecture="orig", **told),
        )
    assert [sum(p.numel() for p in net.parameters()) for net in nets] == [20_215_315, 23_089_664]


# -- filters -----------------------------------------------------------------------------------------------------------


def reference(x: np.ndarray, up: int, down: int, pad: tuple[int, int], gain: float) -> np.ndarray:
    """scipy's polyphase filter along both axes, of the zero-padded image."""
    line = np.array([1.0, 3.0, 3.0, 1.0]) / 8 * math.sqrt(gain)
    for axis in (0, 1):
        x = np.moveaxis(x, axis, 0)
        wide = np.zeros(((len(x) * up + sum(pad)), x.shape[1]))
        wide[pad[0] : pad[0] + len(x) * up : up] = x
        x = np.moveaxis(scipy.signal.upfirdn(line, wide, axis=0)[3 : len(wide)][::down], 0, axis)
    return x


@pytest.mark.parametrize("sides", [(4, 4), (5, 8), (9, 6), (7, 7)])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_filters_equal_scipys(sides: tuple[int, int], layout: torch.memory_format) -> None:
    x = torch.randn(2, 3, *sides).contiguous(memory_format=layout)
    cases = [(filters.smoothed(x, pad, 4.0), (1, 1, (pad, pad), 4.0)) for pad in (0, 1, 2, 3)]
    cases += [(filters.upsampled(x), (2, 1, (2, 1), 4.0)), (filters.downsampled(x), (1, 2, (1, 1), 1.0))]
    for made, told in cases:
        wanted = torch.stack([torch.from_numpy(reference(c.double().numpy(), *told)) for c in x.flatten(0, 1)])
        torch.testing.assert_close(made.flatten(0, 1), wanted.float(), rtol=1e-6, atol=1e-6)


def test_upfirdn_of_a_longer_signal_is_the_same() -> None:
    """The reference above, against scipy's own upsampling and downsampling."""
    x = np.random.default_rng(0).normal(size=(9, 1))
    line = np.array([1.0, 3.0, 3.0, 1.0]) / 4
    whole = scipy.signal.upfirdn(line, x[:, 0], up=2)
    made = reference(x @ np.ones((1, 9)), 2, 1, (2, 1), 4.0)[:, 4]
    np.testing.assert_allclose(made, whole[1:19] * (line[0] + line[2]), atol=1e-12)


def test_filters_have_second_derivatives() -> None:
    x = torch.randn(1, 2, 4, 5, dtype=torch.float64, requires_grad=True)
    for filtered in (lambda x: filters.smoothed(x, 2, 4.0), filters.upsampled, filters.downsampled):
        assert torch.autograd.gradcheck(filtered, x)
        assert torch.autograd.gradgradcheck(lambda x, f=filtered: f(x).square(), x)


# -- modulated convolutions --------------------------------------------------------------------------------------------


def test_a_demodulated_convolution_of_white_noise_has_unit_variance() -> None:
    layer = Modulated(64, 32, 5)
    with torch.no_grad():
        x, scale = layer(torch.randn(16, 64, 24, 24), torch.randn(16, 5))
        inner = (x * scale[:, :, None, None])[:, :, 1:-1, 1:-1]
    # 16 · 32 · 22² values, but only 16 · 32 independent weights: a standard error of the variance below 1 %.
    assert inner.var().item() == pytest.approx(1.0, abs=0.03)


@pytest.mark.parametrize("up", [False, True])
@pytest.mark.parametrize("form", ["grouped", "scaled"])
def test_scaled_inputs_and_outputs_equal_weights_of_each_sample(up: bool, form: Any) -> None:
    layer = Modulated(5, 6, 4, up=up).double()
    x, w = torch.randn(3, 5, 4, 6, dtype=torch.float64), torch.randn(3, 4, dtype=torch.float64)
    plain = styled2.Synthesis({"blocks.0.": x}, lambda _, x: x, form)
    made, scale = layer(x, w)
    wanted = plain.modulated(x, layer.style(w), layer.weight, up)
    torch.testing.assert_close(made * scale[:, :, None, None], wanted, rtol=1e-10, atol=1e-10)


def test_modulated_convolutions_have_second_derivatives() -> None:
    layer, image = StyledConv(2, 3, 2, up=True).double(), ToImage(3, 2, 2).double()
    x, w = torch.randn(2, 2, 2, 2, dtype=torch.float64), torch.randn(2, 2, dtype=torch.float64)
    with noise.keyed({"layer": layer}, Rng(0, total=2)):
        assert torch.autograd.gradgradcheck(
            lambda x, w: image(layer.conv(x, w)[0] * layer.conv(x, w)[1][:, :, None, None], w),
            (x.requires_grad_(), w.requires_grad_()),
        )


def test_small_weights_are_not_divided_by_0() -> None:
    layer = Modulated(2, 3, 2)
    nn.init.zeros_(layer.weight)
    _, scale = layer(torch.ones(1, 2, 4, 4), torch.ones(1, 2))
    assert scale[0].tolist() == pytest.approx([EPS**-0.5] * 3)


# -- networks ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("architecture", ["resnet", "orig", "skip"])
@pytest.mark.parametrize("form", ["grouped", "scaled"])
@pytest.mark.parametrize("shape", [(3, 16, 16), (4, 12, 16)])
@pytest.mark.parametrize("classes", [0, 3])
def test_networks_equal_the_plainest_form(
    architecture: Architecture, form: Any, shape: tuple[int, ...], classes: int
) -> None:
    told: dict[str, Any] = {"classes": classes, "conditioning": "projection" if classes else "none", **NARROW}
    G = stirred(Generator(shape, 6, w_dim=7, mapping_layers=2, **told))
    D = stirred(Discriminator(shape, architecture=architecture, mapping_layers=2, **told))
    z = torch.randn(8, 6, dtype=torch.float64)
    y = torch.arange(8) % 3 if classes else None
    maps = []
    for layer in noise.layers({"G": G}).values():
        k = (len(maps) + 1) // 2
        side = [s >> (len(G.blocks) - 1 - k) for s in shape[1:]]  # type: ignore[arg-type]
        maps.append(torch.randn(8, 1, *side, dtype=torch.float64))
        layer.fixed = maps[-1]  # type: ignore[assignment]
    g, d = growing.weights_of(G), growing.weights_of(D)
    onehot = None if y is None else F.one_hot(y, classes).double()
    w = styled2.mapped(g, z, onehot)
    wanted = styled2.Synthesis(g, lambda k, _: maps[k], form)(w[:, None].expand(-1, G.styles, -1))  # type: ignore[operator]
    image = G(z, y)
    torch.testing.assert_close(image, wanted, rtol=1e-10, atol=1e-10)
    said = styled2.Critic(d, architecture)(image, onehot)
    torch.testing.assert_close(D(image, y).logits, said, rtol=1e-10, atol=1e-10)


def test_the_last_layer_shares_no_style_with_a_convolution() -> None:
    G = Generator((3, 16, 16), 6, w_dim=7, mapping_layers=2, **NARROW)
    assert [G.side_of(k) for k in range(G.styles)] == [0, 1, 1, 2, 2, 2]
    assert [tuple(weight.shape) for weight in G.style_weights()] == [(8, 7)] * 4 + [(4, 7)] * 2
    w = torch.randn(1, 6, 7)
    with noise.keyed({"G": G}, Rng(0, total=1)):
        before = G(None, w=w)
    for k in range(6):
        other = w.clone()
        other[:, k] += 1
        with noise.keyed({"G": G}, Rng(0, total=1)):
            assert not torch.equal(G(None, w=other), before)


# -- a cycle -----------------------------------------------------------------------------------------------------------


def plain_weights(net: nn.Module) -> styled2.Weights:
    """Copies of the parameters in torch's own order: with others, grouped convolutions have wrong gradients (2.14)."""
    # Not `contiguous`, which leaves the strides of 1×1 kernels as they are.
    return {
        name: torch.empty(p.shape, dtype=p.dtype).copy_(p.detach()).requires_grad_(True)
        for name, p in net.named_parameters()
    }


class Plain:
    """The cycle in its plainest form, on the engine's data, latents and labels; keeps its own weights and averages."""

    def __init__(self, engine: Engine):
        self.engine, game = engine, engine.game
        self.game: Any = game
        self.weights = {name: plain_weights(game.nets[name]) for name in "GD"}
        told = {"G": (2.5e-3 * 4 / 5, 0.99 ** (4 / 5)), "D": (2.5e-3 * 16 / 17, 0.99 ** (16 / 17))}
        self.optimizers = {
            name: torch.optim.Adam(self.weights[name].values(), lr, (0.0, beta)) for name, (lr, beta) in told.items()
        }
        self.w_mean, self.length = torch.zeros(7, dtype=torch.float64), 0.0
        self.names = list(noise.layers({"G": game.nets["G"]}))

    def fakes(self, name: str, rows: int, y: Tensor | None) -> tuple[Tensor, Tensor]:
        engine, g = self.engine, self.weights["G"]
        move = next(m for m in engine.moves() if (m.name or m.player) == name)
        rng = engine._rng(move, 0)
        onehot = None if y is None else F.one_hot(y, 3).double()
        own = styled2.mapped(g, self.game.latent.draw(rng), onehot)
        other = styled2.mapped(g, self.game.latent.draw(rng, purpose="mixing"), onehot)
        self.w_mean = 0.995 * self.w_mean + 0.005 * own.detach().mean(0)
        one = rng.beside(*rng.parts, "mixing", total=1)
        cut = 1 + int(float(one.uniform("cut")) * 5) if float(one.uniform("mixed")) < 0.9 else 6
        w = torch.stack([own if k < cut else other for k in range(6)], 1)
        inside = Rng(engine.seed, engine.step_number, "inside", 0, total=rows, dtype=torch.float64)

        def noises(k: int, x: Tensor) -> Tensor:
            return noise.Source(self.names[k], [inside]).draw("normal", x[:, :1], 1, 0)

        return styled2.Synthesis(g, noises)(w), w

    def update(self, name: str, loss: Tensor) -> None:
        for optimizer in self.optimizers.values():
            optimizer.zero_grad()
        # As the released code does, so that lazy terms reach every parameter.
        (loss + sum(0 * p.sum() for p in self.weights[name].values())).backward()
        self.optimizers[name].step()

    def step(self) -> None:
        engine, n = self.engine, self.engine.step_number
        moves = {move.name or move.player: move for move in engine.moves()}
        real = engine.main.batch(engine.positions["real"], 8, 0, 8)
        x, y = real["x"].double(), real.get("y") if self.game.labelled else None
        onehot = None if y is None else F.one_hot(y, 3).double()
        D = styled2.Critic(self.weights["D"])
        self.update("G", F.softplus(-D(self.fakes("G", 8, y)[0], onehot)).mean())
        if n % 4 == 0:
            image, w = self.fakes("path_length", 4, None if y is None else y[:4])
            noises = engine._rng(moves["path_length"], 0).normal("path_length", 3, 16, 16) / 16
            (slope,) = torch.autograd.grad((image * noises).sum(), w, create_graph=True)
            lengths = (slope**2).sum(2).mean(1).sqrt()
            mean = self.length + 0.01 * (lengths.mean() - self.length)
            self.update("G", 4 * 2 * ((lengths - mean) ** 2).mean())
            self.length = float(mean.detach())
        fake = self.fakes("D", 8, y)[0].detach()
        self.update("D", F.softplus(D(fake, onehot)).mean() + F.softplus(-D(x, onehot)).mean())
        if n % 16 == 0:
            self.update("D", 16 * 1.0 / 2 * growing.slopes(lambda x: D(x, onehot), x).mean())


@pytest.mark.parametrize("extra", [[], LABELS], ids=["plain", "labels"])
def test_whole_cycles_equal_the_plainest_form(extra: list[str]) -> None:
    """Five steps: lazy terms are due at the first, the path length at the fifth again."""
    engine = engine_of([*KEYS, *extra, "model.D.group=4"], double=True)
    plain = Plain(engine)
    for _ in range(5):
        plain.step()
        engine.step()
    for name in "GD":
        for key, value in engine.game.nets[name].named_parameters():
            torch.testing.assert_close(value, plain.weights[name][key], rtol=1e-6, atol=1e-6, msg=f"{name}.{key}")
    generator: Any = engine.game.nets["G"]
    torch.testing.assert_close(generator.mapping.mean, plain.w_mean, rtol=1e-6, atol=1e-9)
    (length,) = (b for name, b in engine.game.named_buffers() if name.endswith("memory_path_length_mean"))
    assert float(length) == pytest.approx(plain.length, rel=1e-6)


def test_rates_and_betas_of_lazy_penalties_are_corrected() -> None:
    engine = engine_of(KEYS)
    engine.step()
    groups = {name: player.optimizer.param_groups[0] for name, player in engine.players.items()}
    assert {name: group["lr"] for name, group in groups.items()} == pytest.approx(
        {"G": 2.5e-3 * 4 / 5, "D": 2.5e-3 * 16 / 17}
    )
    assert groups["G"]["betas"] == (0.0, pytest.approx(0.99**0.8))
    plain = engine_of([*KEYS, "penalty.path_length.every=1", "penalty.r1.every=1"])
    logs = plain.step()
    assert plain.players["G"].optimizer.param_groups[0]["lr"] == 2.5e-3
    assert {"penalty_path_length", "penalty_r1", "path_length"} <= logs.keys()


def test_half_of_an_odd_batch_is_rounded_down() -> None:
    engine = engine_of([*(key for key in KEYS if key != "batch_size=8"), "batch_size=7", "model.D.group=7"])
    rows = {move.name or move.player: engine.total(move) for move in engine.moves()}
    assert rows == {"G": 7, "path_length": 3, "D": 7, "r1": 7}
    assert all(value.isfinite() for value in engine.step().values())


def test_lazy_terms_count_as_a_step_of_every_parameter() -> None:
    engine = engine_of(KEYS)
    engine.step()
    for player in engine.players.values():
        assert {int(state["step"]) for state in player.optimizer.state.values()} == {2}
        assert len(player.optimizer.state) == len(player.params)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_does_not_overflow(dtype: torch.dtype) -> None:
    """Coherent weights and features of 100, whose sum in 512 channels is beyond the range of float16."""
    layer = Modulated(512, 8, 4, up=True)
    with torch.no_grad():
        layer.weight.abs_()
        plain, scale = layer(torch.full((1, 512, 4, 4), 100.0), torch.ones(1, 4))
        half = Modulated(512, 8, 4, up=True)
        half.load_state_dict(layer.state_dict())
        half.weight.data = half.weight.to(dtype)
        made, own = half(torch.full((1, 512, 4, 4), 100.0, dtype=dtype), torch.ones(1, 4))
    assert made.isfinite().all()
    # Sums of 4,608 products, each rounded to 8 or 11 bits.
    torch.testing.assert_close(made.float() * own[..., None, None], plain * scale[..., None, None], rtol=2e-2, atol=0.5)


def test_the_real_images_of_a_step_are_counted_once() -> None:
    for extra in ([], LABELS):
        engine = engine_of([*KEYS, *extra])
        for _ in range(2):
            engine.step()
        assert (engine.seen, engine.positions["real"]) == (16, 16)


def test_labels_of_fakes_are_those_of_the_data() -> None:
    """All real images have one class here, so all fakes have it."""
    engine = engine_of([*KEYS, *LABELS])
    game: Any = engine.game
    rng = Rng(0, total=8)
    assert game._classes(rng, {"y": torch.full((8,), 2)}, True).tolist() == [2] * 8


# -- penalties against finite differences ------------------------------------------------------------------------------


def parts() -> Iterator[tuple[nn.Module, Tensor, Tensor]]:
    G = stirred(Generator((2, 8, 8), 3, w_dim=2, mapping_layers=1, ch_base=16, ch_max=3))
    for layer in noise.layers({"G": G}).values():
        layer.fixed = torch.randn(1, 1, 1, 1, dtype=torch.float64)  # type: ignore[assignment]
    w = torch.randn(2, 4, 2, dtype=torch.float64)
    yield G, w, G(None, w=w)


def test_path_lengths_are_those_of_finite_differences() -> None:
    ((G, w, image),) = parts()
    context = told(w.requires_grad_(), G(None, w=w))
    value = PathLength(decay=1.0)(context)
    pushed = context.rng.normal("path_length", *image.shape[1:]) / 8
    slopes = torch.zeros_like(w)
    with torch.no_grad():
        for place in np.ndindex(*w.shape):
            step = torch.zeros_like(w)
            step[place] = 1e-5
            slopes[place] = ((G(None, w=w + step) - G(None, w=w - step)) * pushed).sum() / 2e-5
    lengths = slopes.square().sum(2).mean(1).sqrt()
    assert context.stats["path_length"].item() == pytest.approx(lengths.mean().item(), rel=1e-6)
    assert value.item() == pytest.approx(lengths.var(correction=0).item(), rel=1e-5)


def told(w: Tensor, image: Tensor) -> Context:
    memory = {"mean": torch.tensor(0.3, dtype=torch.float64)}
    rng = Rng(1, total=len(w), dtype=torch.float64)
    return Context({}, lambda x, *_: x, None, image, None, None, rng, memory=memory, styles=w)


def test_the_gradient_of_the_path_length_penalty_is_that_of_finite_differences() -> None:
    ((G, w, _),) = parts()
    w.requires_grad_()
    for layer in (G.blocks[1].up.conv, G.blocks[1].to_image):  # type: ignore[index, union-attr]
        weight = layer.weight.detach().clone()  # type: ignore[union-attr, operator]

        def penalty(value: Tensor, layer: Any = layer) -> Tensor:
            named = {name: value if p is layer.weight else p for name, p in G.named_parameters()}
            return PathLength()(told(w, torch.func.functional_call(G, named, (None, None, w))))

        assert torch.autograd.gradcheck(penalty, weight.requires_grad_(), atol=1e-6)


def test_r1_is_that_of_finite_differences() -> None:
    D = stirred(Discriminator((2, 8, 8), ch_base=16, ch_max=3))
    x = torch.randn(2, 2, 8, 8, dtype=torch.float64)

    def judge(x: Tensor, *_: Any) -> Tensor:
        logits: Tensor = D(x).logits
        return logits

    value = R1()(Context({}, judge, x, None, None, None, Rng(0, total=2)))
    slopes = torch.zeros_like(x)
    with torch.no_grad():
        for place in np.ndindex(*x.shape):
            step = torch.zeros_like(x)
            step[place] = 1e-6
            slopes[place] = (judge(x + step) - judge(x - step)).sum() / 2e-6
    assert value.item() == pytest.approx(slopes.square().sum().item() / 4, rel=1e-5)
    weight = D.blocks[0].down.weight.detach().clone()  # type: ignore[union-attr, operator]

    def penalty(value: Tensor) -> Tensor:
        named = {name: value if name == "blocks.0.down.weight" else p for name, p in D.named_parameters()}

        def judge(x: Tensor, *_: Any) -> Tensor:
            logits: Tensor = torch.func.functional_call(D, named, (x,)).logits
            return logits

        return R1()(Context({}, judge, x, None, None, None, Rng(0, total=2)))

    assert torch.autograd.gradcheck(penalty, weight.requires_grad_(), atol=1e-6)


# -- what is refused ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("extra", "said"),
    [
        (["game.mixing=2"], "game.mixing=2: a number from 0 to 1"),
        (["model=dcgan", "game=stylegan2"], "needs a generator with styles"),
        (["game=noise", "optimizer=adam"], "penalty=path_length needs a generator with styles"),
        (["penalty.path_length.share=0"], "share above 0"),
        (["batch_size=1"], "path_length takes 0.5 times as many rows, which is no multiple of 1 for each of 1 ranks"),
        (["dataset.size=[3,18,18]"], "whose sides halve exactly"),
        (["model.ema.ramp=0"], "model.ema.ramp=0"),
        (["penalty=mode_seeking"], "compares samples of single latents"),
        (["micro_batch=4"], "would split samples"),
        (["model.mapping_layers=0"], "model.mapping_layers=0: a whole number from 1"),
    ],
)
def test_refused_in_words(extra: list[str], said: str) -> None:
    keys = [key for key in KEYS if extra[0].partition("=")[0] not in (key.partition("=")[0], "model")]
    if extra[0].startswith("model="):
        keys = ["dataset=random", "dataset.size=[3,16,16]"]
    engine, words = tried([*keys, *extra])
    assert engine is None
    assert said in words


def test_a_growing_generator_is_refused() -> None:
    engine, words = tried(
        ["model=stylegan", "game=stylegan2", "dataset=random", "dataset.size=[3,16,16]", "batch_size=4"]
    )
    assert engine is None
    assert "does not grow" in words
