"""Each technique does what its paper says, on cases small enough for paper and pencil."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from gancli.augment.augment import DiffAugment
from gancli.augment.transforms import brightness, contrast, cutout, flip, saturation, shift
from gancli.compute.rng import Rng
from gancli.data.source import Modes as Mixture
from gancli.errors import CombinationError, ConfigError
from gancli.games.noise import NoiseGame
from gancli.games.stages import Moment
from gancli.losses.adversarial import (
    AdversarialLoss,
    Energy,
    Hinge,
    LabelLoss,
    LeastSquares,
    Minimax,
    NonSaturating,
    RelativisticAverage,
    RelativisticPairing,
    Wasserstein,
)
from gancli.losses.outputs import Consistency, Drift, FeatureMatching, LeCam, ModeSeeking, PullingAway
from gancli.losses.penalties import R1, R2, Context, Dragan, ZeroCentred
from gancli.losses.weights import HistoricalD
from gancli.metrics.divergences import jsd, jsd_of, mmd, wasserstein
from gancli.metrics.modes import count_modes
from gancli.metrics.parzen import parzen
from gancli.nets.layers.minibatch import MinibatchDiscrimination, Referenced, VirtualBatchNorm
from gancli.nets.r3gan import Discriminator as JudgeR3
from gancli.nets.r3gan import Generator as MakerR3
from gancli.nets.verdict import Verdict
from tests import tiny
from tests.tiny import facts_of

F64 = torch.float64


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


# -- objectives --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "d", "g"),
    [
        (RelativisticPairing(), (softplus(-2.5) + softplus(-0.5)) / 2, (softplus(2.5) + softplus(0.5)) / 2),
        # means: real 1.25, fake -0.25
        (
            RelativisticAverage(),
            (softplus(-2.25) + softplus(-0.75)) / 2 + (softplus(-1.75) + softplus(-1.25)) / 2,
            (softplus(1.75) + softplus(1.25)) / 2 + (softplus(2.25) + softplus(0.75)) / 2,
        ),
        (
            RelativisticAverage(kind="lsgan"),
            (1.25**2 + 0.25**2) / 2 + (0.75**2 + 0.25**2) / 2,
            (2.75**2 + 2.25**2) / 2 + (3.25**2 + 1.75**2) / 2,
        ),
        (RelativisticAverage(kind="hinge"), 0.25 / 2, (2.75 + 2.25) / 2 + (3.25 + 1.75) / 2),
        (Energy(margin=1.0), (-2 - 0.5) / 2 + (1 - 0.5 + 1 - 0) / 2, (0.5 + 0.0) / 2),
    ],
)
def test_objectives_by_hand(loss: AdversarialLoss, d: float, g: float) -> None:
    real, fake = torch.tensor([2.0, 0.5], dtype=F64), torch.tensor([-0.5, 0.0], dtype=F64)
    assert loss.discriminator(real, fake).item() == pytest.approx(d, abs=1e-12)
    assert loss.generator(fake, real).item() == pytest.approx(g, abs=1e-12)


def test_an_energy_of_any_d_is_above_zero() -> None:
    real, fake = torch.tensor([3.0], dtype=F64), torch.tensor([-1.0], dtype=F64)
    loss = Energy(margin=2.0, plain=True)
    assert loss.discriminator(real, fake).item() == pytest.approx(softplus(-3) + 2 - softplus(1), abs=1e-12)
    assert loss.generator(fake).item() == pytest.approx(softplus(1), abs=1e-12)


@pytest.mark.parametrize("kind", [NonSaturating, Minimax, Hinge, LeastSquares])
def test_soft_labels_mix_both_labels(kind: type[LabelLoss]) -> None:
    real, fake = torch.tensor([2.0, -1.0], dtype=F64), torch.tensor([0.5], dtype=F64)
    hard = kind()
    soft = kind(smooth=0.1, smooth_fake=0.2).discriminator(real, fake)
    want = 0.9 * hard.as_real(real).mean() + 0.1 * hard.as_fake(real).mean()
    want = want + 0.8 * hard.as_fake(fake).mean() + 0.2 * hard.as_real(fake).mean()
    assert soft.item() == pytest.approx(want.item(), abs=1e-12)


def test_one_sided_smoothing_moves_the_best_d_to_its_label() -> None:
    """With real labels of 1 - s and no fakes in sight the best D(x) is 1 - s: there the gradient is 0."""
    best = torch.tensor([math.log(0.9 / 0.1)], dtype=F64, requires_grad=True)
    nowhere = torch.tensor([-1e9], dtype=F64)
    NonSaturating(smooth=0.1).discriminator(best, nowhere).backward()
    assert best.grad is not None
    assert best.grad.abs().item() < 1e-12


def test_soft_least_squares_has_the_gradient_of_soft_targets() -> None:
    logits = torch.tensor([0.3], dtype=F64, requires_grad=True)
    LeastSquares(smooth=0.1).discriminator(logits, torch.zeros(1, dtype=F64)).backward()
    assert logits.grad is not None
    assert logits.grad.item() == pytest.approx(0.3 - 0.9, abs=1e-12)


def test_flipped_labels_swap_whole_pairs() -> None:
    game = tiny.game(NonSaturating(flip=0.5))
    rng = Rng(3, total=64)
    real, fake = torch.arange(64.0), -torch.arange(64.0) - 1
    a, b = game.critic.flipped(real, fake, rng)
    swapped = rng.uniform("flip") < 0.5
    assert 10 < swapped.sum() < 54
    assert torch.equal(a, torch.where(swapped, fake, real))
    assert torch.equal(b, torch.where(swapped, real, fake))


def test_instance_noise_has_its_size_and_falls_to_nothing() -> None:
    game = tiny.game(Hinge(noise=0.5, noise_until=1000))
    rng, x = Rng(0, total=512), torch.zeros(512, 1, 8, 8)
    assert game.critic.shown((x, None), rng, "real")[0].std().item() == pytest.approx(0.5, rel=0.02)
    game.enter(Moment(seen=500))
    assert game.critic.shown((x, None), rng, "real")[0].std().item() == pytest.approx(0.25, rel=0.02)
    game.enter(Moment(seen=1000))
    assert torch.equal(game.critic.shown((x, None), rng, "real")[0], x)


def test_top_k_keeps_the_largest_logits() -> None:
    game = tiny.game(Hinge(top=0.5))
    assert "all" in game.critic.couplings()
    fake, real = torch.tensor([3.0, -1.0, 2.0, 0.0]), torch.tensor([0.1, 0.2, 0.3, 0.4])
    kept, against = game.critic.best(fake, real)
    assert sorted(kept.tolist()) == [2.0, 3.0]
    assert against is real
    assert tiny.game(Hinge()).critic.best(fake)[0] is fake
    # A pairing keeps the real images that the best fakes are compared with.
    kept, against = tiny.game(RelativisticPairing(top=0.5)).critic.best(fake, real)
    assert against is not None
    assert sorted(zip(kept.tolist(), against.tolist(), strict=True)) == [(2.0, real[2].item()), (3.0, real[0].item())]


@pytest.mark.parametrize("loss", [Hinge(top=0.5), RelativisticPairing(top=0.5), RelativisticAverage(top=0.5)])
def test_top_k_trains_with_every_kind_of_objective(loss: AdversarialLoss) -> None:
    assert tiny.engine(tiny.game(loss)).step()["loss_G"].isfinite()


def test_top_k_falls_by_the_same_factor_at_each_image() -> None:
    loss = Hinge(top=0.25, top_until=1000)
    shares = [loss.top_at(seen) for seen in (0, 250, 500, 750, 1000, 5000)]
    assert shares == pytest.approx([1, 0.25**0.25, 0.5, 0.25**0.75, 0.25, 0.25])
    assert Hinge(top=0.5).top_at(0) == 0.5


@pytest.mark.parametrize(
    "keys", [{"noise": -1.0}, {"flip": 0.6}, {"top": 0.0}, {"smooth": 0.5}, {"noise": 0.1, "noise_until": 0}]
)
def test_bad_options_are_refused(keys: dict[str, float]) -> None:
    with pytest.raises(ConfigError, match="loss"):
        NonSaturating(**keys)  # type: ignore[arg-type]


# -- closed forms ------------------------------------------------------------------------------------------------------


def test_point_masses_are_log_2_apart_in_jsd_and_their_distance_in_w1() -> None:
    for theta in (0.1, 1.0, 7.5):
        a, b = torch.zeros(50, 1), torch.full((50, 1), theta)
        assert jsd(a, b) == pytest.approx(math.log(2), abs=1e-12)
        assert wasserstein(a, b) == pytest.approx(theta, rel=1e-6)
    assert jsd_of(torch.tensor([0.5, 0.5]), torch.tensor([0.5, 0.5])) == 0


def test_w1_in_the_plane_is_the_best_matching() -> None:
    pytest.importorskip("scipy")
    a = torch.tensor([[0.0, 0.0], [10.0, 0.0]])
    assert wasserstein(a, torch.tensor([[10.0, 3.0], [0.0, 4.0]])) == pytest.approx(3.5)


def test_a_critic_of_slope_one_reaches_w1() -> None:
    theta = 2.0
    real, fake = torch.full((4,), theta), torch.zeros(4)
    slope_one = -Wasserstein().discriminator(real, fake).item()  # l(x) = x
    assert slope_one == theta


def test_mmd_of_the_same_law_is_near_zero_and_of_others_is_not() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(500, 2, generator=generator) for _ in range(2))
    assert abs(mmd(a, b)) < 5e-3
    assert mmd(a, b + 2) > 0.2


# -- penalties ---------------------------------------------------------------------------------------------------------


def context(judge: object, x: Tensor, **keys: object) -> Context:
    rng = Rng(0, total=len(x), dtype=x.dtype)
    return Context({}, judge, x, x, None, None, rng, **keys)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("penalty", "want"), [(R1(), 12.5), (R2(), 12.5), (ZeroCentred(), 25.0), (Dragan(), 16.0), (Drift(), 0.0)]
)
def test_penalties_of_a_linear_critic(penalty: R1, want: float) -> None:
    w = torch.tensor([3.0, 4.0], dtype=F64)
    assert penalty(context(lambda x, *_: x @ w, torch.zeros(5, 2, dtype=F64))).item() == pytest.approx(want, abs=1e-12)


def test_dragan_stays_close_to_the_data() -> None:
    seen: list[Tensor] = []

    def judge(x: Tensor, *_: object) -> Tensor:
        seen.append(x.detach())
        return x.sum(1)

    x = torch.randn(64, 3, generator=torch.Generator().manual_seed(1), dtype=F64)
    Dragan(reach=0.5)(context(judge, x))
    away = seen[0] - x
    assert away.min() >= 0
    assert 0 < away.max() <= 0.5 * x.std(correction=0)


def test_packs_are_judged_and_bounded_as_one() -> None:
    """A linear D of packs of two: the slope is that of the pack, so WGAN's 1 belongs to both samples together."""
    w = torch.tensor([1.0, 2.0, 2.0, 4.0], dtype=F64)  # length 5

    def judge(x: Tensor, *_: object) -> Tensor:
        return x.reshape(-1, 4) @ w

    assert ZeroCentred()(context(judge, torch.zeros(6, 2, dtype=F64))).item() == pytest.approx(25, abs=1e-12)


def test_lecam_waits_remembers_and_pulls_towards_the_other_mean() -> None:
    penalty, D = LeCam(after=1, decay=0.5), nn.Linear(1, 1)
    memory = penalty.memory(D)
    x = torch.tensor([[3.0]])
    said = lambda x, *_: x.sum(1)  # noqa: E731
    assert penalty(context(said, x, memory=memory)).item() == 0
    for real, fake in ((1.0, -1.0), (3.0, -3.0)):
        penalty.remember(memory, D, {"D_real": torch.tensor(real), "D_fake": torch.tensor(fake)})
    assert (memory["real"].item(), memory["fake"].item(), memory["moves"].item()) == (2.0, -2.0, 2)
    assert penalty(context(said, x, memory=memory)).item() == (3 + 2) ** 2 + 0  # 2 - 3 < 0: no pull


def test_lecams_memory_is_in_the_checkpoint_and_moves_once_a_step() -> None:
    engine = tiny.engine(tiny.game(penalties={"lecam": LeCam(after=0)}))
    engine.step()
    engine.step()
    assert engine.game.critic.memory_lecam_moves.item() == 2  # type: ignore[union-attr]
    assert {f"critic.memory_lecam_{key}" for key in ("real", "fake", "moves")} <= engine.game.state_dict().keys()


def test_historical_average_is_the_mean_of_all_weights_so_far() -> None:
    net, penalty = nn.Linear(1, 1, bias=False), HistoricalD()
    memory = penalty.memory(net)
    for value in (1.0, 2.0, 6.0):
        nn.init.constant_(net.weight, value)
        penalty.remember(memory, net, {})
    assert memory["mean"].item() == 3
    rng = Rng(0, total=1)
    cost = penalty(Context({"discriminator": net}, lambda x, *_: x, None, None, None, None, rng, memory=memory))
    assert cost is not None
    cost.backward()
    assert net.weight.grad is not None
    assert net.weight.grad.item() == 2 * (6 - 3)


def test_a_d_that_is_blind_to_moves_pays_no_consistency() -> None:
    images = torch.rand(8, 1, 8, 8)
    total = lambda x, *_: (x > 2).float().sum((1, 2, 3))  # noqa: E731
    assert Consistency(fakes=True)(context(total, images)).item() == 0
    corner = lambda x, *_: x[:, 0, 0, 0]  # noqa: E731
    assert Consistency()(context(corner, images)).item() > 0


def test_feature_matching_is_zero_for_equal_means_only() -> None:
    a = torch.tensor([[0.0, 1.0], [2.0, 3.0]])
    same, other = torch.tensor([[1.0, 2.0], [1.0, 2.0]]), torch.tensor([[1.0, 2.0], [1.0, 5.0]])
    for fake, want in ((same, 0.0), (other, 1.5**2)):
        verdicts = {k: Verdict(torch.zeros(2), features=[v]) for k, v in (("real", a), ("fake", fake))}
        assert FeatureMatching()(context(None, a, verdicts=verdicts)).item() == want


def test_mode_seeking_costs_a_collapsed_g_most() -> None:
    z = torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    other = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))
    costs = [
        ModeSeeking()(
            context(None, scale * z, z=z, generate=lambda z, y, s=scale: s * z, draw=lambda purpose: other)
        ).item()
        for scale in (1.0, 0.1)
    ]
    assert costs[1] == pytest.approx(10 * costs[0], rel=1e-2)


def test_pulling_away_is_one_for_equal_directions_and_zero_for_orthogonal_ones() -> None:
    for rows, want in (([[1.0, 0.0], [2.0, 0.0]], 1.0), ([[1.0, 0.0], [0.0, 5.0]], 0.0)):
        verdicts = {"fake": Verdict(torch.zeros(2), features=[torch.tensor(rows)])}
        assert PullingAway()(context(None, torch.zeros(2, 2), verdicts=verdicts)).item() == pytest.approx(want)


# -- layers ------------------------------------------------------------------------------------------------------------


def test_minibatch_discrimination_tells_a_collapsed_batch() -> None:
    layer = MinibatchDiscrimination(3, kernels=2, dims=4)
    x = torch.randn(5, 3)
    near = layer(x.repeat_interleave(1, 0))[:, 3:]
    same = layer(x[:1].expand(5, 3))[:, 3:]
    assert torch.allclose(same, torch.full((5, 2), 4.0))
    assert (near < same).all()
    assert torch.equal(layer(x)[:, :3], x)


def test_virtual_batch_norm_depends_on_no_other_sample() -> None:
    torch.manual_seed(0)
    net = Referenced(nn.Sequential(nn.Linear(3, 4), VirtualBatchNorm(4)), (3,)).double()
    x = torch.randn(6, 3, dtype=F64)
    together = net(x)
    alone = torch.cat([net(row) for row in x.split(1)])
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-12)


def test_virtual_batch_norm_takes_the_reference_and_the_sample_alike() -> None:
    norm = VirtualBatchNorm(1, rows=2, eps=0.0)
    out = norm(torch.tensor([[0.0], [3.0], [6.0]], dtype=F64))
    assert out[2].item() == pytest.approx((6 - 3) / math.sqrt(6), abs=1e-12)  # mean 3, variance (9 + 0 + 9) / 3
    assert out[:2].flatten().tolist() == pytest.approx([-1.0, 1.0])  # mean 1.5, deviation 1.5


def test_reference_batches_are_real_data_for_d_and_survive_a_checkpoint() -> None:
    from gancli.compute.device import Compute
    from gancli.config.build import make_as
    from gancli.config.compose import compose
    from gancli.config.settings import TrainSettings
    from gancli.data.facts import DataFacts
    from gancli.train import assemble, streams

    keys = ["model=dcgan", "model.ch=2", "model.G.norm=virtual", "model.D.norm=virtual", "batch_size=4"]
    config = compose("train", [*keys, "dataset=random", "dataset.size=[1,8,8]", "dataset.n=80"])
    settings = make_as(TrainSettings, config, "")
    source = streams.data(settings)
    engine = assemble.engine(settings, source, assemble.game(config, DataFacts.of(source)), Compute())
    D = next(m for m in engine.game.nets["D"].modules() if isinstance(m, Referenced))
    pixels = source.rows(np.arange(len(source)))["x"].flatten(1).float() / 127.5 - 1
    assert all((row == pixels).all(1).any() for row in D.reference.flatten(1))
    assert engine.step()["loss_D"].isfinite()
    assert "nets.D.body.reference" in engine.game.state_dict()


# -- packing and augmentation ------------------------------------------------------------------------------------------


def test_a_pack_is_consecutive_samples_in_the_channels() -> None:
    game = tiny.game()
    game.critic.pack = 2
    x = torch.arange(4.0).view(4, 1, 1, 1).expand(4, 1, 2, 2)
    packed = game.critic.shown((x, None), Rng(0, total=4), "real")[0]
    assert packed.shape == (2, 2, 2, 2)
    assert packed[:, :, 0, 0].tolist() == [[0.0, 1.0], [2.0, 3.0]]


def test_packing_is_refused_with_labels_and_uneven_batches() -> None:
    from gancli.config.compose import compose
    from gancli.train import assemble

    keys = ["model=sngan", "model.ch=4", "model.conditioning=projection", "game.pack=2"]
    with pytest.raises(CombinationError, match=r"game\.pack=1"):
        assemble.game(compose("train", keys), facts_of((1, 28, 28), ("a", "b")))


def test_transforms_by_hand() -> None:
    x = torch.arange(6.0).view(1, 1, 2, 3)
    assert flip(x, torch.tensor([True]))[0, 0].tolist() == [[2.0, 1.0, 0.0], [5.0, 4.0, 3.0]]
    moved = shift(x, torch.tensor([1]), torch.tensor([-1]))
    assert moved[0, 0].tolist() == [[0.0, 0.0, 0.0], [1.0, 2.0, 0.0]]
    assert brightness(x, torch.tensor([0.5]))[0, 0, 0].tolist() == [0.5, 1.5, 2.5]
    assert contrast(x, torch.tensor([2.0]))[0, 0, 0].tolist() == [-2.5, -0.5, 1.5]
    colours = torch.tensor([0.0, 3.0]).view(1, 2, 1, 1)
    assert saturation(colours, torch.tensor([0.0])).flatten().tolist() == [1.5, 1.5]
    hole = cutout(torch.ones(1, 1, 4, 4), 0.5, torch.tensor([2]), torch.tensor([0]))
    assert hole[0, 0].tolist() == [[1, 1, 1, 1], [0, 1, 1, 1], [0, 1, 1, 1], [1, 1, 1, 1]]


def test_diffaugment_passes_gradients_and_does_not_depend_on_the_split() -> None:
    augment, x = DiffAugment(), torch.rand(6, 3, 8, 8, dtype=F64, requires_grad=True)
    rng = Rng(0, 0, total=6, dtype=F64)
    whole = augment(x, rng, "real")
    parts = torch.cat([augment(x[a:b], rng.cut(a, b), "real") for a, b in ((0, 2), (2, 6))])
    assert torch.equal(whole, parts)
    assert not torch.equal(whole, augment(x, rng, "fake"))
    whole.sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


@pytest.mark.parametrize("keys", [{"noise": 0.3}, {"flip": 0.25}, {"smooth": 0.1}])
def test_options_do_not_depend_on_the_split(keys: dict[str, float]) -> None:
    moved = []
    for micro in (None, 3):
        game = tiny.game(NonSaturating(**keys))  # type: ignore[arg-type]
        engine = tiny.engine(game, dtype=F64, sgd=True, micro_batch=micro)
        before = tiny.weights(game)
        engine.step()
        moved.append(tiny.weights(game) - before)
    assert moved[0].abs().max() > 1e-4
    torch.testing.assert_close(moved[1], moved[0], rtol=0, atol=1e-12)


def test_what_couples_a_batch_refuses_its_splitting() -> None:
    for game in (tiny.game(RelativisticAverage()), tiny.game(Hinge(top=0.5)), tiny.game(penalties={"x": Dragan()})):
        assert isinstance(game, NoiseGame)
        with pytest.raises(CombinationError, match="micro_batch"):
            tiny.engine(game, micro_batch=2)


# -- R3GAN -------------------------------------------------------------------------------------------------------------


def test_r3gan_has_the_papers_counts_and_starts_as_nothing() -> None:
    with torch.device("meta"):
        G, D = (
            MakerR3((3, 32, 32), 64, 10, conditioning="projection"),
            JudgeR3((3, 32, 32), 10, conditioning="projection"),
        )
    assert [sum(p.numel() for p in net.parameters()) for net in (G, D)] == [20_781_952, 21_280_512]
    block = MakerR3((3, 32, 32), 4, ch=16).body[0]
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(block(x), x)


def test_r3gans_resampling_keeps_constants() -> None:
    from gancli.nets.r3gan import Resample

    x = torch.ones(1, 2, 8, 8)
    assert torch.allclose(Resample(2, 2, up=False)(x)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 2, 2))
    assert torch.allclose(Resample(2, 2, up=True)(x)[:, :, 1:-1, 1:-1], torch.ones(1, 2, 14, 14))


# -- metrics -----------------------------------------------------------------------------------------------------------


def test_modes_by_hand() -> None:
    mixture = Mixture(np.array([[0.0, 0.0], [4.0, 0.0], [0.0, 4.0], [4.0, 4.0]]), 0.1)
    points = torch.tensor([[0.0, 0.29], [4.0, 0.0], [4.05, 0.0], [2.0, 2.0]])
    values = count_modes(points, mixture)
    assert (values["modes"], values["good"]) == (2, 0.75)
    want = math.log(4) + (1 / 3) * math.log(1 / 3) + (2 / 3) * math.log(2 / 3)
    assert values["reverse_kl"] == pytest.approx(want, abs=1e-12)
    assert count_modes(torch.full((3, 2), 99.0), mixture)["modes"] == 0


def test_parzen_is_the_log_of_a_mean_of_gaussians() -> None:
    points = torch.tensor([[0.5, 0.0]], dtype=F64)
    samples = torch.tensor([[0.0, 0.0], [1.0, 1.0]], dtype=F64)
    sigma = 0.3
    by_hand = [math.exp(-d / (2 * sigma**2)) / (2 * math.pi * sigma**2) for d in (0.25, 0.25 + 1)]
    assert parzen(points, samples, sigma).item() == pytest.approx(math.log(sum(by_hand) / 2), abs=1e-10)
